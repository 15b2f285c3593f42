"""A judge with its exactly-once store, in one process: what is known of a verdict beside `StoredWork`."""

from __future__ import annotations

from collections.abc import Sequence

from mr3.inference.hosts import stored_work
from mr3.inference.store import Store
from mr3.inference.stored_work import Answers, Made
from mr3.judging.judge import Judge, Prepared
from mr3.records import Outcome, Verdict

_PASSING = (Outcome.ENGINE_FAILED, Outcome.TIMED_OUT)
"""An engine that failed or was late may answer in the next run."""


class CachedJudge:
    """A judge with its store. Equal judgements that are asked for at the same time are made once."""

    def __init__(self, judge: Judge, store: Store) -> None:
        self.judge = judge
        self._work = stored_work(store, self, judge.engine)

    async def ask(self, prepared: Sequence[Prepared]) -> Answers:
        """The verdicts on all items, as JSON by id. Every new one is stored before it is returned.

        Raises:
            ValueError: when the store can't be written, or every engine dies.
        """
        return await self._work.ask({p.id: p for p in prepared})

    async def make(self, items: Sequence[Prepared], deaths: Sequence[int]) -> list[Made]:
        """As the judge does."""
        verdicts = await self.judge.judge_prepared(items)
        counted = (
            v.model_copy(update={"attempts": v.attempts + n}) if n else v for v, n in zip(verdicts, deaths, strict=True)
        )
        return [Made(v.model_dump_json(), v.outcome not in _PASSING) for v in counted]

    def give_up(self, item: Prepared, reason: str, deaths: int) -> str:
        """The verdict on a row that kills engines."""
        verdict = Verdict(
            id=item.id,
            task_id=item.item.task.id,
            outcome=Outcome.ENGINE_FAILED,
            reason=reason,
            swapped=item.item.swapped,
            sample=item.item.sample,
            attempts=deaths,
            judge=self.judge.judge_id,
            rubric_hash=item.rubric_hash,
        )
        return verdict.model_dump_json()
