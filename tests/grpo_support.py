"""What the tests of GRPO share: examples, samples, groups, and task files of the nano world with twins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grpo_experiments.contract import Example, Finish, Group, Sample
from mr3.parsing import format_named
from mr3.records import Task
from mr3.rubrics import Criterion, Rubric


def task(name: str = "t", labels: Sequence[str] = (), **more: Any) -> Task:
    """A pairwise task with two criteria."""
    rubric = Rubric(
        criteria=[
            Criterion(name="correct", description="It is right."),
            Criterion(name="polite", description="It thanks."),
        ],
        levels={label: "as said" for label in labels},
    )
    given: dict[str, Any] = {
        "id": name, "mode": "pairwise", "input": "2 + 2?", "responses": ["4", "5"], "rubric": rubric, "language": "en"
    }  # fmt: skip
    return Task.model_validate(given | more)


def example(gold: str | None = "Assistant A", name: str = "t", **more: Any) -> Example:
    """An example over `task`, or over the one given."""
    return Example(task=more.pop("task", task(name)), gold=gold, content=more.pop("content", "c"), **more)


def answer(score: str, trace: str = "Looked.", explanation: str = "Because.") -> str:
    """A completion in the format mr3."""
    return f"\n{trace}\n</think>\n" + json.dumps({"explanation": explanation, "score": score})


def sample(text: str, labels: Sequence[str], finish: Finish = "stop", tokens: int = 10, **more: Any) -> Sample:
    """A completion, read as a judge's card of the format mr3 reads it."""
    return Sample(text, tokens, finish, format_named("mr3").parse(text, tuple(labels), finish), **more)


def group(of: Example, texts: Sequence[str], more: Sequence[Mapping[str, Any]] = (), **rest: Any) -> Group:
    """A group of completions."""
    about = more or [{}] * len(texts)
    return Group(of, tuple(sample(t, of.task.labels, **m) for t, m in zip(texts, about, strict=True)), **rest)


def write_tasks(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A Parquet file of tasks."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file)
    return file


def twin_rows(pairs: int, seed: int = 0, singles: int = 0) -> list[dict[str, Any]]:
    """Twins of the nano world (the same responses, two rubrics, other verdicts), and tasks without a twin."""
    from mr3.nano.tasks import Recipe, TaskMaker
    from mr3.nano.verdicts import score

    maker = TaskMaker(Recipe("judge_dev"), seed)
    default = ("correct", "language", "polite", "brief")
    rows = []
    for i in range(pairs + singles):
        made = maker.flip_pair() if i < pairs else [maker.task("pairwise")]
        for k, one in enumerate(made):
            named = one.task.model_copy(update={"id": f"row-{i}-{k}"})
            rows.append(
                {
                    "task": named.model_dump_json(),
                    "gold": one.label,
                    "content": one.question.content.key,
                    "twin": f"twin-{i}" if i < pairs else None,
                    "criteria": list(one.names),
                    "hidden": score("pairwise", one.question, default, named.responses),
                    "decided_by": None,
                    "trace": one.completion,
                }
            )
    return rows
