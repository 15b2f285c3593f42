"""Groups in Parquet files, a batch at a time: what flows through Ray is where a batch stands, not its text.

Ray Data's own Parquet reader is processes of its own that hold blocks of text; here the process that works on a
batch reads it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_COLUMNS = ["group", "payload"]


@lru_cache(maxsize=2)
def _part(file: str) -> pa.Table:
    """The part that a process is in, and the one before it: batches follow one another."""
    return pq.read_table(file, columns=_COLUMNS)


@dataclass(frozen=True)
class Slices:
    """All groups of some files in a row, cut into batches of `rows` (the last one may be shorter)."""

    files: tuple[str, ...]
    ends: tuple[int, ...]
    """Groups up to the end of each file."""
    rows: int

    @classmethod
    def of(cls, path: str | Path, rows: int) -> Slices:
        """Of one Parquet file, or of those in a folder in the order of their names.

        Raises:
            ValueError: when there is no such file.
        """
        place = Path(path)
        files = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
        if not files or not place.exists():
            raise ValueError(f"{place} holds no Parquet file with groups: give a file, or a folder of them")
        counts = [pq.read_metadata(file).num_rows for file in files]
        return cls(tuple(map(str, files)), tuple(accumulate(counts)), rows)

    def __len__(self) -> int:
        return -(-self.ends[-1] // self.rows)

    def read(self, index: int) -> dict[str, Any]:
        """Columns of batch `index`: arrays of `group` and `payload`."""
        assert 0 <= index < len(self), "there is no such batch"
        at, stop = index * self.rows, min((index + 1) * self.rows, self.ends[-1])
        tables = []
        while at < stop:
            number = bisect_right(self.ends, at)
            end = min(stop, self.ends[number])
            begin = self.ends[number - 1] if number else 0
            tables.append(_part(self.files[number]).slice(at - begin, end - at))
            at = end
        table = pa.concat_tables(tables)
        return {name: table[name].to_numpy(zero_copy_only=False) for name in _COLUMNS}
