"""The audit's numbers on synthetic judges whose calibration, length bias and language preference are known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.records import PAIRWISE_LABELS, Candidate, PoolRow
from mr3.rubrics import Criterion, Rubric
from mr3.uncertainty import calibration, kappa_with_interval, mean_of, rank_correlation
from rewards.auditing.agreement import Agreement
from rewards.auditing.gold import load_gold, write_gold
from rewards.auditing.language import Languages
from rewards.auditing.length import Lengths
from rewards.auditing.people import between, majority, reference
from rewards.auditing.tally import Tally
from rewards.auditing.truth import Truth
from rewards.auditing.wins import Wins
from rewards.plans import authors, distinct
from rewards.pool import Adapter
from rewards.records import Comparison, GoldLabel, GoldPair
from rewards.rows import comparison_row, response_rows
from rewards.tasks import TaskSettings
from rewards.walk import Labelled

ENGLISH = ("The cat sat on the mat and looked at the birds.", "Nobody knows what the weather will be tomorrow.")
SPANISH = ("El gato se sentó en la alfombra y miró a los pájaros.", "Nadie sabe qué tiempo hará mañana por la tarde.")


def pair(
    texts: tuple[str, str] = ("x", "y"),
    result: str = "a",
    *,
    p: float | None = None,
    truth: int | None = None,
    name: str = "p",
    policies: tuple[str, str] = ("one", "two"),
    language: str = "en",
) -> Labelled:
    """A prompt with one comparison of two responses."""
    responses = [
        {"response_id": i, "judged_as": i, "text": t, "chars": len(t), "policy": policy, "cut": False}
        for i, t, policy in zip("ab", texts, policies, strict=True)
    ]
    row = {
        "a": "a",
        "b": "b",
        "result": result,
        "p_a": p if p is not None else {"a": 1.0, "b": 0.0, "tie": 0.5}.get(result),
        "flip": False,
        "truth": truth,
        "verdict_ids": ["v"],
    }
    verdict = {"id": "v", "response_ids": ["a", "b"], "expected": p, "outcome": "ok"}
    return Labelled(name, language, responses, verdicts=[verdict], comparisons=[row])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(200, 3000))
def test_a_calibrated_judge_has_little_ece_and_an_overconfident_one_has_much(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    truth = (rng.random(n) < p).astype(float)
    good = calibration(p, truth)
    assert good["ece"]["value"] < 3.0 / np.sqrt(n), "what is left is sampling noise"
    assert good["brier"]["value"] == pytest.approx(1 / 6, abs=0.05)
    coin = (rng.random(n) < 0.5).astype(float)
    sure = calibration(np.full(n, 0.99), coin)
    assert sure["ece"]["value"] == pytest.approx(0.99 - coin.mean()) and sure["ece"]["value"] > 0.35
    low, high = sure["ece"]["interval"]
    assert low <= sure["ece"]["value"] <= high and sure["ece"]["n"] == sum(b["n"] for b in sure["bins"]) == n


def test_calibration_by_hand() -> None:
    found = calibration([0.9, 0.9, 0.1, 1.0], [1.0, 0.0, 0.0, 1.0])
    # Bin 0.9-1: stated 2.8, true 2; bin 0.1-0.2: stated 0.1, true 0.
    assert found["ece"]["value"] == pytest.approx((0.8 + 0.1) / 4)
    assert found["brier"]["value"] == pytest.approx((0.01 + 0.81 + 0.01 + 0.0) / 4)
    assert [(b["low"], b["n"]) for b in found["bins"]] == [(0.1, 1), (0.9, 3)]
    assert calibration([], [])["ece"]["value"] is None


def test_kappa_has_an_interval_or_a_reason() -> None:
    rng = random.Random(0)
    a = [rng.choice("xy") for _ in range(400)]
    b = [x if rng.random() < 0.8 else rng.choice("xy") for x in a]
    found = kappa_with_interval(a, b)
    low, high = found["interval"]
    # The standard error of kappa is about sqrt(p(1-p)/n)/(1-p_chance) = 0.03 here.
    assert low < found["value"] < high and 0.08 < high - low < 0.17
    assert kappa_with_interval(["x"] * 5, a[:5])["reason"] == "the first rater always says 'x'"
    near, far = (kappa_with_interval(list("12345"), list(other), "12345") for other in ("12354", "52341"))
    assert near["value"] > far["value"] and near["interval"][0] <= near["value"]


def test_means_and_correlations() -> None:
    assert mean_of({1.0: 3, 0.0: 1})["value"] == 0.75 and mean_of({})["value"] is None
    assert rank_correlation([1, 2, 3, 4, 5], [1, 4, 9, 16, 25])["value"] == pytest.approx(1.0)
    assert "constant" in rank_correlation([1, 1, 1, 1], [1, 2, 3, 4])["reason"]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)).filter(lambda t: t[0] != t[1]), min_size=5))
def test_a_judge_that_picks_the_longer_has_length_bias_one(lengths: list[tuple[int, int]]) -> None:
    found = Lengths(PAIRWISE_LABELS, "pairwise")
    for a, b in lengths:
        found.add(pair(("x" * a, "y" * b), "a" if a > b else "b", truth=1))
    correlation = found.report()["all"]["correlation"]["value"]
    assert correlation is None or correlation > 0, "None where A is always the longer"
    found.add(pair(("xx", "yy"), "a"))
    found.add(pair(("xx", "y"), "tie"))
    report = found.report()["all"]
    assert report["longer_wins"]["value"] == 1.0 and report["longer_wins"]["n"] == len(lengths)
    assert report["equal_length"] == 1 and sum(r["n"] for r in report["by_ratio"].values()) == len(lengths)
    truly = sum(a > b for a, b in lengths)
    assert report["against_truth"]["longer_is_better"]["value"] == truly / len(lengths)
    assert report["against_truth"]["difference"]["value"] == pytest.approx(1 - truly / len(lengths))


def test_length_bins_and_policies() -> None:
    found = Lengths(PAIRWISE_LABELS, "pairwise")
    found.add(pair(("x" * 100, "y" * 105), "b", policies=("one", "two")))
    found.add(pair(("x" * 100, "y" * 900), "a", policies=("one", "three"), language="el"))
    report = found.report()
    assert report["all"]["by_ratio"]["1 to 1.1"]["value"] == 1.0
    assert report["all"]["by_ratio"]["4 and more"]["value"] == 0.0
    assert report["languages"]["el"]["longer_wins"]["n"] == 1
    assert {name: x["longer_wins"]["n"] for name, x in report["policies"].items()} == {"one": 2, "two": 1, "three": 1}


def test_truth_counts_ties_and_failures() -> None:
    found = Truth()
    rows = [("a", 1, 0.9), ("a", 1, 0.8), ("b", 1, 0.3), ("tie", 0, 0.5), ("tie", -1, 0.5), ("failed", 1, None)]
    for result, truth, p in rows:
        found.add(pair(result=result, truth=truth, p=p))
    found.add(pair(result="a"))
    report = found.report()
    assert report is not None
    x = report["all"]
    assert (x["n"], x["failed"]) == (6, 1)
    assert x["accuracy"]["value"] == 3 / 5 and x["accuracy_failures_wrong"]["value"] == 0.5
    assert x["accuracy_decided"]["value"] == pytest.approx(2 / 3)
    assert x["confusion"]["true a"] == {"judge a": 2, "judge b": 1, "judge tie": 0}
    assert x["kappa"]["n"] == 5 and x["kappa"]["value"] is not None
    # A true tie is worth a half: P = 0.5 is right about it.
    assert x["calibration"]["brier"]["value"] == pytest.approx((0.01 + 0.04 + 0.49 + 0 + 0.25) / 5)
    assert set(report["policies"]) == {"one", "two"} and report["policies"]["one"]["n"] == 6
    assert Truth().report() is None


def test_bare_labels_have_no_calibration() -> None:
    found = Truth()
    found.add(pair(result="a", truth=1))
    report = found.report()
    assert report is not None and report["all"]["calibration"] is None
    assert "logprobs" in report["all"]["no_calibration"]


def test_win_rates_of_policies() -> None:
    found = Wins()
    for result, truth in (("a", 1), ("a", -1), ("b", 1), ("tie", 0), ("failed", 1)):
        found.add(pair(result=result, truth=truth))
    found.add(pair(result="a", policies=("one", "one")))
    found.add(pair(result="b", policies=("two", "three"), language="el"))
    report = found.report()
    one, two = report["all"]["one"], report["all"]["two"]
    assert (one["won"], one["lost"], one["ties"], one["failed"]) == (2, 1, 1, 1), "a policy does not play itself"
    assert one["win_rate"]["value"] == pytest.approx(2 / 3) and one["true_win_rate"]["value"] == 0.75
    assert two["win_rate"]["n"] == 4 and two["against"]["three"]["value"] == 0.0
    assert set(report["languages"]["el"]) == {"two", "three"}


GOOD, BAD = "good", "bad"


def _labelled(order: Sequence[tuple[str, str]]) -> Labelled:
    """A prompt as a label run writes it: (policy, text) in the pool's order, of which only the good text wins."""
    row = PoolRow(
        prompt_id="p",
        language="en",
        prompt="q",
        responses=[Candidate(id=f"{policy}-{text}", policy=policy, text=text) for policy, text in order],
    )
    shared = distinct(row.responses)
    a, b = dict.fromkeys(shared.values())
    first = next(r.text for r in row.responses if r.id == a)
    comparison = Comparison(a=a, b=b, result="a" if first == GOOD else "b", p_a=float(first == GOOD))
    wrote = authors({r.id: r.policy for r in row.responses}, shared)
    verdict = {"id": "v", "response_ids": [a, b], "expected": None, "outcome": "ok", "score": "Tie"}
    return Labelled(
        "p",
        "en",
        response_rows(row, TaskSettings(rubric=Rubric(criteria=[Criterion(name="c", description="d")]))),
        verdicts=[verdict],
        comparisons=[comparison_row(row, comparison, 1 if first == GOOD else -1, wrote)],
    )


