"""Scores of rubrics by the real judge: every item under every rubric, through the stream and the verdict store."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mr3.inference.stream import StreamSettings
from mr3.judging.config import JudgeConfig
from mr3.judging.run import group_row, judge_groups
from mr3.records import Verdict
from mr3.refinement.records import Labelled, Mistake, Scores
from mr3.rubrics import Rubric

log = logging.getLogger("mr3.refinement")
Orders = Literal["one", "both"]


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


class StreamPanel:
    """A judge behind the actor pool. Scores that were asked for before are remembered, verdicts are stored."""

    def __init__(self, judge: JudgeConfig, store: Path, settings: StreamSettings, orders: Orders) -> None:
        self._judge, self._store, self._settings, self._orders = judge, store, settings, orders
        self._known: dict[tuple[str, str], Scores] = {}

    def _rows(self, rubric: Rubric, items: Sequence[Labelled], place: int) -> list[dict[str, str]]:
        rows = []
        for at, item in enumerate(items):
            swaps = (False, True) if self._orders == "both" and item.task.mode == "pairwise" else (False,)
            task = item.under(rubric).model_dump(mode="json")
            rows.append(group_row(f"{place}:{at}", [{"task": task, "swapped": swapped} for swapped in swaps]))
        return rows

    def scores(self, rubrics: Sequence[Rubric], items: Sequence[Labelled]) -> list[Scores]:
        """The scores of each rubric on the items, in one stream; items of one rubric follow each other.

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
        rows = [row for place, rubric in enumerate(missing) for row in self._rows(rubric, items, place)]
        for name, text in judge_groups(rows, self._judge, self._store, self._settings):
            place, at = map(int, name.split(":"))
            payload = json.loads(text)
            verdicts = [Verdict.model_validate(v) for v in payload["verdicts"]]
            score_item(found[place], items[at], missing[place], verdicts, payload["new"])
        order = {item.task.id: at for at, item in enumerate(items)}
        for rubric, scores in zip(missing, found, strict=True):
            assert len(scores.points) == len(items), "every item comes back"
            scores.mistakes.sort(key=lambda m: order[m.task.id])  # the stream keeps no order; prompts made of them must
            self._known[rubric.content_hash, ids] = scores
        log.info("%d rubrics x %d items: %d new verdicts", len(missing), len(items), sum(s.new for s in found))
