"""What one client can't do to the others: hold slots with slow bodies, fill the memory, or keep the event loop busy."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.hostile import heavy_bodies, odd_bodies
from mr3.judging.chat import ChatPrompt
from mr3.prompts import compact
from mr3.prompts.compact import compact as render_compact
from mr3.records import Task
from mr3.rubrics import Criterion, Rubric
from rewards.serving.admission import Admission
from rewards.serving.body import parse_body
from rewards.serving.config import Limits
from rewards.serving.errors import ApiError
from rewards.serving.front import Front
from rewards.serving.schema import JudgeRequest
from tests.judging_support import make_tokenizer
from tests.rewards_support import PlainTemplate, ScriptedEngine, verdict_text
from tests.serving_support import KEY, SINGLE, HeldEngine, Served, run, served

JSON = {"content-type": "application/json"}
BODY = json.dumps({"tasks": [SINGLE]}).encode()


class Line:
    """A connection to the application whose body comes as the test says, with what was answered."""

    def __init__(self, at: Served, path: str = "/v1/judge", headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.sent: list[Any] = []
        self._parts: asyncio.Queue[Any] = asyncio.Queue()
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
            "raw_path": path.encode(), "query_string": b"", "scheme": "http", "server": ("judge", 80), "root_path": "",
            "headers": [(b"content-type", b"application/json"), *headers],
        }  # fmt: skip
        self.task = asyncio.create_task(at.app(scope, self._parts.get, self._send))

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    def body(self, part: bytes, more: bool) -> None:
        self._parts.put_nowait({"type": "http.request", "body": part, "more_body": more})

    def leave(self) -> None:
        self._parts.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int | None:
        return next((m["status"] for m in self.sent if m["type"] == "http.response.start"), None)


def test_a_slow_body_holds_no_slot_and_ends_with_a_408() -> None:
    async def work() -> None:
        at = served(limits=Limits(body_s=0.3))
        lines = [Line(at) for _ in range(600)]
        for line in lines:
            line.body(BODY[:-5], more=True)
        await asyncio.sleep(0)
        assert at.admission.requests == at.admission.tasks == 0
        assert (await at.http.get("/health")).status_code == 200
        assert (await at.judge(SINGLE)).status_code == 200
        await asyncio.gather(*(line.task for line in lines))
        assert {line.status for line in lines} == {408}
        head = lines[0].sent[0]["headers"]
        assert (b"connection", b"close") in head, "what comes later on the connection is no request"
        assert "0.3 s" in json.loads(lines[0].sent[1]["body"])["error"]["message"]
        assert at.admission.body_bytes == 0

    run(work)


def test_a_body_that_comes_in_drops_has_the_same_time() -> None:
    async def work() -> None:
        at = served(limits=Limits(body_s=0.3))
        line = Line(at)
        while line.status is None:
            line.body(b" ", more=True)
            await asyncio.sleep(0.01)
        assert line.status == 408
        await line.task

    run(work)


def test_what_stands_before_ray_serve_passes_on_whole_beginnings_only() -> None:
    async def work() -> None:
        at = served()
        reached: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            reached.append(scope["path"])
            await at.app(scope, receive, send)

        fronted = dataclasses.replace(at, app=Front(app, 0.3))
        slow, many, whole = Line(fronted), Line(fronted, headers=((b"a", b"b"),) * 300), Line(fronted)
        slow.body(BODY[:-5], more=True)
        whole.body(BODY[:9], more=True)
        await asyncio.sleep(0.05)
        assert reached == [] and many.status == 431
        whole.body(BODY[9:], more=False)
        large = Line(fronted)
        large.body(b" " * 70_000, more=True)
        await asyncio.sleep(0.05)
        assert reached == ["/v1/judge"] * 2
        large.leave()
        await asyncio.gather(slow.task, many.task, whole.task, large.task)
        assert (slow.status, whole.status, large.status) == (408, 200, 400)

    run(work)


def test_who_leaves_leaves_nothing_behind() -> None:
    async def work() -> None:
        engine = HeldEngine()
        at = served(engine)
        before = asyncio.all_tasks()
        cut, gone = Line(at), Line(at)
        cut.body(BODY[:-5], more=True)
        cut.leave()
        gone.body(BODY, more=False)
        while not at.admission.tasks:
            await asyncio.sleep(0.01)
        gone.task.cancel()  # what servers do when a client hangs up
        await asyncio.gather(cut.task, gone.task, return_exceptions=True)
        await asyncio.sleep(0.05)
        assert at.admission.requests == at.admission.tasks == at.admission.body_bytes == 0
        assert asyncio.all_tasks() == before
        assert 'mr3_tasks_in_flight{replica="r1"} 0.0' in (await at.http.get("/metrics")).text
        engine.release.set()
        assert (await at.judge(SINGLE)).status_code == 200

    run(work)


def test_a_task_that_can_not_be_rendered_is_a_400_and_ends_the_others_of_its_request() -> None:
    async def work() -> None:
        at = served(HeldEngine(), modes=("binary", "listwise"))
        before = asyncio.all_tasks()
        refused = await at.judge(SINGLE, {**SINGLE, "mode": "listwise", "responses": ["a", "b"]})
        assert refused.status_code == 400 and "no texts for mode listwise" in refused.text
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == before and at.admission.tasks == 0

    run(work)


def test_all_bodies_together_have_a_limit() -> None:
    admission = Admission(8, most_bytes=1_000)
    with admission.body() as first, admission.body() as second:
        first(600)
        second(400)
        with pytest.raises(ApiError) as caught:
            first(1)
        assert caught.value.status == 429 and int(caught.value.headers["Retry-After"]) >= 1
    assert admission.body_bytes == 0
    with admission.body() as third:
        third(1_000)


def _bodies() -> Iterator[tuple[str, str, bytes]]:
    yield from (("/v1/judge", name, body) for name, body in odd_bodies(400_000))
    yield from heavy_bodies(400_000)


def test_hostile_bodies_are_refused_or_fail_and_leave_nothing_behind() -> None:
    async def work() -> None:
        at = served(keys=[KEY])
        before = asyncio.all_tasks()
        statuses: dict[str, int] = {}
        for path, name, body in _bodies():
            response = await at.http.post(path, content=body, headers=JSON)
            statuses[name] = response.status_code
            if response.status_code == 200:
                assert all(r["score"] is None for r in response.json()["results"]), name
            else:
                assert 400 <= response.status_code < 500 and len(response.content) < 4_000, name
        refused = {name for name, _ in odd_bodies(400)}
        assert {statuses[name] for name in refused} == {400}
        taken = {name: statuses[name] for _, name, _ in heavy_bodies(400_000) if "chat" not in name}
        assert set(taken.values()) == {200}, taken
        await asyncio.sleep(0.05)
        assert at.admission.requests == at.admission.tasks == at.admission.body_bytes == 0
        assert asyncio.all_tasks() == before
        assert (await at.judge(SINGLE)).json()["results"][0]["score"] == 1.0

    run(work)


_VALUES = st.none() | st.integers() | st.text('[{,\\"é')


@given(st.recursive(_VALUES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_values_are_counted_as_json_has_them(value: Any) -> None:
    def count(part: Any) -> int:
        inside = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        return max(0, len(inside) - 1) + isinstance(part, list | dict) + sum(count(p) for p in inside)

    body = json.dumps(value, ensure_ascii=False).encode()
    most = max(100, count(value))
    with pytest.raises(ApiError) as caught:
        parse_body(body, JudgeRequest, Limits(body_values=most))
    assert caught.value.code == "invalid_body"
    if count(value) > 100:
        with pytest.raises(ApiError) as caught:
            parse_body(body, JudgeRequest, Limits(body_values=count(value) - 1))
        assert caught.value.code == "too_many_values"


def test_a_body_of_many_values_is_refused_before_it_is_read() -> None:
    tasks = [{**SINGLE, "id": str(i)} for i in range(60)]
    body = json.dumps({"tasks": tasks}).encode()
    assert len(parse_body(body, JudgeRequest, Limits(body_values=500)).tasks) == 60
    with pytest.raises(ApiError, match="more than 300 values"):
        parse_body(body, JudgeRequest, Limits(body_values=300))


def test_a_length_of_thousands_of_digits_is_a_length() -> None:
    at = served()
    headers = {**JSON, "content-length": "9" * 5_000}
    assert run(lambda: at.http.post("/v1/judge", content=b"{}", headers=headers)).status_code == 413


class Where(PlainTemplate):
    """Notes in which thread texts are tokenised."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def __call__(self, texts: list[str], **more: Any) -> dict[str, list[list[int]]]:
        self.threads.add(threading.get_ident())
        return super().__call__(texts, **more)