@given(st.permutations([("alpha", GOOD), ("beta", GOOD), ("gamma", BAD), ("alpha", BAD)]))
def test_all_who_wrote_a_text_win_and_lose_with_it_in_any_order_of_the_pool(order: list[tuple[str, str]]) -> None:
    prompt = _labelled(order)
    wins, truth = Wins(), Truth()
    wins.add(prompt)
    truth.add(prompt)
    found = {name: (x["won"], x["lost"]) for name, x in wins.report()["all"].items()}
    # alpha over gamma, beta over alpha and over gamma: what alpha wrote does not play against itself.
    assert found == {"alpha": (1, 1), "beta": (2, 0), "gamma": (0, 2)}
    assert set((truth.report() or {})["policies"]) == {"alpha", "beta", "gamma"}
    (row,) = prompt.comparisons
    sides = {row["policy_a"], row["policy_b"]}
    assert sides == {"alpha + beta", "alpha + gamma"}, "the table names all of them, as the preferences do"
    tally = Tally(PAIRWISE_LABELS, "pairwise", 0)
    tally.add(prompt)
    assert set(tally.report()["policies"]) == {"alpha", "beta", "gamma"}


def test_a_judge_that_prefers_another_language_is_seen() -> None:
    found = Languages(PAIRWISE_LABELS, "pairwise", {"en": 8, "es": 0}, None, 0)
    for i in range(3):
        found.add(pair((ENGLISH[0], SPANISH[0]), "b", name=f"p{i}"))
    found.add(pair((ENGLISH[1], SPANISH[1]), "a", name="p3"))
    found.add(pair(ENGLISH, "a", name="p4"))
    found.add(pair(("4", "5"), "a", name="p5"))
    x = found.report()["all"]
    assert x["consistent"]["value"] == 0.6 and x["consistent"]["n"] == 10
    assert x["undecidable"] == 2, "too short to tell is no language"
    assert x["other_language_wins"]["value"] == 0.75 and x["other_language_wins"]["n"] == 4
    assert found.report()["policies"]["two"]["consistent"]["value"] == pytest.approx(1 / 5)


