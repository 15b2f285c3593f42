"""What the tests of rubrics share: a small world of labelled pairs, and engines that judge and teach in it."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.ground_truth import compare
from mr3.inference.engine import Completion, EngineConfig, Request
from mr3.judge_card import write_card
from mr3.records import Task
from mr3.refinement.records import Labelled
from mr3.rubrics import Criterion, Rubric
from tests.judging_support import CARD, make_tokenizer

NAMES = ("right", "short", "kind", "formal")
POOL = [Criterion(name=n, description=f"It is {n}.") for n in NAMES]
LABELS = {1: "Assistant A", -1: "Assistant B", 0: "Tie"}
HOUSE = ("right", "kind", "short")


def rubric(*names: str) -> Rubric:
    return Rubric(name="house", criteria=[Criterion(name=n, description=f"It is {n}.") for n in names])


def item(number: int, house: Sequence[str], content: str | None = None, text: str | None = None) -> Labelled:
    """A pair whose attributes are written in its responses; gold follows the house rubric."""
    rng = random.Random(number)
    sides = [{n: rng.random() < 0.5 for n in NAMES} for _ in range(2)]
    task = Task(
        id=f"t{number}",
        mode="pairwise",
        input=text or f"question {number}",
        responses=[json.dumps(s) for s in sides],
        rubric=rubric("right"),
        language="en" if number % 2 else "de",
    )
    return Labelled(task, LABELS[compare(house, *sides)], content or f"c{number}")


def tasks_file(path: Path, items: Sequence[Labelled], content: bool) -> Path:
    rows = []
    for i in items:
        row = {"id": i.task.id, "task": i.task.model_dump_json(), "gold": i.gold, "sets": ["all"]}
        rows.append(row | ({"content": i.content} if content else {}))
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def judge_folder(path: Path) -> Path:
    """What a judge's folder holds, but for weights: the engines here need none."""
    make_tokenizer().save_pretrained(path)
    write_card(path, CARD)
    return path


class _TextEngine:
    takes_text = True

    def __init__(self, config: EngineConfig) -> None:
        self.config = config

    def answer(self, prompt: str) -> str:
        raise NotImplementedError

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [Completion(id=r.id, text=self.answer(r.prompt or ""), finish="stop") for r in requests]

    def close(self) -> None:
        return


class JudgeEngine(_TextEngine):
    """Compares by the criteria that the prompt names, in their order."""

    def answer(self, prompt: str) -> str:
        wanted = re.findall(r"^\d+\. It is (\w+)\.$", prompt, re.MULTILINE)
        sides = [json.loads(text) for text in re.findall(r"^# Assistant [AB]\n(.*)$", prompt, re.MULTILINE)]
        score = LABELS[compare(wanted, *sides)]
        return f"\nby the rubric\n</think>\n{json.dumps({'explanation': 'so', 'score': score})}"


class PoisonedJudge(JudgeEngine):
    """Takes its process down at a poisonous task."""

    def answer(self, prompt: str) -> str:
        if "POISON" in prompt:
            os._exit(1)
        return super().answer(prompt)


class TeacherEngine(_TextEngine):
    """Writes a rubric, except for one kind of task, where it only talks."""

    def answer(self, prompt: str) -> str:
        if "poems" in prompt:
            return "I would rather write a poem."
        body = {"criteria": [{"name": "taste", "description": "It tastes good.", "weight": 2}]}
        return f"<think>hm</think>\n```json\n{json.dumps(body)}\n```"


def backend(engine: Callable[..., object]) -> str:
    return f"{engine.__module__}:{engine.__name__}"