def test_texts_are_rendered_and_tokenised_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    where = Where()
    monkeypatch.setattr("tests.serving_support.PlainTemplate", lambda: where)
    rendered: set[int] = set()
    neutralise = compact.neutralise

    def noted(text: str) -> str:
        rendered.add(threading.get_ident())
        return neutralise(text)

    monkeypatch.setattr(compact, "neutralise", noted)

    async def work() -> None:
        at = served(ScriptedEngine(lambda _: verdict_text("true")))
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
        assert (await at.judge(SINGLE)).status_code == (await at.post("/v1/chat/completions", chat)).status_code == 200

    run(work)
    assert where.threads == rendered and len(rendered) == 1 and threading.get_ident() not in rendered


@given(st.text("ab \n😀<|im_end|>é", max_size=300), st.integers(1, 12))
def test_only_a_prompt_that_is_over_the_limit_is_refused_by_its_beginning(text: str, most: int) -> None:
    chat = _CHAT
    least = chat.at_least(text, most)
    if least is not None:
        (whole,) = chat.ids([text + _BOUNDARY]) if _BOUNDARY else chat.ids([text])
        assert len(whole) > most and least > 2 * most


_CHAT = ChatPrompt(make_tokenizer())
_BOUNDARY = _CHAT._boundary or ""


def test_a_prompt_of_megabytes_is_not_tokenised_to_its_end() -> None:
    at, read = served(), []
    encode = PlainTemplate.__call__

    def noted(self: PlainTemplate, texts: list[str], **more: Any) -> dict[str, list[list[int]]]:
        read.extend(len(text) for text in texts)
        return encode(self, texts, **more)

    async def work() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PlainTemplate, "__call__", noted)
            (result,) = (await at.judge({**SINGLE, "input": "x" * 2_000_000})).json()["results"]
            chat = {"model": "tiny", "messages": [{"role": "user", "content": "x" * 2_000_000}]}
            refused = await at.post("/v1/chat/completions", chat)
        assert result["outcome"] == "too_long" and result["score"] is None and "at least" in result["reason"]
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        assert sum(read) < 100_000

    run(work)


def test_what_clients_send_is_not_kept() -> None:
    """Prompts of rubrics are remembered, as many tasks share one; megabytes of each client's own would fill memory."""
    chat = ChatPrompt(make_tokenizer())
    before = len(chat._prefix_ids), len(compact._systems)
    for i in range(3):
        rubric = Rubric(criteria=[Criterion(name="a", description=f"{i}" + "x" * 100_000)])
        task = Task(id="t", mode="binary", input="?", responses=["!"], rubric=rubric, language="en")
        chat.ids([chat.text(render_compact(task))])
    assert (len(chat._prefix_ids), len(compact._systems)) == before
