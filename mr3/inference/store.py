"""The exactly-once store: results by id in Parquet parts, each part whole or absent.

A part is written to a temporary name, synced and renamed. An SQLite index (id -> part) is derived from the parts: it
keeps lookups off every process's memory, can be deleted, and is one per machine, so that actors on several machines
share the parts alone (file locks on network drives are not to be trusted). Where two parts hold one id, the first
in the index wins, so every id is read once. Start marks tell what was with an engine when it died.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import sqlite3
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_SCHEMA = pa.schema([("id", pa.string()), ("payload", pa.string())])
_STALE_SECONDS = 3_600
_CACHED_PARTS = 64
_CHUNK = 500
_WAIT_S = 120.0
_TABLES = """
CREATE TABLE IF NOT EXISTS parts (part INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS ids (id TEXT PRIMARY KEY, part INTEGER) WITHOUT ROWID;
"""


@dataclass
class Deaths:
    """How many engines died with an id: in all, with nothing beside its group, and with nothing beside itself."""

    all: int = 0
    alone: int = 0
    single: int = 0


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Store:
    """Results by id. One driver calls `refresh`; any number of processes look up and write."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.parts = self.folder / "parts"
        self.marks = self.folder / "marks"
        for path in (self.parts, self.marks):
            path.mkdir(parents=True, exist_ok=True)
        self._index = self.folder / f"index-{platform.node() or 'local'}.sqlite"
        self._reader: sqlite3.Connection | None = None
        self._cache: OrderedDict[str, dict[str, str]] = OrderedDict()

    def refresh(self) -> int:
        """Sweep torn files and old marks, bring the index up to date, and return the number of ids."""
        self._sweep()
        return self.catch_up()

    def catch_up(self) -> int:
        """Bring this machine's index up to date with the parts; return the number of ids."""
        try:
            return self._index_parts()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, or no space: not the index's fault
                raise
            self._forget_index()
            return self._index_parts()

    def _index_parts(self) -> int:
        with closing(sqlite3.connect(self._index, timeout=_WAIT_S)) as db:
            # The index can be made again, so it need not survive a power cut; ids come in random order, and a
            # page cache that holds the upper levels of the tree keeps their insertion linear.
            db.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-131072;" + _TABLES)
            with db:
                db.execute("BEGIN IMMEDIATE")
                existing = {path.name for path in self.parts.glob("*.parquet")}
                known = {name for (name,) in db.execute("SELECT name FROM parts")}
                if known - existing:  # parts were taken away: what the index says of them is wrong
                    db.execute("DELETE FROM parts")
                    db.execute("DELETE FROM ids")
                    known = set()
                for name in sorted(existing - known):
                    ids = pq.read_table(self.parts / name, columns=["id"]).column("id").to_pylist()
                    part = db.execute("INSERT INTO parts (name) VALUES (?)", (name,)).lastrowid
                    db.executemany("INSERT OR IGNORE INTO ids VALUES (?, ?)", ((i, part) for i in sorted(ids)))
            (count,) = db.execute("SELECT COUNT(*) FROM ids").fetchone()
        self._close_reader()
        return int(count)

    def _forget_index(self) -> None:
        self._close_reader()
        self._index.unlink(missing_ok=True)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _sweep(self) -> None:
        for path in self.parts.glob(".*.tmp"):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)
        for path in self.marks.iterdir():
            path.unlink(missing_ok=True)

    def count(self) -> int:
        """Distinct ids in the index."""
        if not self._index.is_file():
            return 0
        (count,) = self._db().execute("SELECT COUNT(*) FROM ids").fetchone()
        return int(count)

    def _db(self) -> sqlite3.Connection:
        if self._reader is None:
            uri = f"{self._index.resolve().as_uri()}?mode=ro"
            self._reader = sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=_WAIT_S)
        return self._reader

    def lookup(self, ids: Sequence[str]) -> dict[str, str]:
        """Payloads of the ids that are in the index; ids without one are absent from the answer."""
        found: dict[str, str] = {}
        if not self._index.is_file():
            return found
        by_part: dict[str, list[str]] = {}
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT ids.id, parts.name FROM ids JOIN parts USING (part) WHERE ids.id IN ({marks})"
            for key, name in self._db().execute(query, chunk):
                by_part.setdefault(name, []).append(key)
        for name, keys in by_part.items():
            rows = self._part(name)
            found |= {key: rows[key] for key in keys}
        return found

    def _part(self, name: str) -> dict[str, str]:
        if name not in self._cache:
            table = pq.read_table(self.parts / name)
            rows: dict[str, str] = {}
            for key, payload in zip(table["id"].to_pylist(), table["payload"].to_pylist(), strict=True):
                rows.setdefault(key, payload)
            self._cache[name] = rows
            if len(self._cache) > _CACHED_PARTS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(name)
        return self._cache[name]

    def write(self, rows: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        """Store id -> payload as one part, whole or not at all. Nothing is written for no rows.

        Raises:
            ValueError: when the disk is full; what was stored before stays, and the same run goes on later.
        """
        pairs = list(rows.items() if isinstance(rows, Mapping) else rows)
        if not pairs:
            return
        table = pa.Table.from_pydict({"id": [k for k, _ in pairs], "payload": [v for _, v in pairs]}, schema=_SCHEMA)
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        temporary = self.parts / f".{name}.tmp"
        with self._room(temporary):
            with temporary.open("wb") as out:
                pq.write_table(table, out, compression="zstd")
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, self.parts / f"{name}.parquet")
            _sync_folder(self.parts)

    @contextmanager
    def _room(self, file: Path) -> Iterator[None]:
        """A full disk as an error that says what to do, and without the torn file."""
        try:
            yield
        except OSError as error:
            file.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ValueError(
                f"no space left for the store {self.folder}: free some, or move the folder and set `store:`, then "
                "run the same command again; everything stored so far is kept"
            ) from error

    def items(self) -> Iterator[tuple[str, str]]:
        """Every stored id once, part by part."""
        for (name,) in self._db().execute("SELECT name FROM parts ORDER BY part").fetchall():
            rows = self._part(name)
            own = self._db().execute("SELECT id FROM ids JOIN parts USING (part) WHERE name = ?", (name,))
            for (key,) in own.fetchall():
                yield key, rows[key]

    def start(self, ids: Sequence[str], alone: bool = False) -> Path:
        """Mark ids as given to an engine, with others beside them or alone; returns the mark, for `end`."""
        mark = self.marks / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
        with self._room(mark):
            mark.write_text(json.dumps({"alone": alone, "ids": list(ids)}))
        return mark

    @staticmethod
    def end(mark: Path) -> None:
        """The engine lived: take the mark back."""
        mark.unlink(missing_ok=True)

    def deaths(self) -> dict[str, Deaths]:
        """What the marks that were never taken back say, by id: these were with an engine that died (or is at work)."""
        found: dict[str, Deaths] = {}
        for path in sorted(self.marks.glob("*.json")):
            try:
                mark = json.loads(path.read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                continue  # taken back just now, or torn before the engine saw its rows
            for key in mark["ids"]:
                deaths = found.setdefault(key, Deaths())
                deaths.all += 1
                deaths.alone += mark["alone"]
                deaths.single += mark["alone"] and len(mark["ids"]) == 1
        return found