def test_languages_look_at_a_share_and_name_what_they_do_not_know() -> None:
    found = Languages(PAIRWISE_LABELS, "pairwise", {"en": 2000, "tlh": 2}, 200, 0)
    for i in range(1000):
        found.add(pair(("4", "5"), name=f"p{i}"))
    found.add(pair((ENGLISH[0], SPANISH[0]), language="tlh"))
    report = found.report()
    assert 140 <= report["languages"]["en"]["responses"] <= 260
    assert report["languages"]["tlh"]["undecidable"] == 2 and report["unknown_languages"] == ["tlh"]


def test_gold_of_pairs_is_joined_in_either_order() -> None:
    def said(label: Any, a: str = "a", b: str = "b", **more: Any) -> GoldPair:
        return GoldPair(**{"prompt_id": "p", "a": a, "b": b, "language": "en", "label": label, **more})

    for item in (said("a"), said("b", "b", "a")):
        found = Agreement([item], PAIRWISE_LABELS, "pairwise")
        found.add(pair(result="a", p=0.8))
        report = found.report()
        assert report["all"]["accuracy"] == report["all"]["accuracy"] | {"value": 1.0, "n": 1}
        assert report["all"]["calibration"]["brier"]["value"] == pytest.approx(0.04)
        # The same comparison, named the other way round by the run: B, which is the response `a`, won.
        turned = pair(result="b", p=0.2)
        turned.comparisons[0] |= {"a": "b", "b": "a"}
        found = Agreement([item], PAIRWISE_LABELS, "pairwise")
        found.add(turned)
        assert found.report()["all"]["accuracy"]["value"] == 1.0
        assert found.report()["all"]["calibration"]["brier"]["value"] == pytest.approx(0.04)
    unknown = Agreement([said("a", prompt_id="elsewhere"), said("tie", "a", "c")], PAIRWISE_LABELS, "pairwise")
    unknown.add(pair())
    assert unknown.report()["all"]["not_in_pool"] == 2
    with pytest.raises(ValueError, match="two gold labels"):
        Agreement([said("a"), said("b", "b", "a")], PAIRWISE_LABELS, "pairwise")
    failed = Agreement([said("a")], PAIRWISE_LABELS, "pairwise")
    failed.add(pair(result="failed"))
    assert failed.report()["all"]["failed"] == {"failed": 1}
    assert failed.report()["all"]["accuracy_failures_wrong"]["value"] == 0.0


