"""Pair selection: from the combined comparisons of one prompt to preferences.

Every pair rests on a direct, decided comparison: a tie or a failed verdict makes no pair, whatever the
rule. Add a rule by adding a function to `RULES`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from mr3.records import stable_hash
from rewards.records import Comparison, Pair


def _pair(comparison: Comparison) -> Pair:
    winner, loser = comparison.winner, comparison.loser
    assert winner is not None and loser is not None and winner != loser, "only decided comparisons make pairs"
    p_a = comparison.p_a
    return Pair(
        chosen=winner,
        rejected=loser,
        p_better=p_a if p_a is None or comparison.result == "a" else 1.0 - p_a,
        margin=comparison.margin,
        verdict_ids=comparison.verdict_ids,
    )


def _ids(comparison: Comparison) -> list[str]:
    return sorted((comparison.a, comparison.b))


def _all(decided: Sequence[Comparison]) -> list[Comparison]:
    return list(decided)


def _best_worst(decided: Sequence[Comparison]) -> list[Comparison]:
    """The decided comparison between the responses that are furthest apart in wins minus losses."""
    net: Counter[str] = Counter()
    for comparison in decided:
        net[comparison.winner or ""] += 1
        net[comparison.loser or ""] -= 1

    def rank(c: Comparison) -> tuple[float, float, *tuple[str, ...]]:
        return (net[c.loser or ""] - net[c.winner or ""], -(c.margin or 0.0), *_ids(c))

    best = min(decided, key=rank)
    return [best] if net[best.winner or ""] > net[best.loser or ""] else []


RULES: dict[str, Callable[[Sequence[Comparison]], list[Comparison]]] = {"all": _all, "best_worst": _best_worst}


def select_pairs(
    comparisons: Sequence[Comparison],
    rule: str,
    *,
    limit: int | None = None,
    min_margin: float = 0.0,
    seed: int = 0,
    prompt_id: str = "",
) -> list[Pair]:
    """The preferences of one prompt, in an order that depends on ids only.

    Args:
        rule: `all` (each decided comparison), `best_worst` (one pair, see above) or `none`.
        limit: keep at most so many, chosen by a hash of seed and prompt.
        min_margin: leave out decisions closer than this.

    Raises:
        ValueError: for an unknown rule.
    """
    if rule == "none":
        return []
    if rule not in RULES:
        raise ValueError(f"unknown pair rule {rule!r}: choose one of none, {', '.join(RULES)}")
    decided = [c for c in comparisons if c.winner is not None and (c.margin or 0.0) >= min_margin]
    if not decided:
        return []
    kept = RULES[rule](decided)
    if limit is not None:
        kept = sorted(kept, key=lambda c: stable_hash("limit", seed, prompt_id, *_ids(c), length=16))[:limit]
    return [_pair(c) for c in sorted(kept, key=_ids)]
