"""Whatever answers in the place of a judge: the client has results, or says why not; TRL has numbers or None."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mr3.records import Outcome, Verdict
from rewards.serving.client import JudgeClient, JudgeRefused, JudgeUnavailable, RetryPolicy, retry_after
from rewards.serving.schema import JudgeTask
from rewards.serving.trl_reward import TrlReward, completion_texts, without_thinking
from tests.serving_support import SINGLE

T = TypeVar("T")
TASK = JudgeTask.model_validate(SINGLE)
VERDICT = {"id": "v", "task_id": "t", "outcome": "ok", "score": "true"}
RESULT = {"id": None, "outcome": "ok", "score": 1.0, "verdicts": [VERDICT]}
ANSWER = {"judge": "j", "results": [RESULT]}


def asked(work: Callable[[], Awaitable[T]]) -> T:
    """Run it; a wait is none here, and nothing may go on for long."""

    async def main() -> T:
        async with asyncio.timeout(30):
            return await work()

    return asyncio.run(main())


class Body(httpx.AsyncByteStream):
    """A body that may break off."""

    def __init__(self, data: bytes, error: Exception | None = None) -> None:
        self._data, self._error = data, error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._data
        if self._error is not None:
            raise self._error


def client(answer: Callable[[httpx.Request], httpx.Response], attempts: int = 1) -> JudgeClient:
    async def at_once(_: float) -> None:
        return

    transport = httpx.MockTransport(answer)
    return JudgeClient("http://judge", transport=transport, retry=RetryPolicy(attempts=attempts), sleep=at_once)


def replied(body: bytes, status: int = 200, headers: dict[str, str] | None = None, **more: Any) -> JudgeClient:
    return client(lambda _: httpx.Response(status, headers=headers, stream=Body(body, **more)))


def with_score(text: str) -> bytes:
    return json.dumps(ANSWER).replace('"score": 1.0', f'"score": {text}').encode()


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"<html>Sign in</html>", {"content-type": "text/html"}, "<html>Sign in"),
        (b"", {}, "the body"),
        (b"null", {}, "the body"),
        (b"[]", {}, "the body"),
        (b"{}", {}, "judge"),
        (with_score("NaN"), {}, "results.0.score"),
        (with_score("Infinity"), {}, "results.0.score"),
        (with_score("1e999"), {}, "results.0.score"),
        (with_score("1" + "0" * 400), {}, "results.0.score"),
        (with_score("9" * 5_000), {}, "the body"),
        (with_score('"1"'), {}, "results.0.score"),
        (with_score("true"), {}, "results.0.score"),
        (with_score("null"), {}, "a failed judgement has none"),
        (json.dumps({**ANSWER, "results": [{**RESULT, "outcome": "parse_failed"}]}).encode(), {}, "has none"),
        (json.dumps({**ANSWER, "results": [RESULT] * 2}).encode(), {}, "2 results for 1 tasks"),
        (json.dumps({**ANSWER, "results": []}).encode(), {}, "0 results for 1 tasks"),
        (json.dumps(ANSWER).encode()[:-9], {}, "the body"),
        (b"garbage", {"content-encoding": "gzip"}, "DecodingError"),
        (b"\xff\xfe", {}, "the body"),
        (b"[" * 100_000, {}, "the body"),
        (b'{"judge": "\\ud800"}', {}, "the body"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, bytes) else "",
)
def test_an_answer_that_is_none_is_a_named_failure_and_no_reward(
    body: bytes, headers: dict[str, str], said: str
) -> None:
    with pytest.raises(JudgeUnavailable) as caught:
        asked(lambda: replied(body, headers=headers).judge(TASK))
    assert said in str(caught.value)
    assert asked(lambda: TrlReward(replied(body, headers=headers), "house")(["q"], ["4"])) == [None]


@pytest.mark.parametrize("error", [httpx.ReadError("reset"), httpx.RemoteProtocolError("cut"), httpx.ReadTimeout("")])
def test_a_connection_that_breaks_in_the_middle_is_a_named_failure(error: Exception) -> None:
    with pytest.raises(JudgeUnavailable, match=type(error).__name__):
        asked(lambda: replied(json.dumps(ANSWER).encode(), error=error).judge(TASK))


@pytest.mark.parametrize("status", [204, 302, 304, 408, 425, 429, 500, 501, 505, 520, 599])
def test_only_a_4xx_says_that_the_request_is_wrong(status: int) -> None:
    with pytest.raises(JudgeUnavailable, match=str(status)):
        asked(lambda: replied(b"odd", status, {"location": "http://elsewhere"}).judge(TASK))
    with pytest.raises(JudgeRefused, match="404: odd"):
        asked(lambda: replied(b"odd", 404, {"content-type": "text/plain; charset=base64"}).judge(TASK))


def test_a_page_of_a_proxy_is_tried_again() -> None:
    left = [b"<html>starting</html>"]

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=left.pop() if left else json.dumps(ANSWER).encode())

    assert asked(lambda: client(answer, attempts=2).judge(TASK)).score == 1.0


def test_fields_of_a_later_version_are_left_out() -> None:
    later = {"later": {"a": [1]}}
    answer = {**ANSWER, **later, "results": [{**RESULT, **later, "verdicts": [{**VERDICT, **later}]}]}
    result = asked(lambda: replied(json.dumps(answer).encode()).judge(TASK))
    assert result.score == 1.0 and result.verdicts[0].score == "true"
    stored = Verdict.model_validate_json(json.dumps({**VERDICT, **later}))
    assert stored == Verdict.model_validate(VERDICT) and stored.outcome is Outcome.OK
    error = {"error": {"message": "no", "type": "a_later_kind", "at": 1}}
    with pytest.raises(JudgeRefused, match="400"):
        asked(lambda: replied(json.dumps(error).encode(), 400).judge(TASK))


@given(st.text(max_size=40) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,9} [A-Z][a-z]{2} \d{1,9} [\d:]{1,9} \S{1,6}"))
@example("²")
@example("-1")
@example("9" * 5_000)
@example("nan")
@example("Mon, 01 Jan 99999 00:00:00 GMT")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    seconds = retry_after(httpx.Headers([(b"retry-after", value.encode("latin-1", "replace"))]), 0.0)
    assert seconds is None or seconds >= 0


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@st.composite
def _near_answers(draw: st.DrawFn) -> bytes:
    """An answer with something replaced, left out or added at some depth."""
    answer = json.loads(json.dumps(ANSWER))
    places: list[Any] = [answer, answer["results"][0], answer["results"][0]["verdicts"][0]]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places))
        key = draw(st.sampled_from(sorted(place)) | st.text(max_size=5)) if place else draw(st.text(max_size=5))
        if draw(st.booleans()):
            place[key] = draw(_JSON)
        else:
            place.pop(key, None)
    text = json.dumps(answer)
    return text[: draw(st.just(len(text)) | st.integers(0, len(text)))].encode()


_BODIES = st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()) | _near_answers()
_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-encoding": st.sampled_from(["gzip", "deflate", "br", "zstd", "odd"]),
        "content-type": st.sampled_from(["text/html", "application/json; charset=base64", "x; charset=utf-7"]),
        "retry-after": st.sampled_from(["²", "-1", "9" * 400, "soon", "Mon, 01 Jan 99999 00:00:00 GMT"]),
    },
)
_ERRORS = st.none() | st.sampled_from([httpx.ReadError("reset"), httpx.RemoteProtocolError("cut")])


@given(_BODIES, st.just(200) | st.sampled_from([204, 302, 413, 429, 500, 599]), _HEADERS, _ERRORS)
def test_any_answer_is_a_number_or_none_to_trl_and_named_by_the_client(
    body: bytes, status: int, headers: dict[str, str], error: Exception | None
) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=list(encoded.items()), stream=Body(body, error))

    (reward,) = asked(lambda: TrlReward(client(answer, attempts=2), "house")(["q"], ["4"]))
    assert reward is None or (isinstance(reward, float) and math.isfinite(reward) and status == 200 and error is None)
    try:
        result = asked(lambda: client(answer, attempts=2).judge(TASK))
    except JudgeUnavailable as unavailable:
        assert str(unavailable)
        assert reward is None
    except JudgeRefused as refused:
        assert refused.status == status == 413
    else:
        assert result.score == reward


def all_true(request: httpx.Request) -> httpx.Response:
    tasks = json.loads(request.content)["tasks"]
    return httpx.Response(200, json={"judge": "j", "results": [{**RESULT, "verdicts": []} for _ in tasks]})


@pytest.mark.parametrize(
    ("prompt", "completion", "reward"),
    [
        ("q", [{"role": "assistant", "content": None}], None),
        ("q", [{"role": "assistant", "tool_calls": []}], None),
        ("q", [], None),
        ("q", None, None),
        ("q", 7, None),
        ("q", [None], None),
        ("q", "half \ud800", None),
        ("q", [{"role": "assistant", "content": [{"type": "image", "url": "x"}]}], None),
        ("q", [{"role": "assistant", "content": [{"type": "text", "text": None}]}], None),
        ("q", [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], 1.0),
        (None, "a", None),
        ([], "a", None),
        ([{"role": "tool", "content": "x"}], "a", None),
        ([{"role": "user", "content": None}], "a", None),
        ([{"role": "user", "content": [{"type": "image"}]}], "a", None),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], "a", 1.0),
    ],
)
def test_a_completion_without_text_has_no_reward(prompt: Any, completion: Any, reward: float | None) -> None:
    found = asked(lambda: TrlReward(client(all_true), "house")(["q", prompt, "q"], ["a", completion, "b"]))
    assert found == [1.0, reward, 1.0]


def test_what_comes_behind_the_thought_is_judged() -> None:
    seen: list[str] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.extend(task["responses"][0] for task in json.loads(request.content)["tasks"])
        return all_true(request)

    texts = ["<think>\nA?</think>\n\nFour.", "thinking</think>4</think>", "<think>and on", "4 < 5", "a <think> b"]
    asked(lambda: TrlReward(client(note), "house")(["q"] * 5, texts))
    assert seen == ["Four.", "4</think>", "", "4 < 5", "a <think> b"] == [without_thinking(t) for t in texts]
    asked(lambda: TrlReward(client(note), "house", thinking=True)(["q"], texts[:1]))
    assert seen[-1] == texts[0]
    seen.clear()
    later = ["<think>a</think>b<think>c</think>d", "a</think>b<think>and on"]
    asked(lambda: TrlReward(client(note), "house")(["q"] * 2, later))
    assert seen == ["bd", "b"], "no thought is judged, wherever it stands"


def test_a_thought_that_the_prompt_has_opened_is_no_answer_when_it_is_cut() -> None:
    seen: list[str] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.extend(task["responses"][0] for task in json.loads(request.content)["tasks"])
        return all_true(request)

    texts = ["so I should be", "thinking</think>Four."]
    asked(lambda: TrlReward(client(note), "house")(["q<think>\n"] * 2, texts))
    asked(
        lambda: TrlReward(client(note), "house", thought_opened=True)([[{"role": "user", "content": "q"}]] * 2, texts)
    )
    assert seen == ["", "Four."] * 2


def test_both_sides_are_judged_by_what_a_user_sees() -> None:
    seen: list[list[str]] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.extend(sorted(task["responses"]) for task in json.loads(request.content)["tasks"])
        return all_true(request)

    reward = TrlReward(client(note), "house", mode="pairwise", compare="reference")
    asked(lambda: reward(["q"], ["<think>x</think>Four."], opponent=["<think>y</think>Five."]))
    assert seen == [["Five.", "Four."]]


def test_the_answer_of_a_tool_is_no_answer_of_the_policy() -> None:
    call = {"role": "assistant", "content": "let me look"}
    tool = {"role": "tool", "content": "RESULT"}
    found = completion_texts(
        [[call, tool], [call, tool, {"role": "assistant", "content": "Four."}], [{"content": "4"}]]
    )
    assert found == {1: "Four.", 2: "4"}


def test_a_request_that_is_too_large_costs_only_the_completion_that_makes_it_so() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(413) if len(request.content) > 1_000 else all_true(request)

    found = asked(lambda: TrlReward(client(answer), "house")(["q"] * 5, ["4", "4", "4" * 2_000, "4", "4"]))
    assert found == [1.0, 1.0, None, 1.0, 1.0]
