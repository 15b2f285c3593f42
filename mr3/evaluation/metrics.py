"""What a judge is worth on labelled tasks: accuracy, failures, order consistency, rubric flips; with n and interval.

A failed verdict is a wrong one here, and its failure is reported beside the accuracy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mr3.evaluation.baselines import baselines, sides
from mr3.evaluation.benchmarks import BENCHMARKS
from mr3.evaluation.bias import expected_score_calibration, length_bias
from mr3.evaluation.scores import Answer
from mr3.evaluation.tasks import EvalTask
from mr3.evaluation.traces.notes import TraceNotes, trace_metrics
from mr3.judging.scale import VALUED, label_values
from mr3.records import Outcome, Verdict
from mr3.stats import Rate, rate
from mr3.uncertainty import kappa_with_interval

Combine = Literal["none", "agree", "mean"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One task with its verdicts; `swapped` is None where one order was judged."""

    given: EvalTask
    verdict: Verdict
    swapped: Verdict | None = None
    combine: Combine = "none"
    notes: tuple[TraceNotes | None, ...] = ()
    """On the trace of each verdict."""

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One or two."""
        return (self.verdict,) if self.swapped is None else (self.verdict, self.swapped)

    @property
    def label(self) -> str | None:
        """What counts as the judge's answer; None is a failure."""
        if self.combine == "none" or self.swapped is None:
            return self.verdict.score
        return combine_orders(self.verdict, self.swapped, self.given.task.labels, self.combine)

    @property
    def right(self) -> bool:
        """Whether that answer is the gold label."""
        return self.label == self.given.gold

    @property
    def answer(self) -> Answer:
        """As benchmarks count it."""
        return Answer(self.given.gold, self.label, self.given.task.language, self.given.part)

    @property
    def expected(self) -> float | None:
        """The expected score of the answer: with both orders combined, the mean of both."""
        found = [v.expected for v in (self.verdicts if self.combine != "none" else (self.verdict,))]
        return None if None in found else sum(e for e in found if e is not None) / len(found)


def combine_orders(first: Verdict, second: Verdict, labels: Sequence[str], how: Combine) -> str | None:
    """One label from the verdicts of both orders (both mapped back already); None if either failed.

    `agree`: their common label, else a tie. `mean`: the side that the mean of P(A better) favours, a plain score
    standing for certainty where the judge gave no distribution. None where a tie is due and the scale has none.

    Raises:
        ValueError: when the scale has no single label per side.
    """
    if first.score is None or second.score is None:
        return None
    found = sides(labels)
    if found is None:
        raise ValueError(f"orders can't be combined on the scale {', '.join(labels)}: set `combine: none`")
    a, b, tie = found
    if how == "agree":
        return first.score if first.score == second.score else tie
    values = label_values(labels, "pairwise")
    mean = sum(v.expected if v.expected is not None else values[v.score or ""] for v in (first, second)) / 2
    return a if mean > 0.5 else b if mean < 0.5 else tie


def share(judged: Sequence[Judged], is_so: Callable[[Judged], bool]) -> Rate:
    """The share of tasks of which something is so, its interval over contents."""
    return rate((is_so(j) for j in judged), [j.given.content for j in judged])


def _share_of_verdicts(judged: Sequence[Judged], is_so: Callable[[Verdict], bool]) -> Rate:
    """As `share`, over every verdict of the tasks."""
    return rate((is_so(v) for j in judged for v in j.verdicts), [j.given.content for j in judged for _ in j.verdicts])


def failures(judged: Sequence[Judged]) -> dict[str, Any]:
    """Failure rates of verdicts after and before repair, and the count of each outcome."""
    return {
        "rate": _share_of_verdicts(judged, lambda v: v.outcome is not Outcome.OK),
        "before_repair": _share_of_verdicts(judged, lambda v: v.outcome is not Outcome.OK or v.repaired),
        "outcomes": dict(sorted(Counter(v.outcome.value for j in judged for v in j.verdicts).items())),
    }


def order_metrics(judged: Sequence[Judged]) -> dict[str, Rate]:
    """Over the pairs with an `ok` verdict in both orders: how often they agree, how often the first shown wins."""
    pairs = [j for j in judged if j.swapped is not None and all(v.score is not None for v in j.verdicts)]
    if not any(j.swapped is not None for j in judged):
        return {}
    firsts, about = [], []
    for j in pairs:
        values = label_values(j.given.task.labels, "pairwise")
        for v in j.verdicts:
            value = values[v.score or ""]
            if value != 0.5:
                firsts.append((value == 1.0) != v.swapped)
                about.append(j.given.content)
    both = [j for j in judged if j.swapped is not None]
    return {
        "order_consistency": share(pairs, lambda j: len({v.score for v in j.verdicts}) == 1),
        "flip_rate": share(pairs, lambda j: len({v.score for v in j.verdicts}) > 1),
        "right_in_both_orders": share(both, lambda j: all(v.score == j.given.gold for v in j.verdicts)),
        "first_shown_wins": rate(firsts, about),
    }


