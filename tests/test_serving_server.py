"""The real `mr3 serve` as a process, with a tiny random judge on vLLM: users' mistakes, and the life of a server."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from rewards.serving.client import JudgeClient
from rewards.serving.schema import JudgeTask
from tests.rewards_support import make_judge
from tests.server_process import HEADERS, ROOT, TASK, Server, command
from tests.serving_support import KEY

LIMITS = ["--limits.tasks_in_flight", "64", "--limits.tasks_per_request", "64", "--limits.body_bytes", "20000"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--judge.profile", "null"), "is not a judge"),
        (("--host", "0.0.0.0"), "can be reached by others"),
        (("--api_keys_env", "NO_SUCH_KEYS"), "export NO_SUCH_KEYS="),
        (("--rubrics", "no/such"), "no rubric library"),
        (("--limits.tasks_per_request", "300"), "could never be taken"),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_code_2(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    base = ["--output_dir", str(tmp_path / "out"), "--judge.model", str(ROOT / "mr3/nano/base")]
    base += ["--judge.profile", "compact", "--judge.max_prompt_tokens", "500", "--judge.max_output_tokens", "20"]
    done = subprocess.run(command(*base, *words), capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_port_in_use_is_a_users_mistake(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ["--judge.model", str(ROOT / "mr3/nano/base"), "--judge.profile", "compact", "--port", str(port)]
        words += ["--judge.max_prompt_tokens", "500", "--judge.max_output_tokens", "20"]
        done = subprocess.run(command(*words), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and f"can't listen on 127.0.0.1:{port}" in done.stderr


@pytest.fixture(params=["proxy", "haproxy"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    model = make_judge(tmp_path / "judge", max_output_tokens=400)
    (tmp_path / "serve").mkdir()
    with closing(
        Server(tmp_path / "serve", model, "--replicas.max", "1", "--ingress", request.param, *LIMITS)
    ) as started:
        yield started


def _addresses_of_haproxy(server: Server) -> set[str]:
    """The addresses at which the server's HAProxy listens; none where it has no HAProxy."""
    family = [p for p in psutil.Process(server.process.pid).children(recursive=True) if p.name() == "haproxy"]
    heard = [c.laddr for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return {where.ip for where in heard}


async def _answers(url: str) -> None:
    """What a healthy server does."""
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=60) as http:
        assert (await http.get("/health", headers={"authorization": ""})).json() == {"status": "ok"}
        assert (await http.post("/v1/judge", json={}, headers={"authorization": "Bearer no"})).status_code == 401
        assert (await http.post("/v1/judge", json={"tasks": [{**TASK, "input": "x" * 30_000}]})).status_code == 413
        answer = await http.post("/v1/judge", json={"tasks": [TASK, {**TASK, "rubric": "house"}]})
        assert answer.status_code == 200, answer.text
        for result in answer.json()["results"]:  # a random judge writes no verdict
            assert result["outcome"] in ("truncated", "parse_failed") and result["score"] is None and result["reason"]
        long = await http.post("/v1/judge", json={"tasks": [{**TASK, "input": "word " * 1_500}]})
        assert long.json()["results"][0]["outcome"] == "too_long"
        assert "mr3_verdicts_total" in (await http.get("/metrics")).text


async def _pushes_back(url: str) -> None:
    """More than it takes on is refused at once, with the time to wait."""
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=60) as http:
        full = asyncio.create_task(http.post("/v1/judge", json={"tasks": [TASK] * 64}))
        await asyncio.sleep(0.3)
        refused = await http.post("/v1/judge", json={"tasks": [TASK]})
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert (await http.get("/health")).status_code == 200
        assert (await full).status_code == 200
    async with JudgeClient(url, KEY) as client:  # which waits as it is told
        results = await client.judge_batch([JudgeTask.model_validate(TASK)] * 160, batch_size=40)
        assert len(results) == 160


async def _openai(url: str) -> None:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY)
    messages: Any = [{"role": "user", "content": "hello"}]
    done = await client.chat.completions.create(model="tiny", messages=messages, max_tokens=5, temperature=0)
    assert done.usage is not None and done.usage.completion_tokens <= 5
    await client.close()


async def _drains(url: str, server: Server) -> None:
    """Told to stop, it finishes what it has and refuses the rest."""
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=60) as http:
        last = asyncio.create_task(http.post("/v1/judge", json={"tasks": [TASK] * 64}))
        await asyncio.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        refused: int | None = 200
        while refused not in (503, None) and not last.done():
            await asyncio.sleep(0.05)
            try:
                refused = (await http.post("/v1/judge", json={"tasks": []})).status_code
            except httpx.ConnectError:
                refused = None
            assert refused in (503, None, 400)
        answer = await last
        assert answer.status_code == 200 and len(answer.json()["results"]) == 64
        assert refused in (503, None)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_that_is_killed_leaves_nobody_on_its_port(server: Server) -> None:
    url = server.wait_ready()
    server.process.kill()
    for _ in range(600):
        try:
            httpx.get(f"{url}/health")
        except httpx.TransportError:
            return
        time.sleep(0.1)
    raise AssertionError("somebody answers there still")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_life_of_a_server(server: Server) -> None:
    url = server.wait_ready()
    assert f"ready on {url}" in server.text()
    assert _addresses_of_haproxy(server) == ({"127.0.0.1"} if "haproxy" in server.more else set())

    async def life() -> None:
        await _answers(url)
        await _pushes_back(url)
        await _openai(url)
        await _drains(url, server)

    asyncio.run(life())
    assert server.process.wait(90) == 0, server.text()
    assert "stopped" in server.text() and not (server.folder / "server.json").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
