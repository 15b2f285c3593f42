"""The one reward that TRL sees: gates, then a weighted mean of terms, or terms normalised apart and summed.

One function and not several: beside another reward TRL 1.16 counts a None as 0 in the sum (`GRPOTrainer`, nansum), so
that a row which could not be judged is punished. Only where the single reward is None is the row left out.

What is compared must be measured alike. The samples that share a baseline (a group, or a bundle of twins) are a *set*:
- A gate below 1 makes the reward 0; a gate that is None makes it None.
- A term that is None for all samples of the set that passed the gates is left out for the set, and the other weights
  grow (a task without a twin has no counterfactual).
- A term that is None for some of them makes the reward of those None: they get no advantage, and move no baseline.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from grpo_experiments.contract import Group, Need, RewardTerm, ServedTerm, Term, Values

Combine = Literal["mean", "normalised"]
EPSILON = 1e-4
"""As TRL has it beside a standard deviation."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One group: the reward of each sample, the same as advantages are computed from, and what each term said of it.

    `rewards` can be followed over steps. `compared` is only for comparing samples of one set: with `normalised` its
    mean is 0 in every set, whatever the judge has learned.
    """

    rewards: Values
    compared: Values
    terms: Mapping[str, Values]


class Composite:
    """Terms with their weights and gates.

    Args:
        how: `mean`: sum of w v / sum of w. `normalised`: each term less its mean over the set, by its standard
            deviation, times w, summed (GDPO, arXiv 2601.05242; TRL's `normalize_then_sum`, but with a rule for None).
    """

    def __init__(self, terms: Mapping[str, RewardTerm], how: Combine = "mean") -> None:
        self.terms, self.how = dict(terms), how
        self.needs: frozenset[Need] = frozenset().union(*(term.wanted() for term in terms.values()))

    async def values(self, groups: Sequence[Group]) -> list[dict[str, Values]]:
        """What every term says of every group; served terms are asked together."""
        served = {name: term for name, term in self.terms.items() if isinstance(term, ServedTerm)}
        pure = {name: term for name, term in self.terms.items() if isinstance(term, Term)}
        answers = await asyncio.gather(*(term.score_all(groups) for term in served.values()))
        found: list[dict[str, Values]] = []
        for i, group in enumerate(groups):
            row = {name: term.score(group) for name, term in pure.items()}
            row |= zip(served, (answer[i] for answer in answers), strict=True)
            assert row.keys() == self.terms.keys(), "a term is pure or served"
            assert all(len(values) == len(group.samples) for values in row.values()), "a value per sample"
            found.append(row)
        return found

    async def score(self, sets: Sequence[Sequence[Group]]) -> list[list[Scored]]:
        """The groups of several sets, each with one baseline."""
        values = iter(await self.values([group for together in sets for group in together]))
        scored: list[list[Scored]] = []
        for together in sets:
            rows = [next(values) for _ in together]
            joined = {name: [v for row in rows for v in row[name]] for name in self.terms}
            rewards, compared = iter(self.combine(joined, "mean")), iter(self.combine(joined))
            scored.append(
                [
                    Scored([next(rewards) for _ in group.samples], [next(compared) for _ in group.samples], row)
                    for group, row in zip(together, rows, strict=True)
                ]
            )
        return scored

    def combine(self, values: Mapping[str, Values], how: Combine | None = None) -> Values:
        """The rewards of one set, from what each term says of its samples; None of the same samples in either way.

        Args:
            how: unset: the composite's own.
        """
        how = how or self.how
        count = len(next(iter(values.values())))
        passed = [self._gate(values, i) for i in range(count)]
        weighted = {name: term.weight for name, term in self.terms.items() if term.weight > 0}
        weighted = {
            n: w
            for n, w in weighted.items()
            if any(p and v is not None for p, v in zip(passed, values[n], strict=True))
        }
        measured = [
            p if not p else (True if weighted and all(values[n][i] is not None for n in weighted) else None)
            for i, p in enumerate(passed)
        ]
        # What did not pass the gates earns nothing of any term.
        credit = {n: [cast("float", values[n][i]) if m else 0.0 for i, m in enumerate(measured)] for n in weighted}
        if how == "normalised":
            known = [m is not None for m in measured]
            credit = {n: _normalised(row, known) for n, row in credit.items()}
        total = sum(weighted.values()) if how == "mean" else 1.0
        return [
            None if m is None else sum(w * credit[n][i] for n, w in weighted.items()) / (total or 1.0)
            for i, m in enumerate(measured)
        ]

    def _gate(self, values: Mapping[str, Values], place: int) -> bool | None:
        """Whether a sample passes all gates; None where one could not be measured and no other is shut."""
        said = [values[name][place] for name, term in self.terms.items() if term.gate]
        if any(v is not None and v < 1 for v in said):
            return False
        return None if any(v is None for v in said) else True


def _normalised(values: Sequence[float], known: Sequence[bool]) -> list[float]:
    """Less the mean, by the standard deviation (n - 1), of the known ones; the others stay out of both."""
    kept = [v for v, k in zip(values, known, strict=True) if k]
    if not kept:
        return [0.0] * len(values)
    mean = sum(kept) / len(kept)
    spread = math.sqrt(sum((v - mean) ** 2 for v in kept) / max(len(kept) - 1, 1))
    return [(v - mean) / (spread + EPSILON) for v in values]


def advantages(rewards: Sequence[float | None], scale: bool = True) -> list[float]:
    """Rewards less their mean, by their standard deviation (n - 1) if they are scaled; 0 for None.

    What TRL does within a group, for a set of any size.
    """
    kept = [r for r in rewards if r is not None]
    if not kept:
        return [0.0] * len(rewards)
    mean = sum(kept) / len(kept)
    spread = math.sqrt(sum((r - mean) ** 2 for r in kept) / max(len(kept) - 1, 1))
    return [0.0 if r is None else (r - mean) / (spread + EPSILON if scale else 1.0) for r in rewards]


def no_variance(rewards: Sequence[float | None]) -> bool:
    """Whether the rewards of a set give no gradient: all that are known are equal."""
    kept = [r for r in rewards if r is not None]
    return not kept or max(kept) - min(kept) < 1e-9
