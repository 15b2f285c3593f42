"""Comparisons against ground truth: accuracy, kappa, calibration. The same numbers for a checker and for people."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

from mr3.stats import wilson
from mr3.uncertainty import calibration, kappa_with_interval
from rewards.auditing.breakdown import Breakdown
from rewards.walk import Labelled, Row

RESULTS = ("a", "b", "tie")
_TRUE = {1: "a", -1: "b", 0: "tie"}
WORTH = {"a": 1.0, "b": 0.0, "tie": 0.5}
"""What a true result is worth for A: what a calibrated P(A better) comes to on average."""


def stated(prompt: Labelled, comparison: Row) -> float | None:
    """P(A better) where every verdict behind it kept its probabilities; None where it rests on bare labels."""
    ids = set(comparison["verdict_ids"])
    bare = any(v["expected"] is None for v in prompt.verdicts if v["id"] in ids)
    return None if bare or comparison["p_a"] is None else float(comparison["p_a"])


class Pairs:
    """True results and the judge's, and what probability it stated."""

    def __init__(self) -> None:
        self.cells: Counter[tuple[str, str]] = Counter()
        self._p = array("d")
        self._worth = array("d")

    def add(self, true: str, said: str, p: float | None) -> None:
        """One comparison; `said` may be `failed`."""
        self.cells[true, said] += 1
        if p is not None and said != "failed":
            self._p.append(p)
            self._worth.append(WORTH[true])

    def report(self) -> dict[str, Any]:
        """`accuracy` counts ties as answers; `accuracy_decided` is over those where neither side says tie."""
        judged = {key: n for key, n in self.cells.items() if key[1] != "failed"}
        decided = {key: n for key, n in judged.items() if "tie" not in key}
        failed = self.cells.total() - sum(judged.values())
        true, said = (list(chain.from_iterable(repeat(key[i], n) for key, n in judged.items())) for i in (0, 1))
        found = {
            "n": self.cells.total(),
            "failed": failed,
            "accuracy": _right(judged),
            "accuracy_failures_wrong": wilson(sum(n for (t, s), n in judged.items() if t == s), self.cells.total()),
            "accuracy_decided": _right(decided),
            "kappa": kappa_with_interval(said, true),
            "confusion": {f"true {t}": {f"judge {s}": self.cells[t, s] for s in RESULTS} for t in RESULTS},
        }
        return {**found, **calibration_or_reason(self._p, self._worth)}


def _right(cells: dict[tuple[str, str], int]) -> dict[str, Any]:
    return wilson(sum(n for (true, said), n in cells.items() if true == said), sum(cells.values()))


def calibration_or_reason(p: Sequence[float], worth: Sequence[float]) -> dict[str, Any]:
    """The `calibration` block; None with the reason where no verdict has probabilities."""
    if not p:
        return {"calibration": None, "no_calibration": "no verdict with probabilities: set judge.sampling.logprobs"}
    return {"calibration": calibration(p, worth)}


class Truth:
    """The judge against the checker of its label run, in all, per language and per policy."""

    def __init__(self) -> None:
        self._found = Breakdown(Pairs)

    def add(self, prompt: Labelled) -> None:
        """Count one prompt's comparisons that have a truth."""
        for row in prompt.comparisons:
            if row["truth"] is None:
                continue
            p = stated(prompt, row)
            for part in self._found.of(prompt.language, prompt.authors_of((row["a"], row["b"]))):
                part.add(_TRUE[row["truth"]], row["result"], p)

    def report(self) -> dict[str, Any] | None:
        """None for a run without a checker."""
        return self._found.report() if self._found.all.cells else None
