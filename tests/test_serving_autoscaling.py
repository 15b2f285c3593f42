"""The real `mr3 serve` under changing load: a second replica comes, and goes again, and no request notices."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.rewards_support import make_judge
from tests.server_process import HEADERS, TASK, Server

CLIENTS = 24
ENOUGH_S = 150.0
REPLICAS = ["--replicas.max", "2", "--replicas.target_requests", "4"]
REPLICAS += ["--replicas.upscale_delay_s", "1", "--replicas.downscale_delay_s", "3"]


async def _replicas(http: httpx.AsyncClient) -> int:
    """Replicas that speak on the page of metrics."""
    return len(set(re.findall(r'replica="([^"]+)"', (await http.get("/metrics")).text)))


async def _ask(http: httpx.AsyncClient, stop: asyncio.Event, seen: list[int]) -> None:
    while not stop.is_set():
        seen.append((await http.post("/v1/judge", json={"tasks": [TASK] * 2})).status_code)


async def _until(http: httpx.AsyncClient, wanted: int) -> None:
    ends = time.monotonic() + ENOUGH_S
    while await _replicas(http) != wanted:
        assert time.monotonic() < ends, f"never {wanted} replicas"
        await asyncio.sleep(0.5)


async def _load(url: str) -> list[int]:
    """The status of every request: many clients until there are two replicas and more, then one until one is left."""
    seen: list[int] = []
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=120) as http:
        for clients, wanted in ((CLIENTS, 2), (1, 1)):
            stop = asyncio.Event()
            asking = [asyncio.create_task(_ask(http, stop, seen)) for _ in range(clients)]
            await _until(http, wanted)
            await asyncio.sleep(5)
            stop.set()
            await asyncio.gather(*asking)
    return seen


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ingress", ["proxy", "haproxy"])
def test_replicas_come_and_go_with_the_load_and_no_request_fails(ingress: str, tmp_path: Path) -> None:
    model = make_judge(tmp_path / "judge", max_output_tokens=60)
    (tmp_path / "serve").mkdir()
    with closing(Server(tmp_path / "serve", model, "--ingress", ingress, *REPLICAS)) as server:
        seen = asyncio.run(_load(server.wait_ready()))
        assert seen and set(seen) == {200}, {status: seen.count(status) for status in set(seen)}
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(90) == 0, server.text()
