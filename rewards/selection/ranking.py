"""Ranked lists: the order of a prompt's responses, only where its decisions leave exactly one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate, pairwise

from rewards.selection.votes import Decision


@dataclass(frozen=True)
class Ranking:
    """Response ids, best first.

    `scores` is the distance of each above the last: margins of neighbours, added up. `labels` are the runs that all
    neighbours' decisions rest on.
    """

    ids: tuple[str, ...]
    scores: tuple[float, ...]
    labels: tuple[str, ...]


def rank(decided: Sequence[Decision], passed: Sequence[Decision]) -> Ranking | str:
    """The one order of the responses, or the reason why there is none: `no_pair`, `circle`, `open`.

    An order is proper when no decision contradicts it and each response was directly judged better than the next, in
    a pair that passed the filters: then no other order agrees with the decisions.

    Args:
        decided: all decisions of the prompt, also those that filters dropped.
        passed: those that the filters left; the responses in them are ranked.
    """
    names = {name for pair in passed for name in (pair.winner, pair.loser)}
    if not names:
        return "no_pair"
    losers: dict[str, set[str]] = {name: set() for name in sorted(names)}
    for pair in decided:
        if pair.winner in names and pair.loser in names:
            losers[pair.winner].add(pair.loser)
    try:
        order = list(TopologicalSorter(losers).static_order())[::-1]
    except CycleError:
        return "circle"
    direct = {(pair.winner, pair.loser): pair for pair in passed}
    steps = [direct.get(neighbours) for neighbours in pairwise(order)]
    if any(step is None for step in steps):
        return "open"
    chain = [step for step in steps if step is not None]
    rising = accumulate((step.margin for step in reversed(chain)), lambda a, b: math.fsum((a, b)), initial=0.0)
    labels = sorted({label for step in chain for label in step.labels})
    return Ranking(tuple(order), tuple(rising)[::-1], tuple(labels))
