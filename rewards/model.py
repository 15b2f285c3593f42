"""The reward model: one judge, both orders, votes; from single verdicts to a comparison or a score.

`combine` and `scored` are pure functions over verdicts, used by labelling, by the audit and by
`RewardModel`, the class that online hosts wrap (a Ray actor for GRPO, an HTTP deployment).
A failed verdict is a state with a reason, never a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from mr3.judging.scale import label_values
from mr3.records import PAIRWISE_LABELS, Mode, Outcome, Task, Verdict
from rewards.records import Comparison, Result

if TYPE_CHECKING:
    from mr3.judging.judge import JudgeItem

Combine = Literal["agree", "mean"]
Orders = Literal["both", "one", "final"]


def result_of(verdict: Verdict, labels: Sequence[str] = PAIRWISE_LABELS) -> Result:
    """What one pairwise verdict says; a label that favours neither side is a tie."""
    if verdict.score is None:
        return "failed"
    value = label_values(labels, "pairwise")[verdict.score]
    return "a" if value > 0.5 else "b" if value < 0.5 else "tie"


def value_of(verdict: Verdict, labels: Sequence[str], mode: Mode) -> float:
    """An ok verdict as a number: its expected score where logprobs were kept, else its label's value.

    P(A better) for pairwise, P(true) for binary, the score for pointwise.
    """
    assert verdict.score is not None, "a failed verdict is no number"
    return verdict.expected if verdict.expected is not None else label_values(labels, mode)[verdict.score]


def vote(results: Sequence[Result]) -> Result:
    """The strict majority of samples of one order; without one it is a tie, and failed if any failed."""
    if not results or "failed" in results:
        return "failed"
    if len(results) == 1:
        return results[0]
    winner, count = Counter(results).most_common(1)[0]
    return winner if 2 * count > len(results) else "tie"


def vote_decided(results: Sequence[Result], wanted: int) -> bool:
    """Whether the remaining samples of `wanted` can't change the vote any more."""
    if "failed" in results:
        return True
    return any(2 * count > wanted for count in Counter(results).values())


def wants_sample(taken: Sequence[Verdict], sample: int, samples: int, how: Combine, labels: Sequence[str]) -> bool:
    """Whether one more sample of one order is to be taken, after those in `taken`.

    A vote stops when it is decided. With `mean` every sample counts: what an early stop leaves is no mean of them.
    """
    if any(v.sample == sample for v in taken):
        return False
    return how == "mean" or not vote_decided([result_of(v, labels) for v in taken], samples)


def combine(
    a: str,
    b: str,
    verdicts: Sequence[Verdict],
    how: Combine = "agree",
    tie_margin: float = 0.0,
    labels: Sequence[str] = PAIRWISE_LABELS,
) -> Comparison:
    """One comparison from all verdicts on the responses `a` and `b` (scores of swapped ones mapped back).

    `agree`: every order must say the same; a disagreement is a tie with a recorded flip.
    `mean`: the mean P(A better) over orders decides; within `tie_margin` of one half it is a tie.
    With one failed verdict the comparison has failed: half of the evidence is no evidence.
    """
    ids = tuple(v.id for v in verdicts)
    orders = [[v for v in verdicts if v.swapped is swapped] for swapped in (False, True)]
    votes = [vote([result_of(v, labels) for v in order]) for order in orders if order]
    if not votes or "failed" in votes:
        return Comparison(a=a, b=b, result="failed", verdict_ids=ids)
    means = [sum(value_of(v, labels, "pairwise") for v in order) / len(order) for order in orders if order]
    p_a = sum(means) / len(means)
    flip = len(set(votes)) > 1
    result: Result
    if how == "agree":
        result = "tie" if flip else votes[0]
    elif abs(p_a - 0.5) <= tie_margin:
        result = "tie"
    else:
        result = "a" if p_a > 0.5 else "b"
    return Comparison(a=a, b=b, result=result, p_a=p_a, margin=abs(2 * p_a - 1), flip=flip, verdict_ids=ids)


def margins_vary(mode: Mode, samples: int, how: Combine, orders: Orders, odds: bool) -> bool:
    """Whether decided comparisons can have different margins; else to filter by margin takes all of them or none.

    Args:
        samples: judgements per order.
        odds: whether verdicts have expected scores (the judge samples with logprobs).
    """
    if odds or samples > 1 or mode == "pointwise":
        return True
    return mode == "pairwise" and how == "mean" and orders != "one"


