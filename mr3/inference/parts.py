"""The parts of a store: numbered Parquet files in one order for all readers, each whole, each checked when it is read.

A part takes the first free number by a hard link, which one of several writers gets. So nothing that is committed later
comes before what was there, and whoever reads the parts by number finds the same winner of an id. A part that is not as
it was written is moved to `quarantine/`; an empty part keeps its number.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.files import clock_of, link_new, temporary_file, write_whole

log = logging.getLogger(__name__)
VERSION = 2
_SCHEMA = pa.schema([("id", pa.string()), ("payload", pa.string()), ("digest", pa.binary(16))])
_DIGEST, _WHY = b"mr3.digest", b"mr3.quarantined"
_SUFFIX = ".parquet"
_TRIES = 16
GAP_S = 90.0
"""How long a part that others have seen may stay hidden: network drives keep a folder's names for up to a minute."""


class DamagedPart(Exception):
    """The content of a part is not what was written."""


def _row_digest(key: str, payload: str) -> bytes:
    name = key.encode()
    digest = hashlib.blake2b(len(name).to_bytes(4), digest_size=16)
    digest.update(name)
    digest.update(payload.encode())
    return digest.digest()


def _digest_of(rows: Iterable[bytes]) -> bytes:
    return hashlib.blake2b(b"".join(rows), digest_size=16).hexdigest().encode()


def encode(ids: Sequence[str], payloads: Sequence[str], quarantined: str | None = None) -> bytes:
    """A part as a Parquet file: a digest per row, one over all rows, and Parquet's own checksums per page."""
    digests = [_row_digest(*row) for row in zip(ids, payloads, strict=True)]
    meta = {_DIGEST: _digest_of(digests), **({_WHY: quarantined.encode()} if quarantined else {})}
    columns = {"id": list(ids), "payload": list(payloads), "digest": digests}
    table = pa.Table.from_pydict(columns, schema=_SCHEMA.with_metadata(meta))
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    return bytes(out.getvalue())


def decode(data: bytes) -> dict[str, str]:
    """id -> payload of a part; of an id that comes twice, the first.

    Raises:
        DamagedPart: when the content is not what was written.
    """
    try:
        table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(use_threads=False)
        if not table.schema.equals(_SCHEMA):
            raise DamagedPart(f"its columns are {table.schema.names}")
        ids, payloads, digests = (column.to_pylist() for column in table.columns)
        meta = table.schema.metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedPart(f"no part can be read of it: {error}") from error
    rows: dict[str, str] = {}
    for key, payload, digest in zip(ids, payloads, digests, strict=True):
        if key is None or payload is None or _row_digest(key, payload) != digest:
            raise DamagedPart("the digest of a row does not fit the row")
        rows.setdefault(key, payload)
    if _digest_of(digests) != meta.get(_DIGEST):
        raise DamagedPart("the digest of the part does not fit its rows")
    return rows


def open_folder(folder: Path) -> None:
    """Make a store's folder, or check that it is one of this version.

    Raises:
        ValueError: when the folder holds results of another version, whose ids don't hold what decides a result today.
    """
    file = folder / "store.json"
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        if any(parts.glob(f"*{_SUFFIX}")) and not file.is_file():  # again: another process may be making it
            raise ValueError(
                f"the store {folder} is of an earlier version: its ids don't hold backend, engine arguments and "
                "the limits, so its results could be taken for another judge's. Give another `store:`, or move this "
                "folder away; everything is then judged again"
            )
        with temporary_file(file, (json.dumps({"version": VERSION}) + "\n").encode()) as made:
            link_new(made, file)
    try:
        version = json.loads(file.read_text())["version"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        version = None
    if version != VERSION:
        raise ValueError(f"{file} is not that of a store of version {VERSION}: give another `store:`")


class PartLog:
    """The parts of one store, by number from 1 on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "parts"
        self._quarantine = folder / "quarantine"
        self.last = 0
        """The highest number that was seen."""

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012d}{_SUFFIX}"

    def numbers(self) -> list[int]:
        """All numbers that the folder lists, in order."""
        names = (name.removesuffix(_SUFFIX) for name in os.listdir(self.folder) if name.endswith(_SUFFIX))
        return sorted(int(name) for name in names if name.isdecimal())

    def exists(self, number: int) -> bool:
        """Whether there is such a part, asked by its name: a listing may be old."""
        return os.path.exists(self._path(number))

    def commit(self, ids: Sequence[str], payloads: Sequence[str]) -> int:
        """Store rows as the next part, whole or not at all; returns its number."""
        with temporary_file(self.folder / "part", encode(ids, payloads)) as file:
            number = self.last  # other threads write too
            if not number or not self.exists(number):
                number = max(self.numbers(), default=0)
            for tries in count(1):
                number += 1
                if link_new(file, self._path(number)):
                    break
                if tries % _TRIES == 0:  # others wrote much since
                    number = max(number, *self.numbers())
        self.last = number
        return number

    def appears(self, number: int, last: int) -> bool:
        """Whether a part shows up that must have been there before part `last`; False when it was taken away."""
        later = next(n for n in range(number + 1, last + 1) if self.exists(n))
        end = time.monotonic() + GAP_S
        waited = False
        while not self.exists(number):
            age = clock_of(self.folder) - self._path(later).stat().st_mtime
            if age > GAP_S or time.monotonic() > end:
                log.warning("%s is missing: what it held is judged again", self._path(number))
                return False
            if not waited:
                log.warning("waiting for %s, which a network drive may still hide", self._path(number))
                waited = True
            time.sleep(0.2)
        return True

    def read(self, number: int) -> dict[str, str]:
        """id -> payload of one part; nothing of a part that is damaged, which goes to the quarantine, or missing."""
        path = self._path(number)
        try:
            return decode(path.read_bytes())
        except FileNotFoundError:
            return {}
        except DamagedPart:
            try:
                return decode(path.read_bytes())  # a second time: it may have been the way, not the file
            except DamagedPart as error:
                self._set_aside(number, str(error))
                return {}

    def _set_aside(self, number: int, why: str) -> None:
        """Move a part to the quarantine; an empty one takes its number, so that no later part can."""
        path = self._path(number)
        self._quarantine.mkdir(exist_ok=True)
        kept = self._quarantine / path.name
        while not link_new(path, kept):
            kept = kept.with_name(f"{time.time_ns()}-{path.name}")
        write_whole(kept.with_suffix(".txt"), f"{why}\n".encode())
        write_whole(path, encode([], [], quarantined=why))
        log.warning("%s is damaged (%s): moved to %s, what it held is judged again", path, why, kept)
