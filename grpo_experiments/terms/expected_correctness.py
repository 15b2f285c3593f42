"""The probability of the right score at the place of the verdict: p(gold | prompt, trace, explanation).

Correctness with less noise: two traces that both end in the right score differ by how sure they are of it, so a group
of right answers still has a gradient. Mass outside the legal scores earns nothing. Where the scale is ordinal, the
expected credit: sum over labels of p(label) (1 - |value - gold| / range) (the expected score of mr3.judging, as a
reward).
"""

from __future__ import annotations

from typing import ClassVar

from grpo_experiments.contract import Group, Need, Term, Values
from grpo_experiments.terms.correctness import Distance, credit_of


class ExpectedCorrectness(Term):
    """`distance`: as of the term correctness."""

    needs: ClassVar[frozenset[Need]] = frozenset({"gold", "label_probs"})
    distance: Distance = "exact"

    def score(self, group: Group) -> Values:
        """A failed verdict earns 0; None without a gold label or without probabilities."""
        gold, task = group.example.gold, group.example.task
        if gold is None:
            return [None] * len(group.samples)
        credit = credit_of(task, gold, self.distance)
        found: Values = []
        for sample in group.samples:
            if not sample.ok:
                found.append(0.0)
            elif sample.label_probs is None:
                found.append(None)
            else:
                found.append(min(1.0, sum(p * credit[label] for label, p in sample.label_probs.items())))
        return found


TERM = ExpectedCorrectness
