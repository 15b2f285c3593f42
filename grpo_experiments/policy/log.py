"""What a run of a policy leaves beside TRL's records: steps.jsonl, samples.jsonl, and what a resumed run needs of them.

A record is made by each process for its own completions (`Record`), and all of them are added up to one line of
steps.jsonl. Both files are bounded; a checkpoint holds the state of the log, so that a resumed run's files are those of
a run that was never cut off, but for the seconds.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from grpo_experiments.policy.config import Log
from mr3.artifacts import read_json, write_json

STATE = "policy_log.json"
STEPS, SAMPLES = "steps.jsonl", "samples.jsonl"
Sample = dict[str, Any]
Point = dict[str, Any]
"""`step`, mean `reward` and mean `truth` of one step, as the guard takes them."""


@dataclass
class Record:
    """Sums over the completions of one generation, or of all those of a step, in one process or in all of them."""

    completions: int = 0
    rewarded: int = 0
    reward: float = 0.0
    reward_squares: float = 0.0
    checked: int = 0
    truth: float = 0.0
    met: Counter[str] = field(default_factory=Counter)
    agreed: int = 0
    decided: int = 0
    unreadable: int = 0
    prompt_tokens: int = 0
    sampled_tokens: int = 0
    tasks: int = 0
    verdicts: int = 0
    made: int = 0
    made_tokens: int = 0
    flips: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    @property
    def silent(self) -> bool:
        """Whether a judge was asked, and not one judgement came of it."""
        return self.tasks > 0 and self.failed.total() == self.tasks

    def add(self, other: Record) -> Record:
        """With another process's: they work side by side, so of seconds the longer ones count."""
        seconds = {name: max(value, self.seconds.get(name, 0.0)) for name, value in other.seconds.items()}
        return self._with(other, seconds)

    def then(self, other: Record) -> Record:
        """With the next generation's of the same step."""
        seconds = {name: value + self.seconds.get(name, 0.0) for name, value in other.seconds.items()}
        return self._with(other, seconds)

    def _with(self, other: Record, seconds: dict[str, float]) -> Record:
        for name, value in vars(other).items():
            if name != "seconds":
                setattr(self, name, getattr(self, name) + value)
        self.seconds |= seconds
        return self


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None


def line_of(step: int, record: Record, kl: float | None, totals: Totals) -> dict[str, Any]:
    """One line of steps.jsonl."""
    mean = _mean(record.reward, record.rewarded)
    spread = None
    if mean is not None:
        spread = math.sqrt(max(0.0, record.reward_squares / record.rewarded - mean**2))
    return {
        "step": step,
        "reward": mean,
        "reward_std": spread,
        "none": record.completions - record.rewarded,
        "truth": _mean(record.truth, record.checked),
        "met": {name: count / record.checked for name, count in sorted(record.met.items())},
        "agreement": _mean(record.agreed, record.decided),
        "agreement_of": record.decided,
        "kl": kl,
        "completions": record.completions,
        "unreadable": record.unreadable,
        "mean_tokens": _mean(record.sampled_tokens, record.completions),
        "judge": {
            "tasks": record.tasks,
            "verdicts": record.verdicts,
            "made": record.made,
            "made_tokens": record.made_tokens,
            "flips": record.flips,
            "failed": dict(record.failed),
        },
        "seconds": {name: round(value, 4) for name, value in sorted(record.seconds.items())},
        "total": asdict(totals),
    }


@dataclass
class Totals:
    """Sums since the start of the run."""

    completions: int = 0
    prompt_tokens: int = 0
    sampled_tokens: int = 0
    verdicts: int = 0
    made: int = 0
    made_tokens: int = 0
    none: int = 0
    unreadable: int = 0

    def add(self, record: Record) -> None:
        """One step more."""
        for name in ("completions", "prompt_tokens", "sampled_tokens", "verdicts", "made", "made_tokens", "unreadable"):
            setattr(self, name, getattr(self, name) + getattr(record, name))
        self.none += record.completions - record.rewarded


class StepLog:
    """The log of one run. Every process keeps one, so that all decide alike; the first one writes.

    Args:
        folder: where the files are.
        steps: how many the run has.
        writes: whether this process writes.
    """

    def __init__(self, folder: Path, settings: Log, steps: int, writes: bool) -> None:
        self._folder, self._settings, self._writes = folder, settings, writes
        self._every = max(1, math.ceil(steps / settings.steps))
        self._sample_every = max(1, math.ceil(steps / settings.sample_steps))
        self.totals = Totals()
        self.points: list[Point] = []
        self.stopped: dict[str, Any] | None = None
        """What the guard has found, once it has."""
        self._records = 0
        """Steps with a record: a generation may serve several steps, and those behind the first have none."""
        self.silent_steps = 0
        self.seconds: dict[str, float] = {}

    def begin(self, checkpoint: str | None) -> None:
        """Go on from a checkpoint, or from nothing: lines of steps that are done again are taken away.

        Raises:
            ValueError: for a checkpoint that has no state of this log.
        """
        step = 0
        if checkpoint is not None:
            file = Path(checkpoint) / STATE
            if not file.is_file():
                raise ValueError(f"{checkpoint} has no {STATE}: it is no checkpoint of this stage; delete it and go on")
            state = read_json(file)
            step = state["step"]
            self.totals, self.silent_steps = Totals(**state["totals"]), state["silent_steps"]
            self.points, self.stopped, self._records = state["points"], state["stopped"], state["records"]
            self.seconds = dict(state["seconds"])
        if self._writes:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in (STEPS, SAMPLES):
                _cut(self._folder / name, step)

    def save(self, checkpoint: Path, step: int) -> None:
        """The state at this step, into a checkpoint's folder."""
        if self._writes:
            state = {
                "step": step,
                "totals": asdict(self.totals),
                "silent_steps": self.silent_steps,
                "points": self.points,
                "stopped": self.stopped,
                "records": self._records,
                "seconds": self.seconds,
            }
            checkpoint.mkdir(parents=True, exist_ok=True)
            write_json(checkpoint / STATE, state)

    def take(self, record: Record) -> None:
        """Count a generation's record as soon as its rewards are there."""
        self.totals.add(record)
        if record.tasks:  # a generation that had nothing to ask says nothing
            self.silent_steps = self.silent_steps + 1 if record.silent else 0

    def write(self, step: int, record: Record, kl: float | None) -> None:
        """The line of a step that is done and had a generation. Every so-manieth is kept."""
        self._records += 1
        line = line_of(step, record, kl, self.totals)
        self.seconds |= {name: self.seconds.get(name, 0.0) + value for name, value in record.seconds.items()}
        if self._records % self._every == 0:
            self.points.append({name: line[name] for name in ("step", "reward", "truth")})
            self._append(STEPS, [line])
        if self._records % self._sample_every == 0:
            self._append(SAMPLES, [{"step": step, **s} for s in record.samples[: self._settings.samples]])

    def _append(self, name: str, lines: Sequence[dict[str, Any]]) -> None:
        if self._writes and lines:
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            with (self._folder / name).open("a", encoding="utf-8") as out:
                out.write(text)


def _cut(file: Path, step: int) -> None:
    """Keep the lines up to a step; a line that was cut off by a kill goes too."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except json.JSONDecodeError:
            continue
    file.write_text("".join(kept), encoding="utf-8")
