"""Write a pool down as numbered parts, so that labelling streams it and can put results back in order.

Part k holds the prompts k*n ... (k+1)*n-1. Whatever can't be judged goes to `rejected.jsonl`, and
duplicate prompt ids are found on disk: memory doesn't grow with the pool.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.records import PoolRow
from mr3.stage import RateLimit
from rewards.pool import Placed, PoolItem, PoolSpec, read_pool
from rewards.records import SetAside

log = logging.getLogger(__name__)
_SCHEMA = pa.schema([("group", pa.string()), ("payload", pa.string())])
_BATCH = 64  # few live rows: with many of them Python's collector takes a third of the time
EMPTY = "the pool is empty: give a pool with at least one prompt and its responses"


@dataclass
class LanguageStats:
    """How the language of rows was found: in their text, with a confidence, or by the default."""

    rows: int = 0
    confidence: float = 0.0
    lowest: float = 1.0
    by_default: int = 0

    def add(self, how: dict[str, Any]) -> None:
        """Count one row by its `provenance.language`."""
        if how["told_by"] == "default":
            self.by_default += 1
            return
        self.rows += 1
        self.confidence += how["confidence"]
        self.lowest = min(self.lowest, how["confidence"])

    def report(self) -> dict[str, Any]:
        """Mean and lowest confidence are null where no language was told by a text."""
        told = self.rows > 0
        return {
            "by_text": self.rows,
            "by_default": self.by_default,
            "mean_confidence": round(self.confidence / self.rows, 4) if told else None,
            "lowest_confidence": self.lowest if told else None,
        }


@dataclass
class Ingested:
    """The pool on disk, and what was left out of it."""

    folder: Path
    part_rows: int
    prompts: int = 0
    responses: int = 0
    rows_set_aside: int = 0
    responses_set_aside: int = 0
    rows_joined: int = 0
    responses_joined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    told: dict[str, LanguageStats] = field(default_factory=dict)

    @property
    def parts(self) -> list[Path]:
        """The part files, in order."""
        count = -(-self.prompts // self.part_rows)
        return [self.folder / f"part-{k:06d}.parquet" for k in range(count)]

    def reading(self) -> dict[str, Any]:
        """What the pool's reading did, for the metrics: rows in are prompts + set aside + joined."""
        return {
            "rows_joined": self.rows_joined,
            "responses_joined": self.responses_joined,
            "languages_told": {language: told.report() for language, told in sorted(self.told.items())},
        }


class _Seen:
    """Which prompt ids came before, on disk."""

    def __init__(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        self._file = file
        self._db = sqlite3.connect(file)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute("CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID")

    def new(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that did not come in a call before; they are seen from now on."""
        found = set(ids)
        marks = ",".join("?" * len(ids))
        found.difference_update(i for (i,) in self._db.execute(f"SELECT id FROM seen WHERE id IN ({marks})", ids))
        self._db.executemany("INSERT INTO seen VALUES (?)", ((i,) for i in sorted(found)))
        return found

    def close(self) -> None:
        self._db.close()
        self._file.unlink(missing_ok=True)


Watch = Callable[[Iterable[PoolItem]], Iterable[PoolItem]]


def ingest_pool(
    spec: PoolSpec, folder: Path, rejected: Path, part_rows: int = 1024, watch: Watch | None = None
) -> Ingested:
    """Read a pool of any kind and write its parts into an empty `folder`, its rejects into `rejected`.

    Args:
        watch: sees all items on their way, and passes them on.

    Raises:
        ValueError: when the pool can't be read, is empty, or nothing in it can be judged.
    """
    items = read_pool(spec, folder.with_name("merge.sqlite"))
    return ingest(watch(items) if watch else items, folder, rejected, part_rows)


def ingest(items: Iterable[PoolItem], folder: Path, rejected: Path, part_rows: int = 1024) -> Ingested:
    """Write the parts into an empty `folder` and the rejects into `rejected`.

    Raises:
        ValueError: when the pool is empty or nothing in it can be judged.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = Ingested(folder=folder, part_rows=part_rows)
    seen = _Seen(folder.with_name("seen.sqlite"))
    due = RateLimit()
    temporary = rejected.with_name(f".{rejected.name}.tmp")
    held: list[str] = []  # as JSON, not as rows: see _BATCH
    with temporary.open("w", encoding="utf-8", errors="backslashreplace") as out:
        for item in _without_duplicates(items, seen):
            if isinstance(item, SetAside):
                _reject(item, done)
                out.write(json.dumps(item.model_dump(), ensure_ascii=False) + "\n")
                continue
            _count(item.row, done)
            held.append(item.row.model_dump_json(exclude_defaults=True))
            if len(held) == part_rows:
                _write_part(held, done)
                held = []
                if due():
                    log.info("pool: %d prompts read", done.prompts)
        if held:
            _write_part(held, done)
    seen.close()
    os.replace(temporary, rejected)
    if done.prompts == 0:
        if done.rows_set_aside + done.responses_set_aside == 0:
            raise ValueError(EMPTY)
        raise ValueError(
            f"no row of the pool can be judged ({done.rows_set_aside} set aside): {rejected} says why for each"
        )
    return done


def _without_duplicates(items: Iterable[PoolItem], seen: _Seen) -> Iterator[PoolItem]:
    """The items in their order; a row whose prompt id came before is set aside."""
    stream = iter(items)
    while batch := list(islice(stream, _BATCH)):
        new = seen.new([item.row.prompt_id for item in batch if isinstance(item, Placed)])
        for item in batch:
            if isinstance(item, Placed):
                name = item.row.prompt_id
                if name not in new:
                    item = SetAside(where=item.where, prompt_id=name, reason="duplicate prompt id")
                new.discard(name)
            yield item


def _reject(item: SetAside, done: Ingested) -> None:
    if item.response_id is None:
        done.rows_set_aside += 1
    else:
        done.responses_set_aside += 1
    done.reasons[item.reason.split(":")[0]] += 1


def _count(row: PoolRow, done: Ingested) -> None:
    done.responses += len(row.responses)
    if row.provenance:
        done.rows_joined += len(row.provenance.get("merged", ()))
        done.responses_joined += sum(len(equal) for equal in row.provenance.get("same_text", {}).values())
        if "language" in row.provenance:
            done.told.setdefault(row.language, LanguageStats()).add(row.provenance["language"])


def _write_part(payloads: list[str], done: Ingested) -> None:
    write_payloads(payloads, done.prompts, done)
    done.prompts += len(payloads)


def write_payloads(payloads: list[str], first: int, pool: Ingested) -> None:
    """Write one part file of the pool's folder; `first`, the index of its first row, is a multiple of `part_rows`."""
    assert first % pool.part_rows == 0 and len(payloads) <= pool.part_rows, "a part holds the rows of its own indices"
    groups = [str(first + offset) for offset in range(len(payloads))]
    table = pa.Table.from_pydict({"group": groups, "payload": payloads}, schema=_SCHEMA)
    pq.write_table(table, pool.folder / f"part-{first // pool.part_rows:06d}.parquet", row_group_size=64)


def read_part(part: Path) -> Iterator[tuple[int, PoolRow]]:
    """(index, row) of one part, in order."""
    table = pq.read_table(part)
    for group, payload in zip(table["group"].to_pylist(), table["payload"].to_pylist(), strict=True):
        yield int(group), PoolRow.model_validate_json(payload)
