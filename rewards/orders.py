"""What judging in both orders tells: flips, position, length, and what each way to combine keeps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from mr3.records import Verdict
from mr3.stats import wilson
from rewards.model import combine, result_of
from rewards.noise import kept_error
from rewards.walk import Labelled, as_verdict


class Orders:
    """What the two orders say: flips, position, length, and yield and accuracy of each way to combine."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, prompt: Labelled) -> None:
        """Count one prompt's comparisons, combined anew from its verdicts."""
        chars = {r["response_id"]: r["chars"] for r in prompt.responses}
        for row in prompt.comparisons:
            verdicts = [as_verdict(v) for v in prompt.verdicts_on(row["a"], row["b"])]
            found: Counter[str] = Counter(comparisons=1, flips=int(row["flip"]), failed=int(row["result"] == "failed"))
            found.update(self._position(verdicts))
            for how in ("agree", "mean"):
                result = combine(row["a"], row["b"], verdicts, how, labels=self._labels)
                found.update(self._kept(how, result.result, row["truth"]))
            if row["result"] in ("a", "b") and chars[row["a"]] != chars[row["b"]]:
                longer = "a" if chars[row["a"]] > chars[row["b"]] else "b"
                found.update(unequal=1, longer_wins=int(row["result"] == longer))
            self._counts[prompt.language].update(found)

    def _position(self, verdicts: Sequence[Verdict]) -> Counter[str]:
        found: Counter[str] = Counter()
        for verdict in verdicts:
            result = result_of(verdict, self._labels)
            if result in ("a", "b"):
                found["decided"] += 1
                found["first_shown"] += (result == "a") != verdict.swapped
        return found

    @staticmethod
    def _kept(how: str, result: str, truth: int | None) -> Counter[str]:
        if result not in ("a", "b"):
            return Counter()
        found = Counter({f"{how}_pairs": 1})
        if truth is not None:
            found[f"{how}_checked"] = 1
            found[f"{how}_right"] = int(truth == (1 if result == "a" else -1))
            found[f"{how}_equal"] = int(truth == 0)
        return found

    def report(self) -> dict[str, Any]:
        """In all and per language."""
        total: Counter[str] = Counter()
        for counter in self._counts.values():
            total.update(counter)
        return {
            "all": self._of(total),
            "languages": {name: self._of(counter) for name, counter in sorted(self._counts.items())},
        }

    @staticmethod
    def _of(c: Counter[str]) -> dict[str, Any]:
        judged = c["comparisons"] - c["failed"]
        return {
            "comparisons": c["comparisons"],
            "failed": c["failed"],
            "flip_rate": wilson(c["flips"], judged),
            "kept_error_from_flips": kept_error(c["flips"] / judged) if judged else None,
            "first_shown_wins": wilson(c["first_shown"], c["decided"]),
            "longer_wins": wilson(c["longer_wins"], c["unequal"]),
            "combine": {
                how: {
                    "yield": wilson(c[f"{how}_pairs"], c["comparisons"]),
                    "accuracy": wilson(c[f"{how}_right"], c[f"{how}_checked"]),
                    "truly_equal": c[f"{how}_equal"],
                }
                for how in ("agree", "mean")
            },
        }
