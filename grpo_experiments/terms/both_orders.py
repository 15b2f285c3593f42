"""Right, in so far as the judge is right with A and B exchanged too: right_i x (share of right in the other order).

J1 (arXiv 2505.10320) pays a pair of verdicts only if both are right. Here the other order is a prompt of its own in the
same batch (`orders: both`), so every sample is paid for the share of its counterparts that agree with the truth.
"""

from __future__ import annotations

from typing import ClassVar

from grpo_experiments.contract import Group, Need, Term, Values


class BothOrders(Term):
    """For pairwise tasks."""

    needs: ClassVar[frozenset[Need]] = frozenset({"gold", "swapped"})
    per_group: ClassVar[bool] = True

    def score(self, group: Group) -> Values:
        """None for a task that has no other order."""
        gold = group.example.gold
        other = None if group.swapped is None else group.swapped.share_right()
        if gold is None or other is None:
            return [None] * len(group.samples)
        return [s.right(gold) * other for s in group.samples]


TERM = BothOrders
