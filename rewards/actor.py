"""The judge as reward actors: named Ray actors with an engine each, asked like a served judge, and through the store.

`RewardActor` is the actor's class; `ActorJudge` is what training asks: it has the judging method of `JudgeClient`, so
`TrlReward` takes either. Verdicts go through the exactly-once store: what `mr3 label`, another run or an earlier
attempt of this one has judged is not judged again, and has the same id and score.

An actor whose engine or process dies is started again by Ray; its calls are repeated, on another replica where there
is one, until the deadline. What has no verdict by then has no reward.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mr3.inference.engine import HostDied
from mr3.inference.session import NAMESPACE
from mr3.inference.watched import PING, START_S, Lives, Watched
from mr3.judging.config import JudgeConfig
from mr3.records import Verdict
from rewards.model import RewardModel
from rewards.serving.client import JudgeRefused, JudgeUnavailable
from rewards.serving.schema import JudgeResult, JudgeStrategy, JudgeTask

log = logging.getLogger("mr3.rewards")
_BAD_REQUEST = 400
_AGAIN_S = 1.0
_LONGEST_REST_S = 60.0
_MOST_DEATHS = 20
"""So many deaths one after the other, of all replicas together and without any answer, are no accident."""


class StoredJudge:
    """A judge that looks into its store first; what `RewardModel` asks inside an actor."""

    def __init__(self, cached: Any) -> None:
        self._cached = cached
        self.new = self.new_tokens = 0
        """Verdicts that were made, not found, and the tokens that they took (of a prompt and its answer)."""

    async def judge(self, items: Sequence[Any]) -> list[Verdict]:
        """The verdicts on all items, in their order, under the ids of the tasks that ask now."""
        from mr3.judging.worker import for_task

        prepared = [self._cached.judge.prepare(item) for item in items]
        answers = await self._cached.ask(prepared)
        found = [Verdict.model_validate_json(for_task(answers.results[p.id], p.item.task.id)) for p in prepared]
        made = {v.id: v for v in found if v.id in answers.new}
        self.new += len(made)
        self.new_tokens += sum(v.output_tokens for v in made.values())
        return found


class RewardActor:
    """The actor's class: one replica of the judge.

    Args:
        judge: a `JudgeConfig`, dumped.
        store: folder of the verdict store.
        identity: `JudgeConfig.identity()`.
        run: the training's name in the store (`Store.open_run`).
    """

    def __init__(self, judge: dict[str, Any], store: str, identity: str, run: str | None = None) -> None:
        from mr3.judging.worker import open_cached_judge

        self._cached = open_cached_judge(judge, store, identity, run)

    def ping(self) -> None:
        """A sign of life, from a thread that engines don't block."""

    async def judge(
        self, tasks: list[dict[str, Any]], strategy: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], int, int]:
        """Results of some tasks, as JSON-able data and without traces; new verdicts, and the tokens that they took.

        Raises:
            ValueError: for tasks that this judge can't do.
        """
        from rewards.serving.judging import judge_tasks, task_of

        how = JudgeStrategy.model_validate(strategy)
        given = [JudgeTask.model_validate(task) for task in tasks]
        named = [task for task in given if isinstance(task.rubric, str)]
        if named:
            raise ValueError(
                f"no rubric {named[0].rubric!r} here: reward actors have no library, give the rubric itself"
            )
        if how.samples > 1 and self._cached.judge.card.sampling.temperature == 0:
            raise ValueError(f"samples is {how.samples}, but this judge decodes greedily: leave it at 1")
        judge = StoredJudge(self._cached)
        model = RewardModel(
            judge, combine=how.combine, orders=how.orders, samples=how.samples, tie_margin=how.tie_margin
        )
        made = [task_of(task, task.rubric, f"tasks.{i}", how) for i, task in enumerate(given)]  # type: ignore[arg-type]
        results = await judge_tasks(model, made)
        shown = [r.model_dump(mode="json", exclude={"verdicts": {"__all__": {"trace"}}}) for r in results]
        return shown, judge.new, judge.new_tokens


@dataclass
class _Replica:
    """One actor. After a death it rests, longer each time, so that one that can't come back leaves work to others."""

    actor: Watched
    lives: Lives = field(default_factory=Lives)
    busy: int = 0
    deaths_in_a_row: int = 0
    rests_until: float = 0.0

    def died(self) -> None:
        self.deaths_in_a_row += 1
        self.rests_until = time.monotonic() + min(_LONGEST_REST_S, _AGAIN_S * 2.0 ** (self.deaths_in_a_row - 1))

    def order(self) -> tuple[float, int]:
        """Those that rest come last, the one that has rested longest first; else the one with the least work."""
        return max(0.0, self.rests_until - time.monotonic()), self.busy


