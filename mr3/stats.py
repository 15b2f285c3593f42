"""Rates, differences and agreements with their uncertainty: thin wrappers over scipy and scikit-learn.

A rate is `{"value", "n", "interval": [low, high]}` with a 95% interval; what can't be computed is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Rate = dict[str, Any]


def wilson(successes: float, n: float, confidence: float = 0.95) -> Rate:
    """A rate with its Wilson score interval; value and interval are None for n = 0.

    Args:
        n: trials; less than their number, and no whole number, where they are not independent (see `rate`).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials is no rate")
    if n == 0:
        return {"value": None, "n": 0, "interval": None}
    from scipy.stats import norm

    z, p = float(norm.ppf((1 + confidence) / 2)), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (0.0 if p == 0 else centre - half), (1.0 if p == 1 else centre + half)
    return {"value": p, "n": n, "interval": [low, high]}


def rate(hits: Iterable[bool], contents: Iterable[str] | None = None) -> Rate:
    """The share of hits, with a Wilson interval.

    Args:
        contents: what each hit is about. Items of one content are not independent: the interval is that of as many
            independent items as carry the same variance (Kish's design effect, from the spread between contents, and
            never below 1), and the rate says the number of `contents` beside `n`. Where every hit is alike, a content
            counts as if its items said one thing.
    """
    values = [bool(h) for h in hits]
    if contents is None or not values:
        return wilson(sum(values), len(values))
    sums, sizes = _by_content(values, contents)
    p, n = sum(values) / len(values), len(values)
    if p in (0.0, 1.0):
        effect = float((sizes**2).sum()) / n
    elif len(sizes) == 1:
        effect = float(n)
    else:
        between = float(((sums - p * sizes) ** 2).sum()) * len(sizes) / (len(sizes) - 1)
        effect = max(1.0, between / (n * p * (1 - p)))
    independent = n / effect
    return {**wilson(p * independent, independent), "value": p, "n": n, "contents": len(sizes)}


def _by_content(values: Sequence[float], contents: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values and number of items of each content, both (contents,)."""
    names = list(contents)
    if len(names) != len(values):
        raise ValueError(f"every item needs its content, got {len(values)} items and {len(names)} contents")
    _, place = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    return np.bincount(place, weights=np.asarray(values, dtype=float)), np.bincount(place).astype(float)


def _interval(draws: np.ndarray, confidence: float) -> list[float]:
    tail = (1 - confidence) / 2
    return [float(np.nanquantile(draws, tail)), float(np.nanquantile(draws, 1 - tail))]


def _resampled_means(sums: np.ndarray, sizes: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of bootstrap resamples of contents, each drawn whole; in slices, so that memory stays small.

    Args:
        sums: (groups, contents), the sum of the values of each content in each group.
        sizes: (groups, contents), the number of its items there.

    Returns:
        (resamples, groups); NaN where no content that was drawn has an item in the group.
    """
    count = sums.shape[1]
    means = np.empty((resamples, len(sums)))
    step = max(1, 2_000_000 // count)
    for begin in range(0, resamples, step):
        size = min(step, resamples - begin)
        drawn = rng.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        items = times @ sizes.T
        means[begin : begin + size] = np.divide(
            times @ sums.T, items, out=np.full(items.shape, np.nan), where=items > 0
        )
    return means


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
    contents: Sequence[str] | None = None,
) -> Rate:
    """The mean of a - b over the same items, with a percentile bootstrap interval of that difference.

    Args:
        contents: what each item is about: contents are drawn, not items, and their number is said beside `n`.

    Raises:
        ValueError: when a and b are not of equal length: then they are not pairs.
    """
    if len(a) != len(b):
        raise ValueError(f"a paired comparison needs the same items on both sides, got {len(a)} and {len(b)}")
    if not len(a):
        return {"value": None, "n": 0, "interval": None}
    differences = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    sums, sizes = (differences, np.ones(len(a))) if contents is None else _by_content(list(differences), contents)
    draws = _resampled_means(sums[None], sizes[None], resamples, np.random.default_rng(seed))
    found = {"value": float(differences.mean()), "n": len(a), "interval": _interval(draws, confidence)}
    return found if contents is None else {**found, "contents": len(sizes)}


def hierarchical_bootstrap(
    differences: Sequence[Sequence[float]],
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
    contents: Sequence[Sequence[str]] | None = None,
) -> Rate:
    """The mean over seeds of the mean over items of paired differences, resampling seeds, then what items are about.

    Where seeds have contents of their own, each place of a resample draws its own. A content that several seeds share
    is as hard under each of them, so contents are then drawn once for all seeds of a resample (the pigeonhole
    bootstrap, Owen 2007, Annals of Applied Statistics 1(2), which errs to the wide side).

    Args:
        differences: one sequence of a - b per seed; seeds may hold different numbers of items.
        contents: what each item is about, per seed; every item is a content of its own by default.

    Returns:
        A rate whose `n` is the number of seeds, with `items` and (where given) `contents` for their numbers in all.
    """
    if not differences or any(len(d) == 0 for d in differences):
        raise ValueError("a hierarchical bootstrap needs at least one seed, and items in every seed")
    given = contents is not None
    if contents is None:
        contents = [[f"{i}/{k}" for k in range(len(d))] for i, d in enumerate(differences)]
    names = sorted({name for row in contents for name in row})
    place, shape = {name: k for k, name in enumerate(names)}, (len(differences), len(names))
    sums, sizes = np.zeros(shape), np.zeros(shape)
    for i, (values, row) in enumerate(zip(differences, contents, strict=True)):
        where = [place[name] for name in row]
        np.add.at(sums[i], where, np.asarray(values, dtype=float))
        np.add.at(sizes[i], where, 1.0)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(sums), size=(resamples, len(sums)))
    if ((sizes > 0).sum(axis=0) > 1).any():
        means = np.take_along_axis(_resampled_means(sums, sizes, resamples, rng), drawn, axis=1)
    else:
        means = np.empty((resamples, len(sums)))
        for i in range(len(sums)):
            places, own = drawn == i, sizes[i] > 0
            means[places] = _resampled_means(sums[i : i + 1, own], sizes[i : i + 1, own], int(places.sum()), rng)[:, 0]
    # A resample may have no item of a seed that holds few: it is then over the others.
    known = np.isfinite(means).sum(axis=1)
    draws = np.nansum(means, axis=1)[known > 0] / known[known > 0]
    found = {
        "value": float((sums.sum(axis=1) / sizes.sum(axis=1)).mean()),
        "n": len(sums),
        "items": int(sizes.sum()),
        "interval": _interval(draws, confidence),
    }
    return {**found, "contents": len(names)} if given else found


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
