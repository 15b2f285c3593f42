"""Which rubrics suit which mode: legal labels, in the order that the library counts on (worst to best)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from mr3.judging.scale import mirrored
from mr3.records import BINARY_LABELS, Mode
from mr3.rubrics.record import Rubric

_FEWEST_LEVELS = 2
_PAIR_LABELS = (
    ("Assistant A", "Assistant B"),
    ("Assistant A", "Assistant B", "Tie"),
    ("Assistant A", "Assistant B", "Tie", "Both Bad"),
    ("Response 1", "Response 2"),
    ("Response 1", "Response 2", "Tie"),
)


def _numbers(labels: Iterable[str]) -> list[int] | None:
    found = list(labels)
    return [int(t) for t in found] if all(t.isascii() and t.isdigit() for t in found) else None


def _ascending(labels: tuple[str, ...], mode: Mode) -> list[str]:
    numbers = _numbers(labels)
    if numbers is None:
        some = [t for t in labels if _numbers([t]) is not None]
        mixed = f"levels {', '.join(labels)} mix numbers and words"
        return [f"{mixed}: write all of them as numbers, or none"] if some else []
    if numbers != sorted(numbers):
        return [f"levels {', '.join(labels)} are not in order: {mode} levels go from worst to best, 1 first"]
    gaps = [a for a, b in itertools.pairwise(numbers) if b != a + 1]
    return [f"levels {', '.join(labels)} leave out {gaps[0] + 1}: describe every step of the scale"] if gaps else []


def _pairwise(labels: tuple[str, ...]) -> list[str]:
    if _numbers(labels) is not None:
        return _ascending(labels, "pairwise")
    if labels in _PAIR_LABELS:
        return []
    try:
        mirrored(labels)
    except ValueError as error:
        return [f"levels: {error}"]
    return [f"levels {', '.join(labels)}: name the sides in order, A first, then Tie and Both Bad where there are any"]


def mode_problems(rubric: Rubric, mode: Mode) -> list[str]:
    """Why a rubric can't be used in a mode; an empty list where it can."""
    labels = tuple(rubric.levels)
    if mode == "choice":
        return [] if rubric.absent else ["a choice has no rubric section: it takes `absent: true`"]
    if rubric.absent:
        return [f"only a choice goes without a rubric, not mode {mode}"]
    if not labels:
        return []
    if mode == "listwise":
        return [f"levels {', '.join(labels)}: a ranking is scored by its order, so the rubric names criteria only"]
    if len(labels) < _FEWEST_LEVELS:
        return [f"levels: a scale with the single label {labels[0]!r} decides nothing"]
    if mode == "binary":
        wanted = " and ".join(BINARY_LABELS)
        return [] if set(labels) == set(BINARY_LABELS) else [f"levels {', '.join(labels)}: binary levels are {wanted}"]
    return _pairwise(labels) if mode == "pairwise" else _ascending(labels, mode)
