"""From what several label runs say of two responses to one decision: agreement, weighted, with abstention and veto."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.records import Comparison
from rewards.selection.config import Agreement

_SLACK = 1e-9  # weights such as 0.1 don't add up exactly


@dataclass(frozen=True)
class Vote:
    """What one label run says of two responses. Margins are on the common scale, 0 to 1."""

    label: str
    weight: float
    comparison: Comparison


@dataclass(frozen=True)
class Decision:
    """A decided comparison, the label runs that favour its winner, and their share of the weight."""

    comparison: Comparison
    labels: tuple[str, ...]
    share: float

    @property
    def winner(self) -> str:
        """The better response's id."""
        assert self.comparison.winner is not None
        return self.comparison.winner

    @property
    def loser(self) -> str:
        """The worse response's id."""
        assert self.comparison.loser is not None
        return self.comparison.loser

    @property
    def margin(self) -> float:
        """How far apart, from -1 to 1; negative where the outvoted were surer."""
        assert self.comparison.margin is not None
        return self.comparison.margin


def turned(comparison: Comparison) -> Comparison:
    """The same comparison with the smaller id as `a`."""
    if comparison.a <= comparison.b:
        return comparison
    return comparison.model_copy(
        update={
            "a": comparison.b,
            "b": comparison.a,
            "result": {"a": "b", "b": "a"}.get(comparison.result, comparison.result),
            "p_a": None if comparison.p_a is None else 1.0 - comparison.p_a,
        }
    )


def _mean(pairs: Sequence[tuple[float, float]]) -> float:
    """The weighted mean of (weight, value); fsum, so that the order has no say."""
    return math.fsum(w * v for w, v in pairs) / math.fsum(w for w, _ in pairs)


def _vetoed(votes: Sequence[Vote], labels: int, rules: Agreement) -> str | None:
    results = {v.comparison.result for v in votes}
    if rules.tie == "veto" and "tie" in results:
        return "veto_tie"
    if rules.failed == "veto" and "failed" in results:
        return "veto_failed"
    if rules.missing == "veto" and len(votes) < labels:
        return "veto_missing"
    return None


def decide(votes: Sequence[Vote], labels: int, rules: Agreement) -> Decision | str:
    """The decision of all label runs that compared two responses, or the reason why there is none.

    A tie or a failed comparison never decides: without a label run that favours a side there is no pair.

    Args:
        votes: at most one per label run, all with the same `a` and `b` (see `turned`).
        labels: how many label runs there are.
    """
    votes = sorted(votes, key=lambda v: v.label)
    assert votes and len({(v.comparison.a, v.comparison.b) for v in votes}) == 1, "votes on different responses"
    sides = {side: [v for v in votes if v.comparison.result == side] for side in ("a", "b")}
    if not sides["a"] and not sides["b"]:
        return "tie" if any(v.comparison.result == "tie" for v in votes) else "failed"
    vetoed = _vetoed(votes, labels, rules)
    if vetoed:
        return vetoed
    weights = {side: math.fsum(v.weight for v in sides[side]) for side in sides}
    if abs(weights["a"] - weights["b"]) <= _SLACK:
        return "split"
    side = "a" if weights["a"] > weights["b"] else "b"
    agreeing, opposed = sides[side], sides["b" if side == "a" else "a"]
    share = weights[side] / math.fsum(weights.values())
    if share < rules.min_share - _SLACK:
        return "disagreement"
    if len(agreeing) < rules.min_labels:
        return "too_few_labels"
    margins = [(v.weight, v.comparison.margin or 0.0) for v in agreeing]
    margins += [(v.weight, -(v.comparison.margin or 0.0)) for v in opposed]
    odds = [(v.weight, v.comparison.p_a) for v in (*agreeing, *opposed) if v.comparison.p_a is not None]
    comparison = agreeing[0].comparison.model_copy(
        update={
            "margin": _mean(margins),
            "p_a": _mean(odds) if odds else None,
            "verdict_ids": tuple(i for v in agreeing for i in v.comparison.verdict_ids),
        }
    )
    return Decision(comparison, tuple(v.label for v in agreeing), share)
