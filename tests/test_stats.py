"""Statistics against cases worked out by hand, and what is undefined stays undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mr3.stats import hierarchical_bootstrap, kappa, paired_bootstrap, rate, wilson


@pytest.mark.parametrize(("k", "n"), [(8, 10), (0, 20), (20, 20), (1, 3), (500, 1000)])
def test_wilson_is_the_score_interval(k: int, n: int) -> None:
    z, p = 1.959963984540054, k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = wilson(k, n)
    assert found["value"] == p and found["n"] == n
    assert found["interval"] == pytest.approx([max(0.0, centre - half), min(1.0, centre + half)], abs=1e-12)


def test_a_known_wilson_interval() -> None:
    assert wilson(8, 10)["interval"] == pytest.approx([0.4901625, 0.9433178], abs=1e-6)


def test_no_trials_have_no_rate() -> None:
    assert wilson(0, 0) == {"value": None, "n": 0, "interval": None} == rate([])
    assert rate(x > 1 for x in (1, 2, 3)) == wilson(2, 3)
    with pytest.raises(ValueError, match="no rate"):
        wilson(3, 2)


def test_paired_bootstrap_of_a_constant_difference_is_certain() -> None:
    found = paired_bootstrap([1.5, 2.5, 0.5], [1.0, 2.0, 0.0])
    assert found == {"value": 0.5, "n": 3, "interval": [0.5, 0.5]}


def test_paired_bootstrap_agrees_with_the_normal_interval_and_with_itself() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(1.0, 1.0, 400), rng.normal(0.0, 1.0, 400)
    found = paired_bootstrap(list(a), list(b))
    error = (a - b).std(ddof=1) / 20
    mean = (a - b).mean()
    assert found["interval"] == pytest.approx([mean - 1.96 * error, mean + 1.96 * error], abs=0.02)
    assert found == paired_bootstrap(list(a), list(b))


def test_pairing_matters() -> None:
    base = list(np.random.default_rng(0).normal(0, 10, 200))
    low, high = paired_bootstrap([x + 0.5 for x in base], base)["interval"]
    assert low == pytest.approx(0.5) and high == pytest.approx(0.5)
    with pytest.raises(ValueError, match="same items"):
        paired_bootstrap([1.0], [1.0, 2.0])
    assert paired_bootstrap([], [])["value"] is None


def test_hierarchical_bootstrap_is_as_wide_as_the_seeds_differ() -> None:
    same = hierarchical_bootstrap([[1.0] * 50] * 5)
    assert same == {"value": 1.0, "n": 5, "items": 250, "interval": [1.0, 1.0]}
    apart = hierarchical_bootstrap([[float(s)] * 50 for s in (0, 1, 2, 3, 4)])
    assert apart["value"] == 2.0
    # The mean of 5 draws from {0..4}: variance 2 / 5.
    assert apart["interval"] == pytest.approx([2 - 1.96 * math.sqrt(0.4), 2 + 1.96 * math.sqrt(0.4)], abs=0.2)
    flat = paired_bootstrap([float(s) for s in (0, 1, 2, 3, 4) for _ in range(50)], [0.0] * 250)
    assert flat["interval"][1] - flat["interval"][0] < apart["interval"][1] - apart["interval"][0]
    uneven = hierarchical_bootstrap([[0.0], [1.0, 1.0, 1.0]])
    assert uneven["value"] == 0.5, "seeds count the same, however many items they have"
    with pytest.raises(ValueError, match="items in every seed"):
        hierarchical_bootstrap([[1.0], []])


def test_kappa_of_a_textbook_table() -> None:
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: observed 0.7, by chance 0.5, kappa 0.4.
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert kappa(first, second)["value"] == pytest.approx(0.4)


def test_weighted_kappa_counts_near_misses() -> None:
    a, b = list("12345") * 4, list("12354") * 4
    plain, weighted = kappa(a, b)["value"], kappa(a, b, list("12345"), "quadratic")["value"]
    # Quadratic: squared distance 2 of 5 items, expected by chance 4 -> 1 - (2/5)/4.
    assert weighted == pytest.approx(0.9)
    assert plain == pytest.approx((0.6 - 0.2) / 0.8)


def test_kappa_without_a_value_says_why() -> None:
    assert kappa([], []) == {"value": None, "n": 0, "reason": "no items"}
    found = kappa(["yes"] * 3, ["yes", "no", "yes"])
    assert found["value"] is None and found["reason"] == "the first rater always says 'yes'"
    with pytest.raises(ValueError, match="same items"):
        kappa(["a"], [])


def test_items_of_one_content_count_as_less_than_items() -> None:
    # 40 contents of 5 items that say one thing: as wide as 40 items alone.
    hits = [k % 2 == 0 for k in range(40) for _ in range(5)]
    contents = [str(k) for k in range(40) for _ in range(5)]
    found, few = rate(hits, contents), rate([k % 2 == 0 for k in range(40)])
    assert (found["value"], found["n"], found["contents"]) == (0.5, 200, 40)
    width = found["interval"][1] - found["interval"][0]
    assert width == pytest.approx(few["interval"][1] - few["interval"][0], rel=0.03)
    alone = rate(hits, [str(i) for i in range(200)])
    assert alone["interval"] == pytest.approx(rate(hits)["interval"], abs=0.002) and alone["contents"] == 200
    assert rate([True] * 200, contents)["interval"] == pytest.approx(rate([True] * 40)["interval"])
    assert rate([True, False], ["a", "a"])["interval"] == pytest.approx(wilson(0.5, 1)["interval"])
    assert rate([], [])["value"] is None
    with pytest.raises(ValueError, match="2 items and 1 contents"):
        rate([True, False], ["a"])


def test_the_paired_bootstrap_draws_contents() -> None:
    rng = np.random.default_rng(5)
    worth = rng.normal(0.2, 1.0, 60)
    contents = [str(k) for k in range(60) for _ in range(4)]
    a = [float(x) for x in worth for _ in range(4)]
    found, once = paired_bootstrap(a, [0.0] * 240, contents=contents), paired_bootstrap(list(worth), [0.0] * 60)
    assert (found["n"], found["contents"]) == (240, 60) and found["value"] == pytest.approx(once["value"])
    assert found["interval"] == pytest.approx(once["interval"], abs=0.02)
    wrong = paired_bootstrap(a, [0.0] * 240)["interval"]
    assert wrong[1] - wrong[0] < 0.6 * (found["interval"][1] - found["interval"][0])


def test_contents_that_seeds_share_are_drawn_once_for_all() -> None:
    rng = np.random.default_rng(6)
    worth = rng.normal(0.0, 1.0, 50)
    names = [str(k) for k in range(50)]
    rows = [list(worth) for _ in range(5)]
    shared = hierarchical_bootstrap(rows, contents=[names] * 5)
    own = hierarchical_bootstrap(rows, contents=[[f"{s}/{n}" for n in names] for s in range(5)])
    assert (shared["contents"], own["contents"], shared["items"]) == (50, 250, 250)
    # The same items under five seeds tell no more than under one.
    once = paired_bootstrap(list(worth), [0.0] * 50)["interval"]
    assert shared["interval"] == pytest.approx(once, abs=0.03)
    ratio = (own["interval"][1] - own["interval"][0]) / (once[1] - once[0])
    assert ratio == pytest.approx(1 / math.sqrt(5), rel=0.15)


def test_intervals_over_contents_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    held = {"contents": 0, "items": 0}
    for _ in range(200):
        chance = rng.beta(1.5, 1.5, 80)
        hits = [bool(rng.random() < p) for p in chance for _ in range(4)]
        about = [str(k) for k in range(80) for _ in range(4)]
        for name, found in (("contents", rate(hits, about)), ("items", rate(hits))):
            held[name] += found["interval"][0] <= 0.5 <= found["interval"][1]
    assert held["contents"] >= 182 and held["items"] < held["contents"] - 8
