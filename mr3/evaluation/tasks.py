"""Evaluation tasks: rows of a Parquet file, checked and named when they are read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from mr3.records import Task

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

    @property
    def id(self) -> str:
        """The task's id."""
        return self.task.id


def read_tasks(path: str | Path, sets: Collection[str] | None = None) -> list[EvalTask]:
    """The tasks of the wanted sets (all if None), each with only those of its sets that are wanted.

    Raises:
        ValueError: for a missing file, column or set, a bad row (by id), a gold label off the scale, or two
            rows of one id.
    """
    import pyarrow.parquet as pq

    file = Path(path)
    if not file.is_file():
        raise ValueError(f"no evaluation tasks at {file}: make them with `mr3 data`, or give another path in `tasks`")
    table = pq.read_table(file)
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise ValueError(f"{file} has no column {', '.join(missing)}: evaluation tasks need {', '.join(_COLUMNS)}")
    known = {name for row in table["sets"].to_pylist() for name in row}
    wanted = known if sets is None else set(sets)
    if wanted - known:
        raise ValueError(f"{file} has no set {', '.join(sorted(wanted - known))}; it has {', '.join(sorted(known))}")
    found: dict[str, EvalTask] = {}
    for row in table.to_pylist():
        chosen = tuple(name for name in row["sets"] if name in wanted)
        if not chosen:
            continue
        if row["id"] in found:
            raise ValueError(f"{file}: the id {row['id']!r} comes twice; ids must be unique")
        found[row["id"]] = _task(row, chosen, file)
    if not found:
        raise ValueError(f"{file} holds no task of the sets {', '.join(sorted(wanted))}")
    return list(found.values())


def _task(row: dict[str, str | None], sets: tuple[str, ...], file: Path) -> EvalTask:
    try:
        task = Task.model_validate_json(row["task"] or "")
    except ValidationError as error:
        raise ValueError(f"{file}: the task of row {row['id']!r} is not valid: {error}") from error
    if task.id != row["id"]:
        raise ValueError(f"{file}: row {row['id']!r} holds a task with the id {task.id!r}; they must be the same")
    gold = row["gold"]
    if gold not in task.labels:
        raise ValueError(f"{file}: row {row['id']!r} has gold {gold!r}, not one of {', '.join(task.labels)}")
    return EvalTask(task, gold, sets, row.get("group"), row.get("first_criterion"))
