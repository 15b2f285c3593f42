"""Results that come in any order, put back into the pool's order with bounded memory.

Results are appended to one file per part of the pool as they come; each part then fits in memory.
The files are scratch: after an interruption they are made again from the verdict store.
"""

from __future__ import annotations

import shutil
from pathlib import Path


class ReorderBuffer:
    """An external bucket sort of (index, payload) by `index // part_rows`."""

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

    def add(self, index: int, payload: str) -> None:
        """Take one result, a line of JSON; at most `hold` of them stay in memory."""
        assert "\n" not in payload, "a result must be one line"
        self._held.setdefault(index // self._part_rows, []).append(f"{index}\t{payload}\n")
        self._count += 1
        if self._count >= self._hold:
            self._spill()

    def _spill(self) -> None:
        for part, lines in self._held.items():
            with self._file(part).open("a", encoding="utf-8", errors="surrogatepass", newline="\n") as out:
                out.writelines(lines)
        self._held = {}
        self._count = 0

    def take(self, part: int) -> dict[int, str]:
        """All results of one part; each index must have come once."""
        self._spill()
        file = self._file(part)
        found: dict[int, str] = {}
        if not file.is_file():
            return found
        with file.open(encoding="utf-8", errors="surrogatepass", newline="\n") as stream:
            for line in stream:
                index, _, payload = line.rstrip("\n").partition("\t")
                assert int(index) not in found, "a prompt came back twice from the stream"
                found[int(index)] = payload
        return found
