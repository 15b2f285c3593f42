"""1 for the right score, else 0 (mR3's GRPO, arXiv 2510.01146, appendix); on an ordinal scale 1 - distance / range.

A verdict that can't be parsed is the trained judge's own failure: it earns 0 like a wrong one.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from grpo_experiments.contract import Group, Need, Term, Values
from mr3.judging.scale import VALUED, label_values


class Correctness(Term):
    """`distance`: `exact`, or `ordinal` (pointwise 1-5: one off earns 0.75; a tie for a win earns 0.5)."""

    needs: ClassVar[frozenset[Need]] = frozenset({"gold"})
    distance: Literal["exact", "ordinal"] = "exact"

    def score(self, group: Group) -> Values:
        """By the gold label; None without one."""
        gold, task = group.example.gold, group.example.task
        if gold is None:
            return [None] * len(group.samples)
        if self.distance == "exact" or task.mode not in VALUED:
            return [float(s.right(gold)) for s in group.samples]
        values = label_values(task.labels, task.mode)
        span = max(values.values()) - min(values.values())
        return [
            1 - abs(values[s.parsed.score] - values[gold]) / span if s.ok and s.parsed.score is not None else 0.0
            for s in group.samples
        ]


TERM = Correctness
