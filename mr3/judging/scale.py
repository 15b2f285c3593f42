"""What labels mean: their mirror image when A and B change places, and the number that a distribution comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the records ask here what labels mean
    from mr3.records import Mode

BINARY_LABELS = ("true", "false")
_PAIRS = (("Assistant A", "Assistant B"), ("Response 1", "Response 2"))
_MIRROR = {**dict(_PAIRS), **{b: a for a, b in _PAIRS}}
VALUED: frozenset[Mode] = frozenset({"pointwise", "pairwise", "binary"})
"""Modes whose labels are numbers of some kind; an option or an order of responses has no mean."""
_FIRST_WINS = {"Assistant A": 1.0, "Assistant B": 0.0, "Response 1": 1.0, "Response 2": 0.0}


def _numbers(labels: Sequence[str]) -> list[float] | None:
    """The labels as numbers, or None if one of them is a word."""
    try:
        return [float(label) for label in labels]
    except ValueError:
        return None


def mirrored(labels: Sequence[str]) -> dict[str, str]:
    """Label as said with A and B exchanged -> label in the true order.

    A scale of numbers (HelpSteer3's 1-7) is turned round; labels that favour nobody stay.

    Raises:
        ValueError: when the labels name neither side, so that an exchange can't be undone.
    """
    if _numbers(labels) is not None:
        return dict(zip(labels, reversed(labels), strict=True))
    mirror = {label: _MIRROR.get(label, label) for label in labels}
    if not set(mirror.values()) == set(labels) or all(k == v for k, v in mirror.items()):
        raise ValueError(
            f"pairwise labels {', '.join(labels)} can't be judged in both orders: name the sides "
            "'Assistant A' and 'Assistant B', or use a scale of numbers"
        )
    return mirror


def label_values(labels: Sequence[str], mode: Mode) -> Mapping[str, float]:
    """The number behind each label: P(A better) for pairwise, P(true) for binary, the score for pointwise.

    A pairwise scale of numbers counts its lower half for A, its middle as a half, as in HelpSteer3; pointwise
    levels that are words count from 1, worst first (their rubric says so: `mr3.rubrics.checks`).
    """
    return _label_values(tuple(labels), mode)


@lru_cache(maxsize=1024)
def _label_values(labels: tuple[str, ...], mode: Mode) -> Mapping[str, float]:
    return MappingProxyType(_values(labels, mode))


def _values(labels: tuple[str, ...], mode: Mode) -> dict[str, float]:
    numbers = _numbers(labels)
    if mode == "pairwise" and numbers is not None:
        middle = (min(numbers) + max(numbers)) / 2
        return {t: 1.0 if x < middle else 0.0 if x > middle else 0.5 for t, x in zip(labels, numbers, strict=True)}
    if mode == "pairwise":
        return {label: _FIRST_WINS.get(label, 0.5) for label in labels}
    if mode == "binary":
        yes = "true" if "true" in labels else labels[0]  # a rubric may list false first
        return {label: float(label == yes) for label in labels}
    return dict(zip(labels, numbers or [float(i) for i in range(1, len(labels) + 1)], strict=True))


def expected_score(distribution: Mapping[str, float], labels: Sequence[str], mode: Mode) -> float:
    """The mean of the labels' values under a distribution that sums to 1."""
    values = label_values(labels, mode)
    return sum(values[label] * p for label, p in distribution.items())
