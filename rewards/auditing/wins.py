"""How often each source policy wins against the others, by the judge and (where there is a checker) in truth."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any

from mr3.stats import wilson
from rewards.walk import Labelled, Row


class Wins:
    """Win rates of policies; comparisons of a policy with itself say nothing and are left out.

    A text that several policies wrote counts for each of them, against each author of the other text.
    """

    def __init__(self) -> None:
        # language -> (policy, other) -> result from the policy's side
        self._found: dict[str, dict[tuple[str, str], Counter[str]]] = defaultdict(lambda: defaultdict(Counter))

    def add(self, prompt: Labelled) -> None:
        """Count one prompt's comparisons."""
        for row in prompt.comparisons:
            for one, two in itertools.product(prompt.authors[row["a"]], prompt.authors[row["b"]]):
                if one != two:
                    self._count(self._found[prompt.language][one, two], row, "a", 1)
                    self._count(self._found[prompt.language][two, one], row, "b", -1)

    @staticmethod
    def _count(counts: Counter[str], row: Row, side: str, sign: int) -> None:
        result = row["result"]
        counts[result if result in ("tie", "failed") else "won" if result == side else "lost"] += 1
        if row["truth"] is not None:
            counts[{1: "truly_better", 0: "truly_equal", -1: "truly_worse"}[sign * row["truth"]]] += 1

    def report(self) -> dict[str, Any]:
        """`{"all": {policy: ...}, "languages": {name: {policy: ...}}}`."""
        everything: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for cells in self._found.values():
            for key, counts in cells.items():
                everything[key].update(counts)
        return {
            "all": self._of(everything),
            "languages": {name: self._of(cells) for name, cells in sorted(self._found.items())},
        }

    @staticmethod
    def _of(cells: dict[tuple[str, str], Counter[str]]) -> dict[str, Any]:
        found = {}
        for policy in sorted({policy for policy, _ in cells}):
            total: Counter[str] = Counter()
            against = {}
            for other in sorted(o for p, o in cells if p == policy):
                counts = cells[policy, other]
                total.update(counts)
                against[other] = wilson(counts["won"], counts["won"] + counts["lost"])
            found[policy] = {
                "won": total["won"],
                "lost": total["lost"],
                "ties": total["tie"],
                "failed": total["failed"],
                "win_rate": wilson(total["won"], total["won"] + total["lost"]),
                "true_win_rate": wilson(total["truly_better"], total["truly_better"] + total["truly_worse"]),
                "against": against,
            }
        return found