def rubric_flip(judged: Sequence[Judged]) -> Rate:
    """The share of groups (same responses, other rubrics) in which every row is right.

    Raises:
        ValueError: when rows have no group, or a group has a single row.
    """
    groups: dict[str, list[Judged]] = defaultdict(list)
    for j in judged:
        if j.given.group is None:
            raise ValueError(f"task {j.given.id!r} is in a rubric_flip set but has no group")
        groups[j.given.group].append(j)
    lonely = [name for name, rows in groups.items() if len(rows) < 2]
    if lonely:
        raise ValueError(f"group {lonely[0]!r} of a rubric_flip set has one row only: partners must share a group")
    right = (all(j.right for j in rows) for rows in groups.values())
    return rate(right, [rows[0].given.content for rows in groups.values()])


def _mode_metrics(judged: Sequence[Judged]) -> dict[str, Any]:
    """Accuracy, agreement beyond chance over the answered tasks, and the mean distance of ratings."""
    mode, labels = judged[0].given.task.mode, judged[0].given.task.labels
    answered = [j for j in judged if j.label is not None]
    same_scale = all(j.given.task.labels == labels for j in judged)
    weights = mode == "pointwise" and same_scale  # of an ordinal scale: a near miss is a smaller disagreement
    gold, said = [j.given.gold for j in answered], [j.label or "" for j in answered]
    found: dict[str, Any] = {
        "accuracy": share(judged, lambda j: j.right),
        "kappa": kappa_with_interval(gold, said, labels if weights else None),
    }
    if mode == "pointwise":
        errors = [_distance(j) for j in answered]
        found["mean_absolute_error"] = {"value": sum(errors) / len(errors) if errors else None, "n": len(errors)}
    return found


def _distance(judged: Judged) -> float:
    values = label_values(judged.given.task.labels, "pointwise")
    said = judged.verdict.expected
    return abs((values[judged.label or ""] if said is None else said) - values[judged.given.gold])


def _grouped(judged: Sequence[Judged], key: str) -> dict[str, list[Judged]]:
    groups: dict[str, list[Judged]] = defaultdict(list)
    for j in judged:
        groups[getattr(j.given.task, key)].append(j)
    return dict(sorted(groups.items()))


def set_metrics(
    judged: Sequence[Judged], flips: bool = False, name: str = "", wrong: Sequence[Answer] = ()
) -> dict[str, Any]:
    """All metrics of one evaluation set; `benchmark` has the figure of a published one, by its name.

    Args:
        wrong: rows of the benchmark that could not be judged; its figure counts them as wrong.
    """
    found: dict[str, Any] = {
        "tasks": len(judged),
        "accuracy": share(judged, lambda j: j.right),
        "by_mode": {mode: _mode_metrics(rows) for mode, rows in _grouped(judged, "mode").items()},
        "by_language": {code: share(rows, lambda j: j.right) for code, rows in _grouped(judged, "language").items()},
        "failed": failures(judged),
        "failed_by_language": {
            code: _share_of_verdicts(rows, lambda v: v.score is None)
            for code, rows in _grouped(judged, "language").items()
        },
        **order_metrics(judged),
        "baselines": baselines([j.given for j in judged]),
    }
    if name in BENCHMARKS:
        found["benchmark"] = BENCHMARKS[name].score([*(j.answer for j in judged), *wrong])
    if flips:
        found["rubric_flip"] = rubric_flip(judged)
    found |= _biases(judged)
    traces = trace_metrics(note for j in judged for note in j.notes)
    if traces:
        found["trace"] = traces
    outside = [v.outside_mass for j in judged for v in j.verdicts if v.outside_mass is not None]
    if outside:
        found["outside_mass"] = {"value": sum(outside) / len(outside), "n": len(outside)}
    return found


def _biases(judged: Sequence[Judged]) -> dict[str, Any]:
    """Calibration and length correlation per mode: their scales differ."""
    answered = [j for j in judged if j.label is not None and j.given.task.mode in VALUED]
    modes = _grouped(answered, "mode")
    return {
        "calibration": {
            m: expected_score_calibration([(j.given, j.expected) for j in rows]) for m, rows in modes.items()
        },
        "length_correlation": {m: length_bias([(j.given, j.label or "") for j in rows]) for m, rows in modes.items()},
    }


def all_metrics(
    judged: Sequence[Judged], flip_sets: Iterable[str] = (), wrong: Mapping[str, Sequence[Answer]] | None = None
) -> dict[str, Any]:
    """`sets`: metrics per set; `failed`: over all verdicts.

    Args:
        wrong: set -> rows that could not be judged, see `set_metrics`.
    """
    unjudged = wrong or {}
    by_set: dict[str, list[Judged]] = defaultdict(list)
    for j in judged:
        for name in j.given.sets:
            by_set[name].append(j)
    flips = set(flip_sets)
    if flips - by_set.keys():
        raise ValueError(f"rubric_flip names sets that are not evaluated: {', '.join(sorted(flips - by_set.keys()))}")
    return {
        "sets": {
            name: set_metrics(rows, name in flips, name, unjudged.get(name, ()))
            for name, rows in sorted(by_set.items())
        },
        "failed": failures(judged),
    }
