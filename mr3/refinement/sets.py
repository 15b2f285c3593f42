"""The labelled tasks of refinement, and their three sets: disjoint by content, which is checked and not assumed."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.evaluation.tasks import read_tasks
from mr3.importing import load_named
from mr3.records import Task, stable_hash
from mr3.refinement.records import PARTS, Labelled, Sets


class TaskSource(BaseModel):
    """A function of yours that makes labelled tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="package.module:function; called with the options, returns Labelled items")
    options: dict[str, Any] = Field(default_factory=dict)


class TaskFiles(BaseModel):
    """Three files of labelled tasks, as `mr3 eval` reads them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    develop: Path
    accept: Path
    test: Path


class Split(BaseModel):
    """Shares of the contents in each set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    develop: float = Field(0.25, gt=0)
    accept: float = Field(0.30, gt=0)
    test: float = Field(0.45, gt=0)

    @model_validator(mode="after")
    def _whole(self) -> Split:
        total = self.develop + self.accept + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of develop, accept and test make {total:g}, not 1")
        return self


Tasks = Path | TaskFiles | TaskSource


def prompt_key(task: Task) -> str:
    """The same for the same prompt, whatever its case, spacing and way of composing letters."""
    text = task.input if isinstance(task.input, str) else "\n".join(m.content for m in task.input)
    return stable_hash("prompt", " ".join(unicodedata.normalize("NFKC", text).casefold().split()))


def _read(path: Path) -> list[Labelled]:
    """Rows of an evaluation file; a column `content` says what must stay in one set, else the prompt does."""
    import pyarrow.parquet as pq

    rows = read_tasks(path)
    columns = pq.read_schema(path).names
    told: dict[str, str] = {}
    if "content" in columns:
        table = pq.read_table(path, columns=["id", "content"])
        told = dict(zip(table["id"].to_pylist(), table["content"].to_pylist(), strict=True))
        blank = [key for key, content in told.items() if not content]
        if blank:
            raise ValueError(f"{path}: row {blank[0]!r} has no content; fill the column, or leave it out")
    return [Labelled(row.task, row.gold, told.get(row.id) or prompt_key(row.task)) for row in rows]


def _call(source: TaskSource) -> list[Labelled]:
    function: Callable[..., Iterable[Labelled]] = load_named(source.source, "tasks.source")
    return list(function(**source.options))


def split_by_content(items: Sequence[Labelled], split: Split, seed: int) -> dict[str, list[Labelled]]:
    """Every content into one of the three sets, by a hash of it and the seed."""
    found: dict[str, list[Labelled]] = {part: [] for part in PARTS}
    for item in items:
        point = int(stable_hash("refinement set", seed, item.content)[:12], 16) / 16**12
        part = "develop" if point < split.develop else "accept" if point < split.develop + split.accept else "test"
        found[part].append(item)
    return found


def check_sets(sets: Sets) -> None:
    """No set is empty, no id comes twice, and no content and no prompt stands in two sets.

    Raises:
        ValueError: naming the sets and the item.
    """
    where: dict[tuple[str, str], str] = {}
    ids: set[str] = set()
    for part in PARTS:
        if not sets[part]:
            raise ValueError(f"the {part} set is empty: give more tasks, or a larger share in `split`")
        for item in sets[part]:
            if item.task.id in ids:
                raise ValueError(f"the task id {item.task.id!r} comes twice: ids must be unique over all three sets")
            ids.add(item.task.id)
            for kind, key in (("content", item.content), ("prompt", prompt_key(item.task))):
                other = where.setdefault((kind, key), part)
                if other != part:
                    raise ValueError(
                        f"the {kind} of task {item.task.id!r} stands in the sets {other} and {part}: a rubric must be "
                        "measured on prompts that it was not chosen by; take it out of one of them"
                    )


def open_sets(tasks: Tasks, split: Split, seed: int) -> dict[str, list[Labelled]]:
    """The three sets of a config, checked.

    Raises:
        ValueError: for files, sources or rows that can't be used, and for sets that share contents.
    """
    if isinstance(tasks, TaskFiles):
        sets = {part: _read(getattr(tasks, part)) for part in PARTS}
    else:
        items = _call(tasks) if isinstance(tasks, TaskSource) else _read(tasks)
        sets = split_by_content(items, split, seed)
    check_sets(sets)
    return sets


def describe(sets: Sets) -> dict[str, Any]:
    """Sizes, and hashes by which a reader can tell that two runs used the same sets."""
    return {
        part: {
            "items": len(items),
            "contents": len({i.content for i in items}),
            "hash": stable_hash(sorted([i.task.id, i.content, i.gold, i.task.model_dump_json()] for i in items)),
        }
        for part, items in sets.items()
    }
