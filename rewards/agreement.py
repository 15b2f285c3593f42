"""Agreement of labels with people: joined by the response's id, counted per language, nothing dropped silently."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mr3.stats import kappa, wilson
from rewards.records import GoldLabel
from rewards.tasks import text_hash
from rewards.walk import Labelled, Row


@dataclass
class _Language:
    """What is known of one language's gold labels."""

    gold: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    expected: list[float | None] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    labelled: int = 0
    blank: int = 0
    tidied: int = 0
    text_differs: int = 0
    matched: int = 0


def judged_label(verdicts: Sequence[Row]) -> tuple[str | None, str]:
    """(label, outcome) of one response: its majority over samples; no label when one failed or none wins."""
    failed = [v["outcome"] for v in verdicts if v["outcome"] != "ok"]
    if failed or not verdicts:
        return None, failed[0] if failed else "not_judged"
    label, count = Counter(v["score"] for v in verdicts).most_common(1)[0]
    return (label, "ok") if 2 * count > len(verdicts) else (None, "no_majority")


class Agreement:
    """Collects joined labels prompt by prompt, then reports.

    Args:
        gold: labels of one or two annotators; `first` is compared with the judge, `second` with `first`.
        labels: the legal scores, the first of which counts as positive for binary.
    """

    def __init__(self, gold: Iterable[GoldLabel], labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._first: dict[str, GoldLabel] = {}
        self._second: dict[str, GoldLabel] = {}
        for item in gold:
            if item.label is not None and item.label not in self._labels:
                raise ValueError(
                    f"gold label {item.label!r} of {item.response_id} is not a score of this label run "
                    f"({', '.join(self._labels)}): give gold labels on the same scale"
                )
            side = self._first if item.annotator == "first" else self._second
            if item.response_id in side:
                raise ValueError(f"two gold labels of one annotator for {item.response_id}: keep one")
            side[item.response_id] = item
        self._found: dict[str, _Language] = defaultdict(_Language)
        for item in self._first.values():
            known = self._found[item.language]
            known.labelled += item.label is not None
            known.blank += item.label is None
            known.tidied += item.tidied

    def add(self, prompt: Labelled) -> None:
        """Join one prompt's responses with their gold labels."""
        for response in prompt.responses:
            gold = self._first.get(response["response_id"])
            if gold is None:
                continue
            known = self._found[gold.language]
            known.matched += 1
            if gold.text is not None and text_hash(gold.text.strip()) != response["text_hash"]:
                known.text_differs += 1
            if gold.label is None:
                continue
            verdicts = prompt.verdicts_on(response["judged_as"])
            label, outcome = judged_label(verdicts)
            if label is None:
                known.failures[outcome] += 1
                continue
            known.gold.append(gold.label)
            known.judged.append(label)
            known.expected.append(verdicts[0]["expected"] if len(verdicts) == 1 else None)

    def report(self) -> dict[str, Any]:
        """Per language and in all: accuracy, kappa, what a constant answer would get, and what is missing."""
        everything = _Language()
        for known in self._found.values():
            for name in ("gold", "judged", "expected"):
                getattr(everything, name).extend(getattr(known, name))
            everything.failures.update(known.failures)
            for name in ("labelled", "blank", "tidied", "text_differs", "matched"):
                setattr(everything, name, getattr(everything, name) + getattr(known, name))
        languages = {name: self._of(known) for name, known in sorted(self._found.items())}
        for name in languages:
            languages[name]["annotators"] = self._between_annotators(name)
        return {"all": {**self._of(everything), "annotators": self._between_annotators(None)}, "languages": languages}

    def _of(self, known: _Language) -> dict[str, Any]:
        right = sum(g == j for g, j in zip(known.gold, known.judged, strict=True))
        compared = len(known.gold) + sum(known.failures.values())
        commonest = Counter(known.gold).most_common(1)
        found = {
            "labelled": known.labelled,
            "blank": known.blank,
            "not_in_pool": known.labelled + known.blank - known.matched,
            "tidied_before_review": known.tidied,
            "judged_text_differs": known.text_differs,
            "failed": dict(known.failures),
            "accuracy": wilson(right, len(known.gold)),
            "accuracy_failures_wrong": wilson(right, compared),
            "kappa": kappa(known.judged, known.gold),
            "baseline_constant": {
                "label": commonest[0][0] if commonest else None,
                **wilson(commonest[0][1] if commonest else 0, len(known.gold)),
            },
            "confusion": {
                f"gold {g}": {f"judge {j}": self._cell(known, g, j) for j in self._labels} for g in self._labels
            },
        }
        calibration = self._calibration(known)
        return found if calibration is None else {**found, "calibration": calibration}

    @staticmethod
    def _cell(known: _Language, gold: str, judged: str) -> int:
        return sum(g == gold and j == judged for g, j in zip(known.gold, known.judged, strict=True))

    def _calibration(self, known: _Language, bins: int = 10) -> dict[str, Any] | None:
        """Expected calibration error and Brier score of P(first label), for binary labels with probabilities."""
        pairs = [(p, g == self._labels[0]) for p, g in zip(known.expected, known.gold, strict=True) if p is not None]
        if len(self._labels) != 2 or not pairs:
            return None
        held: dict[int, list[tuple[float, bool]]] = defaultdict(list)
        for p, true in pairs:
            held[min(bins - 1, int(p * bins))].append((p, true))
        gaps = [abs(sum(p for p, _ in rows) - sum(true for _, true in rows)) for rows in held.values()]
        return {
            "n": len(pairs),
            "ece": sum(gaps) / len(pairs),
            "brier": sum((p - true) ** 2 for p, true in pairs) / len(pairs),
        }

    def _between_annotators(self, language: str | None) -> dict[str, Any] | None:
        """How well two people agree: the ceiling for a judge."""
        both = [
            (self._first[name].label or "", second.label or "")
            for name, second in self._second.items()
            if language in (None, second.language)
            and second.label is not None
            and name in self._first
            and self._first[name].label is not None
        ]
        if not both:
            return None
        return {
            "accuracy": wilson(sum(a == b for a, b in both), len(both)),
            "kappa": kappa([a for a, _ in both], [b for _, b in both]),
        }
