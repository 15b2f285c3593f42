"""Rows of the same prompt, from any sources, joined into one row. The rows wait on disk: memory does not grow.

Prompts are the same when their messages are, apart from Unicode composition and blanks (`prompt_key`). The first row
gives the id, the language (a declared one before one told by the text) and the reference; responses are the union in
order of appearance, equal texts once. What was joined is in `PoolRow.provenance`:
    merged      [{"prompt_id", "where"}, ...] of the rows after the first
    same_text   response id -> [{"id", "policy"}, ...] of the equal responses that it stands for
    languages   declared languages that differ from the row's
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from mr3.records import Candidate, PoolRow
from rewards.pools.messages import prompt_key
from rewards.pools.rows import Placed, PoolItem
from rewards.records import SetAside

CLASH = "the prompt id names another prompt already"


class _Shelf:
    """Rows by prompt, on disk, in the order in which the prompts came first."""

    def __init__(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        self._db = sqlite3.connect(file)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute("CREATE TABLE prompts (key TEXT PRIMARY KEY, first INTEGER) WITHOUT ROWID")
        self._db.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, key TEXT) WITHOUT ROWID")
        self._db.execute(
            "CREATE TABLE rows (first INTEGER, number INTEGER, place TEXT, payload TEXT, PRIMARY KEY (first, number)) "
            "WITHOUT ROWID"
        )
        self._number = 0

    def add(self, item: Placed) -> bool:
        """Keep a row; False when its id already names another prompt."""
        row = item.row
        key = prompt_key(row.messages)
        if self._db.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (row.prompt_id, key)).rowcount == 0:
            (known,) = self._db.execute("SELECT key FROM ids WHERE id = ?", (row.prompt_id,)).fetchone()
            if known != key:
                return False
        number = self._number
        self._number += 1
        first = number
        if self._db.execute("INSERT OR IGNORE INTO prompts VALUES (?, ?)", (key, number)).rowcount == 0:
            (first,) = self._db.execute("SELECT first FROM prompts WHERE key = ?", (key,)).fetchone()
        payload = row.model_dump_json(exclude_defaults=True)
        self._db.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", (first, number, item.where, payload))
        return True

    def groups(self) -> Iterator[list[Placed]]:
        """The rows of one prompt after the other, each group in the order of arrival."""
        cursor = self._db.execute("SELECT first, place, payload FROM rows ORDER BY first, number")
        for _, rows in groupby(cursor, key=lambda row: row[0]):
            yield [Placed(place, PoolRow.model_validate_json(payload)) for _, place, payload in rows]

    def close(self) -> None:
        self._db.close()


def merge_rows(items: Iterable[PoolItem], scratch: Path) -> Iterator[PoolItem]:
    """What is set aside comes at once, the joined rows after the last item has been read.

    `scratch` is a file that holds all rows meanwhile.
    """
    scratch.parent.mkdir(parents=True, exist_ok=True)
    shelf = _Shelf(scratch)
    try:
        for item in items:
            if isinstance(item, SetAside):
                yield item
            elif not shelf.add(item):
                yield SetAside(where=item.where, prompt_id=item.row.prompt_id, reason=CLASH)
        for group in shelf.groups():
            yield Placed(group[0].where, joined(group))
    finally:
        shelf.close()
        scratch.unlink(missing_ok=True)


def joined(group: list[Placed]) -> PoolRow:
    """One row of the rows of one prompt."""
    rows = [item.row for item in group]
    provenance: dict[str, Any] = {}
    for row in reversed(rows):
        provenance.update(row.provenance)
    provenance.pop("language", None)
    spoken = next((r for r in rows if "language" not in r.provenance), rows[0])
    if "language" in spoken.provenance:
        provenance["language"] = spoken.provenance["language"]
    others = {r.language for r in rows if "language" not in r.provenance} - {spoken.language}
    if others:
        provenance["languages"] = sorted(others)
    if len(group) > 1:
        provenance["merged"] = [{"prompt_id": item.row.prompt_id, "where": item.where} for item in group[1:]]
    responses, same = _union(rows)
    if same:
        provenance["same_text"] = same
    meta: dict[str, Any] = {}
    for row in reversed(rows):
        meta.update(row.meta)
    return rows[0].model_copy(
        update={
            "language": spoken.language,
            "responses": responses,
            "reference": next((r.reference for r in rows if r.reference is not None), None),
            "meta": meta,
            "provenance": provenance,
        }
    )


def _union(rows: list[PoolRow]) -> tuple[list[Candidate], dict[str, list[dict[str, str]]]]:
    """All responses, equal texts once; and response id -> the equal ones that it stands for."""
    kept: dict[str, Candidate] = {}
    ids: set[str] = set()
    same: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        for response in row.responses:
            first = kept.get(response.text.strip())
            if first is not None:
                same.setdefault(first.id, []).append({"id": response.id, "policy": response.policy})
                continue
            name, count = response.id, 1
            while name in ids:  # two sources may number their responses alike
                count += 1
                name = f"{response.id}~{count}"
            ids.add(name)
            kept[response.text.strip()] = response.model_copy(update={"id": name}) if count > 1 else response
    return list(kept.values()), same
