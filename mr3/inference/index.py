"""Which part holds an id: an SQLite file beside the parts, one per machine, made of the parts alone.

It keeps lookups off every process's memory, and can be deleted at any time. Parts enter it in the order of their
numbers, and an id that is there already stays where it is: so it says the same on every machine.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mr3.files import disk_trouble

_CHUNK = 500
WAIT_S = 120.0
"""How long to wait for another process of this machine that writes the index."""
_TABLES = """
CREATE TABLE IF NOT EXISTS parts (number INTEGER PRIMARY KEY, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS ids (id TEXT PRIMARY KEY, part INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS made (boot TEXT NOT NULL);
"""


class BrokenIndex(Exception):
    """The index must be made again."""


def boot_id() -> str:
    """Another one after each start of the machine; empty where the system has none."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


class Index:
    """id -> number of the first part that holds it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._db: sqlite3.Connection | None = None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, opened if it is not; errors in words.

        Raises:
            ValueError: when the file is locked or can't be written.
            BrokenIndex: when it is no index.
        """
        try:
            if self._db is None:
                self._db = self._connect()
            yield self._db
        except sqlite3.DatabaseError as error:
            self.close()
            trouble = disk_trouble(error)
            if trouble is None:
                raise BrokenIndex from error
            raise ValueError(
                f"the index {self._file}: {trouble} ({error}). It is made of the parts alone: mend the space or the "
                f"rights of its folder, or end other runs of this machine and delete {self._file.name} and "
                f"{self._file.name}-journal; then run the same command again. Everything stored so far is kept"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._file, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            # It can be made again, so it need not survive a power cut: after one, it is not believed. Ids come in
            # random order, and a page cache that holds the upper levels of the tree keeps their insertion linear.
            db.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-131072;")
            found = db.execute("SELECT COUNT(*) FROM sqlite_master WHERE type='table'").fetchone()
            if found == (0,):
                db.executescript("BEGIN IMMEDIATE;" + _TABLES)
                if db.execute("SELECT COUNT(*) FROM made").fetchone() == (0,):
                    db.execute("INSERT INTO made VALUES (?)", (boot_id(),))
                db.execute("COMMIT")
            if db.execute("SELECT boot FROM made").fetchall() != [(boot_id(),)]:
                raise sqlite3.DatabaseError("made before the machine started")
        except sqlite3.DatabaseError:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Give up the connection; the next call opens it again."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def forget(self) -> None:
        """Delete the file."""
        self.close()
        for name in (self._file.name, f"{self._file.name}-journal"):
            self._file.with_name(name).unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One change at a time, of all processes of this machine; taken back if it fails."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # where the disk failed, SQLite has done it or will at opening
                    db.execute("ROLLBACK")
                raise

    def position(self) -> int:
        """The number of the last part in the index; 0 for none."""
        with self._open() as db:
            (number,) = db.execute("SELECT COALESCE(MAX(number), 0) FROM parts").fetchone()
        return int(number)

    def add(self, number: int, ids: Iterable[str], size: int) -> None:
        """Take in one part; inside `writing`, in the order of the numbers."""
        with self._open() as db:
            db.execute("INSERT INTO parts VALUES (?, ?)", (number, size))
            db.executemany("INSERT OR IGNORE INTO ids VALUES (?, ?)", ((i, number) for i in sorted(ids)))

    def clear(self) -> None:
        """Forget all parts; inside `writing`."""
        with self._open() as db:
            db.execute("DELETE FROM parts")
            db.execute("DELETE FROM ids")

    def find(self, ids: Sequence[str]) -> dict[int, list[str]]:
        """The ids that are in the index, by part."""
        found: dict[int, list[str]] = {}
        with self._open() as db:
            for start in range(0, len(ids), _CHUNK):
                chunk = ids[start : start + _CHUNK]
                marks = ",".join("?" * len(chunk))
                for key, number in db.execute(f"SELECT id, part FROM ids WHERE id IN ({marks})", chunk):
                    found.setdefault(number, []).append(key)
        return found

    def numbers(self) -> list[int]:
        """The parts in the index, in order."""
        with self._open() as db:
            return [number for (number,) in db.execute("SELECT number FROM parts ORDER BY number")]

    def ids(self) -> int:
        """How many ids there are."""
        with self._open() as db:
            (count,) = db.execute("SELECT COUNT(*) FROM ids").fetchone()
        return int(count)

    def rows(self) -> int:
        """How many rows the parts hold: those beyond `ids` came later than another answer for their id."""
        with self._open() as db:
            (count,) = db.execute("SELECT COALESCE(SUM(size), 0) FROM parts").fetchone()
        return int(count)
