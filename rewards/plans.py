"""Which responses of a prompt are judged, and in which order they are shown.

A plan takes the number of responses and returns index pairs; which response stands at which index, and
which of a pair is shown first, is shuffled by a hash of seed and prompt, so that the order of the
policies in the pool can't leak into the labels. Add a plan by adding a function to `PLANS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from mr3.records import Candidate, stable_hash


def all_pairs(n: int) -> list[tuple[int, int]]:
    """Every pair once: n(n-1)/2 comparisons."""
    return list(combinations(range(n), 2))


def chain(n: int) -> list[tuple[int, int]]:
    """Neighbours in a row: n-1 comparisons, each response in one or two."""
    return [(i, i + 1) for i in range(n - 1)]


def circular(n: int) -> list[tuple[int, int]]:
    """Neighbours in a ring: n comparisons, each response in exactly two (one comparison for n = 2)."""
    return chain(n) + ([(n - 1, 0)] if n > 2 else [])


PLANS: dict[str, Callable[[int], list[tuple[int, int]]]] = {
    "all_pairs": all_pairs,
    "chain": chain,
    "circular": circular,
}


def shuffled(values: Sequence[Any], *key: Any) -> list[Any]:
    """A permutation that is the same in every process: sorted by a hash of the key and the position."""
    order = sorted(range(len(values)), key=lambda i: stable_hash(*key, i, length=16))
    return [values[i] for i in order]


def plan_pairs(
    plan: str, ids: Sequence[str], seed: int, prompt_id: str, cap: int | None = None
) -> list[tuple[str, str]]:
    """The comparisons of one prompt as pairs of response ids, first shown first; at most `cap` of them.

    Raises:
        ValueError: for an unknown plan.
    """
    if plan not in PLANS:
        raise ValueError(f"unknown plan {plan!r}: choose one of {', '.join(PLANS)}")
    seats = shuffled(sorted(ids), "seats", seed, prompt_id)
    pairs = [(seats[i], seats[j]) for i, j in PLANS[plan](len(seats))]
    if cap is not None:
        pairs = shuffled(pairs, "cap", seed, prompt_id)[:cap]
    return [tuple(shuffled(pair, "orientation", seed, prompt_id, *sorted(pair))) for pair in pairs]


def distinct(responses: Sequence[Candidate]) -> dict[str, str]:
    """Response id -> id of the first response with the same text (blanks at the ends ignored).

    Identical texts are judged once; a pair of them could only be chosen == rejected.
    """
    first: dict[str, str] = {}
    return {r.id: first.setdefault(r.text.strip(), r.id) for r in responses}
