"""Judgements through the exactly-once store, in one process: looked up, else judged, stored, and then answered.

Ray retries whole tasks after an actor's death, and what was with an engine that died is a suspect. Such a batch runs
again with nothing beside it; if the engine dies again, so do its parts (about the square root of their number each),
and last the single rows. A row that has killed two engines alone ends as `engine_failed` instead of killing another.
So a machine that was taken away costs a batch one run alone, and a row that kills engines is found in five deaths.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mr3.inference.engine import EngineDead
from mr3.inference.store import Store
from mr3.judging.judge import Judge, Prepared
from mr3.records import Outcome, Verdict

_DEATHS_ALONE = 2
_REMEMBERED = 20_000
_POLL_S = 0.5
_PASSING = (Outcome.ENGINE_FAILED, Outcome.TIMED_OUT)


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


@dataclass(frozen=True, slots=True)
class Answers:
    """Verdicts as JSON by id, and the ids that were judged for this call (not found anywhere).

    `superseded`: those of them for which another run's verdict came first, and counts.
    """

    verdicts: Mapping[str, str]
    new: frozenset[str]
    superseded: frozenset[str] = frozenset()


def _lasting(verdict: Verdict) -> bool:
    """Whether a verdict is stored: an engine that failed or was late may answer in the next run."""
    return verdict.outcome not in _PASSING


def _poisonous(prepared: Prepared, judge_id: str, deaths: int) -> Verdict:
    return Verdict(
        id=prepared.id,
        task_id=prepared.item.task.id,
        outcome=Outcome.ENGINE_FAILED,
        reason=f"engines died on this row, {_DEATHS_ALONE} of them with nothing beside it",
        swapped=prepared.item.swapped,
        sample=prepared.item.sample,
        attempts=deaths,
        judge=judge_id,
        rubric_hash=prepared.rubric_hash,
    )


class JudgeDesk:
    """A judge with its store. Equal judgements that are asked for at the same time are made once."""

    def __init__(self, judge: Judge, store: Store) -> None:
        self.judge = judge
        self._store = store
        self._store.catch_up()  # a process that replaces a dead one must see what that one had stored
        self._deaths = store.deaths()
        self._gate = Gate()
        self._flying: dict[str, asyncio.Future[str]] = {}
        self._recent: OrderedDict[str, str] = OrderedDict()
        self._judged: dict[str, bool] = {}  # and not yet answered: whether another run's verdict counts

    async def ask(self, prepared: Sequence[Prepared]) -> Answers:
        """The verdicts on all items. Every new one is stored before it is returned.

        Raises:
            ValueError: when the store can't be written.
        """
        wanted = {p.id: p for p in prepared}
        found = {i: self._recent[i] for i in wanted if i in self._recent}
        found |= self._store.lookup([i for i in wanted if i not in found])
        others = {i: self._flying[i] for i in wanted if i not in found and i in self._flying}
        mine = {i: p for i, p in wanted.items() if i not in found and i not in others}
        made = await self._judge_for_all(mine)
        new = {i: self._judged.pop(i) for i in made if i in self._judged}
        for i, future in others.items():
            found[i] = await future
        superseded = frozenset(i for i, other in new.items() if other)
        return Answers({**found, **made}, frozenset(new), superseded)

    async def _judge_for_all(self, missing: Mapping[str, Prepared]) -> dict[str, str]:
        """Judge what nobody else is judging, and tell whoever waits for it."""
        if not missing:
            return {}
        loop = asyncio.get_running_loop()
        futures = {i: loop.create_future() for i in missing}
        self._flying |= futures
        try:
            made = await self._judge_or_wait(missing)
        except BaseException as error:
            for future in futures.values():
                future.set_exception(error)
                future.exception()  # nobody need be waiting
            raise
        finally:
            for i in missing:
                del self._flying[i]
        for i, future in futures.items():
            future.set_result(made[i])
        self._recent |= made
        while len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        return made

    async def _judge_or_wait(self, missing: Mapping[str, Prepared]) -> dict[str, str]:
        """Judge what no other run is judging, then wait for the rest: claiming nothing, so that nobody waits for us."""
        made = await self._judge_missing(missing)
        while left := {i: p for i, p in missing.items() if i not in made}:
            made |= await self._others(list(left))
            deaths = self._store.deaths()  # one of this run's may be why nobody stored them
            self._deaths |= {i: deaths[i] for i in left if i in deaths}
            made |= await self._judge_missing({i: p for i, p in left.items() if i not in made})
        return made

    async def _others(self, ids: list[str]) -> dict[str, str]:
        """Wait until other runs have stored these ids, or given them up; returns what they stored."""
        while True:
            # In this order: who is done stores before it gives up its claim.
            held = await asyncio.to_thread(self._store.held, ids)
            stored = await asyncio.to_thread(self._store.lookup, ids)
            if not held - stored.keys():
                return stored
            await asyncio.sleep(_POLL_S)

    async def _judge_missing(self, missing: Mapping[str, Prepared]) -> dict[str, str]:
        """The verdicts on all that no other run is judging."""
        suspects = [p for i, p in missing.items() if i in self._deaths]
        others = [p for i, p in missing.items() if i not in self._deaths]
        made: dict[str, str] = {}
        if others:
            async with self._gate.together():
                made |= await self._judge(others, alone=False)
        if suspects:
            async with self._gate.alone():
                made |= await self._judge_suspects(suspects)
        return made

    async def _judge(self, group: Sequence[Prepared], alone: bool) -> dict[str, str]:
        """The verdicts on those of a group that no other run is judging."""
        claim = self._store.claim([p.id for p in group], alone)
        try:
            mine = [p for p in group if p.id in claim.mine]
            verdicts = await self._generate(mine) if mine else []
            made = await self._keep([self._with_attempts(v) for v in verdicts])
        finally:
            self._store.end(claim.mark)
        return {**claim.stored, **made}

    async def _judge_suspects(self, suspects: Sequence[Prepared]) -> dict[str, str]:
        """Each in the largest group that has killed no engine yet; a row that was alone with a death comes last.

        So where processes are killed from outside, again and again, it is not the same row each time.
        """
        made: dict[str, str] = {}
        by_deaths: dict[int, list[Prepared]] = {}
        for prepared in sorted(suspects, key=lambda p: self._deaths[p.id].single):
            deaths = self._deaths[prepared.id]
            if deaths.single >= _DEATHS_ALONE:
                # Kept although the engine failed: what kills engines is never tried again.
                made |= await self._keep([_poisonous(prepared, self.judge.judge_id, deaths.all)], poison=True)
            else:
                by_deaths.setdefault(min(deaths.alone, 2), []).append(prepared)
        for alone, group in by_deaths.items():
            size = (len(group), math.isqrt(len(group) - 1) + 1, 1)[alone]
            for begin in range(0, len(group), size):
                made |= await self._judge(group[begin : begin + size], alone=True)
        for prepared in suspects:
            if prepared.id in made:
                del self._deaths[prepared.id]
        return made

    def _with_attempts(self, verdict: Verdict) -> Verdict:
        deaths = self._deaths.get(verdict.id)
        return verdict if deaths is None else verdict.model_copy(update={"attempts": verdict.attempts + deaths.all})

    async def _keep(self, verdicts: Sequence[Verdict], poison: bool = False) -> dict[str, str]:
        """Store verdicts; returns what the store says of them, which another run may have told it first."""
        texts = {v.id: v.model_dump_json() for v in verdicts}
        lasting = {v.id: texts[v.id] for v in verdicts if poison or _lasting(v)}
        # Writing waits for the disk; other batches of this process go on meanwhile.
        others = await asyncio.to_thread(self._store.write, lasting)
        if len(lasting) < len(texts):
            others |= await asyncio.to_thread(self._store.lookup, [i for i in texts if i not in lasting])
        self._judged |= {i: i in others for i in texts}
        return {**texts, **others}

    async def _generate(self, prepared: Sequence[Prepared]) -> list[Verdict]:
        from ray.exceptions import RayActorError

        try:
            return await self.judge.judge_prepared(prepared)
        except (EngineDead, RayActorError):
            os._exit(1)  # only a new process gets a new engine; Ray starts one and retries the batch
