"""When a run has gone wrong: truth falls while reward rises, nothing can be judged any more, the KL is too high.

Two looks at truth and reward. Over training steps: the last `window` steps against the best earlier stretch of as many,
by Welch's t of the steps' means; prompts differ between the two, so both must differ by `z` standard errors and the
truth by `drop`. Over evaluations: the same held-out tasks under the first or best evaluation and the last one, by
paired differences, which sees smaller changes. Pure functions; docs/grpo.md says how many false alarms they give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grpo_experiments.config import GuardSettings

OVER_OPTIMISED = "truth_fell_while_reward_rose"
TOO_FAR = "too_far_from_the_start"


def _difference(late: np.ndarray, early: np.ndarray) -> tuple[float, float]:
    """Mean late - mean early, and its standard error (Welch)."""
    error = math.sqrt(late.var(ddof=1) / len(late) + early.var(ddof=1) / len(early))
    return float(late.mean() - early.mean()), error


def _moved(rise: tuple[float, float], fall: tuple[float, float], settings: GuardSettings) -> bool:
    """Whether the reward rose and the truth fell, each by more than chance; no spread at all counts as certain."""
    (up, up_error), (down, down_error) = rise, fall
    return up > settings.z * up_error and up > 0 and down < -settings.z * down_error and down <= -settings.drop


def over_steps(steps: Sequence[Mapping[str, Any]], settings: GuardSettings) -> dict[str, Any] | None:
    """Whether the last `window` steps are worse in truth and better in reward than the best earlier ones.

    Returns:
        The reason with its numbers, or None.
    """
    known = [(s["reward"], s["truth"], s["step"]) for s in steps if s["reward"] is not None and s["truth"] is not None]
    size = settings.window
    if len(known) < 2 * size:
        return None
    rewards, truths = (np.array([row[k] for row in known], dtype=float) for k in (0, 1))
    # Stretches that don't overlap: the best of few is less by chance than the best of all.
    starts = range(0, len(known) - 2 * size + 1, size)
    best = max(starts, key=lambda i: float(truths[i : i + size].mean()))
    early, late = slice(best, best + size), slice(len(known) - size, len(known))
    rise = _difference(rewards[late], rewards[early])
    fall = _difference(truths[late], truths[early])
    if not _moved(rise, fall, settings):
        return None
    return _reason("steps", int(known[-1][2]), [int(known[best][2]), int(known[best + size - 1][2])], rise[0], fall[0])


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
    if not _moved(rise, fall, settings):
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
