"""Two properties of a judge's scores that nobody reports: calibration, and whether length drives them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mr3.evaluation.tasks import EvalTask
from mr3.judging.scale import label_values
from mr3.uncertainty import calibration, rank_correlation


def expected_score_calibration(rows: Sequence[tuple[EvalTask, float | None]]) -> dict[str, Any]:
    """Calibration of expected scores against gold values, both on 0-1 (see `mr3.uncertainty.calibration`).

    An expected score says what is right on average: P(A better) with half of the ties for pairs, P(true), or a place
    between the lowest and the highest level.

    Args:
        rows: tasks of one mode with the judge's expected score.

    Returns:
        `ece`, `brier` and `bins`; `ece` None with a reason where no verdict has an expected score.
    """
    pairs = [_on_unit_scale(given, expected) for given, expected in rows if expected is not None]
    found = calibration([p for p, _ in pairs], [truth for _, truth in pairs])
    if not pairs:
        found["ece"] = {**found["ece"], "reason": "no verdict has an expected score: set judge.sampling.logprobs to 20"}
    return found


def _on_unit_scale(given: EvalTask, expected: float) -> tuple[float, float]:
    values = label_values(given.task.labels, given.task.mode)
    low, high = min(values.values()), max(values.values())
    return (expected - low) / (high - low), (values[given.gold] - low) / (high - low)


def length_bias(rows: Sequence[tuple[EvalTask, str]]) -> dict[str, Any]:
    """Spearman's correlation of length and verdict, beside that of length and gold: what is above it is bias.

    Pairs: log of the ratio of lengths against who wins. Single responses: the rank of the length within its language
    (lengths of different scripts can't be compared) against the score. Tasks without a response are left out.

    Args:
        rows: tasks of one mode with the label that the judge gave.
    """
    kept = [(given, said) for given, said in rows if given.task.responses]
    lengths = _lengths([given for given, _ in kept])
    judged, gold = [], []
    for given, said in kept:
        values = label_values(given.task.labels, given.task.mode)
        judged.append(values[said])
        gold.append(values[given.gold])
    return {"judge": rank_correlation(lengths, judged), "gold": rank_correlation(lengths, gold)}


def _lengths(tasks: Sequence[EvalTask]) -> list[float]:
    if tasks and tasks[0].task.mode == "pairwise":
        pairs = [[max(1, len(text)) for text in given.task.responses] for given in tasks]
        return [math.log(a / b) for a, b in pairs]
    from scipy.stats import rankdata

    by_language: dict[str, list[int]] = defaultdict(list)
    for place, given in enumerate(tasks):
        by_language[given.task.language].append(place)
    found = [0.0] * len(tasks)
    for places in by_language.values():
        ranks = rankdata([len(tasks[p].task.responses[0]) for p in places]) / (len(places) + 1)
        for place, rank in zip(places, ranks, strict=True):
            found[place] = float(rank)
    return found
