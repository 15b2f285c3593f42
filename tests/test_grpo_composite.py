"""The composite: gates, terms that were not measured, normalisation within a set, and what a config may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_experiments.composite import EPSILON, Combine, Composite, advantages, no_variance
from grpo_experiments.config import GrpoConfig
from grpo_experiments.contract import RewardTerm, Values
from grpo_experiments.terms import open_terms
from mr3.judge_card import JudgeCard
from tests.grpo_support import answer, example, group

A, B = "Assistant A", "Assistant B"


def made(how: Combine = "mean", **weights: Any) -> Composite:
    terms = {n: RewardTerm(**(w if isinstance(w, dict) else {"weight": w})) for n, w in weights.items()}
    return Composite(terms, how)


GATE = {"weight": 0.0, "gate": True}


def test_the_mean_is_weighted() -> None:
    assert made(a=3.0, b=1.0).combine({"a": [1.0, 0.0], "b": [1.0, 1.0]}) == [1.0, 0.25]


def test_no_credit_without_the_gate() -> None:
    found = made(gate=GATE, a=1.0).combine({"gate": [1.0, 0.0, 0.5, None], "a": [0.5, 1.0, None, 1.0]})
    assert found == [0.5, 0.0, 0.0, None], "a shut gate pays 0 whatever is unknown; an unknown gate is unknown"


def test_a_term_that_nobody_of_the_set_has_is_left_out() -> None:
    assert made(a=1.0, b=1.0).combine({"a": [1.0, 0.0], "b": [None, None]}) == [1.0, 0.0]
    assert made(a=1.0).combine({"a": [None, None]}) == [None, None]
    shut = made(gate=GATE, a=1.0, b=1.0).combine({"gate": [1.0, 0.0], "a": [1.0, 1.0], "b": [None, 1.0]})
    assert shut == [1.0, 0.0], "what did not pass the gate decides nothing about the others"


def test_what_is_partly_unknown_is_unknown_and_never_a_number() -> None:
    assert made(a=1.0, b=1.0).combine({"a": [1.0, 1.0], "b": [None, 0.0]}) == [None, 0.5]


def test_a_normalised_term_is_divided_by_the_deviation_of_a_sample_as_in_trl() -> None:
    """TRL takes torch's standard deviation, of n - 1; two values 1 apart have 0.7071."""
    spread = 2**-0.5 + EPSILON
    expected = [pytest.approx(-0.5 / spread), pytest.approx(0.5 / spread)]
    assert advantages([0.0, 1.0]) == expected == made("normalised", a=1.0).combine({"a": [0.0, 1.0]})


def test_normalised_terms_weigh_alike_whatever_their_spread() -> None:
    values: dict[str, Values] = {"small": [0.50, 0.51, 0.50, 0.51], "large": [0.0, 0.0, 1.0, 1.0]}
    found = made("normalised", small=1.0, large=1.0).combine(values)
    assert found[1] == pytest.approx(found[2], abs=0.05) and found[0] == min(found) and found[3] == max(found)
    mean = made(small=1.0, large=1.0).combine(values)
    assert mean[2] - mean[1] > 0.4, "as a mean the large one decides alone"


def test_normalised_leaves_out_what_is_unknown_and_pays_nothing_behind_a_gate() -> None:
    found = made("normalised", gate=GATE, a=1.0).combine({"gate": [1.0, 1.0, 0.0, 1.0], "a": [1.0, 0.0, 1.0, None]})
    assert found[3] is None and found[1] == found[2], "behind the gate stands the worst"
    assert found[0] is not None and found[0] > 0


def test_what_is_followed_over_steps_is_the_weighted_mean_in_either_way() -> None:
    """Normalised values have the mean 0 in every set, so no guard or probe could tell anything by them."""
    texts = [answer(A), answer(B), answer(B), "no verdict"]
    for right, said in ((1, texts), (3, [answer(A)] * 3 + [answer(B)])):
        one, other = (
            asyncio.run(Composite(open_terms({"correctness": 1.0}), how).score([[group(example(A), said)]]))[0][0]
            for how in ("mean", "normalised")
        )
        assert one.rewards == other.rewards == one.compared and sum(v or 0.0 for v in other.rewards) == right
        assert sum(v or 0.0 for v in other.compared) == pytest.approx(0.0) and other.compared != other.rewards


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=8), st.randoms())
def test_what_is_not_measured_moves_no_other_reward(values: list[float | None], lot: Any) -> None:
    """A None beside the others: they have the rewards and advantages that they have without it."""
    one = made(a=1.0)
    place = lot.randint(0, len(values))
    more = [*values[:place], None, *values[place:]]
    rewards, longer = one.combine({"a": values}), one.combine({"a": more})
    assert longer[:place] + longer[place + 1 :] == rewards and longer[place] is None
    told = advantages(longer)
    assert told[place] == 0.0 and told[:place] + told[place + 1 :] == pytest.approx(advantages(rewards))


