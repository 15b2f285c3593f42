"""A Ray Data worker that labels: prompts of the pool in, all verdicts on each out, through the exactly-once store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel

from mr3.inference.stored_work import Answers
from mr3.judging.cached_judge import CachedJudge
from mr3.judging.judge import JudgeItem, Prepared
from mr3.judging.worker import for_task, open_cached_judge
from mr3.records import PoolRow, Verdict
from rewards.prompt_schedule import Judgement, judge_prompt, task_id
from rewards.tasks import TaskMaker, TaskSettings


class Judged(BaseModel):
    """What comes back on one prompt: all verdicts, in the order in which they were asked for."""

    verdicts: list[Verdict]
    new: int
    superseded: int = 0
    ready: float | None = None


def new_verdicts(payload: str) -> int:
    """`new` of a `Judged` as JSON, without reading the rest."""
    return int(payload[payload.rindex(":") + 1 : -1])


def superseded_verdicts(payload: str) -> int:
    """`superseded` of a `Judged` as JSON, without reading the rest."""
    place = payload.rfind('"superseded":')
    return 0 if place < 0 else int(payload[place + 13 :].split(",")[0])


def ready_at(payload: str) -> float | None:
    """When the worker was ready for its first prompt (seconds since the epoch), without reading the rest."""
    place = payload.rfind('"ready":')
    return None if place < 0 else float(payload[place + 8 :].split(",")[0])


class _Prompt:
    """One prompt on its way through the rounds of its plan."""

    def __init__(self, row: PoolRow, settings: TaskSettings) -> None:
        self._row, self._settings = row, settings
        self._maker = TaskMaker(row, settings)
        self._judging = judge_prompt(row, settings)
        self.asked: list[Judgement] = next(self._judging, [])
        self._verdicts: list[str] = []
        self._new = self._superseded = 0

    def items(self) -> list[JudgeItem]:
        """What to judge now."""
        tasks = {j.response_ids: self._maker.task(task_id(self._row.prompt_id, j), j.response_ids) for j in self.asked}
        return [JudgeItem(task=tasks[j.response_ids], swapped=j.swapped, sample=j.sample) for j in self.asked]

    def take(self, prepared: Sequence[Prepared], answers: Answers) -> None:
        """The verdicts on `items`, in their order."""
        payloads = [for_task(answers.results[p.id], p.item.task.id) for p in prepared]
        self._verdicts += payloads
        self._new += sum(p.id in answers.new for p in prepared)
        self._superseded += sum(p.id in answers.superseded for p in prepared)
        self.asked = self._next(payloads) if self._settings.in_rounds else []

    def _next(self, payloads: Sequence[str]) -> list[Judgement]:
        try:
            return self._judging.send([Verdict.model_validate_json(p) for p in payloads])
        except StopIteration:
            return []

    def payload(self, ready: float) -> str:
        """What goes back to the driver."""
        counts = f'"ready":{ready:.3f},"superseded":{self._superseded},"new":{self._new}'
        return f'{{"verdicts":[{",".join(self._verdicts)}],{counts}}}'


class LabelWorker:
    """Payload: a pool row as JSON; becomes `{"verdicts": [...], "ready": t, "superseded": m, "new": n}`.

    `new` counts the verdicts that were judged now, not read from the store; `superseded` those of them for which
    another run's verdict had come first. All of a prompt stays in one process.
    """

    def __init__(
        self, judge: dict[str, Any], store: str, identity: str, tasks: dict[str, Any], run: str | None = None
    ) -> None:
        self.cached: CachedJudge = open_cached_judge(judge, store, identity, run)
        self._settings = TaskSettings.model_validate(tasks)
        self._ready = time.time()

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One batch of prompts, a round of all at a time."""
        prompts = [_Prompt(PoolRow.model_validate_json(payload), self._settings) for payload in batch["payload"]]
        while live := [p for p in prompts if p.asked]:
            prepared = [[self.cached.judge.prepare(item) for item in prompt.items()] for prompt in live]
            answers = await self.cached.ask([p for row in prepared for p in row])
            for prompt, row in zip(live, prepared, strict=True):
                prompt.take(row, answers)
        return {"group": batch["group"], "payload": np.array([p.payload(self._ready) for p in prompts], dtype=object)}
