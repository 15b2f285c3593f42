"""GRPO rewards: only the strictly parsed verdict pays, and groups without variance are counted."""

from __future__ import annotations

import pytest

from grpo_experiments.rewards import composite, zero_variance_share

LABELS = [["Assistant A", "Assistant B"]]
RIGHT = '\nA is right\n</think>\n{"explanation": "x", "score": "Assistant A"}'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (RIGHT, 1.0),
        (RIGHT.replace("Assistant A", "Assistant B"), 0.0),
        ('"score": "Assistant A"', 0.0),
        ('\nthe answer is {"explanation": "x", "score": "Assistant A"}', 0.0),
    ],
)
def test_only_the_closed_final_block_pays(text: str, wanted: float) -> None:
    reward = composite({"correctness": 1.0})
    assert reward([text], gold=["Assistant A"], labels=LABELS) == [wanted]


def test_terms_are_a_weighted_mean() -> None:
    reward = composite({"correctness": 3.0, "parsable": 1.0})
    wrong = RIGHT.replace("Assistant A", "Assistant B")
    assert reward([RIGHT, wrong], gold=["Assistant A"] * 2, labels=LABELS * 2) == [1.0, 0.25]


def test_unknown_terms_and_empty_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown reward term"):
        composite({"vibes": 1.0})
    with pytest.raises(ValueError, match="more than 0"):
        composite({"correctness": 0.0})


def test_groups_without_variance() -> None:
    assert zero_variance_share([1, 1, 0, 1, 0, 0], 2) == pytest.approx(2 / 3)
