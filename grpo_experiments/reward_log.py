"""What became of every completion: one Parquet file per generation and process, and the run's history in a few numbers.

Files are written whole and named by the step, so that a run that is resumed writes those of the repeated steps again
and the log is that of one run. Nothing of it is kept in memory but one line per step.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grpo_experiments.composite import no_variance
from grpo_experiments.scoring import Completion, Marked
from mr3.artifacts import read_json, write_json
from mr3.files import write_whole

log = logging.getLogger("mr3.grpo")
STATE = "grpo_history.json"
_FILE = re.compile(r"(train|eval)-(\d+)(?:\.(\d+))?\.p(\d+)\.parquet")


class RewardLog:
    """The files of one process.

    Args:
        folder: `rewards/` of the run.
        texts: completions of a file that are kept with their text.
    """

    def __init__(self, folder: Path, process: int, terms: Sequence[str], texts: int) -> None:
        self._folder, self._process, self._terms, self._texts = folder, process, list(terms), texts
        folder.mkdir(parents=True, exist_ok=True)

    def write(
        self, kind: str, step: int, part: int, completions: Sequence[Completion], marked: Sequence[Marked],
        advantages: Sequence[float],
    ) -> None:  # fmt: skip
        """One generation of this process. `part`: which one of the step (evaluations have several)."""
        rows = []
        for i, (completion, mark, advantage) in enumerate(zip(completions, marked, advantages, strict=True)):
            rows.append(
                {
                    "step": step,
                    "row": completion.row,
                    "reward": mark.reward,
                    "reward_normalised": mark.normalised,
                    "truth": mark.truth,
                    "advantage": float(advantage),
                    **{f"term_{name}": mark.terms.get(name) for name in self._terms},
                    **mark.columns,
                    "text": completion.text if i < self._texts else None,
                }
            )
        sink = io.BytesIO()
        pq.write_table(_table(rows, [f"term_{n}" for n in self._terms]), sink)
        write_whole(self._folder / f"{kind}-{step:06d}.{part}.p{self._process}.parquet", sink.getvalue())

    def forget_after(self, step: int) -> None:
        """Remove what a run wrote after the checkpoint that it is resumed from; a generation of step s is for s + 1."""
        for path in sorted(self._folder.glob(f"*.p{self._process}.parquet")):
            found = _FILE.fullmatch(path.name)
            if found and (int(found[2]) > step or (found[1] == "train" and int(found[2]) == step)):
                path.unlink()


def _table(rows: list[dict[str, Any]], numbers: Sequence[str]) -> pa.Table:
    """With numbers as numbers also where all are None."""
    table = pa.Table.from_pylist(rows)
    for name in ("reward", "reward_normalised", "truth", *numbers):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table.column(place).cast(pa.float64()))
    return table


def read_log(folder: Path, kind: str = "train") -> Iterator[dict[str, Any]]:
    """All logged completions of a run, by step, of all processes."""
    for path in sorted(folder.glob(f"{kind}-*.parquet"), key=lambda p: p.name):
        yield from pq.read_table(path).to_pylist()


@dataclass
class Step:
    """One generation of a step, over all processes. Rewards and truths are means over what was measured.

    Args:
        sets, flat: sets that share a baseline, and those of them without a gradient.
        pairs: mean over bundles of twins of whether a sample's counterparts are right too (share right x share right).
        prompt_tokens: every prompt once; `repeated` as often as it has samples.
        gradient_tokens: of completions that went through the backward pass; `moving` those with an advantage.
        cpu_s: CPU seconds by part, of all processes, told before the next step (of `training`: of the step before).
    """

    step: int
    reward: float | None
    truth: float | None
    samples: int
    unmeasured: int
    failed: int
    sets: int
    flat: int
    terms: dict[str, tuple[float | None, float]]
    truth_shortcut_right: float | None = None
    truth_shortcut_wrong: float | None = None
    pairs: float | None = None
    prompt_tokens: int = 0
    repeated_prompt_tokens: int = 0
    sampled_tokens: int = 0
    gradient_tokens: int = 0
    moving_tokens: int = 0
    replaced: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def step_of(step: int, sets: Sequence[Sequence[Sequence[Marked]]], terms: Sequence[str]) -> Step:
    """One generation in numbers. `sets`: sets that share a baseline, as groups of one prompt each."""
    groups = [group for together in sets for group in together]
    marks = [mark for group in groups for mark in group]
    by_shortcut = {
        side: mean([m.truth for m in marks if m.columns.get("shortcut_right") is side]) for side in (True, False)
    }
    told = {name: [m.terms.get(name) for m in marks] for name in terms}
    return Step(
        step=step,
        reward=mean([m.reward for m in marks]),
        truth=mean([m.truth for m in marks]),
        samples=len(marks),
        unmeasured=sum(m.reward is None for m in marks),
        failed=sum(m.columns.get("outcome", "ok") != "ok" for m in marks),
        sets=len(sets),
        flat=sum(no_variance([m.compared for group in together for m in group]) for together in sets),
        terms={n: (mean(v), sum(x is None for x in v) / len(v)) for n, v in told.items()} if marks else {},
        truth_shortcut_right=by_shortcut[True],
        truth_shortcut_wrong=by_shortcut[False],
        pairs=_pairs(groups),
    )


def _pairs(groups: Sequence[Sequence[Marked]]) -> float | None:
    """Over bundles of twins in one order: the product of the shares of right samples."""
    found: dict[tuple[Any, bool], list[float]] = {}
    for group in groups:
        columns, truth = group[0].columns, mean([m.truth for m in group])
        if columns.get("twin") is not None and truth is not None:
            found.setdefault((columns["twin"], bool(columns.get("swapped"))), []).append(truth)
    products = []
    for shares in found.values():
        if len(shares) > 1:
            product = 1.0
            for share in shares:
                product *= share
            products.append(product)
    return mean(products)


@dataclass
class History:
    """The run so far, the same in every process; saved in every checkpoint, so that a resumed run has all of it."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    stopped: dict[str, Any] | None = None
    rows: list[int] = field(default_factory=list)
    """Numbers of the rows whose gold labels were used."""

    def save(self, folder: Path) -> None:
        """Among a checkpoint's own files."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / STATE, vars(self))

    @classmethod
    def load(cls, folder: Path) -> History:
        """Of a checkpoint.

        Raises:
            ValueError: where the checkpoint has none.
        """
        if not (folder / STATE).is_file():
            raise ValueError(f"{folder} has no {STATE}: it is of another program; delete it to start over")
        return cls(**read_json(folder / STATE))

    def summary(self) -> dict[str, Any]:
        """What metrics.json says of the run."""

        def total(name: str) -> int:
            return sum(s[name] for s in self.steps)

        samples = total("samples")
        names = sorted({n for s in self.steps for n in s["terms"]})
        parts = sorted({p for s in self.steps for p in s["cpu_s"]})
        sets = total("sets")
        return {
            "completions": samples,
            "unmeasured": total("unmeasured"),
            "failed": total("failed") / samples if samples else None,
            "groups_without_variance": total("flat") / sets if sets else None,
            "replaced_sets": total("replaced"),
            "labels": len(self.rows),
            "terms": {n: self._term(n) for n in names},
            "token_counts": {
                name: total(name)
                for name in (
                    "prompt_tokens", "repeated_prompt_tokens", "sampled_tokens", "gradient_tokens", "moving_tokens"
                )
            },
            "cpu_s": {p: round(sum(s["cpu_s"].get(p, 0.0) for s in self.steps), 3) for p in parts},
            "evaluations": self.evaluations,
            "held_out": {n: self.evaluations[-1][n] for n in ("reward", "truth", "kl")} if self.evaluations else None,
            "stopped": self.stopped,
            "steps_seen": [
                {k: s[k] for k in ("step", "reward", "truth", "truth_shortcut_right", "truth_shortcut_wrong", "pairs")}
                | {"flat": s["flat"] / s["sets"] if s["sets"] else None}
                for s in self.steps
            ],
        }  # fmt: skip

    def _term(self, name: str) -> dict[str, float | None]:
        told = [(s["terms"][name], s["samples"]) for s in self.steps if name in s["terms"]]
        count = sum(n for _, n in told)
        known = sum((1 - none) * n for (_, none), n in told)
        value = sum((v or 0.0) * (1 - none) * n for (v, none), n in told)
        return {
            "mean": value / known if known else None,
            "none": sum(none * n for (_, none), n in told) / count if count else None,
        }


def as_dict(step: Step) -> dict[str, Any]:
    """As the history keeps it, and as JSON gives it back."""
    found: dict[str, Any] = json.loads(json.dumps(vars(step)))
    return found
