"""When a run has gone wrong: truth falls while reward rises, nothing can be judged any more, the KL is too high.

Two looks at truth and reward. Over training steps: the last `window` steps against the best earlier stretch of as many,
by Welch's t of the steps' means; prompts differ between the two, so both must differ by `z` standard errors and the
truth by `drop`. A reward that is relative to the group (its mean is 1/2 whatever happens) can't rise: for it the fall
of the truth decides alone. Over evaluations: the same held-out tasks under the first or best evaluation and the last
one, by paired differences, which sees smaller changes. Pure functions; docs/grpo.md says how many false alarms they
give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

OVER_OPTIMISED = "truth_fell_while_reward_rose"
TRUTH_FELL = "truth_fell_under_a_relative_reward"
TOO_FAR = "too_far_from_the_start"


class StepGuard(BaseModel):
    """When the truth has fallen while the reward has risen, and whether that ends the run."""

    model_config = ConfigDict(extra="forbid")

    window: int = Field(20, ge=4, description="steps that are compared with as many earlier ones")
    drop: float = Field(0.05, gt=0, description="fall of the truth that counts")
    rise: float = Field(0.0, ge=0, description="rise of the reward that counts")
    z: float = Field(3.0, gt=0, description="standard errors by which truth must fall and reward rise")
    stop: bool = Field(True, description="stop the run; else only say so")


class GuardSettings(StepGuard):
    """When a run is looked at, and when it is stopped."""

    silent_steps: int = Field(5, gt=0, description="steps without a single reward, after which the run stops")
    most_kl: float | None = Field(None, gt=0, description="KL to the start, in nats per token, above which it stops")
    kl: bool = Field(True, description="measure KL to the start at every evaluation (loads the start beside the model)")
    probes: list[str] = Field(
        default_factory=lambda: [
            "keyword_stuffing", "rubric_copied", "always_tie", "always_a", "empty_trace", "verbosity", "forged_verdict",
            "forged_end"
        ],
        description="texts that must not pay, at every evaluation: names of probes, or package.module:function",
    )  # fmt: skip


def _difference(late: np.ndarray, early: np.ndarray) -> tuple[float, float]:
    """Mean late - mean early, and its standard error (Welch)."""
    error = math.sqrt(late.var(ddof=1) / len(late) + early.var(ddof=1) / len(early))
    return float(late.mean() - early.mean()), error


def _rose(change: tuple[float, float], guard: StepGuard) -> bool:
    """By more than chance and than `rise`; no spread at all counts as certain."""
    return change[0] > max(guard.z * change[1], guard.rise)


def _fell(change: tuple[float, float], guard: StepGuard) -> bool:
    return change[0] < -guard.z * change[1] and change[0] <= -guard.drop


def over_steps(steps: Sequence[Mapping[str, Any]], guard: StepGuard, relative: bool = False) -> dict[str, Any] | None:
    """Whether the last `window` steps are worse in truth and better in reward than the best earlier ones.

    Args:
        steps: mean `reward` and `truth` of every `step` so far, in order; None where nothing was measured.
        relative: whether the reward compares completions of one prompt with each other.

    Returns:
        The reason with its numbers, or None.
    """
    known = [(s["reward"], s["truth"], s["step"]) for s in steps if s["reward"] is not None and s["truth"] is not None]
    size = guard.window
    if len(known) < 2 * size:
        return None
    rewards, truths = (np.array([row[k] for row in known], dtype=float) for k in (0, 1))
    # Stretches that don't overlap: the best of few is less by chance than the best of all.
    starts = range(0, len(known) - 2 * size + 1, size)
    best = max(starts, key=lambda i: float(truths[i : i + size].mean()))
    early, late = slice(best, best + size), slice(len(known) - size, len(known))
    rise = _difference(rewards[late], rewards[early])
    fall = _difference(truths[late], truths[early])
    if not _fell(fall, guard) or not (relative or _rose(rise, guard)):
        return None
    against = [int(known[best][2]), int(known[best + size - 1][2])]
    found = _reason("steps", int(known[-1][2]), against, rise[0], fall[0])
    return found | {"reason": TRUTH_FELL} if relative else found


def over_evaluations(evaluations: Sequence[Mapping[str, Any]], settings: GuardSettings) -> dict[str, Any] | None:
    """The same for held-out tasks: the last evaluation against the earlier one with the best truth, paired by task.

    An evaluation is `{"step", "tasks": {task: [reward, truth]}}`; tasks without both are left out.
    """
    if len(evaluations) < 2:
        return None
    last, earlier = evaluations[-1], evaluations[:-1]
    tables = [_known(e["tasks"]) for e in (*earlier, last)]
    shared = sorted(set.intersection(*(set(t) for t in tables)))
    if len(shared) < 2:
        return None
    values = [np.array([t[name] for name in shared], dtype=float) for t in tables]
    best = max(range(len(earlier)), key=lambda i: float(values[i][:, 1].mean()))
    change = values[-1] - values[best]
    means, errors = change.mean(axis=0), change.std(axis=0, ddof=1) / math.sqrt(len(shared))
    rise, fall = (float(means[0]), float(errors[0])), (float(means[1]), float(errors[1]))
    if not (_rose(rise, settings) and _fell(fall, settings)):
        return None
    return _reason("held-out tasks", int(last["step"]), int(earlier[best]["step"]), rise[0], fall[0])


def _known(tasks: Mapping[str, Sequence[float | None]]) -> dict[str, Sequence[float | None]]:
    return {name: row for name, row in tasks.items() if row[0] is not None and row[1] is not None}


def _reason(over: str, step: int, against: Any, reward: float, truth: float) -> dict[str, Any]:
    return {
        "reason": OVER_OPTIMISED, "over": over, "step": step, "against": against, "reward_change": reward,
        "truth_change": truth,
    }  # fmt: skip


def over_kl(evaluations: Sequence[Mapping[str, Any]], settings: GuardSettings) -> dict[str, Any] | None:
    """Whether the last evaluation is farther from the start than allowed."""
    kl = evaluations[-1].get("kl") if evaluations else None
    if settings.most_kl is None or kl is None or kl <= settings.most_kl:
        return None
    return {"reason": TOO_FAR, "step": int(evaluations[-1]["step"]), "kl": kl}


def silent(steps: Sequence[Mapping[str, Any]], settings: GuardSettings) -> bool:
    """Whether the last `silent_steps` generations have not one reward."""
    last = steps[-settings.silent_steps :]
    return len(last) == settings.silent_steps and all(s["reward"] is None for s in last)
