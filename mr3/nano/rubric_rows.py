"""The tables of a rubric-aware study: one schema for training, development and test, which `mr3 eval` reads too."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from mr3.nano.shortcut import decide
from mr3.nano.twins import StudyTask, is_later
from mr3.records import Task

_TEXT = pa.string()
SCHEMA = pa.schema(
    [
        ("id", _TEXT),
        ("task", _TEXT),  # JSON of mr3.records.Task
        ("gold", _TEXT),
        ("sets", pa.list_(_TEXT)),
        ("content", _TEXT),  # rows of one content are not independent
        ("language", _TEXT),
        ("mode", _TEXT),
        ("group", _TEXT),  # as `twin`: the name by which `mr3 eval` knows it
        ("first_criterion", _TEXT),  # pairwise: what the first criterion alone says
        ("twin", _TEXT),  # shared by the two rows of a pair, which follow each other; else null
        ("reward_only", pa.bool_()),  # a twin that is sampled for the other's reward, and not trained on
        ("edit", _TEXT),  # of twins: order, replaced or other (mr3.nano.twins.EDITS)
        ("criteria", pa.list_(_TEXT)),  # names, first ones first; also where the task's rubric is blanked
        ("hidden", _TEXT),  # the verdict of the hidden default order
        ("decided_by", pa.int64()),  # index of the criterion that decides; -1: tie, true, or pointwise
        ("blank_of", _TEXT),  # id of the row that this is, with its rubric blanked
        ("meta", _TEXT),  # JSON of the question's facts, for mr3.nano.findings
        ("trace", _TEXT),  # the gold completion, whole
    ]
)


def study_row(one: StudyTask, name: str, index: int) -> dict[str, Any]:
    """One row; its id is `name-index`."""
    made = one.made
    task = made.task.model_copy(update={"id": f"{name}-{index}"})
    first = decide(task.mode, made.names[:1], one.found)[0] if task.mode == "pairwise" else None
    return {
        "id": task.id,
        "task": task.model_dump_json(),
        "gold": made.label,
        "sets": [name],
        "content": made.question.content.key,
        "language": task.language,
        "mode": task.mode,
        "group": one.twin,
        "first_criterion": first,
        "twin": one.twin,
        "reward_only": one.reward_only,
        "edit": one.edit,
        "criteria": list(made.names),
        "hidden": one.hidden,
        "decided_by": one.decided_by,
        "blank_of": None,
        "meta": json.dumps(made.question.meta),
        "trace": made.completion,
    }


def blank_row(row: dict[str, Any], rubric: dict[str, Any], name: str, index: int) -> dict[str, Any]:
    """The same task with a rubric that says nothing."""
    task = Task.model_validate_json(row["task"])
    blind = Task.model_validate({**task.model_dump(), "id": f"{name}-{index}", "rubric": rubric})
    return {**row, "id": blind.id, "task": blind.model_dump_json(), "sets": [name], "blank_of": row["id"]}


def _shares(values: Iterable[Any]) -> dict[str, float]:
    counts = Counter(map(str, values))
    total = sum(counts.values())
    return {name: round(count / total, 4) for name, count in sorted(counts.items())}


def summary(tasks: Sequence[StudyTask]) -> dict[str, Any]:
    """What a table is made of, for `metrics.json`: shares of rows, and of pairs where there are twins."""
    by_mode: dict[str, list[StudyTask]] = {}
    for one in tasks:
        by_mode.setdefault(one.made.task.mode, []).append(one)
    everything, tasks = tasks, [one for one in tasks if not one.reward_only]
    found: dict[str, Any] = {
        "rows": len(tasks),
        "reward_only": len(everything) - len(tasks),
        "contents": len({one.made.question.content.key for one in tasks}),
        "hidden_agrees": sum(one.hidden == one.made.label for one in tasks) / len(tasks),
        "criteria": _shares(len(one.made.names) for one in tasks),
        "by_mode": {
            mode: {
                "rows": len(rows),
                "hidden_agrees": sum(one.hidden == one.made.label for one in rows) / len(rows),
                "gold": _shares(one.made.label for one in rows),
                "decided_by": _shares(one.decided_by for one in rows),
            }
            for mode, rows in sorted(by_mode.items())
        },
    }
    pairs = list(zip(tasks[::2], tasks[1::2], strict=False))
    if tasks and tasks[0].twin is not None and len(everything) == len(tasks):
        found["later_pairs"] = sum(
            is_later(a.made.task.mode, a.made.names, b.made.names, a.found) for a, b in pairs
        ) / len(pairs)
        found["edits"] = _shares(a.edit for a, _ in pairs)
        found["pairs_with_one_agreeing"] = sum(
            (a.hidden == a.made.label) != (b.hidden == b.made.label) for a, b in pairs
        ) / len(pairs)
    return found
