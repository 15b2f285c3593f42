"""Scores of rubrics by the real judge: every item under every rubric, through the verdict store.

One replica is asked from this process: a round is a few hundred verdicts, and an actor pool takes longer to start than
to judge them. Its engine lives in another process, so that a row that kills it does not end the run. More replicas are
asked through the stream of an actor pool.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from mr3.inference.stored_work import end_tasks
from mr3.inference.stream import StreamSettings
from mr3.judging.cached_judge import CachedJudge
from mr3.judging.config import JudgeConfig
from mr3.judging.judge import JudgeItem, Prepared
from mr3.judging.run import group_row, judge_groups
from mr3.judging.worker import for_task, open_cached_judge
from mr3.records import Verdict
from mr3.refinement.records import Labelled, Mistake, Panel, Scores
from mr3.rubrics import Rubric

log = logging.getLogger("mr3.refinement")
Orders = Literal["one", "both"]
Answer = tuple[int, int, list[Verdict], int]
"""Place of the rubric, place of the item, the verdicts, and how many of them are new."""


def score_item(scores: Scores, item: Labelled, task_rubric: Rubric, verdicts: Sequence[Verdict], new: int) -> None:
    """Add the verdicts on one item: the share of them that is the gold label; a failed verdict is a wrong one."""
    right = [v.score == item.gold for v in verdicts]
    scores.points[item.task.id] = sum(right) / len(right)
    scores.contents[item.task.id] = item.content
    scores.failed += sum(v.score is None for v in verdicts)
    scores.verdicts += len(verdicts)
    scores.new += new
    for verdict in verdicts:
        if verdict.score != item.gold:
            said = Mistake(item.under(task_rubric), item.gold, verdict.score, verdict.explanation)
            scores.mistakes.append(said)
            break


class _Panel:
    """Scores that were asked for before are remembered; how verdicts are made is the subclass's matter."""

    def __init__(self, judge: JudgeConfig, store: Path, settings: StreamSettings, orders: Orders) -> None:
        self._judge, self._store, self._settings, self._orders = judge, store, settings, orders
        self._known: dict[tuple[str, str], Scores] = {}

    def _items(self, rubric: Rubric, item: Labelled) -> list[JudgeItem]:
        both = self._orders == "both" and item.task.mode == "pairwise"
        task = item.under(rubric)
        return [JudgeItem(task=task, swapped=swapped) for swapped in ((False, True) if both else (False,))]

    def _verdicts(self, rubrics: Sequence[Rubric], items: Sequence[Labelled]) -> Iterator[Answer]:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held open between calls, unless a subclass says so."""

    def scores(self, rubrics: Sequence[Rubric], items: Sequence[Labelled]) -> list[Scores]:
        """The scores of each rubric on the items; items of one rubric follow each other.

        Raises:
            ValueError: when the judge can't be run as configured.
        """
        ids = json.dumps(sorted(i.task.id for i in items))
        missing = {r.content_hash: r for r in rubrics if (r.content_hash, ids) not in self._known}
        if missing:
            self._judge_missing(list(missing.values()), items, ids)
        return [self._known[r.content_hash, ids] for r in rubrics]

    def _judge_missing(self, missing: Sequence[Rubric], items: Sequence[Labelled], ids: str) -> None:
        found = [Scores({}, {}) for _ in missing]
        for place, at, verdicts, new in self._verdicts(missing, items):
            score_item(found[place], items[at], missing[place], verdicts, new)
        order = {item.task.id: at for at, item in enumerate(items)}
        for rubric, scores in zip(missing, found, strict=True):
            assert len(scores.points) == len(items), "every item comes back"
            scores.mistakes.sort(key=lambda m: order[m.task.id])  # verdicts keep no order; prompts made of them must
            self._known[rubric.content_hash, ids] = scores
        log.info("%d rubrics x %d items: %d new verdicts", len(missing), len(items), sum(s.new for s in found))


class StreamPanel(_Panel):
    """Judges behind an actor pool."""

    def _verdicts(self, rubrics: Sequence[Rubric], items: Sequence[Labelled]) -> Iterator[Answer]:
        rows = [
            group_row(f"{place}:{at}", [i.model_dump(mode="json") for i in self._items(rubric, item)])
            for place, rubric in enumerate(rubrics)
            for at, item in enumerate(items)
        ]
        for name, text in judge_groups(rows, self._judge, self._store, self._settings):
            place, at = map(int, name.split(":"))
            payload = json.loads(text)
            yield place, at, [Verdict.model_validate(v) for v in payload["verdicts"]], payload["new"]


class DeskPanel(_Panel):
    """One judge, opened once and asked from this process."""

    _cached: CachedJudge | None = None
    _loop: asyncio.AbstractEventLoop

    def _opened(self) -> CachedJudge:
        if self._cached is None:
            from mr3.inference.store import Store

            with Store(self._store) as stored:
                stored.refresh()
            judge = self._judge.model_dump(mode="json")
            self._cached = open_cached_judge(
                judge, str(self._store), self._judge.identity(), apart=self._judge.has_process
            )
            self._loop = asyncio.new_event_loop()
        return self._cached

    async def _ask(self, cached: CachedJudge, groups: Sequence[tuple[int, int, list[Prepared]]]) -> list[Answer]:
        """All groups, in batches that are at work together."""
        gate = asyncio.Semaphore(self._settings.concurrency)

        async def batch(part: Sequence[tuple[int, int, list[Prepared]]]) -> list[Answer]:
            async with gate:
                answers = await cached.ask([p for _, _, prepared in part for p in prepared])
            found: list[Answer] = []
            for place, at, prepared in part:
                texts = [for_task(answers.results[p.id], p.item.task.id) for p in prepared]
                new = sum(p.id in answers.new for p in prepared)
                found.append((place, at, [Verdict.model_validate_json(t) for t in texts], new))
            return found

        size = self._settings.batch_groups
        parts = [groups[begin : begin + size] for begin in range(0, len(groups), size)]
        return [answer for found in await asyncio.gather(*map(batch, parts)) for answer in found]

    def _verdicts(self, rubrics: Sequence[Rubric], items: Sequence[Labelled]) -> Iterator[Answer]:
        cached = self._opened()
        groups = [
            (place, at, [cached.judge.prepare(i) for i in self._items(rubric, item)])
            for place, rubric in enumerate(rubrics)
            for at, item in enumerate(items)
        ]
        yield from self._loop.run_until_complete(self._ask(cached, groups))

    def close(self) -> None:
        """Give the engine back; what an interrupt left at work ends here."""
        if self._cached is not None:
            self._loop.run_until_complete(end_tasks(asyncio.all_tasks(self._loop)))
            self._cached.judge.engine.close()
            self._loop.close()


def open_panel(judge: JudgeConfig, store: Path, settings: StreamSettings, orders: Orders) -> Panel:
    """The panel for that many replicas; close it when all is judged."""
    kind = DeskPanel if settings.replicas_max == 1 else StreamPanel
    return kind(judge, store, settings, orders)
