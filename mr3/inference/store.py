"""The exactly-once store: results by id in Parquet parts, each part whole or absent.

A part is written to a temporary name, synced and renamed. `index.sqlite` (id -> part, row) is derived from the
parts and can be deleted; it keeps lookups off the driver's memory. Where two parts hold one id, the first in the
index wins, so every id is read once. Start marks tell a retried batch from a first one.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.records import stable_hash

_SCHEMA = pa.schema([("id", pa.string()), ("payload", pa.string())])
_STALE_SECONDS = 3_600
_CACHED_PARTS = 64
_CHUNK = 500


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
        self._index = self.folder / "index.sqlite"
        self._reader: sqlite3.Connection | None = None
        self._cache: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._fresh: dict[str, str] = {}

    def refresh(self) -> int:
        """Bring the index up to date with the parts, sweep torn files and old marks; return the number of ids."""
        self._sweep()
        with sqlite3.connect(self._index) as db:
            db.execute("CREATE TABLE IF NOT EXISTS parts (part INTEGER PRIMARY KEY, name TEXT UNIQUE)")
            db.execute("CREATE TABLE IF NOT EXISTS ids (id TEXT PRIMARY KEY, part INTEGER) WITHOUT ROWID")
            known = {name for (name,) in db.execute("SELECT name FROM parts")}
            for path in sorted(self.parts.glob("*.parquet")):
                if path.name in known:
                    continue
                ids = pq.read_table(path, columns=["id"]).column("id").to_pylist()
                part = db.execute("INSERT INTO parts (name) VALUES (?)", (path.name,)).lastrowid
                db.executemany("INSERT OR IGNORE INTO ids VALUES (?, ?)", ((i, part) for i in ids))
            (count,) = db.execute("SELECT COUNT(*) FROM ids").fetchone()
        self._reader = None
        return int(count)

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
            self._reader = sqlite3.connect(f"file:{self._index}?mode=ro", uri=True, check_same_thread=False)
        return self._reader

    def lookup(self, ids: Sequence[str]) -> dict[str, str]:
        """Payloads of the ids that are stored; ids without one are absent from the answer."""
        found = {i: self._fresh[i] for i in ids if i in self._fresh}
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
        """Store id -> payload as one part, whole or not at all. Nothing is written for no rows."""
        pairs = list(rows.items() if isinstance(rows, Mapping) else rows)
        if not pairs:
            return
        table = pa.Table.from_pydict({"id": [k for k, _ in pairs], "payload": [v for _, v in pairs]}, schema=_SCHEMA)
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        temporary = self.parts / f".{name}.tmp"
        with temporary.open("wb") as out:
            pq.write_table(table, out, compression="zstd")
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, self.parts / f"{name}.parquet")
        _sync_folder(self.parts)

    def items(self) -> Iterator[tuple[str, str]]:
        """Every stored id once, part by part."""
        for (name,) in self._db().execute("SELECT name FROM parts ORDER BY part").fetchall():
            rows = self._part(name)
            own = self._db().execute("SELECT id FROM ids JOIN parts USING (part) WHERE name = ?", (name,))
            for (key,) in own.fetchall():
                yield key, rows[key]

    def start(self, ids: Sequence[str]) -> int:
        """Mark a batch as begun; return how often it was begun before without an end (0 the first time).

        On a retry the parts that were written since the last `refresh` are read, so nothing is paid for twice.
        """
        key = stable_hash(list(ids))
        before = len(list(self.marks.glob(f"{key}.*")))
        (self.marks / f"{key}.{before}.{uuid.uuid4().hex[:6]}").touch()
        if before:
            self._read_fresh()
        return before

    def end(self, ids: Sequence[str]) -> None:
        """Take a batch's marks back."""
        for path in self.marks.glob(f"{stable_hash(list(ids))}.*"):
            path.unlink(missing_ok=True)

    def _read_fresh(self) -> None:
        known: set[str] = set()
        if self._index.is_file():
            known = {name for (name,) in self._db().execute("SELECT name FROM parts")}
        for path in sorted(self.parts.glob("*.parquet")):
            if path.name not in known:
                for key, payload in self._part(path.name).items():
                    self._fresh.setdefault(key, payload)


def stored(store: Store | None, ids: Sequence[str]) -> dict[str, Any]:
    """`lookup` that is empty without a store."""
    return {} if store is None else store.lookup(ids)
