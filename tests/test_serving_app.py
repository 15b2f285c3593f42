"""The HTTP application: judging, chat, limits, keys, draining, metrics, documents, and errors in one shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mr3.inference.engine import Completion, Request, Sampling
from mr3.inference.vllm_engine import EngineDead
from rewards.serving.admission import Admission
from rewards.serving.config import Limits, ServeConfig
from rewards.serving.errors import ApiError, error_response
from rewards.serving.keys import load_keys
from rewards.serving.library import load_library
from tests.rewards_support import ScriptedEngine, verdict_text
from tests.serving_support import HOUSE, KEY, PAIR, SINGLE, HeldEngine, run, served

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
HOUSE_JSON = HOUSE.model_dump(mode="json")


def error_of(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    message: str = body["error"]["message"]
    assert message
    return message


def test_a_pair_is_judged_in_both_orders_and_combined() -> None:
    async def work() -> None:
        at = served()
        found = (await at.judge({**PAIR, "id": "one"})).json()
        (result,) = found["results"]
        assert found["judge"] == "scripted@1" and result["id"] == "one" and result["outcome"] == "ok"
        assert result["comparison"]["result"] == "a" and result["score"] == result["comparison"]["p_a"] == 1.0
        assert [(v["swapped"], v["score"]) for v in result["verdicts"]] == [
            (False, "Assistant A"),
            (True, "Assistant A"),
        ]
        assert all(v["explanation"] == "so" and v["trace"] is None for v in result["verdicts"])
        swapped = (await at.judge({**PAIR, "responses": PAIR["responses"][::-1]})).json()["results"][0]
        assert swapped["comparison"]["result"] == "b" and swapped["score"] == 0.0

    run(work)


def test_strategy_and_trace_are_the_clients_choice() -> None:
    async def work() -> None:
        at = served()
        one = (await at.judge(PAIR, strategy={"orders": "one"}, include_trace=True)).json()["results"][0]
        assert len(one["verdicts"]) == 1 and one["verdicts"][0]["trace"] == "because"
        biased = {**PAIR, "input": "BIASED"}
        agree = (await at.judge(biased)).json()["results"][0]
        assert agree["comparison"]["result"] == "tie" and agree["comparison"]["flip"] is True
        mean = (await at.judge(biased, strategy={"combine": "mean"})).json()["results"][0]
        assert mean["comparison"]["result"] == "tie" and mean["score"] == 0.5

    run(work)


def test_a_tie_margin_makes_ties_of_near_means() -> None:
    def leans_to_a(prompt: str) -> str:
        shown_first = prompt.index("It is 4.") < prompt.index("It is 5.")
        return verdict_text("Assistant A" if shown_first else "Tie")

    async def work() -> None:
        at = served(ScriptedEngine(leans_to_a))
        for margin, result in ((0.2, "a"), (0.3, "tie")):
            found = (await at.judge(PAIR, strategy={"combine": "mean", "tie_margin": margin})).json()["results"][0]
            assert found["score"] == 0.75 and found["comparison"]["result"] == result

    run(work)


def test_a_batch_keeps_its_order_and_takes_rubrics_as_objects() -> None:
    async def work() -> None:
        at = served()
        tasks = [{**SINGLE, "responses": [f"It is {i}."], "rubric": HOUSE_JSON} for i in (4, 5, 4, 6)]
        results = (await at.judge(*tasks)).json()["results"]
        assert [r["score"] for r in results] == [1.0, 0.0, 1.0, 0.0]
        assert all(r["comparison"] is None for r in results)

    run(work)


def test_a_failed_judgement_is_an_outcome_without_a_score() -> None:
    async def work() -> None:
        at = served()
        response = await at.judge({**PAIR, "input": "BROKEN"}, {**SINGLE, "input": "BROKEN"}, SINGLE)
        assert response.status_code == 200
        pair, single, fine = response.json()["results"]
        for failed in (pair, single):
            assert failed["outcome"] == "parse_failed" and failed["score"] is None and "closed" in failed["reason"]
        assert pair["comparison"]["result"] == "failed" and pair["comparison"]["p_a"] is None
        assert fine["score"] == 1.0

    run(work)


def test_samples_vote() -> None:
    async def work() -> None:
        at = served(sampling=Sampling(temperature=0.7, max_tokens=24))
        found = (await at.judge(SINGLE, strategy={"samples": 3})).json()["results"][0]
        assert len(found["verdicts"]) == 3 and found["score"] == 1.0
        assert "allows 16" in error_of(await at.judge(SINGLE, strategy={"samples": 17}), 400)

    run(work)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({**SINGLE, "rubric": "nowhere"}, "no rubric 'nowhere' here (known: house)"),
        ({**SINGLE, "responses": ["a", "b"]}, "mode binary takes 0 to 1 response(s), got 2"),
        ({**PAIR, "responses": ["a"]}, "mode pairwise takes 2 response(s), got 1"),
        ({**PAIR, "rubric": {"levels": {"good": "x", "bad": "y"}}}, "can't be judged in both orders"),
        ({**SINGLE, "mode": "pointwise"}, "trained for pairwise, binary, not pointwise"),
        ({**SINGLE, "rubric": {"name": "empty"}}, "neither criteria nor levels"),
        ({**SINGLE, "language": "english, please"}, "language"),
        ({**SINGLE, "input": 7}, "input"),
        ({**SINGLE, "responses": [7]}, "responses.0"),
        ({**SINGLE, "rubric": {"criteria": [{"name": "a", "description": "b", "weight": "1"}]}}, "weight"),
        ({**SINGLE, "extra": 1}, "extra: not supported by this server"),
        ({k: v for k, v in SINGLE.items() if k != "mode"}, "mode"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_a_clients_mistake_is_a_400_that_says_what(task: dict[str, Any], said: str) -> None:
    at = served(modes=("pairwise", "binary"))
    assert said in error_of(run(lambda: at.judge(task)), 400)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"tasks": [', {"content-type": "application/json"}, 400),
        (b"", {"content-type": "application/json"}, 400),
        (b"\xff\xfe", {"content-type": "application/json"}, 400),
        (b"[" * 100_000, {"content-type": "application/json"}, 400),
        (b'{"tasks": [], "\\ud800": 1}', {"content-type": "application/json"}, 400),
        (b'{"tasks": [{"mode": "binary", "input": "\\ud800", "responses": ["x"], "rubric": "house"}]}',
         {"content-type": "application/json"}, 400),
        (json.dumps({"tasks": [SINGLE], "strategy": {"tie_margin": float("nan")}}).encode(),
         {"content-type": "application/json"}, 400),
        (b'{"tasks": []}', {"content-type": "application/json"}, 400),
        (json.dumps({"tasks": [SINGLE]}).encode(), {"content-type": "text/plain"}, 415),
        (json.dumps({"tasks": [SINGLE]}).encode(), {}, 415),
        (b"\x1f\x8b", {"content-type": "application/json", "content-encoding": "gzip"}, 415),
        (b"{}", {"content-type": "application/json", "content-length": "many"}, 400),
        (b"{}", {"content-type": "application/json", "content-length": "99999999"}, 413),
    ],
)  # fmt: skip
def test_bodies_that_are_no_request(body: bytes, headers: dict[str, str], status: int) -> None:
    at = served()
    error_of(run(lambda: at.http.post("/v1/judge", content=body, headers=headers)), status)


def test_paths_and_methods_that_are_not_there() -> None:
    at = served()
    assert "/nowhere" in error_of(run(lambda: at.http.get("/nowhere")), 404)
    assert "Method Not Allowed" in error_of(run(lambda: at.http.get("/v1/judge")), 405)


def test_a_full_batch_and_a_large_body_are_refused() -> None:
    async def work() -> None:
        at = served(limits=Limits(tasks_per_request=2, body_bytes=2_000))
        assert "at most 2" in error_of(await at.judge(SINGLE, SINGLE, SINGLE), 400)
        large = {**SINGLE, "input": "x" * 3_000}
        assert "2000 bytes" in error_of(await at.judge(large), 413)

        async def pieces() -> Any:
            for _ in range(30):
                yield b" " * 100

        headers = {"content-type": "application/json"}
        error_of(await at.http.post("/v1/judge", content=pieces(), headers=headers), 413)

    run(work)


def test_only_a_known_key_opens() -> None:
    async def work() -> None:
        at = served(keys=[KEY, "another-key"])
        assert (await at.judge(SINGLE)).status_code == 200
        for header in ("", "Bearer", "Bearer wrong-key-0", f"Basic {KEY}", KEY, "Bearer \xe9"):
            refused = await at.http.post("/v1/judge", json={}, headers={"authorization": header.encode("latin-1")})
            assert "API key" in error_of(refused, 401) and refused.headers["www-authenticate"] == "Bearer"
        nobody = {"authorization": ""}
        assert (await at.http.get("/health", headers=nobody)).status_code == 200
        assert (await at.http.get("/metrics", headers=nobody)).status_code == 401

    run(work)


def test_a_full_replica_pushes_back_and_recovers() -> None:
    async def work() -> None:
        engine = HeldEngine()
        at = served(engine, Limits(tasks_per_request=2, tasks_in_flight=3))
        first = asyncio.create_task(at.judge(SINGLE, SINGLE))
        await asyncio.sleep(0.05)
        refused = await at.judge(SINGLE, SINGLE)
        assert "busy: 2 of 3" in error_of(refused, 429) and int(refused.headers["retry-after"]) >= 1
        second = asyncio.create_task(at.judge(SINGLE))
        await asyncio.sleep(0.05)
        assert (await at.post("/v1/chat/completions", CHAT)).status_code == 429
        assert (await at.http.get("/health")).status_code == 200, "a busy replica is a healthy one"
        at.engine.check()
        engine.release.set()
        assert (await first).status_code == (await second).status_code == 200
        assert (await at.judge(SINGLE, SINGLE)).status_code == 200 and at.admission.tasks == 0

    run(work)


def test_a_drain_waits_for_requests_in_flight_and_refuses_new_ones() -> None:
    async def work() -> None:
        engine = HeldEngine()
        at = served(engine)
        first = asyncio.create_task(at.judge(SINGLE))
        await asyncio.sleep(0.05)
        assert await at.admission.drain(0.05) == 1
        drain = asyncio.create_task(at.admission.drain(10))
        refused = await at.judge(SINGLE)
        assert "stopping" in error_of(refused, 503) and refused.headers["retry-after"] and not drain.done()
        assert (await at.http.get("/health")).status_code == 503
        engine.release.set()
        assert (await first).json()["results"][0]["score"] == 1.0
        assert await drain == 0

    run(work)


def test_a_drain_waits_for_the_last_of_several_requests() -> None:
    async def work() -> None:
        admission = Admission(8)
        with admission.request():
            with admission.request():
                pass
            assert await admission.drain(0.05) == 1
        assert await admission.drain(0.05) == 0

    run(work)


class Stuck(ScriptedEngine):
    """Never answers a prompt that says STUCK."""

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        if any("STUCK" in (r.prompt or "") or r.prompt_ids == [0] for r in requests):
            await asyncio.sleep(3_600)
        return await super().generate(requests)


def test_a_judgement_that_hangs_is_a_failed_verdict_and_the_others_are_not() -> None:
    async def work() -> None:
        at = served(Stuck(), Limits(timeout_s=0.2, timeout_s_per_token=0.001))
        stuck, fine = (await at.judge({**SINGLE, "input": "STUCK"}, SINGLE)).json()["results"]
        assert stuck["outcome"] == "timed_out" and stuck["score"] is None and "timed out" in stuck["reason"]
        assert fine["score"] == 1.0
        at.engine.check()  # others were answered: it is slow, not dead
        await at.judge({**SINGLE, "input": "STUCK"})
        with pytest.raises(RuntimeError, match="no answer to anybody"):
            at.engine.check()
        await at.judge(SINGLE)
        at.engine.check()

    run(work)


class Silent(ScriptedEngine):
    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        await asyncio.sleep(3_600)
        return []


def test_a_chat_that_hangs_is_a_504() -> None:
    at = served(Silent(), Limits(timeout_s=0.05, timeout_s_per_token=0.001))
    assert "timed out" in error_of(run(lambda: at.post("/v1/chat/completions", CHAT)), 504)


class Dead(ScriptedEngine):
    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        raise EngineDead("the loop broke")


def test_a_dead_engine_ends_the_process() -> None:
    ended: list[int] = []
    at = served(Dead(), die=lambda: ended.append(1))
    assert run(lambda: at.judge(SINGLE)).status_code == 500 and ended


class Noting(ScriptedEngine):
    """Keeps what it was asked."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        super().__init__(answer)
        self.requests: list[Request] = []

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.requests += requests
        return await super().generate(requests)


