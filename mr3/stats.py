"""Rates, differences and agreements with their uncertainty: thin wrappers over scipy and scikit-learn.

A rate is `{"value", "n", "interval": [low, high]}` with a 95% interval; what can't be computed is None, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Rate = dict[str, Any]


def wilson(successes: int, n: int, confidence: float = 0.95) -> Rate:
    """A rate with its Wilson score interval; value and interval are None for n = 0."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials is no rate")
    if n == 0:
        return {"value": None, "n": 0, "interval": None}
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return {"value": successes / n, "n": n, "interval": [float(interval.low), float(interval.high)]}


def rate(hits: Iterable[bool]) -> Rate:
    """The share of hits, with a Wilson interval."""
    values = [bool(h) for h in hits]
    return wilson(sum(values), len(values))


def _interval(draws: np.ndarray, confidence: float) -> list[float]:
    tail = (1 - confidence) / 2
    return [float(np.quantile(draws, tail)), float(np.quantile(draws, 1 - tail))]


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of bootstrap resamples; drawn in slices, so that memory stays small for long arrays."""
    means = np.empty(resamples)
    step = max(1, 2_000_000 // len(values))
    for begin in range(0, resamples, step):
        size = min(step, resamples - begin)
        means[begin : begin + size] = values[rng.integers(len(values), size=(size, len(values)))].mean(axis=1)
    return means


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> Rate:
    """The mean of a - b over the same items, with a percentile bootstrap interval of that difference.

    Raises:
        ValueError: when a and b are not of equal length: then they are not pairs.
    """
    if len(a) != len(b):
        raise ValueError(f"a paired comparison needs the same items on both sides, got {len(a)} and {len(b)}")
    if not len(a):
        return {"value": None, "n": 0, "interval": None}
    differences = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    draws = _resampled_means(differences, resamples, np.random.default_rng(seed))
    return {"value": float(differences.mean()), "n": len(a), "interval": _interval(draws, confidence)}


def hierarchical_bootstrap(
    differences: Sequence[Sequence[float]], resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> Rate:
    """The mean over seeds of the mean over items of paired differences, resampling seeds, then items in each.

    Args:
        differences: one sequence of a - b per seed; seeds may hold different numbers of items.

    Returns:
        A rate whose `n` is the number of seeds, with `items` for the number of items in all.
    """
    groups = [np.asarray(d, dtype=float) for d in differences]
    if not groups or any(len(g) == 0 for g in groups):
        raise ValueError("a hierarchical bootstrap needs at least one seed, and items in every seed")
    rng = np.random.default_rng(seed)
    # Every place of a resample draws its own items, also when two places hold the same seed.
    drawn = rng.integers(len(groups), size=(resamples, len(groups)))
    means = np.empty((resamples, len(groups)))
    for i, group in enumerate(groups):
        places = drawn == i
        means[places] = _resampled_means(group, int(places.sum()), rng) if places.any() else 0.0
    return {
        "value": float(np.mean([g.mean() for g in groups])),
        "n": len(groups),
        "items": int(sum(len(g) for g in groups)),
        "interval": _interval(means.mean(axis=1), confidence),
    }


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean and spread of one figure over seeds.

    Returns:
        `{"value", "seeds", "std", "std_population"}`: `std` divides by n - 1 (None for one seed), `std_population` by
        n, which is what the public evaluation script of mR3 reports.
    """
    if not len(values):
        raise ValueError("no seed has a value: a mean over seeds needs at least one")
    found = np.asarray(values, dtype=float)
    std = float(found.std(ddof=1)) if len(found) > 1 else None
    return {"value": float(found.mean()), "seeds": len(found), "std": std, "std_population": float(found.std())}


def crossed_bootstrap(
    values: Sequence[Sequence[float]] | np.ndarray,
    strata: Sequence[int] | np.ndarray | None = None,
    weights: Sequence[float] | None = None,
    resamples: int = 2_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Rate:
    """A weighted mean over items that were all seen under every seed, resampling seeds and items.

    An item that is hard is hard under every seed, so items are drawn once for all seeds of a resample (the pigeonhole
    bootstrap, Owen 2007, Annals of Applied Statistics 1(2)); `hierarchical_bootstrap` is for seeds with items of
    their own. Items are drawn within their stratum.

    Args:
        values: (seeds, items), for instance right or wrong, or the difference of two judges.
        strata: the stratum of each item, from 0; one for all by default.
        weights: what each stratum counts in the mean; they sum to 1.

    Returns:
        A rate with `n` items and `seeds`.

    Raises:
        ValueError: for no items, a stratum without items, or weights that don't sum to 1.
    """
    matrix = np.asarray(values, dtype=float)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"expected values of (seeds, items) with at least one of each, got the shape {matrix.shape}")
    seeds, items = matrix.shape
    places = np.zeros(items, dtype=int) if strata is None else np.asarray(strata)
    shares = np.ones(1) if weights is None else np.asarray(weights, dtype=float)
    if abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"the weights of the strata sum to {shares.sum()}, not to 1")
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    total, value = np.zeros(resamples), 0.0
    for stratum, share in enumerate(shares):
        inside = matrix[:, places == stratum]
        if not inside.shape[1]:
            raise ValueError(f"stratum {stratum} has a weight and no items")
        value += share * inside.mean()
        # Items that look alike under all seeds are drawn together: the cost hardly grows with their number.
        looks, counts = np.unique(inside, axis=1, return_counts=True)
        step = max(1, 4_000_000 // len(counts))
        for begin in range(0, resamples, step):
            part = slice(begin, min(begin + step, resamples))
            times = rng.multinomial(inside.shape[1], counts / counts.sum(), size=part.stop - part.start)
            total[part] += share * ((drawn[part] @ looks) * times).sum(axis=1) / inside.shape[1]
    return {"value": float(value), "n": items, "seeds": seeds, "interval": _interval(total, confidence)}


def kappa(a: Sequence[str], b: Sequence[str], labels: Sequence[str] | None = None, weights: str | None = None) -> Rate:
    """Cohen's kappa of two raters over the same items.

    Args:
        labels: the scale in order (needed for weights).
        weights: None, `linear` or `quadratic`.

    Returns:
        `{"value", "n"}`; value None with a `reason` where kappa is not defined (no items, or a constant rater).
    """
    if len(a) != len(b):
        raise ValueError(f"kappa needs the same items on both sides, got {len(a)} and {len(b)}")
    if not a:
        return {"value": None, "n": 0, "reason": "no items"}
    for side, values in (("first", a), ("second", b)):
        if len(set(values)) == 1:
            return {"value": None, "n": len(a), "reason": f"the {side} rater always says {values[0]!r}"}
    from sklearn.metrics import cohen_kappa_score

    value = cohen_kappa_score(list(a), list(b), labels=list(labels) if labels else None, weights=weights)
    return {"value": float(value), "n": len(a)}
