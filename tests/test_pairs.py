"""Combination and pair selection: a tie or a failed verdict makes no pair, and A and B have no say."""

from __future__ import annotations

import asyncio
import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mr3.judging.judge import JudgeItem
from mr3.records import PAIRWISE_LABELS, Mode, Outcome, Task, Verdict
from mr3.rubrics import Criterion, Rubric
from rewards.model import Combine, Orders, RewardModel, combine, compare_scores, margins_vary, scored
from rewards.noise import kept_error, order_error
from rewards.pairs import RULES, select_pairs
from rewards.records import Comparison

TEXTS = {i: f"text of {i}" for i in ("x", "y", "z", "best", "good", "poor", "worst", *(f"r{n}" for n in range(6)))}
_SWAP = {"Assistant A": "Assistant B", "Assistant B": "Assistant A", "Tie": "Tie"}
_labels = st.sampled_from([*PAIRWISE_LABELS, None])
_how = st.sampled_from(["agree", "mean"])


def _verdict(label: str | None, swapped: bool = False, sample: int = 0, expected: float | None = None) -> Verdict:
    outcome = Outcome.PARSE_FAILED if label is None else Outcome.OK
    name = f"{label}-{swapped}-{sample}"
    return Verdict(
        id=name,
        task_id="t",
        outcome=outcome,
        score=label,
        swapped=swapped,
        sample=sample,
        expected=None if label is None else expected,
    )


@st.composite
def _verdicts(draw: st.DrawFn) -> list[Verdict]:
    made = []
    for swapped in draw(st.sampled_from([(False,), (False, True)])):
        for sample in range(draw(st.integers(1, 3))):
            expected = draw(st.none() | st.floats(0, 1))
            made.append(_verdict(draw(_labels), swapped, sample, expected))
    return made


@st.composite
def _comparisons(draw: st.DrawFn) -> list[Comparison]:
    ids = [f"r{i}" for i in range(draw(st.integers(2, 6)))]
    made = []
    for a, b in draw(st.lists(st.sampled_from(list(combinations(ids, 2))), unique=True)):
        verdicts = [_verdict(draw(_labels), swapped, expected=draw(st.floats(0, 1))) for swapped in (False, True)]
        made.append(combine(a, b, verdicts, draw(_how)))
    return made


@given(_comparisons(), st.sampled_from([*RULES, "none"]), st.none() | st.integers(1, 4), st.integers(0, 3))
def test_every_pair_rests_on_a_decided_comparison(
    comparisons: list[Comparison], rule: str, limit: int | None, seed: int
) -> None:
    pairs = select_pairs(comparisons, rule, TEXTS, limit=limit, seed=seed, prompt_id="p")
    decided = {(c.winner, c.loser): c for c in comparisons if c.result in ("a", "b")}
    for pair in pairs:
        assert pair.chosen != pair.rejected
        rests_on = decided[pair.chosen, pair.rejected]
        assert pair.verdict_ids == rests_on.verdict_ids and pair.verdict_ids
    assert len(pairs) <= (len(decided) if limit is None else limit)
    if rule == "all" and limit is None:
        assert len(pairs) == len(decided)
    assert pairs == select_pairs(comparisons[::-1], rule, TEXTS, limit=limit, seed=seed, prompt_id="p")


@given(_verdicts(), _how)
def test_exchanging_a_and_b_exchanges_the_result(verdicts: list[Verdict], how: Combine) -> None:
    mirrored = [
        v.model_copy(
            update={
                "score": None if v.score is None else _SWAP[v.score],
                "expected": None if v.expected is None else 1 - v.expected,
            }
        )
        for v in verdicts
    ]
    one, other = combine("x", "y", verdicts, how, 1e-9), combine("y", "x", mirrored, how, 1e-9)
    assert (one.winner, one.loser, one.flip) == (other.winner, other.loser, other.flip)
    assert one.result in ("tie", "failed") or {one.result, other.result} == {"a", "b"}
    if one.p_a is not None and other.p_a is not None:
        assert math.isclose(one.p_a, 1 - other.p_a, abs_tol=1e-9)


@given(_verdicts(), _how)
def test_one_failed_verdict_fails_the_comparison(verdicts: list[Verdict], how: Combine) -> None:
    comparison = combine("x", "y", verdicts, how)
    assert (comparison.result == "failed") == any(v.outcome is not Outcome.OK for v in verdicts)
    assert (comparison.p_a is None) == (comparison.result == "failed")


def test_agree_and_mean_differ_where_the_orders_do() -> None:
    split = [_verdict("Assistant A", False, expected=0.9), _verdict("Assistant B", True, expected=0.4)]
    agree, mean = combine("x", "y", split, "agree"), combine("x", "y", split, "mean")
    assert (agree.result, agree.flip) == ("tie", True)
    assert (mean.result, mean.flip) == ("a", True) and mean.p_a == pytest.approx(0.65)
    assert combine("x", "y", split, "mean", tie_margin=0.2).result == "tie"
    assert not select_pairs([agree], "all", TEXTS) and select_pairs([mean], "all", TEXTS)[0].p_better == pytest.approx(
        0.65
    )


