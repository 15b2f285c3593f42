"""Agreement of labels with people: joined by ids, counted per language and policy, nothing dropped silently."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mr3.judging.scale import label_values
from mr3.records import Mode
from mr3.stats import wilson
from mr3.uncertainty import kappa_with_interval
from rewards.auditing.breakdown import Breakdown
from rewards.auditing.people import between, reference
from rewards.auditing.truth import RESULTS, WORTH, calibration_or_reason, stated
from rewards.records import CONSENSUS, Gold, GoldLabel, GoldPair
from rewards.tasks import text_hash
from rewards.walk import Labelled, Row

Key = tuple[str, ...]


@dataclass(frozen=True)
class Joined:
    """One item that people labelled, found in the label run."""

    key: Key
    policies: tuple[str, ...]
    judged: str | None
    outcome: str
    p: float | None
    text_differs: bool = False
    flipped: bool = False


def judged_label(verdicts: Sequence[Row]) -> tuple[str | None, str]:
    """(label, outcome) of one response: its majority over samples; no label when one failed or none wins."""
    failed = [v["outcome"] for v in verdicts if v["outcome"] != "ok"]
    if failed or not verdicts:
        return None, failed[0] if failed else "not_judged"
    label, count = Counter(v["score"] for v in verdicts).most_common(1)[0]
    return (label, "ok") if 2 * count > len(verdicts) else (None, "no_majority")


def _main(said: dict[str, Gold]) -> Gold:
    """Whose label of an item leads (see `reference`): the consensus, the first annotator, or any of several."""
    return said.get(CONSENSUS) or said.get("first") or next(iter(said.values()))


def _labels_of(said: dict[str, Gold]) -> dict[str, str | None]:
    return {name: item.label for name, item in said.items()}


class _Language:
    """What is known of the gold labels of one language or policy."""

    def __init__(self, labels: Sequence[str], worth: dict[str, float], ordinal: bool) -> None:
        self._labels = tuple(labels)
        self._worth = worth
        self._ordinal = ordinal
        self.gold: list[str] = []
        self.judged: list[str] = []
        self.p: list[float | None] = []
        self.failures: Counter[str] = Counter()
        self.labelled = self.blank = self.tidied = self.text_differs = self.matched = 0

    def report(self) -> dict[str, Any]:
        """Accuracy, kappa, what a constant answer would get, calibration, and what is missing."""
        right = sum(g == j for g, j in zip(self.gold, self.judged, strict=True))
        compared = len(self.gold) + sum(self.failures.values())
        commonest = Counter(self.gold).most_common(1)
        cells = Counter(zip(self.gold, self.judged, strict=True))
        known = [(p, self._worth[g]) for p, g in zip(self.p, self.gold, strict=True) if p is not None]
        found = {
            "labelled": self.labelled,
            "blank": self.blank,
            "not_in_pool": self.labelled + self.blank - self.matched,
            "tidied_before_review": self.tidied,
            "judged_text_differs": self.text_differs,
            "failed": dict(self.failures),
            "accuracy": wilson(right, len(self.gold)),
            "accuracy_failures_wrong": wilson(right, compared),
            "kappa": kappa_with_interval(self.judged, self.gold),
            "baseline_constant": {
                "label": commonest[0][0] if commonest else None,
                **wilson(commonest[0][1] if commonest else 0, len(self.gold)),
            },
            "confusion": {f"gold {g}": {f"judge {j}": cells[g, j] for j in self._labels} for g in self._labels},
            **calibration_or_reason([p for p, _ in known], [w for _, w in known]),
        }
        if self._ordinal:
            found["kappa_quadratic"] = kappa_with_interval(self.judged, self.gold, self._labels)
        if "tie" in self._labels:
            decided = [(g, j) for g, j in zip(self.gold, self.judged, strict=True) if "tie" not in (g, j)]
            found["accuracy_decided"] = wilson(sum(g == j for g, j in decided), len(decided))
        return found


class Agreement:
    """Collects joined labels prompt by prompt, then reports.

    Args:
        gold: labels of people, all of single responses or all of pairs. What an item counts as is its consensus, the
            label of the annotator `first`, or the majority of its annotators, whichever there is.
        labels: the legal scores of the run.
        mode: the run's mode; with labels of pairs only the results of comparisons are looked at.

    Raises:
        ValueError: for a label off the scale, two labels of one annotator for one item, or labels of single responses
            for a pairwise run.
    """

    def __init__(self, gold: Iterable[Gold], labels: Sequence[str], mode: Mode = "binary") -> None:
        items = list(gold)
        self._of_pairs = bool(items) and isinstance(items[0], GoldPair)
        if mode == "pairwise" and not self._of_pairs:
            raise ValueError("gold labels are of single responses: audit a pointwise or binary label run with them")
        self._labels = RESULTS if self._of_pairs else tuple(labels)
        values = WORTH if self._of_pairs else label_values(labels, mode)
        self._low, span = min(values.values()), max(values.values()) - min(values.values())
        self._span = span or 1.0
        worth = {label: (value - self._low) / self._span for label, value in values.items()}
        ordinal = mode == "pointwise" and not self._of_pairs
        self._found = Breakdown(lambda: _Language(self._labels, worth, ordinal))
        self._said: dict[Key, dict[str, Gold]] = defaultdict(dict)
        for item in items:
            self._take(item)
        self._by_prompt: dict[str, list[Key]] = defaultdict(list)
        for key, said in self._said.items():
            self._by_prompt[key[0]].append(key)
            for known in self._found.of(_main(said).language):
                self._count_label(known, said)

    def _take(self, item: Gold) -> None:
        if isinstance(item, GoldPair):
            item = item if item.a <= item.b else item.flipped
            key: Key = (item.prompt_id, item.a, item.b)
            name = f"{item.a} against {item.b}"
        else:
            key, name = (item.prompt_id or "", item.response_id), item.response_id
        if item.label is not None and item.label not in self._labels:
            raise ValueError(
                f"gold label {item.label!r} of {name} is not a score of this label run "
                f"({', '.join(self._labels)}): give gold labels on the same scale"
            )
        if item.annotator in self._said[key]:
            raise ValueError(f"two gold labels of one annotator for {name}: keep one")
        self._said[key][item.annotator] = item

    @staticmethod
    def _count_label(known: _Language, said: dict[str, Gold]) -> None:
        label, main = reference(_labels_of(said)), _main(said)
        known.labelled += label is not None
        known.blank += label is None
        known.tidied += isinstance(main, GoldLabel) and main.tidied

    def add(self, prompt: Labelled) -> None:
        """Join one prompt's responses or comparisons with their gold labels."""
        for found in self._pairs(prompt) if self._of_pairs else self._singles(prompt):
            said = self._said[found.key]
            label = reference(_labels_of(said))
            if found.flipped and label in ("a", "b"):
                label = "b" if label == "a" else "a"
            parts = list(self._found.of(_main(said).language, found.policies))
            for known in parts[2:]:
                self._count_label(known, said)
            for known in parts:
                known.matched += 1
                known.text_differs += found.text_differs
                if label is None:
                    continue
                if found.judged is None:
                    known.failures[found.outcome] += 1
                    continue
                known.gold.append(label)
                known.judged.append(found.judged)
                known.p.append(found.p)

    def _singles(self, prompt: Labelled) -> Iterator[Joined]:
        for response in prompt.responses:
            name = response["response_id"]
            key = next((k for k in ((prompt.prompt_id, name), ("", name)) if k in self._said), None)
            if key is None:
                continue
            verdicts = prompt.verdicts_on(response["judged_as"])
            label, outcome = judged_label(verdicts)
            expected = [v["expected"] for v in verdicts]
            p = None
            if label is not None and None not in expected:
                p = (sum(expected) / len(expected) - self._low) / self._span
            main = _main(self._said[key])
            read = main.text if isinstance(main, GoldLabel) else None
            differs = read is not None and text_hash(read.strip()) != response["text_hash"]
            yield Joined(key, (response["policy"],), label, outcome, p, differs)

    def _pairs(self, prompt: Labelled) -> Iterator[Joined]:
        """Comparisons that people judged too; identical responses stand for each other."""
        wanted = self._by_prompt.get(prompt.prompt_id, [])
        judged_as = {r["response_id"]: r["judged_as"] for r in prompt.responses}
        compared = {(row["a"], row["b"]): row for row in prompt.comparisons}
        for key in wanted:
            a, b = (judged_as.get(name, name) for name in key[1:])
            row = compared.get((a, b)) or compared.get((b, a))
            if row is None:
                continue
            failed = row["result"] == "failed"
            policies = tuple(prompt.authors_of((row["a"], row["b"])))
            judged, outcome = (None, "failed") if failed else (row["result"], "ok")
            flipped = (a, b) not in compared
            yield Joined(key, policies, judged, outcome, stated(prompt, row), flipped=flipped)

    def report(self) -> dict[str, Any]:
        """In all, per language and per policy, with the agreement of people among themselves."""
        found = self._found.report()
        found["all"]["annotators"] = self._between(None)
        for name in found["languages"]:
            found["languages"][name]["annotators"] = self._between(name)
        return {"of": "pairs" if self._of_pairs else "responses", **found}

    def _between(self, language: str | None) -> dict[str, Any] | None:
        return between(_labels_of(said) for said in self._said.values() if language in (None, _main(said).language))
