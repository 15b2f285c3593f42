"""A Ray Data worker that judges: groups of items in, groups of verdicts out, through the exactly-once store.

Ray retries whole batches after an actor's death, so a batch that was begun before is a suspect: its rows then run
alone in their actor, and a row that has killed three engines (once with others, twice alone) ends as
`engine_failed` instead of killing a fourth.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from pydantic import BaseModel

from mr3.inference.store import Store
from mr3.judging.config import JudgeConfig
from mr3.judging.judge import Judge, JudgeItem, Prepared
from mr3.judging.opening import open_judge
from mr3.records import Outcome, Verdict

_DEATHS_ALONE = 2


class Group(BaseModel):
    """What must stay together on one replica, and what travels with it."""

    items: list[JudgeItem]
    meta: Any = None


class Gate:
    """Many may pass together, or one alone."""

    def __init__(self) -> None:
        self._inside = 0
        self._waiting_alone = 0
        self._change = asyncio.Condition()

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Beside others; waits while somebody is, or wants to be, alone."""
        async with self._change:
            await self._change.wait_for(lambda: self._inside >= 0 and not self._waiting_alone)
            self._inside += 1
        try:
            yield
        finally:
            async with self._change:
                self._inside -= 1
                self._change.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """With nobody else inside."""
        async with self._change:
            self._waiting_alone += 1
            await self._change.wait_for(lambda: self._inside == 0)
            self._waiting_alone -= 1
            self._inside = -1
        try:
            yield
        finally:
            async with self._change:
                self._inside = 0
                self._change.notify_all()


def _lasting(verdict: Verdict, poison: bool = False) -> bool:
    """Whether a verdict is stored: a failed engine may do better in the next run, a row that kills engines won't."""
    return poison or verdict.outcome is not Outcome.ENGINE_FAILED


def _poisonous(prepared: Prepared, judge_id: str) -> Verdict:
    return Verdict(
        id=prepared.id,
        task_id=prepared.item.task.id,
        outcome=Outcome.ENGINE_FAILED,
        reason="the engine died three times on this row",
        swapped=prepared.item.swapped,
        sample=prepared.item.sample,
        attempts=_DEATHS_ALONE + 1,
        judge=judge_id,
        rubric_hash=prepared.rubric_hash,
    )


def for_task(payload: str, task_id: str) -> str:
    """A stored verdict under the asking task's id: tasks of equal content share a judgement, not their name."""
    row = json.loads(payload)
    if row["task_id"] == task_id:
        return payload
    return json.dumps({**row, "task_id": task_id}, ensure_ascii=False)


class JudgeWorker:
    """Payload `{"items": [...], "meta": any}` becomes `{"verdicts": [...], "meta": any, "new": n}`.

    `new` counts the verdicts that were judged now, not read from the store.
    """

    def __init__(self, judge: dict[str, Any], store: str, identity: str) -> None:
        self._judge: Judge = open_judge(JudgeConfig.model_validate(judge), identity)
        self._store = Store(store)
        self._gate = Gate()

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One batch of groups."""
        groups = [Group.model_validate_json(payload) for payload in batch["payload"]]
        prepared = [[self._judge.prepare(item) for item in group.items] for group in groups]
        wanted = {p.id: p for row in prepared for p in row}
        before = self._store.lookup(list(wanted))
        new = await self._judge_missing({i: p for i, p in wanted.items() if i not in before})
        payloads = []
        for group, row in zip(groups, prepared, strict=True):
            verdicts = ",".join(for_task(before.get(p.id) or new[p.id], p.item.task.id) for p in row)
            count = sum(p.id in new for p in row)
            payloads.append(f'{{"verdicts":[{verdicts}],"meta":{json.dumps(group.meta)},"new":{count}}}')
        return {"group": batch["group"], "payload": np.array(payloads, dtype=object)}

    async def _judge_missing(self, missing: Mapping[str, Prepared]) -> dict[str, str]:
        """Id -> verdict JSON, written to the store before it is returned."""
        if not missing:
            return {}
        ids = list(missing)
        async with self._gate.together():
            begun_before = self._store.start(ids)
            if not begun_before:
                made = await self._keep(await self._ask(list(missing.values())))
                self._store.end(ids)
                return made
        made = self._store.lookup(ids)  # what the dead actor had written
        for prepared in missing.values():
            if prepared.id not in made:
                async with self._gate.alone():
                    made |= await self._suspect(prepared)
        self._store.end(ids)
        return made

    async def _suspect(self, prepared: Prepared) -> dict[str, str]:
        if self._store.start([prepared.id]) >= _DEATHS_ALONE:
            made = await self._keep([_poisonous(prepared, self._judge.judge_id)], poison=True)
        else:
            made = await self._keep(await self._ask([prepared]))
        self._store.end([prepared.id])
        return made

    async def _keep(self, verdicts: Sequence[Verdict], poison: bool = False) -> dict[str, str]:
        rows = [(v, v.model_dump_json()) for v in verdicts]
        # Writing waits for the disk; other batches of this actor go on meanwhile.
        await asyncio.to_thread(self._store.write, {v.id: text for v, text in rows if _lasting(v, poison)})
        return {v.id: text for v, text in rows}

    async def _ask(self, prepared: Sequence[Prepared]) -> list[Verdict]:
        from ray.exceptions import RayActorError

        from mr3.inference.vllm_engine import EngineDead

        try:
            return await self._judge.judge_prepared(prepared)
        except (EngineDead, RayActorError):
            os._exit(1)  # only a new process gets a new engine; Ray starts one and retries the batch
