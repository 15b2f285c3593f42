"""The orders of the curriculum: a permutation each, and files rewritten in one.

Keys: how many of k answers of the student were right (more is easier), then tokens (shorter is easier). Six orders are
the paper's (section on curricula); `consistency` and `length` take one key each, because length is rarely difficulty
alone: it can go with the mode or the language, and then rows come in blocks of these. Ties are broken by a number drawn
from the seed and the row's name, so an order is the same in every run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mr3.factory.config import Order
from mr3.factory.parts import batches_of, parquet_writer

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Keys:
    """What orders are made from; one value per row."""

    right: npt.NDArray[np.int8]
    tokens: npt.NDArray[np.int32]
    english: npt.NDArray[np.bool_]
    ties: npt.NDArray[np.uint64]


def permutation(order: Order, keys: Keys) -> Ints:
    """Places of the rows in that order: the first element is the row that comes first."""
    # lexsort's last key is its first; hard-easy is easy-hard from behind within each group.
    easy: Sequence[npt.NDArray[np.int64]] = (keys.tokens.astype(np.int64), -keys.right.astype(np.int64))
    level: dict[str, Sequence[npt.NDArray[np.int64]]] = {
        "shuffled": (),
        "easy-hard": easy,
        "hard-easy": [-key for key in easy],
        "consistency": easy[1:],
        "length": easy[:1],
    }
    kind = order.removeprefix("english-first").removeprefix("-") or "shuffled"
    found: list[npt.NDArray[np.generic]] = [keys.ties, *level[kind]]
    if order.startswith("english-first"):
        found.append(~keys.english)
    places: Ints = np.lexsort(tuple(found)).astype(np.int64)
    return places


class _Buckets:
    """Rows on their way to their places: each in the temporary file of its stretch of the order."""

    def __init__(self, folder: Path, schema: pa.Schema, rows: int, size: int) -> None:
        self._size = size
        self.files = [folder / f"bucket-{i:05d}.arrow" for i in range(-(-rows // size))]
        self._schema = schema.append(pa.field("__rank", pa.int64()))
        self._writers = [pa.ipc.new_file(str(file), self._schema) for file in self.files]

    def add(self, batch: pa.RecordBatch, rank: Ints) -> None:
        """One batch, and the place in the order of each of its rows."""
        with_rank = pa.RecordBatch.from_arrays([*batch.columns, pa.array(rank)], schema=self._schema)
        bucket = rank // self._size
        order = np.argsort(bucket, kind="stable")
        edges = np.flatnonzero(np.diff(bucket[order])) + 1
        for rows in np.split(order, edges):
            self._writers[int(bucket[rows[0]])].write_batch(with_rank.take(pa.array(rows)))

    def close(self) -> None:
        """All rows are in."""
        for writer in self._writers:
            writer.close()


def write_in_order(
    parts: Sequence[Path],
    order: Ints,
    outputs: Mapping[Path, Callable[[pa.Table], pa.Table]],
    scratch: Path,
    bucket_rows: int = 4_096,
) -> None:
    """Rewrite the rows of some parts in an order, into one or several Parquet files.

    Memory holds one bucket of rows, however many there are. A file is whole or absent.

    Args:
        order: `order[i]` is the number of the row (counted over the parts) that comes i-th.
        outputs: file -> what of the rows goes into it.
        scratch: folder for temporary files.
    """
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    scratch.mkdir(parents=True, exist_ok=True)
    schema = pq.read_schema(parts[0])
    buckets, done = _Buckets(scratch, schema, len(order), bucket_rows), 0
    for batch in batches_of(parts):
        buckets.add(batch, rank[done : done + batch.num_rows])
        done += batch.num_rows
    buckets.close()
    assert done == len(order), f"{len(order)} rows were ordered, and {done} are there"
    temporary = {file: file.with_name(f".{file.name}.tmp") for file in outputs}
    writers: dict[Path, pq.ParquetWriter] = {}
    for bucket in [*buckets.files, None]:
        table = schema.empty_table() if bucket is None else _sorted(bucket)
        for file, made in outputs.items():
            shown = made(table)
            if file not in writers:
                file.parent.mkdir(parents=True, exist_ok=True)
                writers[file] = parquet_writer(temporary[file], shown.schema)
            if shown.num_rows:
                writers[file].write_table(shown)
        if bucket is not None:
            bucket.unlink()
    for file, writer in writers.items():
        writer.close()
        os.replace(temporary[file], file)


def _sorted(bucket: Path) -> pa.Table:
    with pa.OSFile(str(bucket)) as stream:
        table = pa.ipc.open_file(stream).read_all()
    return table.sort_by("__rank").drop_columns(["__rank"])
