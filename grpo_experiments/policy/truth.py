"""Ground truth beside the reward: what a checker says of completions, as one number and as an order.

    standing(r) = sum over the rubric's criteria i = 0 .. n-1 of met_i 2^(n-1-i), divided by 2^n - 1

It is 1 where all criteria are met, 0 where none is, and orders responses as the rubric does: the first criterion on
which two differ decides (`mr3.ground_truth.compare`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations

from mr3.ground_truth import Checker, compare
from rewards.grouping import Pair

Checks = dict[str, bool]


def standing(criteria: Sequence[str], checks: Mapping[str, bool]) -> float:
    """How good a response is by the rubric's order, from 0 to 1.

    Raises:
        ValueError: when the checker knows nothing of a criterion.
    """
    missing = [name for name in criteria if name not in checks]
    if missing:
        raise ValueError(
            f"the checker does not know the criterion {missing[0]!r} (it knows: {', '.join(sorted(checks))})"
        )
    last = len(criteria) - 1
    met = sum(1 << (last - i) for i, name in enumerate(criteria) if checks[name])
    return met / ((1 << len(criteria)) - 1)


def agreement(
    criteria: Sequence[str],
    checks: Mapping[int, Checks],
    rewards: Sequence[float | None],
    groups: Sequence[range],
    compared: Sequence[tuple[Pair, float | None]],
) -> tuple[int, int]:
    """On how many pairs of a prompt's completions the reward says what the checker says, and of how many.

    Only pairs on which both decide. Where the judge compared pairs, those and its word on them; else all pairs of a
    group and the difference of their rewards.

    Args:
        checks: place -> what the checker says, of completions with text.
    """
    if compared:
        said = [(pair, p - 0.5) for pair, p in compared if p is not None]
    else:
        said = [
            ((a, b), rewards[a] - rewards[b])  # type: ignore[operator]
            for group in groups
            for a, b in combinations(group, 2)
            if rewards[a] is not None and rewards[b] is not None
        ]
    agreed = decided = 0
    for (a, b), word in said:
        if a not in checks or b not in checks or not word:
            continue
        truth = compare(criteria, checks[a], checks[b])
        if truth:
            decided += 1
            agreed += (word > 0) == (truth > 0)
    return agreed, decided


def checked(checker: Checker, metas: Sequence[str], texts: Mapping[int, str]) -> dict[int, Checks]:
    """Place -> what the checker says of it."""
    return {i: checker(json.loads(metas[i]), text) for i, text in texts.items()}