def test_chat_keeps_openais_shape_and_refuses_what_it_does_not_do() -> None:
    async def work() -> None:
        engine = Noting(lambda _: "hi there")
        at = served(engine)
        found = (await at.post("/v1/chat/completions", {**CHAT, "n": 2, "user": "u"})).json()
        assert [c["message"]["content"] for c in found["choices"]] == ["hi there"] * 2
        assert found["object"] == "chat.completion" and found["model"] == "tiny"
        await at.post("/v1/chat/completions", {**CHAT, "n": 2, "seed": 7, "temperature": 0.5, "max_tokens": 9})
        assert [(r.sampling.seed, r.sampling.temperature, r.sampling.max_tokens) for r in engine.requests[-2:]] == [
            (7, 0.5, 9),
            (8, 0.5, 9),
        ]
        for change, status, said in [
            ({"stream": True}, 400, "does not stream"),
            ({"model": "other"}, 404, "'tiny'"),
            ({"tools": []}, 400, "tools: not supported"),
            ({"max_tokens": 9_999}, 400, "only"),
            ({"messages": [{"role": "user", "content": "x" * 3_000}]}, 400, "tokens"),
            ({"temperature": -1}, 400, "temperature"),
            ({"messages": []}, 400, "messages"),
        ]:
            assert said in error_of(await at.post("/v1/chat/completions", {**CHAT, **change}), status)

    run(work)


