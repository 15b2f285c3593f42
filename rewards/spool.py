"""Results that come in any order, put back into the pool's order with bounded memory.

Results are appended to one file per part of the pool as they come; each part then fits in memory.
The files are scratch: after an interruption they are made again from the verdict store.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Spool:
    """An external bucket sort of (index, value) by `index // part_rows`."""

    def __init__(self, folder: Path, part_rows: int, hold: int = 256) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._part_rows = part_rows
        self._hold = hold
        self._held: dict[int, list[str]] = {}
        self._count = 0

    def _file(self, part: int) -> Path:
        return self._folder / f"part-{part:06d}.jsonl"

    def add(self, index: int, value: Any) -> None:
        """Take one result; at most `hold` of them stay in memory."""
        line = json.dumps([index, value], ensure_ascii=False)
        self._held.setdefault(index // self._part_rows, []).append(line)
        self._count += 1
        if self._count >= self._hold:
            self._spill()

    def _spill(self) -> None:
        for part, lines in self._held.items():
            with self._file(part).open("a", encoding="utf-8", errors="surrogatepass") as out:
                out.writelines(f"{line}\n" for line in lines)
        self._held = {}
        self._count = 0

    def take(self, part: int) -> dict[int, Any]:
        """All results of one part; each index must have come once."""
        self._spill()
        file = self._file(part)
        if not file.is_file():
            return {}
        with file.open(encoding="utf-8", errors="surrogatepass") as stream:
            rows = [json.loads(line) for line in stream]
        found = dict(_pairs(rows))
        assert len(found) == len(rows), "a prompt came back twice from the stream"
        return found


def _pairs(rows: Iterable[list[Any]]) -> Iterable[tuple[int, Any]]:
    return ((int(index), value) for index, value in rows)
