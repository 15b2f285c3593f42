"""What a teacher wrote becomes a rubric only if it is one; everything else is an outcome with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.rubrics.reply import ReplyOutcome, parse_reply

ONE = {"criteria": [{"name": "right", "description": "It is right.", "weight": 2}]}
TEXT = json.dumps(ONE)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"\n {TEXT} \n",
        f"<think>\nmaybe {{...}}\n</think>\n{TEXT}",
        f"maybe\n</think>\n\n{TEXT}",
        f"```json\n{TEXT}\n```",
        f"<think>a</think>```\n{TEXT}\n```",
    ],
)
def test_what_is_a_rubric(text: str) -> None:
    reply = parse_reply(text, "stop", "pairwise", name="house")
    assert reply.outcome is ReplyOutcome.OK and reply.rubric is not None
    assert (reply.rubric.name, reply.rubric.criteria[0].name, reply.rubric.criteria[0].weight) == ("house", "right", 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not one JSON object"),
        (f"Here it is: {TEXT}", "not one JSON object"),
        (f"{TEXT} I hope this helps", "not one JSON object"),
        (f"{TEXT}\n{TEXT}", "not one JSON object"),
        (f"```json\n{TEXT}\n```\n```json\n{TEXT}\n```", "not one JSON object"),
        (TEXT[:-2], "not one JSON object"),
        (f"<think>{TEXT}", "not closed"),
        (f"<think>a</think>b</think>{TEXT}", "not closed"),
        (f"[{TEXT}]", "a JSON list"),
        ('{"rubric": 1}', "the keys are rubric"),
        ("{}", "the keys are none"),
        ('{"criteria": [], "criteria": []}', "the key 'criteria' comes twice"),
        ('{"criteria": [{"name": "a", "description": "b", "weight": NaN}]}', "NaN is no number"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_even_json_of_the_form(text: str, said: str) -> None:
    reply = parse_reply(text, "stop", "pairwise")
    assert reply.outcome is ReplyOutcome.PARSE_FAILED and reply.rubric is None and said in (reply.reason or "")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"criteria": []}, "neither criteria nor levels"),
        ({"criteria": "many"}, "criteria"),
        ({"criteria": [{"name": "a", "description": " "}]}, "is empty"),
        ({"criteria": [{"name": "a", "description": "b", "weight": -1}]}, "weight must be"),
        ({"criteria": [{"name": "a", "description": "b", "score": 1}]}, "the key 'score'"),
        ({"criteria": [{"name": "a", "description": "b"}] * 2}, "used more than once"),
        ({"criteria": [{"name": "a", "description": "<|im_start|>system"}]}, "chat markup"),
        ({**ONE, "levels": {"Assistant A": "a", "Assistant B": "b"}}, "asked for were none"),
    ],
)
def test_what_is_json_and_no_rubric(data: Any, said: str) -> None:
    reply = parse_reply(json.dumps(data), "stop", "pairwise")
    assert reply.outcome is ReplyOutcome.INVALID and reply.rubric is None and said in (reply.reason or "")


def test_levels_are_those_that_were_asked_for_in_their_order() -> None:
    labels = ("1", "2", "3")
    good = json.dumps({"levels": {"1": "bad", "2": "fair", "3": "good"}})
    turned = json.dumps({"levels": {"3": "good", "2": "fair", "1": "bad"}})
    assert parse_reply(good, "stop", "pointwise", labels).outcome is ReplyOutcome.OK
    assert "not in order" in (parse_reply(turned, "stop", "pointwise", labels).reason or "")
    assert parse_reply(TEXT, "stop", "pointwise", labels).outcome is ReplyOutcome.INVALID


@pytest.mark.parametrize(
    ("finish", "outcome"),
    [("length", "truncated"), ("too_long", "too_long"), ("timed_out", "timed_out"), ("failed", "engine_failed")],
)
def test_a_generation_that_did_not_end_has_no_rubric_whatever_it_says(finish: str, outcome: str) -> None:
    reply = parse_reply(TEXT, finish, "pairwise")
    assert reply.outcome.value == outcome and reply.rubric is None and reply.reason


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["criteria", "levels", "name"]), inner),
    max_leaves=8,
)


@given(st.text(max_size=60) | json_values.map(json.dumps))
@settings(max_examples=300, deadline=None)
def test_nothing_raises(text: str) -> None:
    reply = parse_reply(text, "stop", "pointwise")
    assert (reply.rubric is None) == (reply.outcome is not ReplyOutcome.OK)
