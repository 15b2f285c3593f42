"""A Ray Data worker that judges: groups of items in, groups of verdicts out, through the exactly-once store."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from pydantic import BaseModel

from mr3.inference.store import Store
from mr3.judging.cached_judge import CachedJudge
from mr3.judging.config import JudgeConfig
from mr3.judging.judge import JudgeItem
from mr3.judging.opening import open_judge


class Group(BaseModel):
    """What must stay together on one replica, and what travels with it."""

    items: list[JudgeItem]
    meta: Any = None


def open_cached_judge(
    judge: dict[str, Any], store: str, identity: str, run: str | None = None, apart: bool = False
) -> CachedJudge:
    """The judge and the store of one worker process, from what a stream can carry.

    Args:
        run: the driver's (see `Store.open_run`).
        apart: the judge's engine lives in a process of its own.
    """
    return CachedJudge(open_judge(JudgeConfig.model_validate(judge), identity, apart), Store(store, run))


def for_task(payload: str, task_id: str) -> str:
    """A stored verdict under the asking task's id: tasks of equal content share a judgement, not their name."""
    named = f'"task_id":{json.dumps(task_id, ensure_ascii=False)},'
    if named in payload[: len(named) + 64]:  # it comes second, after the id
        return payload
    return json.dumps({**json.loads(payload), "task_id": task_id}, ensure_ascii=False)


class JudgeWorker:
    """Payload `{"items": [...], "meta": any}` becomes `{"verdicts": [...], "meta": any, "new": n}`.

    `new` counts the verdicts that were judged now, not read from the store.
    """

    def __init__(self, judge: dict[str, Any], store: str, identity: str, run: str | None = None) -> None:
        self.cached = open_cached_judge(judge, store, identity, run)

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One batch of groups."""
        groups = [Group.model_validate_json(payload) for payload in batch["payload"]]
        prepared = [[self.cached.judge.prepare(item) for item in group.items] for group in groups]
        answers = await self.cached.ask([p for row in prepared for p in row])
        payloads = []
        for group, row in zip(groups, prepared, strict=True):
            verdicts = ",".join(for_task(answers.results[p.id], p.item.task.id) for p in row)
            count = sum(p.id in answers.new for p in row)
            payloads.append(f'{{"verdicts":[{verdicts}],"meta":{json.dumps(group.meta)},"new":{count}}}')
        return {"group": batch["group"], "payload": np.array(payloads, dtype=object)}
