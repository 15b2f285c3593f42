"""The group reward: its formula, its failures, and that it asks what a label run asks."""

from __future__ import annotations

import json
import random
from itertools import combinations
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.grouping import group_pairs, group_scores, groups_of
from rewards.serving.client import JudgeClient, RetryPolicy
from rewards.serving.trl_reward import JudgeSilent, TrlReward
from tests.serving_support import run

TEXTS = {0: "one", 1: "two", 2: "three", 3: "four"}


def test_a_score_is_the_mean_of_the_measured_comparisons() -> None:
    compared = [((0, 1), 0.8), ((2, 0), 0.4), ((1, 2), None), ((3, 1), None)]
    found = group_scores(TEXTS, compared)
    # By hand: 0 won 0.8 and 0.6; 1 only 0.2 against 0; 2 only 0.4 against 0; 3 has nothing that was measured.
    assert found == {0: pytest.approx(0.7), 1: pytest.approx(0.2), 2: pytest.approx(0.4), 3: None}


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=8), st.integers(0, 5), st.randoms())
def test_all_pairs_that_are_measured_have_the_mean_one_half(letters: list[str], seed: int, rng: random.Random) -> None:
    texts = dict(enumerate(letters))
    pairs = group_pairs(texts, "all_pairs", seed, "p")
    distinct = len(set(letters))
    assert len(pairs) == distinct * (distinct - 1) // 2
    found = group_scores(texts, [(pair, rng.random()) for pair in pairs])
    assert {texts[a] for a in found if found[a] is None} == (set(letters) if distinct == 1 else set())
    for a, b in combinations(texts, 2):
        assert texts[a] != texts[b] or found[a] == found[b], "equal texts share their score"
    if distinct > 1:
        once = {texts[i]: value for i, value in found.items()}
        assert sum(v for v in once.values() if v is not None) / distinct == pytest.approx(0.5)


@given(st.lists(st.text("ab ", min_size=1, max_size=6), min_size=1, max_size=8), st.integers(0, 3))
def test_a_ring_gives_everybody_two_comparisons(letters: list[str], seed: int) -> None:
    texts = dict(enumerate(letters))
    pairs = group_pairs(texts, "circular", seed, "p")
    distinct = len({t.strip() for t in letters})
    assert len(pairs) == (0 if distinct == 1 else 1 if distinct == 2 else distinct)
    if distinct > 2:
        seen = [place for pair in pairs for place in pair]
        assert all(seen.count(place) == 2 for place in set(seen)) and len(set(seen)) == distinct


def test_groups_are_neighbours_with_one_prompt_or_of_a_size() -> None:
    prompts = [[{"role": "user", "content": c}] for c in "aaabb"]
    assert groups_of(prompts) == [range(3), range(3, 5)]
    assert groups_of(prompts[:4], 2) == [range(2), range(2, 4)]
    with pytest.raises(ValueError, match="5 completions are no whole groups of 2"):
        groups_of(prompts, 2)


class Longer:
    """A server whose judge prefers the longer response, with P = 0.9; a response of BROKEN breaks a comparison."""

    def __init__(self, status: int = 200) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.status = status

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.status != 200:
            return httpx.Response(self.status)
        body = json.loads(request.content)
        assert body["strategy"] == {"combine": "mean"}, "both orders, and the mean of P"
        self.tasks += body["tasks"]
        return httpx.Response(200, json={"judge": "j", "results": [self.result(t["responses"]) for t in body["tasks"]]})

    @staticmethod
    def result(responses: list[str]) -> dict[str, Any]:
        if any("BROKEN" in r for r in responses):
            return {"outcome": "truncated", "score": None, "reason": "cut off", "verdicts": []}
        a, b = map(len, responses)
        return {"outcome": "ok", "score": 0.5 if a == b else 0.9 if a > b else 0.1, "verdicts": []}


def reward(server: Longer, **more: Any) -> TrlReward:
    client = JudgeClient("http://judge", transport=httpx.MockTransport(server), retry=RetryPolicy(attempts=1))
    return TrlReward(client, "house", mode="pairwise", batch_size=3, **more)


def test_a_group_is_judged_all_against_all() -> None:
    server = Longer()
    completions: list[Any] = ["a", "aa", "aaa", "BROKEN", "aa", "x", "xx"]
    completions[0] = [{"role": "assistant", "content": "<think>a long thought about it</think>\n a "}]
    found = run(lambda: reward(server)(["p"] * 5 + ["q"] * 2, completions))
    # aa: 0.9 against a, 0.1 against aaa. Comparisons with BROKEN count for nobody; it has none that was measured.
    assert found == [pytest.approx(v) for v in (0.1, 0.5, 0.9)] + [None] + [pytest.approx(v) for v in (0.5, 0.1, 0.9)]
    assert len(server.tasks) == 6 + 1 and all("thought" not in r for t in server.tasks for r in t["responses"])


def test_what_has_no_text_is_nobodys_comparison() -> None:
    completions: list[Any] = [
        "a",
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "bc"}]}],
        [{"role": "assistant", "content": [{"type": "image", "url": "x"}]}],
    ]
    server = Longer()
    assert run(lambda: reward(server)(["p"] * 4, completions)) == [pytest.approx(0.1), None, pytest.approx(0.9), None]
    assert [sorted(t["responses"]) for t in server.tasks] == [["a", "abc"]]
    assert run(lambda: reward(Longer())(["p"] * 2, ["same", "same "])) == [None, None], "nothing to compare"


def test_against_a_reference_answer_in_whichever_order() -> None:
    server = Longer()
    found = run(
        lambda: reward(server, compare="reference")(
            ["p", "q", "r", "s"], ["aa", "a", "BROKEN", "same"], opponent=["b", "bb", "b", " same"]
        )
    )
    assert found == [pytest.approx(0.9), pytest.approx(0.1), None, 0.5] and len(server.tasks) == 3
    with pytest.raises(ValueError, match="no column 'opponent'"):
        run(lambda: reward(Longer(), compare="reference")(["p"], ["a"]))


def test_a_judge_that_is_down_ends_the_training_with_a_reason() -> None:
    server = Longer(status=503)
    asked = reward(server, silent_calls=3)

    async def steps() -> None:
        for _ in range(2):
            assert await asked(["p"] * 2, ["a", "aa"]) == [None, None]
        server.status = 200  # one answer, and the count begins anew
        assert None not in await asked(["p"] * 2, ["a", "aa"])
        server.status = 503
        for _ in range(2):
            await asked(["p"] * 2, ["a", "aa"])
        assert await asked(["p"] * 2, ["a", "a"]) == [None, None]  # nothing was asked: that says nothing
        with pytest.raises(JudgeSilent, match=r"judge_silent: 3 steps .*1 unavailable"):
            await asked(["p"] * 2, ["a", "aa"])

    run(steps)