def test_p_better_is_of_the_chosen_response() -> None:
    lost = combine("x", "y", [_verdict("Assistant B", s, expected=0.2) for s in (False, True)])
    (pair,) = select_pairs([lost], "all", TEXTS)
    assert (pair.chosen, pair.rejected) == ("y", "x")
    assert pair.p_better == pytest.approx(0.8) and pair.margin == pytest.approx(0.6)


def test_best_worst_takes_the_widest_gap() -> None:
    order = ["best", "good", "poor", "worst"]
    wins = [combine(a, b, [_verdict("Assistant A")]) for a, b in combinations(order, 2)]
    (pair,) = select_pairs(wins, "best_worst", TEXTS)
    assert (pair.chosen, pair.rejected) == ("best", "worst")
    circle = [combine(a, b, [_verdict("Assistant A")]) for a, b in (("x", "y"), ("y", "z"), ("z", "x"))]
    assert select_pairs(circle, "best_worst", TEXTS) == [], "in a circle nobody is best"


@pytest.mark.parametrize(
    ("mode", "samples", "how", "orders", "odds", "vary"),
    [
        ("pairwise", 1, "agree", "both", False, False),
        ("pairwise", 1, "mean", "one", False, False),
        ("binary", 1, "agree", "both", False, False),
        ("pairwise", 1, "mean", "both", False, True),
        ("pairwise", 3, "agree", "one", False, True),
        ("pairwise", 1, "agree", "both", True, True),
        ("pointwise", 1, "agree", "both", False, True),
    ],
)
def test_when_margins_can_differ(
    mode: Mode, samples: int, how: Combine, orders: Orders, odds: bool, vary: bool
) -> None:
    assert margins_vary(mode, samples, how, orders, odds) is vary


def test_scores_become_comparisons() -> None:
    labels = ("1", "2", "3", "4", "5")
    assert scored([_verdict("4"), _verdict("5", sample=1)], labels) == 4.5
    assert scored([_verdict("4"), _verdict(None, sample=1)], labels) is None
    assert scored([_verdict("true")], ("true", "false"), "binary") == 1.0
    assert scored([_verdict("fair")], ("poor", "fair", "good")) == 2.0
    ids = {"x": ("v1",), "y": ("v2",)}
    better = compare_scores("x", "y", {"x": 2.0, "y": 4.5}, ids)
    assert (better.winner, better.margin, better.verdict_ids) == ("y", 2.5, ("v1", "v2"))
    assert compare_scores("x", "y", {"x": 2.0, "y": 2.0}, ids).result == "tie"
    assert compare_scores("x", "y", {"x": 2.0, "y": None}, ids).result == "failed"


@given(st.floats(0, 0.5))
def test_flips_and_errors_invert(error: float) -> None:
    flips = 2 * error * (1 - error)
    assert math.isclose(order_error(flips), error, abs_tol=1e-6)
    assert math.isclose(kept_error(flips), error**2 / (1 - flips), abs_tol=1e-6)
    assert kept_error(flips) <= flips + 1e-9 or error > 0.38


class _Scripted:
    """A judge that says what it is told, and counts."""

    def __init__(self, labels: dict[bool, list[str | None]]) -> None:
        self.labels = labels
        self.asked: list[tuple[bool, int]] = []

    async def judge(self, items: list[JudgeItem]) -> list[Verdict]:
        self.asked += [(i.swapped, i.sample) for i in items]
        return [_verdict(self.labels[i.swapped][i.sample], i.swapped, i.sample) for i in items]


def _task() -> Task:
    rubric = Rubric(criteria=[Criterion(name="correct", description="The answer is right.")])
    return Task(id="t", mode="pairwise", input="2+2?", responses=["4", "5"], rubric=rubric, language="en")


def test_votes_stop_when_the_outcome_is_decided() -> None:
    judge = _Scripted({False: ["Assistant A"] * 3, True: ["Assistant A", "Assistant B", "Assistant A"]})
    comparison, verdicts = asyncio.run(RewardModel(judge, samples=3).compare(_task()))
    assert judge.asked == [(False, 0), (True, 0), (False, 1), (True, 1), (True, 2)]
    assert comparison.result == "a" and len(verdicts) == 5
    with pytest.raises(ValueError, match="samples is 0"):
        RewardModel(judge, samples=0)


def test_a_failed_sample_ends_the_vote_without_a_number() -> None:
    judge = _Scripted({False: ["Assistant A", None, "Assistant A"], True: ["Assistant A"] * 3})
    comparison, _ = asyncio.run(RewardModel(judge, samples=3).compare(_task()))
    assert comparison.result == "failed" and comparison.p_a is None
