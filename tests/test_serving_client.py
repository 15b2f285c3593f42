"""The client: retries, backoff, deadline, batches; and the TRL reward, where a failure is None."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.serving.client import JudgeClient, JudgeRefused, JudgeUnavailable, RetryPolicy, retry_after
from rewards.serving.schema import JudgeStrategy, JudgeTask
from rewards.serving.trl_reward import TrlReward
from tests.rewards_support import ScriptedEngine
from tests.serving_support import HOUSE, KEY, PAIR, SINGLE, run, served

TASK = JudgeTask.model_validate(SINGLE)
Handler = Callable[[httpx.Request], httpx.Response]


def answer(request: httpx.Request) -> httpx.Response:
    """1.0 for a response with a 4, null where it says BROKEN."""
    results = []
    for task in json.loads(request.content)["tasks"]:
        broken = "BROKEN" in task["responses"][0]
        outcome, score = ("parse_failed", None) if broken else ("ok", float("4" in task["responses"][0]))
        results.append({"outcome": outcome, "score": score, "verdicts": []})
    return httpx.Response(200, json={"judge": "j", "results": results})


class Script:
    """A server that answers by a list of responses or errors, then always rightly; and a clock that only counts."""

    def __init__(self, *first: httpx.Response | Exception) -> None:
        self.left, self.asked, self.waits = list(first), 0, []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if not self.left:
            return answer(request)
        found = self.left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def client(self, **more: Any) -> JudgeClient:
        return JudgeClient("http://judge", transport=httpx.MockTransport(self), sleep=self.sleep, **more)


def test_it_tries_again_and_waits_as_long_as_it_was_told() -> None:
    script = Script(
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(503, headers={"Retry-After": formatdate(time.time() + 20, usegmt=True)}),
        httpx.ConnectError("refused"),
        httpx.Response(500),
    )
    result = run(lambda: script.client().judge(TASK))
    assert result.score == 1.0 and script.asked == 5
    told, dated, refused, broken = script.waits
    assert 7.0 <= told <= 7.25 and 17 < dated < 21 and refused <= 1.0 and broken <= 2.0


@given(attempt=st.integers(1, 1_000), lot=st.floats(0, 1), told=st.none() | st.floats(0, 100))
def test_waits_grow_within_their_limit(attempt: int, lot: float, told: float | None) -> None:
    policy = RetryPolicy(first_s=0.5, longest_s=10)
    wait = policy.wait(attempt, told, lot)
    assert (told or 0) <= wait <= (told or 0) + min(10, 0.5 * 2 ** min(attempt - 1, 30))


@pytest.mark.parametrize(("value", "seconds"), [("3", 3.0), ("soon", None), ("-1", None), (None, None)])
def test_retry_after_headers(value: str | None, seconds: float | None) -> None:
    assert retry_after(httpx.Headers({} if value is None else {"retry-after": value}), 0.0) == seconds


def test_a_refusal_is_not_tried_again_and_says_why() -> None:
    body = {"error": {"message": "no rubric 'x'", "type": "invalid_request_error", "param": None, "code": None}}
    script = Script(httpx.Response(400, json=body))
    with pytest.raises(JudgeRefused, match="400: no rubric 'x'") as caught:
        run(lambda: script.client().judge(TASK))
    assert caught.value.status == 400 and script.asked == 1


def test_it_gives_up_after_its_attempts_and_says_what_it_met() -> None:
    script = Script(*[httpx.Response(503, text="stopping")] * 9)
    with pytest.raises(JudgeUnavailable, match=r"after 3 attempts.*503: stopping"):
        run(lambda: script.client(retry=RetryPolicy(attempts=3)).judge(TASK))
    assert script.asked == 3 and len(script.waits) == 2


def test_it_does_not_wait_beyond_its_deadline() -> None:
    script = Script(httpx.Response(429, headers={"Retry-After": "30"}))
    with pytest.raises(JudgeUnavailable, match="429"):
        run(lambda: script.client().judge(TASK, deadline_s=5))
    assert script.asked == 1 and script.waits == []


def test_a_server_that_never_answers_meets_the_deadline() -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(3_600)
        raise AssertionError

    client = JudgeClient("http://judge", transport=httpx.MockTransport(hang), deadline_s=0.1)
    with pytest.raises(JudgeUnavailable, match="no answer"):
        run(lambda: client.judge(TASK))


def test_batches_keep_their_order() -> None:
    script = Script()
    tasks = [TASK.model_copy(update={"responses": [str(i)]}) for i in range(37)]
    results = run(lambda: script.client().judge_batch(tasks, batch_size=5))
    assert [r.score for r in results] == [float("4" in str(i)) for i in range(37)] and script.asked == 8
    with pytest.raises(ValueError, match="batch_size"):
        run(lambda: script.client().judge_batch(tasks, batch_size=0))


def test_a_long_queue_does_not_eat_the_deadline() -> None:
    busy = most = 0

    async def slow(request: httpx.Request) -> httpx.Response:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.05)
        busy -= 1
        return answer(request)

    client = JudgeClient("http://judge", transport=httpx.MockTransport(slow), connections=2, deadline_s=0.4)
    results = run(lambda: client.judge_batch([TASK] * 30, batch_size=1))
    assert len(results) == 30 and most == 2


def test_one_refused_part_ends_a_batch_and_its_other_requests() -> None:
    ended: list[str] = []

    async def refuse_one(request: httpx.Request) -> httpx.Response:
        if b"REFUSED" in request.content:
            await asyncio.sleep(0.05)
            return httpx.Response(401)
        try:
            await asyncio.sleep(3_600)
        finally:
            ended.append("cancelled")
        raise AssertionError

    async def work() -> None:
        client = JudgeClient("http://judge", transport=httpx.MockTransport(refuse_one))
        refused = TASK.model_copy(update={"input": "REFUSED"})
        with pytest.raises(JudgeRefused):
            await client.judge_batch([TASK, refused, TASK], batch_size=1)
        await asyncio.sleep(0.05)
        assert ended == ["cancelled"] * 2

    run(work)


def test_client_and_server_understand_each_other() -> None:
    async def work() -> None:
        at = served(keys=[KEY])
        async with JudgeClient("http://judge", KEY, transport=httpx.ASGITransport(at.app)) as client:
            assert await client.healthy()
            pair = JudgeTask.model_validate({**PAIR, "rubric": HOUSE, "id": "p", "reference": "4", "language": "de"})
            result = await client.judge(pair, JudgeStrategy(combine="mean"), include_trace=True)
            assert result.id == "p" and result.comparison is not None and result.comparison.result == "a"
            assert result.verdicts[0].trace == "because"
            broken = TASK.model_copy(update={"input": "BROKEN"})
            assert (await client.judge(broken)).score is None
        async with JudgeClient("http://judge", "wrong-key", transport=httpx.ASGITransport(at.app)) as client:
            with pytest.raises(JudgeRefused, match="API key"):
                await client.judge(TASK)

    run(work)


def reward(handler: Handler, **more: Any) -> TrlReward:
    client = JudgeClient("http://judge", transport=httpx.MockTransport(handler), retry=RetryPolicy(attempts=1))
    return TrlReward(client, "house", batch_size=2, **more)


def test_a_failed_judgement_is_none_to_trl() -> None:
    texts = ["4", "5", "BROKEN", "4"]
    conversations = [[{"role": "assistant", "content": text}] for text in texts]
    prompts = [[{"role": "user", "content": "2 + 2?"}]] * 4
    for completions, given_prompts in ((texts, ["2 + 2?"] * 4), (conversations, prompts)):
        found = run(lambda p=given_prompts, c=completions: reward(answer)(p, c, completion_ids=[[1]] * 4))
        assert found == [1.0, 0.0, None, 1.0]


def test_columns_go_into_the_tasks() -> None:
    seen: list[dict[str, Any]] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.extend(json.loads(request.content)["tasks"])
        return answer(request)

    columns = {"language": ["de", "fr"], "rubric": ["house", "short"], "gold": ["4", "four"]}
    run(lambda: reward(note, reference_column="gold")(["q", "q"], ["4", "4"], **columns))
    assert [(t["language"], t["rubric"], t["reference"]) for t in seen] == [
        ("de", "house", "4"),
        ("fr", "short", "four"),
    ]


def test_an_unreachable_server_costs_rewards_and_a_wrong_request_ends_the_training() -> None:
    script = Script(httpx.ConnectError("refused"))
    texts = ["4", "4!", "4?", "4."]
    assert run(lambda: reward(script)(["q"] * 4, texts)) in ([None, None, 1.0, 1.0], [1.0, 1.0, None, None])
    script = Script()
    assert run(lambda: reward(script)(["q"] * 4, ["4"] * 4)) == [1.0] * 4 and script.asked == 1, "equal ones once"
    assert run(lambda: reward(Script(httpx.Response(413)))(["q"], ["4"])) == [None]
    with pytest.raises(JudgeRefused):
        run(lambda: reward(Script(httpx.Response(400)))(["q"], ["4"]))


@pytest.mark.slow  # importing TRL takes long
def test_trl_takes_it_for_an_async_reward() -> None:
    from trl.trainer.utils import get_callable_name, is_async_callable

    function = reward(answer, name="house-judge")
    assert is_async_callable(function) and get_callable_name(function) == "house-judge"


def test_the_client_loads_nothing_heavy() -> None:
    code = "import rewards.serving.trl_reward, sys; print(*{'ray', 'vllm', 'torch', 'fastapi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_real_socket_too() -> None:
    """Keep-alive, pooling and JSON over a port, as users run it; the engine is scripted."""
    import uvicorn

    async def work() -> None:
        at = served(ScriptedEngine())
        server = uvicorn.Server(uvicorn.Config(at.app, port=0, log_level="warning"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with JudgeClient(f"http://127.0.0.1:{port}", connections=4) as client:
            results = await client.judge_batch([TASK] * 40, batch_size=3)
            assert [r.score for r in results] == [1.0] * 40
        server.should_exit = True
        await serving

    run(work)
