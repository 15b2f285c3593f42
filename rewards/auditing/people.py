"""Several people's labels of the same items: their majority, and how well they agree with each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from mr3.stats import wilson
from mr3.uncertainty import kappa_with_interval
from rewards.records import CONSENSUS

Labels = Mapping[str, str | None]
"""Annotator -> label of one item; None where it was left blank."""


def majority(labels: Labels) -> str | None:
    """The label that more than half of an item's annotators gave, if there is one."""
    given = [label for label in labels.values() if label is not None]
    if not given:
        return None
    label, count = Counter(given).most_common(1)[0]
    return label if 2 * count > len(given) else None


def reference(labels: Labels) -> str | None:
    """What an item counts as: the consensus or the annotator named `first` where there is one, else the majority."""
    for name in (CONSENSUS, "first"):
        if name in labels:
            return labels[name]
    return majority(labels)


def between(items: Iterable[Labels]) -> dict[str, Any] | None:
    """Agreement of people with each other, the ceiling for a judge: every two annotators of an item count once.

    Returns:
        `accuracy` and `kappa` over all such pairs, and `by_pair` for each two people; None where no item has two.
    """
    said: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for labels in items:
        given = sorted((name, label) for name, label in labels.items() if name != CONSENSUS and label is not None)
        for (one, first), (other, second) in combinations(given, 2):
            said.setdefault((one, other), []).append((first, second))
    if not said:
        return None
    together = [pair for pairs in said.values() for pair in pairs]
    by_pair = {f"{one} and {other}": _agree(pairs) for (one, other), pairs in sorted(said.items())}
    return {**_agree(together), "by_pair": by_pair}


def _agree(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "accuracy": wilson(sum(a == b for a, b in pairs), len(pairs)),
        "kappa": kappa_with_interval([a for a, _ in pairs], [b for _, b in pairs]),
    }
