"""Counterfactual rubric: right_i x min over twins of the share of right samples in the twin's group.

A twin asks for the same responses under another rubric. A judge that ignores the rubric gives both the same verdict:
where their gold differs it is right under one and wrong under the other, and here it is paid for neither. With one
twin of which c is right, the reward of a sample is right_i x c.

The factor is one number for the whole group. Normalised within the group alone it cancels, so the term wants
`baseline: bundle` (a common baseline for a task and its twins): there, samples that are right only by the shortcut
stand at 0 beside samples of the twin that are right, and lose. With c = 0 on both sides nothing is paid at all.
"""

from __future__ import annotations

from typing import ClassVar

from grpo_experiments.contract import Group, Need, Term, Values


class Counterfactual(Term):
    """`only_flips`: twins with the same gold verdict count too if this is off; they say little about the rubric."""

    needs: ClassVar[frozenset[Need]] = frozenset({"gold", "twin"})
    per_group: ClassVar[bool] = True
    only_flips: bool = True

    def score(self, group: Group) -> Values:
        """None for a task without a twin (of another verdict)."""
        gold = group.example.gold
        twins = [t for t in group.twins if not self.only_flips or t.example.gold != gold]
        shares = [share for t in twins if (share := t.share_right()) is not None]
        if gold is None or not shares:
            return [None] * len(group.samples)
        return [s.right(gold) * min(shares) for s in group.samples]


TERM = Counterfactual
