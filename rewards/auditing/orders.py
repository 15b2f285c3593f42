"""What comparisons came to (ties, failures) and what judging in both orders tells: flips, position, ways to combine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mr3.records import Mode, Verdict
from mr3.stats import wilson
from rewards.auditing.breakdown import Breakdown
from rewards.model import combine, result_of
from rewards.noise import kept_error
from rewards.walk import Labelled, Row, as_verdict


class _Counts:
    def __init__(self, pairwise: bool) -> None:
        self._pairwise = pairwise
        self.counts: Counter[str] = Counter()

    def report(self) -> dict[str, Any]:
        c = self.counts
        judged = c["comparisons"] - c["failed"]
        found = {"comparisons": c["comparisons"], "failed": c["failed"], "tie_rate": wilson(c["ties"], judged)}
        if not self._pairwise:
            return found
        return {
            **found,
            "flip_rate": wilson(c["flips"], c["both_orders"]),
            "kept_error_from_flips": kept_error(c["flips"] / c["both_orders"]) if c["both_orders"] else None,
            "first_shown_wins": wilson(c["first_shown"], c["decided"]),
            "flips_to_first_shown": wilson(c["first_twice"], c["first_twice"] + c["second_twice"]),
            "combine": {
                how: {
                    "yield": wilson(c[f"{how}_pairs"], c["comparisons"]),
                    "accuracy": wilson(c[f"{how}_right"], c[f"{how}_checked"]),
                    "truly_equal": c[f"{how}_equal"],
                }
                for how in ("agree", "mean")
            },
        }


class Orders:
    """Counts comparisons; for pairwise runs they are combined anew from their verdicts, in each way."""

    def __init__(self, labels: Sequence[str], mode: Mode) -> None:
        self._labels = tuple(labels)
        self._pairwise = mode == "pairwise"
        self._found = Breakdown(lambda: _Counts(self._pairwise))

    def add(self, prompt: Labelled) -> None:
        """Count one prompt's comparisons."""
        for row in prompt.comparisons:
            failed, tie = (int(row["result"] == name) for name in ("failed", "tie"))
            found: Counter[str] = Counter(comparisons=1, failed=failed, ties=tie)
            if self._pairwise:
                verdicts = [as_verdict(v) for v in prompt.verdicts_on(row["a"], row["b"])]
                if len({v.swapped for v in verdicts}) == 2 and not failed:
                    found.update(both_orders=1, flips=int(row["flip"]))
                found.update(self._position(verdicts))
                for how in ("agree", "mean"):
                    result = combine(row["a"], row["b"], verdicts, how, labels=self._labels)
                    found.update(self._kept(how, result.result, row))
            for part in self._found.of(prompt.language, prompt.authors_of((row["a"], row["b"]))):
                part.counts.update(found)

    def _position(self, verdicts: Sequence[Verdict]) -> Counter[str]:
        """Who won, the response shown first or second; `first_twice`: both orders chose whichever stood first."""
        found: Counter[str] = Counter()
        seats = []
        for verdict in verdicts:
            result = result_of(verdict, self._labels)
            if result in ("a", "b"):
                first = (result == "a") != verdict.swapped
                seats.append((verdict.swapped, first))
                found["decided"] += 1
                found["first_shown"] += first
        if len(seats) == 2 == len({swapped for swapped, _ in seats}) and seats[0][1] == seats[1][1]:
            found["first_twice" if seats[0][1] else "second_twice"] += 1
        return found

    @staticmethod
    def _kept(how: str, result: str, row: Row) -> Counter[str]:
        truth = row["truth"]
        if result not in ("a", "b"):
            return Counter()
        found = Counter({f"{how}_pairs": 1})
        if truth is not None:
            found[f"{how}_checked"] = 1
            found[f"{how}_right"] = int(truth == (1 if result == "a" else -1))
            found[f"{how}_equal"] = int(truth == 0)
        return found

    @property
    def any(self) -> bool:
        """Whether there is any comparison."""
        return bool(self._found.all.counts)

    def report(self) -> dict[str, Any]:
        """In all, per language and per policy (of either response)."""
        return self._found.report()
