"""Which rubrics suit which mode: labels whose meaning is certain, by their name or by their place.

Every task and every label config asks here, so that no preference can be turned round by a scale that was read the
wrong way.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mr3.judging.scale import BINARY_LABELS, mirrored
from mr3.rubrics.record import Rubric

if TYPE_CHECKING:  # a task asks here whether its rubric suits its mode
    from mr3.records import Mode

_FEWEST_LEVELS = 2
_SIDES = ({"Assistant A", "Assistant B"}, {"Response 1", "Response 2"})
_UNDECIDED = {"Tie", "Both Bad"}


def _numbers(labels: Iterable[str]) -> list[int] | None:
    found = list(labels)
    return [int(t) for t in found] if all(t.isascii() and t.isdigit() for t in found) else None


def _ascending(labels: tuple[str, ...], mode: Mode, worst_first: bool = False) -> list[str]:
    numbers = _numbers(labels)
    if numbers is None:
        if any(_numbers([t]) is not None for t in labels):
            return [f"levels {', '.join(labels)} mix numbers and words: write all of them as numbers, or none"]
        if worst_first:
            return []
        return [
            f"levels {', '.join(labels)} are words, which have no order of their own: write them from worst to best "
            "and add `worst_first: true` to the rubric, or use the numbers 1, 2, ... as labels"
        ]
    if numbers != sorted(numbers):
        return [f"levels {', '.join(labels)} are not in order: {mode} levels go from worst to best, 1 first"]
    gaps = [a for a, b in itertools.pairwise(numbers) if b != a + 1]
    return [f"levels {', '.join(labels)} leave out {gaps[0] + 1}: describe every step of the scale"] if gaps else []


def _pairwise(labels: tuple[str, ...]) -> list[str]:
    if _numbers(labels) is not None:
        return _ascending(labels, "pairwise")
    try:
        mirrored(labels)
    except ValueError as error:
        return [f"levels: {error}"]
    if any(sides <= set(labels) <= sides | _UNDECIDED for sides in _SIDES):
        return []  # in any order: sides are told by their names
    return [f"levels {', '.join(labels)}: name the two sides, and beside them only Tie and Both Bad"]


def have_no_order(labels: Iterable[str], mode: Mode) -> bool:
    """Whether the labels alone don't say which is better, so that a rubric of them must say `worst_first`."""
    return mode == "pointwise" and _numbers(labels) is None


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
    return _pairwise(labels) if mode == "pairwise" else _ascending(labels, mode, rubric.worst_first)


def check_mode(rubric: Rubric, mode: Mode) -> None:
    """Raises: ValueError: when the rubric can't be used in the mode, with every reason and what to do."""
    problems = mode_problems(rubric, mode)
    if problems:
        raise ValueError(f"rubric {rubric.name!r} can't be used for {mode} tasks: {'; '.join(problems)}")
