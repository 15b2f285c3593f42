"""When a run has gone wrong, by its own records: the truth falls while the reward does not. Pure functions.

Compared are means over `window` steps: the last ones against those among the earlier, non-overlapping windows in which
the truth was best. Prompts differ between the two, so a difference counts when it is beyond `z` standard errors of the
steps' means (Welch). A reward that is relative to the group (its mean is 1/2 whatever happens) can't rise: for it the
fall of the truth decides alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grpo_experiments.policy.config import Guards

OVER_OPTIMISED = "truth_falls_while_reward_rises"
TRUTH_FALLS = "truth_falls_under_a_relative_reward"


@dataclass(frozen=True)
class Point:
    """One step: means over its completions; None where nothing was measured."""

    step: int
    reward: float | None
    truth: float | None


def _change(late: Sequence[float], early: Sequence[float]) -> tuple[float, float]:
    """Mean late - mean early, and its standard error."""

    def moments(values: Sequence[float]) -> tuple[float, float]:
        mean = sum(values) / len(values)
        return mean, sum((v - mean) ** 2 for v in values) / (len(values) - 1)

    (a, va), (b, vb) = moments(late), moments(early)
    return a - b, math.sqrt(va / len(late) + vb / len(early))


def gone_wrong(points: Sequence[Point], guards: Guards, relative: bool) -> dict[str, Any] | None:
    """The reason to stop, with its numbers, or None.

    Args:
        points: of all steps so far, in order.
        relative: whether the reward compares completions of one prompt with each other.
    """
    known = [p for p in points if p.truth is not None and p.reward is not None]
    size = guards.window
    if len(known) < 2 * size:
        return None
    truths, rewards = [p.truth or 0.0 for p in known], [p.reward or 0.0 for p in known]
    begins = range(0, len(known) - 2 * size + 1, size)
    best = max(begins, key=lambda i: sum(truths[i : i + size]))
    early, late = slice(best, best + size), slice(len(known) - size, len(known))
    fall, fall_error = _change(truths[late], truths[early])
    rise, rise_error = _change(rewards[late], rewards[early])
    if fall > -guards.fall or fall >= -guards.z * fall_error:
        return None
    if not relative and (rise <= guards.rise or rise <= guards.z * rise_error):
        return None
    return {
        "reason": TRUTH_FALLS if relative else OVER_OPTIMISED,
        "step": known[-1].step,
        "against_steps": [known[best].step, known[best + size - 1].step],
        "truth_change": fall,
        "reward_change": rise,
    }