def test_the_official_client_works() -> None:
    openai = pytest.importorskip("openai")

    async def work() -> None:
        at = served(ScriptedEngine(lambda _: "hi there"), keys=[KEY])
        client = openai.AsyncOpenAI(base_url="http://judge/v1", api_key=KEY, http_client=at.http, max_retries=0)
        assert [m.id async for m in client.models.list()] == ["tiny"]
        done = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=8, temperature=0, seed=1
        )
        assert done.choices[0].message.content == "hi there" and done.choices[0].finish_reason == "stop"
        with pytest.raises(openai.BadRequestError, match="does not stream"):
            await client.chat.completions.create(model="tiny", messages=CHAT["messages"], stream=True)
        with pytest.raises(openai.NotFoundError, match="'tiny'"):
            await client.chat.completions.create(model="gpt", messages=CHAT["messages"])

    run(work)


def test_any_message_can_be_sent() -> None:
    assert json.loads(error_response(ApiError(400, "\ud800 is no letter")).body)["error"]["message"] == "? is no letter"


def _values(text: str) -> dict[tuple[str, ...], float]:
    return {
        (s.name, *(v for k, v in sorted(s.labels.items()) if k != "le")): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_metrics_count_requests_and_verdicts_of_every_replica() -> None:
    async def work() -> None:
        at = served()
        await at.judge(PAIR, {**SINGLE, "input": "BROKEN"})
        await at.judge({})
        await at.http.get("/what/ever")
        page = await at.http.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain")
        values = _values(page.text)
        for replica in ("r1", "r2"):
            assert values["mr3_requests_total", replica, "/v1/judge", "200"] == 1
            assert values["mr3_requests_total", replica, "/v1/judge", "400"] == 1
            assert values["mr3_requests_total", replica, "other", "404"] == 1
            assert values["mr3_verdicts_total", "pairwise", "ok", replica] == 2
            assert values["mr3_verdicts_total", "binary", "parse_failed", replica] == 1
            assert values["mr3_request_seconds_count", replica, "/v1/judge"] == 2
            assert values["mr3_requests_in_flight", replica] == 1, "the request for the metrics itself"
            assert values["mr3_tasks_in_flight", replica] == 0

    run(work)


def test_the_document_describes_what_is_taken() -> None:
    async def work() -> None:
        at = served(keys=[KEY])
        document = (await at.http.get("/openapi.json", headers={"authorization": ""})).json()
        assert set(document["paths"]) >= {"/v1/judge", "/v1/chat/completions", "/v1/models", "/health", "/metrics"}
        operation = document["paths"]["/v1/judge"]["post"]
        assert set(operation["responses"]) >= {"200", "400", "401", "413", "429"}
        schema = {**operation["requestBody"]["content"]["application/json"]["schema"], **_only(document, "components")}
        jsonschema.validate({"tasks": [PAIR, {**SINGLE, "rubric": HOUSE_JSON}]}, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"tasks": [{**PAIR, "mode": "ternary"}]}, schema)
        assert (await at.http.get("/docs", headers={"authorization": ""})).status_code == 200

    run(work)


