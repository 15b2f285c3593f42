"""The metrics of published benchmarks, as pure functions of answers: what is averaged, and with which weights.

Most of them are weighted means of accuracies over strata (a section's subset in one language, a domain). Those share
their intervals and their paired comparisons; `Strata` is all that tells them apart. A failed verdict is wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mr3.evaluation.rewardbench import COUNTS, SECTIONS, section_of
from mr3.stats import Rate, crossed_bootstrap, rate


@dataclass(frozen=True, slots=True)
class Answer:
    """One labelled row and what a judge said of it; `said` is None for a failed verdict."""

    gold: str
    said: str | None
    language: str = "en"
    part: str | None = None
    """The subset or domain that the benchmark counts by."""

    @property
    def right(self) -> bool:
        """Whether the label is the gold one."""
        return self.said == self.gold


@dataclass(frozen=True, slots=True)
class Strata:
    """How rows are grouped and what each group counts. `weights` sum to 1."""

    of: Callable[[Answer], Hashable]
    weights: Mapping[Hashable, float]


Stratify = Callable[[Sequence[Answer]], Strata]


def _part(answer: Answer) -> str:
    if answer.part is None:
        raise ValueError("a row has no subset or domain, which this benchmark averages over")
    return answer.part


def all_alike(rows: Sequence[Answer]) -> Strata:
    """Plain accuracy (INCLUDE, MGSM)."""
    return Strata(lambda _: "all", {"all": 1.0})


def by_part(rows: Sequence[Answer]) -> Strata:
    """Every subset or domain counts the same, whatever its size (MM-Eval, IndoPref)."""
    parts = sorted({_part(r) for r in rows})
    return Strata(_part, {part: 1 / len(parts) for part in parts})


def by_section(rows: Sequence[Answer]) -> Strata:
    """(m-)RewardBench: the mean over languages of the mean over sections of the count-weighted mean of subsets.

    What a language lacks is left out of its means (a sample of a benchmark may lack subsets or whole sections).

    Raises:
        ValueError: for a subset that RewardBench does not have.
    """
    subsets: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        section_of(_part(row))
        subsets[row.language].add(_part(row))
    weights: dict[Hashable, float] = {}
    for language, present in subsets.items():
        sections = {name: [s for s in inside if s in present] for name, inside in SECTIONS.items()}
        sections = {name: inside for name, inside in sections.items() if inside}
        for inside in sections.values():
            total = sum(COUNTS[s] for s in inside)
            for subset in inside:
                weights[language, subset] = COUNTS[subset] / total / len(sections) / len(subsets)
    return Strata(lambda r: (r.language, _part(r)), weights)


def weighted_mean(rows: Sequence[Answer], stratify: Stratify) -> Rate:
    """The benchmark's figure; a stratified bootstrap interval, or Wilson's where there is one stratum."""
    if not rows:
        return {"value": None, "n": 0, "interval": None}
    places, weights = indexed(rows, stratify(rows))
    if len(weights) == 1:
        return rate(r.right for r in rows)
    found = crossed_bootstrap([[float(r.right) for r in rows]], places, weights)
    return {key: found[key] for key in ("value", "n", "interval")}


def indexed(rows: Sequence[Answer], strata: Strata) -> tuple[list[int], list[float]]:
    """Each row's stratum as a number, and the weights in that order, as `crossed_bootstrap` takes them."""
    number = {key: i for i, key in enumerate(strata.weights)}
    return [number[strata.of(r)] for r in rows], list(strata.weights.values())


def section_scores(rows: Sequence[Answer]) -> dict[str, Any]:
    """Per language: the four section scores and their mean; `missing` names what a language lacks."""
    by_language: dict[str, list[Answer]] = defaultdict(list)
    for row in rows:
        by_language[row.language].append(row)
    found: dict[str, Any] = {}
    for language, inside in sorted(by_language.items()):
        seen: dict[str, list[Answer]] = defaultdict(list)
        for row in inside:
            seen[section_of(_part(row))].append(row)
        scores = {name: weighted_mean(seen[name], by_section)["value"] for name in SECTIONS if name in seen}
        missing = [name for name in SECTIONS if name not in seen]
        found[language] = {"mean": sum(scores.values()) / len(scores), **scores, "missing": missing}
    return found


def part_scores(rows: Sequence[Answer]) -> dict[str, Rate]:
    """Accuracy per subset or domain."""
    seen: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        seen[_part(row)].append(row.right)
    return {part: rate(hits) for part, hits in sorted(seen.items())}


def f1(rows: Sequence[Answer], positive: str = "true") -> dict[str, Any]:
    """RTP-LX: micro-averaged F1 over the labels (scikit-learn), and what it hides: the F1 of the positive label.

    A failed verdict is a label of its own, so micro F1 is the share of right rows.
    """
    from sklearn.metrics import f1_score

    gold, said = [r.gold for r in rows], [r.said or "failed" for r in rows]
    micro = f1_score(gold, said, average="micro")
    own = f1_score([g == positive for g in gold], [s == positive for s in said], zero_division=0.0)
    return {"f1_micro": float(micro), f"f1_{positive}": float(own), "gold": dict(sorted(Counter(gold).items()))}


def agreement(rows: Sequence[Answer]) -> dict[str, Any]:
    """Scales of numbers: Kendall's tau (tau-b) and Pearson's r (scipy), over answered rows."""
    return _correlations([(float(r.gold), float(r.said)) for r in rows if r.said is not None])


def helpsteer3_agreement(rows: Sequence[Answer]) -> dict[str, Any]:
    """`agreement` on HelpSteer3's own scale, -3 to 3 (scores less 4).

    `as_published` has the convention of mR3's public script, where a failed verdict has the value -10000: one failure
    then decides r. A row that was set aside for a gold off the scale has no place there, and is left out.
    """
    golds = {str(score): float(score - 4) for score in range(1, 8)}
    known = [(golds[r.gold], None if r.said is None else golds[r.said]) for r in rows if r.gold in golds]
    answered = [(gold, said) for gold, said in known if said is not None]
    everything = [(gold, -10_000.0 if said is None else said) for gold, said in known]
    return {**_correlations(answered), "as_published": _correlations(everything)}


def _correlations(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    gold, said = [g for g, _ in pairs], [s for _, s in pairs]
    if len(set(gold)) < 2 or len(set(said)) < 2:
        nothing = {"value": None, "n": len(pairs), "reason": "one side is constant" if pairs else "no answers"}
        return {"kendall_tau": nothing, "pearson": nothing}
    from scipy.stats import kendalltau, pearsonr

    r = pearsonr(gold, said)
    interval = None
    if len(pairs) > 3:
        found = r.confidence_interval()
        interval = [float(found.low), float(found.high)]
    return {
        "kendall_tau": {"value": float(kendalltau(gold, said).statistic), "n": len(pairs)},
        "pearson": {"value": float(r.statistic), "n": len(pairs), "interval": interval},
    }
