"""Evaluation tasks: rows of a Parquet file, checked and named when they are read."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mr3.records import Task, content_of
from mr3.rows import BadRow, parquet_rows

log = logging.getLogger("mr3.evaluation")
MOST_BAD = 0.05
"""A file of which a larger share can't be used is no set of evaluation tasks."""
_SHOWN = 5
_COLUMNS = ("id", "task", "gold", "sets")


@dataclass(frozen=True, slots=True)
class EvalTask:
    """A task with its gold label and the sets that it counts for."""

    task: Task
    gold: str
    sets: tuple[str, ...]
    group: str | None = None
    first_criterion: str | None = None
    """What the heuristic that reads only the first criterion would say, where the data tells."""
    part: str | None = None
    """The subset or domain that the row's benchmark counts by."""
    content: str = ""
    """What the task is about: tasks of one content are not independent. By default a hash of the input."""

    def __post_init__(self) -> None:
        if not self.content:
            object.__setattr__(self, "content", content_of(self.task.model_dump(include={"input"})["input"]))

    @property
    def id(self) -> str:
        """The task's id."""
        return self.task.id


def read_tasks(path: str | Path, sets: Collection[str] | None = None) -> list[EvalTask]:
    """The tasks of the wanted sets (all if None), each with only those of its sets that are wanted.

    A bad row (an invalid task, a gold label off the scale, an id that came before) is left out and named in the log.

    Raises:
        ValueError: for a missing file, column or set, and where more than `MOST_BAD` of the rows are bad.
    """
    import pyarrow.parquet as pq

    file = Path(path)
    if not file.is_file():
        raise ValueError(f"no evaluation tasks at {file}: make them with `mr3 data`, or give another path in `tasks`")
    table = pq.ParquetFile(file)
    missing = [name for name in _COLUMNS if name not in table.schema_arrow.names]
    if missing:
        raise ValueError(f"{file} has no column {', '.join(missing)}: evaluation tasks need {', '.join(_COLUMNS)}")
    known: set[str] = set()
    found: dict[str, EvalTask] = {}
    problems: list[str] = []
    for number, row in enumerate(parquet_rows(table.iter_batches()), start=1):
        try:
            task = _task(row, found)
        except BadRow as error:
            problems.append(f"{file}: row {number}{_name(row)} {error}")
            continue
        known |= set(task.sets)
        if chosen := tuple(name for name in task.sets if sets is None or name in sets):
            found[task.id] = replace(task, sets=chosen)
    for problem in problems[:_SHOWN]:
        log.warning("left out: %s", problem)
    if problems and len(problems) > MOST_BAD * table.metadata.num_rows:
        shown = "; ".join(problems[:_SHOWN])
        raise ValueError(f"{len(problems)} of {table.metadata.num_rows} evaluation tasks can't be used: {shown}")
    if sets is not None and (unknown := set(sets) - known):
        raise ValueError(f"{file} has no set {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
    if not found:
        raise ValueError(f"{file} holds no task of the sets {', '.join(sorted(known if sets is None else sets))}")
    return list(found.values())


def _name(row: dict[str, Any] | BadRow) -> str:
    return "" if isinstance(row, BadRow) else f" ({row['id']!r})"


def _task(row: dict[str, Any] | BadRow, known: Collection[str]) -> EvalTask:
    if isinstance(row, BadRow):
        raise row
    for name, kind in (("id", str), ("task", str), ("gold", str), ("sets", list)):
        if not isinstance(row[name], kind):
            raise BadRow(f"has no {name}")
    if row["id"] in known:
        raise BadRow("has an id that comes twice; ids must be unique")
    try:
        task = Task.model_validate_json(row["task"])
    except ValidationError as error:
        raise BadRow(f"holds a task that is not valid: {error}") from error
    if task.id != row["id"]:
        raise BadRow(f"holds a task with the id {task.id!r}; they must be the same")
    if row["gold"] not in task.labels:
        raise BadRow(f"has gold {row['gold']!r}, not one of {', '.join(task.labels)}")
    content = row.get("content") or ""
    return EvalTask(
        task, row["gold"], tuple(row["sets"]), row.get("group"), row.get("first_criterion"), content=content
    )