def test_expected_scores_of_a_scale_are_normalised() -> None:
    gold = [GoldLabel(response_id="a", language="en", label="5"), GoldLabel(response_id="b", language="en", label="3")]
    prompt = pair()
    prompt.verdicts = [
        {"id": i, "response_ids": [i], "outcome": "ok", "score": score, "expected": expected}
        for i, score, expected in (("a", "5", 4.0), ("b", "3", 3.0))
    ]
    found = Agreement(gold, ("1", "2", "3", "4", "5"), "pointwise")
    found.add(prompt)
    x = found.report()["all"]
    assert x["calibration"]["brier"]["value"] == pytest.approx((0.25**2) / 2)
    assert x["kappa_quadratic"]["value"] == 1.0


def test_several_people() -> None:
    assert majority({"x": "a", "y": "a", "z": "b"}) == "a" and majority({"x": "a", "y": "b"}) is None
    assert majority({"x": None, "y": "b"}) == "b"
    assert reference({"x": "b", "y": "b", "first": None}) is None, "a blank of the first annotator is a blank"
    assert reference({"x": "b", "consensus": None}) is None
    found = between([{"x": "a", "y": "a", "consensus": "a"}, {"x": "a", "y": "b", "z": "b"}, {"x": "a", "y": None}])
    assert found is not None and found["accuracy"]["n"] == 4 and found["accuracy"]["value"] == 0.5
    assert set(found["by_pair"]) == {"x and y", "x and z", "y and z"}
    assert between([{"x": "a"}]) is None


def test_gold_files(tmp_path: Any) -> None:
    file = tmp_path / "gold.jsonl"
    rows = [GoldLabel(response_id="a", language="en", label="5", text="\u2028 odd")]
    write_gold(file, rows)
    assert load_gold(file) == rows
    file.write_text('{"response_id": "a"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"gold\.jsonl:1 is no gold label: language"):
        load_gold(file)
    write_gold(file, [*rows, GoldPair(prompt_id="p", a="a", b="b", language="en", label="tie")])
    with pytest.raises(ValueError, match="mixes labels"):
        load_gold(file)
    file.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="no gold labels"):
        load_gold(file)
    with pytest.raises(ValueError, match="no gold labels at"):
        load_gold(tmp_path / "absent.jsonl")
    with pytest.raises(ValueError, match="can't load"):
        load_gold(Adapter(source="absent.module:gold"))
