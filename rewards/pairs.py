"""Pair selection: from the combined comparisons of one prompt to preferences.

Every pair rests on a direct, decided comparison: a tie or a failed verdict makes no pair, whatever the
rule. Add a rule by adding a function to `RULES`. `mr3 label` uses `select_pairs`; `mr3 pairs` (rewards.selection)
uses `pick` after its own filters.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mr3.records import stable_hash
from rewards.records import Comparison, Pair
from rewards.tasks import text_hash

Standing = tuple[int, float]
"""Wins minus losses, and the margins won minus the margins lost."""


@dataclass(frozen=True)
class Choice:
    """What a rule may look at beside the comparisons that it chooses from.

    What is equal is decided by lots that are drawn from the responses' texts: an id often names the policy, and
    would favour some of them in every prompt.

    Args:
        standing: of every response that has a decided comparison (see `standings`).
        texts: response id -> text.
        gap: the least margin of `nearest_below`.
    """

    standing: Mapping[str, Standing]
    texts: Mapping[str, str]
    gap: float = 0.0
    seed: int = 0
    prompt_id: str = ""

    def lot(self, use: str, *ids: str) -> str:
        """A lot of some responses: the same in every process, another one with another seed, prompt or use."""
        names = sorted(text_hash(self.texts[i].strip()) for i in ids)
        return stable_hash(use, *names, self.seed, self.prompt_id, length=16)


def decided_ids(comparison: Comparison) -> tuple[str, str]:
    """(winner, loser) of a comparison that has both."""
    winner, loser = comparison.winner, comparison.loser
    assert winner is not None and loser is not None and winner != loser, "only decided comparisons make pairs"
    return winner, loser


def pair_of(comparison: Comparison) -> Pair:
    """A decided comparison as a preference."""
    winner, loser = decided_ids(comparison)
    p_a = comparison.p_a
    return Pair(
        chosen=winner,
        rejected=loser,
        p_better=p_a if p_a is None or comparison.result == "a" else 1.0 - p_a,
        margin=comparison.margin,
        verdict_ids=comparison.verdict_ids,
    )


def standings(decided: Sequence[Comparison]) -> dict[str, Standing]:
    """How each response fares in the decided comparisons of its prompt."""
    net: dict[str, int] = defaultdict(int)
    margins: dict[str, list[float]] = defaultdict(list)
    for comparison in decided:
        for name, sign in zip(decided_ids(comparison), (1, -1), strict=True):
            net[name] += sign
            margins[name].append(sign * (comparison.margin or 0.0))
    # fsum: the same sum in whatever order the comparisons come.
    return {name: (net[name], math.fsum(margins[name])) for name in sorted(net)}


def _all(eligible: Sequence[Comparison], _: Choice) -> list[Comparison]:
    return list(eligible)


def _best_worst(eligible: Sequence[Comparison], choice: Choice) -> list[Comparison]:
    """The comparison between the responses that are furthest apart in wins minus losses."""

    def distance(c: Comparison) -> int:
        winner, loser = decided_ids(c)
        return choice.standing[winner][0] - choice.standing[loser][0]

    best = min(eligible, key=lambda c: (-distance(c), -(c.margin or 0.0), choice.lot("best_worst", c.a, c.b)))
    return [best] if distance(best) > 0 else []


def _won_by_best(eligible: Sequence[Comparison], choice: Choice) -> list[Comparison]:
    """What the response that stands best has won; nothing where nobody wins more than it loses (a circle)."""
    winners = {decided_ids(c)[0] for c in eligible}
    # Equal standing is decided by lot, so that names have no say.
    best = max(winners, key=lambda name: (*choice.standing[name], choice.lot("best", name)))
    if choice.standing[best][0] <= 0:
        return []
    return [c for c in eligible if decided_ids(c)[0] == best]


def _best_random(eligible: Sequence[Comparison], choice: Choice) -> list[Comparison]:
    """The best response against one, by lot, of those that it won against."""
    return sorted(_won_by_best(eligible, choice), key=lambda c: choice.lot("random", c.a, c.b))[:1]


def _nearest_below(eligible: Sequence[Comparison], choice: Choice) -> list[Comparison]:
    """The best response against the closest of those that it beat by at least the gap."""
    far = [c for c in _won_by_best(eligible, choice) if (c.margin or 0.0) >= choice.gap]
    return sorted(far, key=lambda c: (c.margin or 0.0, choice.lot("nearest_below", c.a, c.b)))[:1]


RULES: dict[str, Callable[[Sequence[Comparison], Choice], list[Comparison]]] = {
    "all": _all,
    "best_worst": _best_worst,
    "best_random": _best_random,
    "nearest_below": _nearest_below,
}


def pick(eligible: Sequence[Comparison], rule: str, choice: Choice, limit: int | None = None) -> list[Comparison]:
    """The decided comparisons that become pairs, in an order that depends on the responses' texts only.

    Args:
        eligible: decided comparisons of one prompt.
        limit: keep at most so many of what the rule takes, by lot.
    """
    kept = RULES[rule](eligible, choice) if eligible else []
    return sorted(by_lot(kept, choice, limit), key=lambda c: choice.lot("order", c.a, c.b))


def by_lot(comparisons: Sequence[Comparison], choice: Choice, limit: int | None) -> list[Comparison]:
    """At most `limit` of them, chosen by lot."""
    if limit is None:
        return list(comparisons)
    return sorted(comparisons, key=lambda c: choice.lot("limit", c.a, c.b))[:limit]


def select_pairs(
    comparisons: Sequence[Comparison],
    rule: str,
    texts: Mapping[str, str],
    *,
    limit: int | None = None,
    min_margin: float = 0.0,
    seed: int = 0,
    prompt_id: str = "",
    gap: float = 0.0,
) -> list[Pair]:
    """The preferences of one prompt; neither the order of the comparisons nor the responses' ids have a say.

    Args:
        rule: one of `RULES`, or `none`.
        texts: response id -> text.
        limit: keep at most so many, chosen by lot.
        min_margin: leave out decisions closer than this.
        gap: for `nearest_below`, the least distance.

    Raises:
        ValueError: for an unknown rule.
    """
    if rule == "none":
        return []
    if rule not in RULES:
        raise ValueError(f"unknown pair rule {rule!r}: choose one of none, {', '.join(RULES)}")
    decided = [c for c in comparisons if c.winner is not None and (c.margin or 0.0) >= min_margin]
    choice = Choice(standings(decided), texts, gap, seed, prompt_id)
    return [pair_of(c) for c in pick(decided, rule, choice, limit)]
