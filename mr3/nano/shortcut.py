"""The hidden default order: what a judge that ignores the rubric decides by, and where it agrees with the rubric.

Real judge data reward such shortcuts, because most rubrics want the usual things. `decide` is the gold verdict from
findings alone, for any order of criteria; `mr3.nano.verdicts.gold` writes the trace that leads to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from mr3.nano.checks import Finding
from mr3.records import Mode

HIDDEN_ORDER = ("correct", "language", "polite", "brief")
NO_DECIDER = -1


def decide(mode: Mode, names: Sequence[str], found: Sequence[dict[str, Finding]]) -> tuple[str, int]:
    """The right score under criteria in order, and the index of the criterion that decides.

    Args:
        found: findings of each response (two for pairwise, else one).

    Returns:
        The label; the index of the first criterion on which the responses differ (pairwise) or that is not met
        (binary). `NO_DECIDER` for a tie, for `true`, and for pointwise, where every criterion counts.
    """
    if mode == "pairwise":
        for i, name in enumerate(names):
            a, b = found[0][name].met, found[1][name].met
            if a != b:
                return f"Assistant {'A' if a else 'B'}", i
        return "Tie", NO_DECIDER
    unmet = [i for i, name in enumerate(names) if not found[0][name].met]
    if mode == "binary":
        return ("false", unmet[0]) if unmet else ("true", NO_DECIDER)
    assert mode == "pointwise", f"the nano world has no tasks of mode {mode}"
    return str(5 - len(unmet)), NO_DECIDER


def names_read(mode: Mode, names: Sequence[str], found: Sequence[dict[str, Finding]]) -> tuple[str, ...]:
    """The criteria that a perfect judge looks at: up to the one that decides, or all."""
    _, index = decide(mode, names, found)
    return tuple(names) if index == NO_DECIDER else tuple(names[: index + 1])


def hidden_verdict(mode: Mode, found: Sequence[dict[str, Finding]]) -> str:
    """The label under the hidden default order: what the shortcut says."""
    return decide(mode, HIDDEN_ORDER, found)[0]
