"""Labelled tasks of the nano world for the data factory, and what its teacher learns: the three strategies.

A strategy decides the language of the rubric and, for `tgt-tgt`, the first sentence of the trace. What follows is the
world's own shorthand under every strategy: a model of this size writes no prose.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import yaml

from mr3.nano.rubrics import word_rubric
from mr3.nano.tasks import JudgeTask, Recipe, TaskMaker
from mr3.prompts import render
from mr3.records import Mode
from mr3.sources.labelled import Labelled, OwnTexts

MODE_SHARES: dict[Mode, float] = {"pairwise": 0.5, "pointwise": 0.28, "binary": 0.22}
STRATEGIES = ("eng-eng", "tgt-eng", "tgt-tgt")


@cache
def forcing() -> dict[str, str]:
    """Language -> first sentence of a trace that is forced into it."""
    text = (resources.files("mr3.nano") / "forcing.yaml").read_text(encoding="utf-8")
    found: dict[str, str] = yaml.safe_load(text)
    return found


def _labelled(made: JudgeTask, rng: random.Random, number: int) -> Labelled:
    language = made.task.language
    own = None if language == "en" else word_rubric(made.names, rng, language)
    return Labelled(
        source="nano",
        gold=made.label,
        task=made.task.model_copy(update={"id": f"{made.task.mode}-{number}"}),
        own=OwnTexts(rubric=own, forcing=forcing()[language]),
    )


def _tasks(split: str, rows: int, seed: int) -> Iterator[JudgeTask]:
    maker = TaskMaker(Recipe(split, garbled=0.2), seed)
    rng = random.Random(seed)
    for mode in rng.choices(list(MODE_SHARES), list(MODE_SHARES.values()), k=rows):
        yield maker.task(mode)


def rows(count: int, seed: int = 0, split: str = "judge_dev") -> Iterator[Labelled]:
    """Tasks with gold labels from the checkers, in all modes and training languages; an adapter for `sources:`."""
    rng = random.Random(f"own-{seed}")
    for number, made in enumerate(_tasks(split, count, seed)):
        yield _labelled(made, rng, number)


def strategy_rows(count: int, seed: int, profile: str) -> Iterator[dict[str, Any]]:
    """SFT rows of a teacher: gold traces, a strategy drawn for each; a forced sentence is part of the prompt."""
    rng = random.Random(f"strategy-{seed}")
    for number, made in enumerate(_tasks("judge_sft", count, seed)):
        row, strategy = _labelled(made, rng, number), rng.choice(STRATEGIES)
        task = row.prompt_task(own_language=strategy != "eng-eng")
        completion, prefix = made.completion, ""
        if strategy == "tgt-tgt":
            assert row.own is not None, "every row of this world has a sentence"
            # Behind the prompt, and so tokenised apart from the trace: as the factory asks for it.
            completion, prefix = completion.removeprefix("<think>"), f"<think>{row.own.forcing}"
        yield {
            "id": task.id,
            "language": task.language,
            "mode": task.mode,
            "prompt": render(task, profile).messages,
            "assistant_prefix": prefix,
            "completion": [{"role": "assistant", "content": completion}],
        }
