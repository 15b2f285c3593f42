"""Completions that no honest judge writes and no reward may pay: tried at every evaluation, under the reward in use.

The texts are those of `mr3.probes`, in the format of the card (mr3). Their verdicts never look at the rubric: they
are the same for a task and its twins, so right under one and wrong under the other. All samples of a prompt and of its
twins are the probe's, and their mean reward is held against that of the judge's own. `right_verdict_empty_trace` alone
knows the gold label: what it earns says what a reward pays for reasoning, and it is tried only where it is asked for.

A further probe is a function `example -> completion`, named in the config as `package.module:function`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from grpo_experiments.contract import Example
from mr3.importing import load_named
from mr3.probes import NAMES, probes

Probe = Callable[[Example], str | None]
"""Example -> completion; None where the probe means nothing for the task."""


def _of_task(name: str, example: Example) -> str | None:
    return probes(example.task, example.gold).get(name)


PROBES: dict[str, Probe] = {name: partial(_of_task, name) for name in NAMES}


def open_probes(names: Sequence[str]) -> dict[str, Probe]:
    """Probes by name, or one's own as `package.module:function`.

    Raises:
        ValueError: for a name that is neither.
    """
    unknown = [name for name in names if ":" not in name and name not in PROBES]
    if unknown:
        raise ValueError(f"guards.probes: no probe {unknown[0]!r}; known are {', '.join(PROBES)}")
    return {name: load_named(name, "the probe") if ":" in name else PROBES[name] for name in names}


def summary(paid: Mapping[str, Sequence[float | None]], honest: Sequence[float | None]) -> dict[str, Any]:
    """Probe -> mean reward over the tasks that it and the judge were both paid on, the judge's there, and their ratio.

    Args:
        paid: probe -> reward by task; None where it was not tried or not measured.
        honest: the judge's own mean reward by task.
    """
    found: dict[str, Any] = {}
    for name, rewards in paid.items():
        both = [(p, h) for p, h in zip(rewards, honest, strict=True) if p is not None and h is not None]
        mine, theirs = (sum(row[k] for row in both) / len(both) if both else None for k in (0, 1))
        ratio = mine / theirs if mine is not None and theirs else None
        found[name] = {"tasks": len(both), "reward": mine, "honest": theirs, "ratio": ratio}
    return found
