"""Finished stages as items with a score each: what a study or a comparison pairs, whatever the stage was.

A stage that judges or is judged by item is read by a function of `READERS`; one that writes `items.parquet` (item_id,
content, set, language, score) needs a line there and no code. Only reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mr3.artifacts import verify_outputs

ITEMS = "items.parquet"
COLUMNS = ("item_id", "content", "set", "language", "score")


@dataclass(frozen=True, slots=True)
class Item:
    """One item of one set. Items of one content (a prompt, the facts behind it) are not independent."""

    id: str
    content: str
    set: str
    language: str
    score: float
    """Of 0 to 1: right or wrong, or 0.5 for a tie. A failed verdict is wrong."""


def _rows(folder: Path, name: str, columns: Iterable[str], command: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    file = folder / name
    if not file.is_file() or not (folder / "manifest.json").is_file():
        raise ValueError(f"{folder} is not a finished stage: run `mr3 {command}` into it first")
    verify_outputs(folder, [name])
    known = pq.read_schema(file).names
    missing = [c for c in columns if c not in known]
    if missing:
        raise ValueError(f"{file} is of an older version (no column {missing[0]}): run `mr3 {command}` anew")
    rows: list[dict[str, Any]] = pq.read_table(file, columns=list(columns)).to_pylist()
    return rows


def _of_verdicts(folder: Path) -> list[Item]:
    """The tasks of an evaluation, right where the label that counts is: what its metrics say, `combine` included."""
    columns = ("task_id", "content", "language", "sets", "gold", "said", "swapped")
    right: dict[tuple[str, str], list[bool]] = {}
    about: dict[tuple[str, str], tuple[str, str]] = {}
    for row in _rows(folder, "verdicts.parquet", columns, "eval"):
        for name in () if row["swapped"] else row["sets"]:
            right.setdefault((row["task_id"], name), []).append(row["said"] == row["gold"])
            about[row["task_id"], name] = (row["content"], row["language"])
    return [
        Item(task, about[task, name][0], name, about[task, name][1], sum(r) / len(r))
        for (task, name), r in right.items()
    ]


def _of_table(stage: str) -> Callable[[Path], list[Item]]:
    def read(folder: Path) -> list[Item]:
        rows = _rows(folder, ITEMS, COLUMNS, stage)
        return [Item(r["item_id"], r["content"], r["set"], r["language"], r["score"]) for r in rows]

    return read


ONE_SCORE = frozenset({"eval"})
"""Stages whose items have one score in all their sets; a set of the others is a measure of its own."""
READERS: dict[str, Callable[[Path], list[Item]]] = {
    "eval": _of_verdicts,
    "measures": _of_table("measures"),
    "policy-eval": _of_table("policy-eval"),
}


def read_items(stage: str, folder: Path) -> list[Item]:
    """The items of a finished stage of that name.

    Raises:
        ValueError: for a stage that has none, or a folder that is not finished or not as the stage wrote it.
    """
    if stage not in READERS:
        raise ValueError(f"{stage!r} leaves no items to compare; these do: {', '.join(READERS)}")
    return READERS[stage](folder)


def write_items(folder: Path, items: Iterable[Item]) -> None:
    """`items.parquet` of a stage's folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = zip(COLUMNS, (pa.string(),) * 4 + (pa.float64(),), strict=True)
    rows = [dict(zip(COLUMNS, (i.id, i.content, i.set, i.language, i.score), strict=True)) for i in items]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(kinds))), folder / ITEMS)