def scored(verdicts: Sequence[Verdict], labels: Sequence[str], mode: Mode = "pointwise") -> float | None:
    """The mean score of one response over its samples; None when a sample failed."""
    if not verdicts or any(v.outcome is not Outcome.OK for v in verdicts):
        return None
    return sum(value_of(v, labels, mode) for v in verdicts) / len(verdicts)


def compare_scores(
    a: str, b: str, scores: dict[str, float | None], ids: dict[str, tuple[str, ...]], tie_margin: float = 0.0
) -> Comparison:
    """A comparison derived from two responses' own scores (pointwise and binary labelling)."""
    verdict_ids = (*ids[a], *ids[b])
    first, second = scores[a], scores[b]
    if first is None or second is None:
        return Comparison(a=a, b=b, result="failed", verdict_ids=verdict_ids)
    gap = first - second
    result: Result = "tie" if abs(gap) <= tie_margin else "a" if gap > 0 else "b"
    return Comparison(a=a, b=b, result=result, margin=abs(gap), verdict_ids=verdict_ids)


class Judging(Protocol):
    """What gives verdicts on items, in their order."""

    async def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]: ...


class RewardModel:
    """A judge with its way to combine: `compare` for pairs, `score` for single responses.

    Args:
        judge: renders, generates, parses (`mr3.judging.judge.Judge`), or asks a store first (`rewards.actor`).
        orders: `both` judges A/B and B/A; `one` only as given.
        samples: votes per order; sampling stops as soon as an order's vote is decided.
        tie_margin: with `mean`, how close to one half P(A better) counts as a tie.
    """

    def __init__(
        self,
        judge: Judging,
        *,
        combine: Combine = "agree",
        orders: Orders = "both",
        samples: int = 1,
        tie_margin: float = 0.0,
    ) -> None:
        if samples < 1:
            raise ValueError(f"samples is {samples}: give 1 or more")
        self._judge = judge
        self._combine: Combine = combine
        self._orders = (False,) if orders == "one" else (False, True)  # a single comparison is the final one
        self._samples = samples
        self._tie_margin = tie_margin

    async def judged(self, tasks: Sequence[Task]) -> list[list[Verdict]]:
        """Every verdict on each of some tasks, in rounds of a sample: all that is open is asked for at once."""
        taken: list[list[Verdict]] = [[] for _ in tasks]
        for sample in range(self._samples):
            wanted = [
                (i, swapped)
                for i, task in enumerate(tasks)
                for swapped in self._orders_of(task)
                if self._wants(taken[i], swapped, sample, task)
            ]
            items = [(tasks[i], swapped, sample) for i, swapped in wanted]
            for (i, _), verdict in zip(wanted, await self._ask(items), strict=True):
                taken[i].append(verdict)
        return [sorted(verdicts, key=lambda v: v.swapped) for verdicts in taken]

    def _orders_of(self, task: Task) -> tuple[bool, ...]:
        return self._orders if task.mode == "pairwise" else (False,)

    def _wants(self, taken: Sequence[Verdict], swapped: bool, sample: int, task: Task) -> bool:
        if task.mode != "pairwise":
            return True
        own = [v for v in taken if v.swapped is swapped]
        return wants_sample(own, sample, self._samples, self._combine, task.labels)

    def compared(self, task: Task, verdicts: Sequence[Verdict]) -> Comparison:
        """What the verdicts on a pairwise task come to (responses named `a`, `b`)."""
        return combine("a", "b", verdicts, self._combine, self._tie_margin, task.labels)

    async def compare(self, task: Task) -> tuple[Comparison, list[Verdict]]:
        """Judge a pairwise task; returns the comparison (responses named `a`, `b`) and every verdict."""
        (verdicts,) = await self.judged([task])
        return self.compared(task, verdicts), verdicts

    async def score(self, task: Task) -> tuple[float | None, list[Verdict]]:
        """Judge one response `samples` times; the mean score, None if a sample failed, and every verdict."""
        (verdicts,) = await self.judged([task])
        return scored(verdicts, task.labels, task.mode), verdicts

    async def _ask(self, items: Sequence[tuple[Task, bool, int]]) -> list[Verdict]:
        from mr3.judging.judge import JudgeItem

        if not items:
            return []
        return await self._judge.judge([JudgeItem(task=t, swapped=swapped, sample=k) for t, swapped, k in items])