def test_a_flat_set_has_no_gradient() -> None:
    assert no_variance([0.5, 0.5, None]) and no_variance([None]) and not no_variance([0.5, 0.6])
    assert advantages([0.5, 0.5, None]) == [0.0, 0.0, 0.0]


def test_terms_see_the_groups_of_a_set_and_rewards_come_back_by_group() -> None:
    composite = Composite(open_terms({"correctness": 1.0, "counterfactual": 1.0}))
    twin = group(example(B, "t2", twin="x"), [answer(B), answer(A)])
    here = group(example(A, "t1", twin="x"), [answer(A), answer(B)], twins=(twin,))
    there = group(
        example(B, "t2", twin="x"), [answer(B), answer(A)], twins=(group(here.example, [answer(A), answer(B)]),)
    )
    ((one, two),) = asyncio.run(composite.score([[here, there]]))
    assert one.rewards == [0.75, 0.0] and two.rewards == [0.75, 0.0]
    assert one.terms == {"correctness": [1.0, 0.0], "counterfactual": [0.5, 0.0]}


def config(**more: Any) -> GrpoConfig:
    return GrpoConfig.model_validate(
        {"output_dir": "o", "model": "m", "tasks": "t", "rewards": {"correctness": 1.0}} | more
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"rewards": {"counterfactual": 1.0}}, "multiplies the samples of a group by one number"),
        ({"rewards": {"both_orders": 1.0}, "baseline": "bundle"}, "set orders: both"),
        ({"trl": {"reward_weights": [1.0]}}, "this stage's own option is rewards"),
        ({"trl": {"multi_objective_aggregation": "normalize_then_sum"}}, "own option is combine"),
        ({"resample": 1, "trl": {"scale_rewards": "batch"}}, "choose one"),
        ({"rewards": {"vibes": 1.0}}, "unknown reward term"),
    ],
)
def test_a_config_that_can_not_do_what_it_says_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(**more)


@pytest.mark.parametrize("name", ["expected_correctness", "rubric_use"])
def test_terms_of_odds_are_refused_for_a_format_without_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every readable verdict is None, and the run learns nothing without a word."""
    from grpo_experiments import judge

    card = JudgeCard(profile="compact", max_prompt_tokens=64, max_output_tokens=64)
    monkeypatch.setattr(judge, "load_card", lambda model: card.model_copy(update={"format": kind}))
    for kind in ("r3", "mr3"):
        assert judge.card_of(config(), "m").format == kind
        assert judge.card_of(config(rewards={"rubric_use": {"weight": 1.0, "over": "completion"}}), "m")
    assert judge.card_of(config(rewards={name: 1.0}), "m")
    kind = "r3"
    with pytest.raises(ValueError, match=rf"rewards.{name} reads the probabilities .* format r3 have no such place"):
        judge.card_of(config(rewards={"correctness": 1.0, name: 0.2}), "m")


def test_a_factor_of_the_whole_group_is_cancelled_by_a_baseline_of_the_group() -> None:
    """Why `counterfactual` is refused there: any factor gives the same advantages; over the bundle it does not."""
    shares: Sequence[float] = (0.25, 1.0)
    apart = [advantages([share * r for r in (1.0, 1.0, 0.0, 0.0)]) for share in shares]
    assert apart[0] == pytest.approx(apart[1], abs=1e-2)
    joint = advantages([0.25, 0.25, 0.25, 0.25, 1.0, 0.0, 0.0, 0.0])
    assert joint[0] < joint[4] / 4, "right by the shortcut alone stands near the mean"
    assert config(rewards={"counterfactual": 1.0}, baseline="bundle").composite().needs == {"gold", "twin"}
    assert config(rewards={"counterfactual": 1.0}, trl={"scale_rewards": "none"})
