"""Intervals for what has no closed form: kappa, calibration, means and correlations.

Bootstrap resamples are multinomial draws over the distinct cells of the data (equal to resampling items), so their
cost does not grow with the number of items. All intervals are 95%.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mr3.stats import Rate, kappa

_RESAMPLES = 2_000
_TAILS = (0.025, 0.975)


def resampled(counts: Sequence[int], seed: int = 0, resamples: int = _RESAMPLES) -> np.ndarray:
    """Counts of bootstrap resamples: (resamples, cells) from the counts of each cell."""
    values = np.asarray(counts, dtype=float)
    n = int(values.sum())
    return np.random.default_rng(seed).multinomial(n, values / n, size=resamples)


def _interval(draws: np.ndarray) -> list[float] | None:
    known = draws[np.isfinite(draws)]
    return [float(np.quantile(known, q)) for q in _TAILS] if len(known) else None


def kappa_with_interval(a: Sequence[str], b: Sequence[str], labels: Sequence[str] | None = None) -> Rate:
    """Cohen's kappa with a bootstrap interval; quadratic weights over `labels` (an ordinal scale) where given."""
    found = kappa(a, b, labels, "quadratic" if labels else None)
    if found["value"] is None:
        return found
    names = list(labels) if labels else sorted({*a, *b})
    places = {name: i for i, name in enumerate(names)}
    k = len(names)
    cells = np.zeros((k, k), dtype=int)
    for pair, count in Counter(zip(a, b, strict=True)).items():
        cells[places[pair[0]], places[pair[1]]] = count
    draws = resampled(cells.ravel().tolist()).reshape(-1, k, k) / len(a)
    i, j = np.indices((k, k))
    cost = (i - j) ** 2 if labels else (i != j).astype(float)
    by_chance = draws.sum(axis=2)[:, :, None] * draws.sum(axis=1)[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        values = 1 - (cost * draws).sum(axis=(1, 2)) / (cost * by_chance).sum(axis=(1, 2))
    return {**found, "interval": _interval(values)}


def mean_of(counts: Mapping[float, int]) -> Rate:
    """The mean of values given by how often each occurs, with a bootstrap interval."""
    n = sum(counts.values())
    if n == 0:
        return {"value": None, "n": 0, "interval": None}
    values = np.asarray(list(counts), dtype=float)
    weights = list(counts.values())
    return {
        "value": float(values @ np.asarray(weights)) / n,
        "n": n,
        "interval": _interval(resampled(weights) @ values / n),
    }


def calibration(p: Sequence[float], truth: Sequence[float], bins: int = 10) -> dict[str, Any]:
    """How far stated probabilities are from what is true.

    Args:
        p: expected scores between 0 and 1.
        truth: 1, 0, or a half for a tie (a step of the scale for pointwise).
        bins: equal steps of p; the expected calibration error is the mean over items of the gap between mean p and
            mean truth of the item's bin. It is biased upwards where bins hold few items: read it with n.

    Returns:
        `ece` and `brier` (mean squared error) as rates, and the `bins` of a reliability diagram.
    """
    n = len(p)
    if n == 0:
        nothing = {"value": None, "n": 0, "interval": None}
        return {"ece": nothing, "brier": nothing, "bins": []}
    stated, true = np.asarray(p, dtype=float), np.asarray(truth, dtype=float)
    places = np.minimum((stated * bins).astype(int), bins - 1)
    gaps = np.bincount(places, stated - true, bins)
    counts = np.bincount(places, minlength=bins)
    # Cells for the resampling: p to three digits by truth, kept in their bins.
    cells, sizes = np.unique(np.stack([places, np.round(stated, 3), true]), axis=1, return_counts=True)
    draws = resampled(sizes.tolist())
    error = cells[1] - cells[2]
    by_bin = np.zeros((len(error), bins))
    by_bin[np.arange(len(error)), cells[0].astype(int)] = error
    return {
        "ece": {
            "value": float(np.abs(gaps).sum() / n),
            "n": n,
            "interval": _interval(np.abs(draws @ by_bin).sum(axis=1) / n),
        },
        "brier": {"value": float(np.mean((stated - true) ** 2)), "n": n, "interval": _interval(draws @ error**2 / n)},
        "bins": [
            {
                "low": i / bins,
                "high": (i + 1) / bins,
                "n": int(counts[i]),
                "stated": float(stated[places == i].mean()),
                "true": float(true[places == i].mean()),
            }
            for i in range(bins)
            if counts[i]
        ],
    }


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Rate:
    """Spearman's rank correlation with a Fisher interval; None with a reason where it is not defined."""
    n = len(x)
    if n < 4:
        return {"value": None, "n": n, "reason": "fewer than four items"}
    if min(x) == max(x) or min(y) == max(y):
        return {"value": None, "n": n, "reason": "constant length or score"}
    from scipy.stats import pearsonr, rankdata

    found = pearsonr(rankdata(x), rankdata(y))
    interval = found.confidence_interval()
    return {"value": float(found.statistic), "n": n, "interval": [float(interval.low), float(interval.high)]}
