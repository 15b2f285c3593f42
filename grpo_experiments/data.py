"""Tasks with gold labels from Parquet, as examples in bundles: what is trained on, and what is held out.

Only the columns `task` (a `mr3.records.Task` as JSON) and `gold` are required. `content`, `twin`, `criteria`,
`hidden`, `decided_by`, `trace`, `meta` and `reward_only` are read where they are there (see `contract.Example`).
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import ValidationError

from grpo_experiments.contract import Example
from mr3.judging.scale import mirrored
from mr3.records import Task, content_of

_OPTIONAL = ("content", "twin", "criteria", "hidden", "decided_by", "trace", "meta", "reward_only")
Bundle = tuple[Example, ...]


@dataclass(frozen=True)
class Tasks:
    """Bundles to train on and to evaluate on, and what was left out (reason -> tasks)."""

    train: list[Bundle]
    held_out: list[Bundle]
    dropped: Counter[str]


def read_examples(file: Path) -> list[Example]:
    """All rows of a file.

    Raises:
        ValueError: for a missing file or column, no row, or a row that is no task or whose gold is no legal score.
    """
    if not file.is_file():
        raise ValueError(f"no tasks at {file}: make them with `mr3 data`")
    there = pq.read_schema(file).names
    missing = [name for name in ("task", "gold") if name not in there]
    if missing:
        raise ValueError(f"{file} has no column {missing[0]!r}: GRPO needs `task` (a task as JSON) and `gold`")
    rows = pq.read_table(file, columns=["task", "gold", *(n for n in _OPTIONAL if n in there)]).to_pylist()
    if not rows:
        raise ValueError(f"{file} holds no tasks")
    examples = [_example(row, f"{file.name}, row {i}") for i, row in enumerate(rows)]
    twice = [name for name, times in Counter(e.task.id for e in examples).items() if times > 1]
    if twice:
        raise ValueError(f"{file}: the task id {twice[0]!r} comes more than once; rewards and logs go by it")
    return examples


def _example(row: dict[str, Any], where: str) -> Example:
    try:
        task = Task.model_validate(json.loads(row["task"]))
    except (ValidationError, ValueError, TypeError) as error:
        raise ValueError(f"{where} holds no task: {error}") from error
    for name in ("gold", "hidden"):
        label = row.get(name)
        if label is not None and label not in task.labels:
            raise ValueError(f"{where}: {name} is {label!r}, and the legal scores are {', '.join(task.labels)}")
    messages = task.input if isinstance(task.input, str) else [m.model_dump() for m in task.input]
    return Example(
        task=task,
        gold=row["gold"],
        content=row.get("content") or content_of(messages),
        twin=row.get("twin"),
        criteria=tuple(row.get("criteria") or ()),
        hidden=row.get("hidden"),
        decided_by=row.get("decided_by"),
        trace=row.get("trace"),
        meta=row.get("meta"),
        reward_only=bool(row.get("reward_only")),
    )


def exchanged(example: Example) -> Example:
    """The same task with A and B exchanged, and all that names one of them."""
    back = mirrored(example.task.labels)
    task = example.task.model_copy(update={"responses": example.task.responses[::-1]})
    gold, hidden = (None if label is None else back[label] for label in (example.gold, example.hidden))
    return replace(example, task=task, gold=gold, hidden=hidden, trace=None, swapped=True)


def bundled(examples: Sequence[Example], both_orders: bool) -> list[Bundle]:
    """Examples in bundles, in the order of their first ones."""
    found: dict[str, list[Example]] = {}
    for i, example in enumerate(examples):
        found.setdefault(f"row-{i}" if example.twin is None else f"twin-{example.twin}", []).append(example)

    def orders(example: Example) -> list[Example]:
        return [example, exchanged(example)] if both_orders and example.task.mode == "pairwise" else [example]

    return [tuple(shown for example in bundle for shown in orders(example)) for bundle in found.values()]


def _tasks(bundle: Bundle) -> int:
    """A task that is shown in both orders is one."""
    return sum(not example.swapped for example in bundle)


def chosen(bundles: Sequence[Bundle], tasks: int | None, seed: int, what: str) -> list[Bundle]:
    """Bundles of about `tasks` tasks, drawn by the seed, in the order of the file.

    Not the head of the file: files are sorted by source, mode or difficulty.
    """
    if tasks is None:
        return list(bundles)
    drawn, count = set(), 0
    for i in random.Random(f"{what}-{seed}").sample(range(len(bundles)), len(bundles)):
        size = _tasks(bundles[i])
        if count + size <= tasks:
            drawn.add(i)
            count += size
    return [bundle for i, bundle in enumerate(bundles) if i in drawn]


def _asked(example: Example) -> tuple[str, bool]:
    """The content id of what is asked, and whether the row names no other: the same text is one as a text and as the
    only user turn."""
    given = example.task.input
    if isinstance(given, str):
        return content_of(given), example.content == content_of(given)
    turns = [m.model_dump() for m in given]
    alone = len(given) == 1 and given[0].role == "user"
    asked = content_of(given[0].content if alone else turns)
    return asked, example.content in (asked, content_of(turns))


def _contents(bundles: Sequence[Bundle]) -> list[set[str]]:
    """What each bundle is about. Rows that name their contents are one by name; with a row that names none (of a file
    without that column) a row shares the content where both ask the same."""
    asked = [[_asked(example) for example in bundle] for bundle in bundles]
    nameless = {what for row in asked for what, is_nameless in row if is_nameless}
    return [
        {example.content for example in bundle} | {what for what, _ in row if what in nameless}
        for bundle, row in zip(bundles, asked, strict=True)
    ]


def _by_content(bundles: Sequence[Bundle]) -> list[list[int]]:
    """Numbers of bundles that share a content, directly or through others."""
    owner: dict[str, int] = {}
    root = list(range(len(bundles)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for i, names in enumerate(_contents(bundles)):
        for name in names:
            root[find(i)] = find(owner.setdefault(name, i))
    found: dict[int, list[int]] = {}
    for i in range(len(bundles)):
        found.setdefault(find(i), []).append(i)
    return list(found.values())


def split(bundles: Sequence[Bundle], held_out_tasks: int, seed: int) -> tuple[list[Bundle], list[Bundle]]:
    """Bundles to train on, and at least so many tasks to evaluate on; no content is on both sides."""
    if not held_out_tasks:
        return list(bundles), []
    groups = _by_content(bundles)
    random.Random(f"held-out-{seed}").shuffle(groups)
    out: set[int] = set()
    for group in groups:
        if sum(map(_tasks, (bundles[i] for i in out))) >= held_out_tasks:
            break
        out.update(group)
    return [b for i, b in enumerate(bundles) if i not in out], [b for i, b in enumerate(bundles) if i in out]


def _refuse_one_id_for_two(train: Sequence[Bundle], held_out: Sequence[Bundle]) -> None:
    """A task may be in both files (then it is not trained on); rewards and logs go by ids, so one id is one task."""
    known = {example.task.id: example.task for bundle in train for example in bundle if not example.swapped}
    for example in (e for bundle in held_out for e in bundle if not e.swapped):
        if known.get(example.task.id, example.task) != example.task:
            raise ValueError(
                f"{example.task.id!r} is one task in `tasks` and another in `held_out`: give the rows of one file "
                "other ids (a prefix will do); rewards and logs go by them"
            )


def read_tasks(
    file: Path,
    held_out_file: Path | None,
    *,
    max_tasks: int | None,
    held_out_tasks: int,
    both_orders: bool,
    seed: int,
    fits: Callable[[Example], bool] = lambda example: True,
) -> Tasks:
    """What a run trains and is evaluated on.

    Args:
        fits: whether a prompt is within the judge's limit; a bundle with one that is not is dropped whole.

    Raises:
        ValueError: for rows that can't be read, an id that is another task in the other file, or where nothing is left
            to train on.
    """
    dropped: Counter[str] = Counter()

    def usable(bundles: list[Bundle]) -> list[Bundle]:
        kept = [b for b in bundles if all(map(fits, b))]
        dropped["too_long"] += sum(map(len, bundles)) - sum(map(len, kept))
        return kept

    train = usable(bundled(read_examples(file), both_orders))
    if held_out_file is None:
        train, held_out = split(train, held_out_tasks, seed)
    else:
        others = bundled(read_examples(held_out_file), both_orders)
        _refuse_one_id_for_two(train, others)
        held_out = chosen(usable(others), held_out_tasks or None, seed, "held-out")
        contents = _contents([*train, *held_out])
        evaluated = set[str]().union(*contents[len(train) :])
        apart = [b for b, names in zip(train, contents, strict=False) if not names & evaluated]
        dropped["content_held_out"] += sum(map(len, train)) - sum(map(len, apart))
        train = apart
    train = chosen(train, max_tasks, seed, "tasks")
    if not train:
        raise ValueError(f"no task of {file} is left to train on ({dict(dropped) or 'all are held out'})")
    return Tasks(train, held_out, +dropped)