@dataclass
class ActorJudge:
    """Asks reward actors; many calls may run at once, each goes to the replica with the least work.

    Attributes:
        new, new_tokens: verdicts that were made and not found in the store, and their tokens, since the start.
    """

    replicas: list[_Replica]
    deadline_s: float = 900.0
    new: int = 0
    new_tokens: int = 0
    deaths: int = 0
    """Times that a replica died or froze, whatever number of calls it had."""
    _store: Any = None
    _in_a_row: int = 0

    async def judge_batch(
        self,
        tasks: Sequence[JudgeTask],
        strategy: JudgeStrategy | None = None,
        *,
        batch_size: int = 64,
        deadline_s: float | None = None,
    ) -> list[JudgeResult]:
        """Judge many tasks, at most `batch_size` to a call, over all replicas; results in the order of the tasks.

        Raises:
            JudgeRefused: when this judge can't do the tasks.
            JudgeUnavailable: when no replica answered before the deadline.
        """
        if not tasks:
            return []
        size = max(1, min(batch_size, math.ceil(len(tasks) / len(self.replicas))))
        parts = [tasks[i : i + size] for i in range(0, len(tasks), size)]
        ends = time.monotonic() + (self.deadline_s if deadline_s is None else deadline_s)
        asked = [asyncio.ensure_future(self._ask(part, strategy or JudgeStrategy(), ends)) for part in parts]
        try:
            answers = await asyncio.gather(*asked)
        finally:
            for each in asked:
                each.cancel()
        return [result for answer in answers for result in answer]

    async def _ask(self, tasks: Sequence[JudgeTask], strategy: JudgeStrategy, ends: float) -> list[JudgeResult]:
        sent = [task.model_dump(mode="json") for task in tasks]
        last = "it was never asked"
        while (left := ends - time.monotonic()) > 0:
            replica = min(self.replicas, key=_Replica.order)
            replica.busy += 1
            life = replica.lives.now
            try:
                async with asyncio.timeout(left):
                    found, new, tokens = await replica.actor.call("judge", sent, strategy.model_dump(mode="json"))
                self._in_a_row = replica.deaths_in_a_row = 0
                self.new += new
                self.new_tokens += tokens
                return [JudgeResult.model_validate(result) for result in found]
            except TimeoutError:
                last = "no answer"
                break
            except HostDied as error:
                last = str(error)
                if replica.lives.ended(life):
                    replica.died()
                    self.deaths += 1
                    self._in_a_row += 1
                    log.warning("%s; its tasks are asked again", error)
                if self._in_a_row >= _MOST_DEATHS:
                    break
                await asyncio.sleep(min(_AGAIN_S, max(0.0, ends - time.monotonic())))
            except ValueError as error:
                raise JudgeRefused(_BAD_REQUEST, str(error)) from error
            finally:
                replica.busy -= 1
        raise JudgeUnavailable(f"no reward actor answered in time (the last attempt: {last})")

    def close(self) -> None:
        """End the actors that this process has started, and its part in the store."""
        for replica in self.replicas if self._store is not None else []:
            replica.actor.kill()
        if self._store is not None:
            self._store.close()


def actor_names(name: str, replicas: int) -> list[str]:
    """The names of a run's reward actors in the namespace `mr3`."""
    return [f"reward-{name}-{i}" for i in range(replicas)]


def start_actors(
    judge: JudgeConfig,
    store: str | Path,
    name: str,
    *,
    replicas: int = 1,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    deadline_s: float = 900.0,
) -> ActorJudge:
    """Start the reward actors of a run, in the Ray session of this process; they end with it, or with `close`.

    Raises:
        ValueError: when the judge can't be run as configured, or the store can't be written.
    """
    import ray

    from mr3.inference.store import Store

    judge.engine_config()  # a bad card or profile is an error here, not in a dead actor
    identity, folder = judge.identity(), Path(store).resolve()
    stored = Store(folder)
    run, known = stored.open_run(), stored.refresh()
    log.info("judge %s as %d reward actor(s); the store %s holds %d results", identity, replicas, folder, known)
    make = ray.remote(concurrency_groups={PING: 1})(RewardActor)
    handles = [
        make.options(
            name=own,
            namespace=NAMESPACE,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            max_restarts=-1,
            max_concurrency=64,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}},
        ).remote(judge.absolute().model_dump(mode="json"), str(folder), identity, run)
        for own in actor_names(name, replicas)
    ]
    asking = _asking(handles, judge.silence_s, deadline_s, stored)
    try:
        ray.get([handle.ping.remote() for handle in handles], timeout=START_S)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
        asking.close()
        raise ValueError(f"the reward actors did not start: {error}") from error
    return asking


def find_actors(judge: JudgeConfig, name: str, *, replicas: int = 1, deadline_s: float = 900.0) -> ActorJudge:
    """The actors that another process of this run has started.

    Raises:
        ValueError: when they are not there.
    """
    import ray

    handles = [ray.get_actor(own, namespace=NAMESPACE) for own in actor_names(name, replicas)]
    return _asking(handles, judge.silence_s, deadline_s, None)


def _asking(handles: Sequence[Any], silence_s: float, deadline_s: float, store: Any) -> ActorJudge:
    found = [_Replica(Watched(handle, "the process of a reward actor", silence_s)) for handle in handles]
    return ActorJudge(found, deadline_s, _store=store)