def _only(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {key: document[key]}


def test_keys_and_libraries_come_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("# ours\nfirst-key-0\n\nsecond-key-0 # theirs\n")
    monkeypatch.setenv("KEYS", "third-key-0, first-key-0")
    assert len(load_keys("KEYS", file)) == 3 and load_keys(None, None) == []
    with pytest.raises(ValueError, match="export NO_KEYS"):
        load_keys("NO_KEYS", None)
    monkeypatch.setenv("KEYS", "short")
    with pytest.raises(ValueError, match="fewer than 8"):
        load_keys("KEYS", None)
    folder = tmp_path / "rubrics"
    folder.mkdir()
    with pytest.raises(ValueError, match="no YAML file"):
        load_library(folder)
    (folder / "short.yaml").write_text("criteria: [{name: brief, description: It is brief.}]")
    assert list(load_library(folder)) == ["short"]
    with pytest.raises(ValueError, match="no rubric library"):
        load_library(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"host": "0.0.0.0"}, "can be reached by others"),
        ({"limits": {"tasks_per_request": 9, "tasks_in_flight": 8}}, "could never be taken"),
        ({"replicas": {"min": 3, "max": 2}}, "below replicas.min"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(change: dict[str, Any], said: str) -> None:
    base: dict[str, Any] = {"output_dir": "o", "judge": {"model": "m"}}
    ServeConfig.model_validate({**base, "host": "0.0.0.0", "api_keys_env": "K"})
    with pytest.raises(ValueError, match=said):
        ServeConfig.model_validate({**base, **change})
