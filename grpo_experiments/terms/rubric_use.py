"""How much the rubric made the judge say what it said: a log-likelihood ratio, cut off at `cap` nats and divided by it.

`over: verdict`: log p(verdict | prompt, trace) - log p(verdict | prompt with the rubric blanked, trace). Where the
trace has already settled the verdict both are near 1, and the term near 0.
`over: completion`: the same of the whole completion. This is how much trace, explanation and verdict together depend
on the rubric (a pointwise mutual information). A trace that copies the rubric has a high one: the cap and a probe are
for that.
Negative values count 0. The term says nothing of right or wrong: give it beside correctness.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from grpo_experiments.contract import Group, Need, Sample, Term, Values

_TINY = 1e-6


class RubricUse(Term):
    """Pays for verdicts (or completions) that the rubric made likelier."""

    needs: ClassVar[frozenset[Need]] = frozenset({"label_probs", "blank_probs"})
    over: Literal["verdict", "completion"] = "verdict"
    cap: float = Field(2.0, gt=0)

    def wanted(self) -> frozenset[Need]:
        """What this one has measured."""
        return frozenset({"rubric_gain"}) if self.over == "completion" else self.needs

    def score(self, group: Group) -> Values:
        """A failed verdict earns 0; None where nothing was measured."""
        found: Values = []
        for sample in group.samples:
            gain = self._gain(sample) if sample.ok else 0.0
            found.append(None if gain is None else min(max(gain / self.cap, 0.0), 1.0))
        return found

    def _gain(self, sample: Sample) -> float | None:
        if self.over == "completion":
            return sample.rubric_gain
        score = sample.parsed.score
        if sample.label_probs is None or sample.blank_probs is None or score is None:
            return None
        return math.log(max(sample.label_probs[score], _TINY)) - math.log(max(sample.blank_probs[score], _TINY))


TERM = RubricUse
