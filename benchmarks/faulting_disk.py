"""A disk that fails once: the C library's file operations below a folder, of all processes; one of them is refused.

`faulting_disk.c` is compiled here and preloaded; SQLite's and Arrow's own I/O goes through it as Python's does.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_NUMBERS = struct.Struct("5q")
_FOLDER, _WHAT = 1024, 64
STATE = "FAULT_STATE"


class FaultingDisk:
    """The steering side: which operation fails, and how many there were.

    Args:
        scratch: a folder that `make` has filled.
    """

    def __init__(self, scratch: Path) -> None:
        self._library, self._file = scratch / "faulting_disk.so", scratch / "faulting_disk.state"
        with self._file.open("r+b") as shared:
            self._state = mmap.mmap(shared.fileno(), 0)

    @classmethod
    def make(cls, scratch: Path, folder: Path) -> FaultingDisk:
        """Put the library and the shared state into `scratch`, outside of `folder`, below which operations count.

        Raises:
            ValueError: without a C compiler.
        """
        compiler = shutil.which("cc")
        if compiler is None:
            raise ValueError("no C compiler (cc) here: install one to let a disk fail")
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(scratch / "faulting_disk.so"), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        numbers, name = bytes(_NUMBERS.size), str(folder).encode().ljust(_FOLDER, b"\0")
        (scratch / "faulting_disk.state").write_bytes(numbers + name + bytes(_WHAT))
        return cls(scratch)

    def environment(self) -> dict[str, str]:
        """What a process needs, from its start on."""
        known = os.environ.get("LD_PRELOAD")
        return {"LD_PRELOAD": f"{self._library}:{known}" if known else str(self._library), STATE: str(self._file)}

    def arm(self, target: int, code: int) -> None:
        """Let the operation of this number fail with this errno; 0 only counts."""
        _NUMBERS.pack_into(self._state, 0, 1, 0, target, code, 0)

    def disarm(self) -> tuple[int, str]:
        """How many operations there were, and what the one was that failed ("" for none)."""
        _, count, _, _, hits = _NUMBERS.unpack_from(self._state, 0)
        _NUMBERS.pack_into(self._state, 0, 0, 0, 0, 0, 0)
        what = self._state[_NUMBERS.size + _FOLDER :].split(b"\0")[0].decode()
        return count, what if hits else ""
