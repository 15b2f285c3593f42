"""Length bias: does the longer response win, by how much longer it is, and more often than it is truly better?"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mr3.judging.scale import label_values
from mr3.records import Mode
from mr3.stats import wilson
from mr3.uncertainty import mean_of, rank_correlation
from rewards.auditing.breakdown import Breakdown
from rewards.model import value_of
from rewards.walk import Labelled, as_verdict

RATIOS = (1.0, 1.1, 1.25, 1.5, 2.0, 4.0, math.inf)
"""Edges of the bins by longer / shorter, in characters."""


def _bin_name(low: float, high: float) -> str:
    return f"{low:g} and more" if math.isinf(high) else f"{low:g} to {high:g}"


class LengthBias:
    """Decided comparisons of unequal length, and the correlation of score and length."""

    def __init__(self) -> None:
        self._wins: Counter[tuple[str, bool]] = Counter()
        self._equal = 0
        self._against_truth: Counter[tuple[bool, bool]] = Counter()
        self._lengths = array("d")
        self._scores = array("d")

    def compared(self, chars_a: int, chars_b: int, result: str, truth: int | None) -> None:
        """Count one comparison; ties and failures say nothing of length."""
        if result not in ("a", "b"):
            return
        if chars_a == chars_b:
            self._equal += 1
            return
        ratio = max(chars_a, chars_b) / max(1, min(chars_a, chars_b))
        name = next(_bin_name(low, high) for low, high in pairwise(RATIOS) if ratio < high or math.isinf(high))
        longer = "a" if chars_a > chars_b else "b"
        self._wins[name, result == longer] += 1
        if truth:
            self._against_truth[result == longer, (truth > 0) == (longer == "a")] += 1

    def scored(self, length: float, score: float) -> None:
        """One length (or log ratio of two) with its score (or P(A better))."""
        self._lengths.append(length)
        self._scores.append(score)

    def report(self) -> dict[str, Any]:
        """Rates over decided comparisons of unequal length; `against_truth` over those with a true winner."""
        wins = sum(count for (_, won), count in self._wins.items() if won)
        checked = self._against_truth
        n = checked.total()
        gaps: Counter[float] = Counter()
        for (won, true), count in checked.items():
            gaps[float(won) - float(true)] += count
        return {
            "longer_wins": wilson(wins, self._wins.total()),
            "equal_length": self._equal,
            "by_ratio": {
                name: wilson(self._wins[name, True], self._wins[name, True] + self._wins[name, False])
                for name in (_bin_name(low, high) for low, high in pairwise(RATIOS))
            },
            "against_truth": {
                "longer_wins": wilson(checked[True, True] + checked[True, False], n),
                "longer_is_better": wilson(checked[True, True] + checked[False, True], n),
                "difference": mean_of(gaps),
            },
            "correlation": rank_correlation(self._lengths, self._scores),
        }


class Lengths:
    """Length bias in all, per language and per policy.

    The correlation is between P(A better) and the log ratio of the two lengths (pairwise), or between score and
    length over responses.
    """

    def __init__(self, labels: Sequence[str], mode: Mode) -> None:
        self._labels, self._mode = tuple(labels), mode
        self._values = label_values(labels, mode)
        self._found = Breakdown(LengthBias)

    def add(self, prompt: Labelled) -> None:
        """Count one prompt."""
        chars = {r["response_id"]: r["chars"] for r in prompt.responses}
        for row in prompt.comparisons:
            a, b = chars[row["a"]], chars[row["b"]]
            for part in self._found.of(prompt.language, prompt.authors_of((row["a"], row["b"]))):
                part.compared(a, b, row["result"], row["truth"])
                if row["p_a"] is not None:
                    part.scored(math.log(max(1, a) / max(1, b)), row["p_a"])
        if self._mode != "pairwise":
            self._singles(prompt)

    def _singles(self, prompt: Labelled) -> None:
        for response in prompt.responses:
            for verdict in map(as_verdict, prompt.verdicts_on(response["judged_as"])):
                if verdict.score is not None:
                    value = value_of(verdict, self._labels, self._mode)
                    for part in self._found.of(prompt.language, [response["policy"]]):
                        part.scored(response["chars"], value)

    def report(self) -> dict[str, Any]:
        """See `LengthBias.report`."""
        return self._found.report()
