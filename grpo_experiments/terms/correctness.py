"""1 for the right score, else 0 (mR3's GRPO, arXiv 2510.01146, appendix); on an ordinal scale 1 - distance / range.

A verdict that can't be parsed is the trained judge's own failure: it earns 0 like a wrong one.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from grpo_experiments.contract import Group, Need, Term, Values
from mr3.judging.scale import VALUED, label_values
from mr3.records import Task

Distance = Literal["exact", "ordinal"]


def credit_of(task: Task, gold: str, distance: Distance) -> dict[str, float]:
    """What each legal score earns where `gold` is right.

    In a mode whose labels have no order (choice) ordinal is exact.
    """
    found = {label: float(label == gold) for label in task.labels}
    if distance == "exact" or task.mode not in VALUED:
        return found
    values = label_values(task.labels, task.mode)
    span = max(values.values()) - min(values.values())
    assert span, "a task's labels have an order, and are more than one (mr3.rubrics.checks)"
    return {label: 1 - abs(values[label] - values[gold]) / span for label in found}


class Correctness(Term):
    """`distance`: `exact`, or `ordinal` (pointwise 1-5: one off earns 0.75; a tie for a win earns 0.5)."""

    needs: ClassVar[frozenset[Need]] = frozenset({"gold"})
    distance: Distance = "exact"

    def score(self, group: Group) -> Values:
        """By the gold label; None without one."""
        gold, task = group.example.gold, group.example.task
        if gold is None:
            return [None] * len(group.samples)
        credit = credit_of(task, gold, self.distance)
        return [credit[s.parsed.score] if s.ok and s.parsed.score is not None else 0.0 for s in group.samples]


TERM = Correctness
