"""Write a pool down as numbered parts, so that labelling streams it and can put results back in order.

Part k holds the prompts k*n ... (k+1)*n-1. Whatever can't be judged goes to `rejected.jsonl`, and
duplicate prompt ids are found on disk: memory doesn't grow with the pool.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.records import PoolRow
from rewards.pool import Placed, PoolItem
from rewards.records import SetAside

_SCHEMA = pa.schema([("group", pa.string()), ("payload", pa.string())])
EMPTY = "the pool is empty: give a pool with at least one prompt and its responses"


@dataclass
class Ingested:
    """The pool on disk, and what was left out of it."""

    folder: Path
    part_rows: int
    prompts: int = 0
    responses: int = 0
    rows_set_aside: int = 0
    responses_set_aside: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def parts(self) -> list[Path]:
        """The part files, in order."""
        count = -(-self.prompts // self.part_rows)
        return [self.folder / f"part-{k:06d}.parquet" for k in range(count)]


class _Seen:
    """Which prompt ids came before, on disk."""

    def __init__(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        self._db = sqlite3.connect(file)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID")

    def first_time(self, prompt_id: str) -> bool:
        return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (prompt_id,)).rowcount == 1

    def close(self) -> None:
        self._db.close()


def ingest(items: Iterable[PoolItem], folder: Path, rejected: Path, part_rows: int = 1024) -> Ingested:
    """Write the parts into an empty `folder` and the rejects into `rejected`.

    Raises:
        ValueError: when the pool is empty or nothing in it can be judged.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = Ingested(folder=folder, part_rows=part_rows)
    seen = _Seen(folder.with_name("seen.sqlite"))
    temporary = rejected.with_name(f".{rejected.name}.tmp")
    held: list[PoolRow] = []
    with temporary.open("w", encoding="utf-8") as out:
        for item in items:
            if isinstance(item, Placed) and not seen.first_time(item.row.prompt_id):
                item = SetAside(where=item.where, prompt_id=item.row.prompt_id, reason="duplicate prompt id")
            if isinstance(item, SetAside):
                _reject(item, done)
                out.write(json.dumps(item.model_dump(), ensure_ascii=False) + "\n")
                continue
            held.append(item.row)
            if len(held) == part_rows:
                _write_part(held, done)
                held = []
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


def _reject(item: SetAside, done: Ingested) -> None:
    if item.response_id is None:
        done.rows_set_aside += 1
    else:
        done.responses_set_aside += 1
    done.reasons[item.reason.split(":")[0]] += 1


def _write_part(rows: list[PoolRow], done: Ingested) -> None:
    write_rows(rows, done.prompts, done)
    done.prompts += len(rows)
    done.responses += sum(len(row.responses) for row in rows)


def write_rows(rows: list[PoolRow], first: int, pool: Ingested) -> None:
    """Write one part file of the pool's folder; `first`, the index of its first row, is a multiple of `part_rows`."""
    assert first % pool.part_rows == 0 and len(rows) <= pool.part_rows, "a part holds the rows of its own indices"
    table = pa.Table.from_pylist(
        [
            {"group": str(first + offset), "payload": row.model_dump_json(exclude_defaults=True)}
            for offset, row in enumerate(rows)
        ],
        schema=_SCHEMA,
    )
    pq.write_table(table, pool.folder / f"part-{first // pool.part_rows:06d}.parquet", row_group_size=64)


def read_part(part: Path) -> Iterator[tuple[int, PoolRow]]:
    """(index, row) of one part, in order."""
    table = pq.read_table(part)
    for group, payload in zip(table["group"].to_pylist(), table["payload"].to_pylist(), strict=True):
        yield int(group), PoolRow.model_validate_json(payload)
