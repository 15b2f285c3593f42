"""How long `/health` waits beside hostile requests: every body under 4 MB alone, eight at once, and 600 slow bodies.

The server is the real one, with vLLM, through HAProxy and through Ray Serve's own proxy. `quiet_s` is the worst delay
while nobody asks for anything else: what the machine itself adds. Every body is sent twice and its shorter delay
counts, as other programs on the machine make single tries late; `details` has the worst of the first tries.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks.hostile import heavy_bodies, odd_bodies
from benchmarks.prober import Delays, probing
from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.served import KEY, server, work_off
from benchmarks.workload import base_judge

_SIZE = 3_900_000
_TOGETHER = 8
_SLOW = 600
_BODY_S = 10.0
_TRIES = 2
_QUIET_S = 10.0
_HEAD = f"POST /v1/judge HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
Send = Callable[[], Coroutine[Any, Any, str]]


def _bodies() -> Iterator[tuple[str, str, bytes]]:
    """Path, name and body."""
    yield from (("/v1/judge", name, body) for name, body in odd_bodies(_SIZE))
    yield from heavy_bodies(_SIZE)


def _wire() -> Iterator[tuple[str, bytes]]:
    """Whole requests as bytes: what a client of HTTP would not send."""
    chunks = b"1\r\n \r\n" * (_SIZE // 6)
    yield "chunks of a byte", f"{_HEAD}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"
    yield "many headers", _HEAD.encode() + b"a:b\r\n" * (_SIZE // 5) + b"\r\n"
    yield "a long header", _HEAD.encode() + b"a:" + b"b" * _SIZE + b"\r\n\r\n"
    yield "a long path", b"GET /" + b"a" * _SIZE + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "many small requests", b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000


async def _post(http: httpx.AsyncClient, path: str, body: bytes) -> str:
    try:
        return str((await http.post(path, content=body)).status_code)
    except httpx.TransportError as error:
        return type(error).__name__


async def _raw(url: str, data: bytes) -> str:
    """The first bytes of the answer, after all was sent that the server takes."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    answer = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(60):
            writer.write(data)
            await writer.drain()
            answer = await reader.read(12)
    writer.close()
    return answer.decode("latin-1") or "hung up"


async def _slow_lines(url: str) -> tuple[float, float, int]:
    """600 connections that stop in the middle: of a small body, of a large one, of the headers. When, and how many were
    not ended by the server within twice the time that a body may take."""
    where = urlsplit(url)
    starts = (
        f"{_HEAD}Content-Length: 300\r\n\r\n".encode() + b'{"tasks": [',
        f"{_HEAD}Content-Length: 300000\r\n\r\n".encode() + b" " * 100_000,
        _HEAD.encode()[:-10],
    )

    async def stall(start: bytes) -> bool:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        try:
            writer.write(start)
            async with asyncio.timeout(2 * _BODY_S):
                await writer.drain()
                return await reader.read(12) is not None
        except (ConnectionError, TimeoutError) as error:
            return isinstance(error, ConnectionError)
        finally:
            writer.close()

    begun = time.monotonic()
    ended = await asyncio.gather(*(stall(starts[i % len(starts)]) for i in range(_SLOW)))
    return begun, time.monotonic(), ended.count(False)


async def _attack(url: str) -> dict[str, Any]:
    """When each thing was done, by name."""
    times: dict[str, Any] = {"alone": {}, "statuses": {}}
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120.0) as http:

        async def timed(name: str, send: Send) -> None:
            begun = time.monotonic()
            times["statuses"][name] = await send()
            times["alone"].setdefault(name, []).append((begun, time.monotonic()))
            await asyncio.sleep(0.1)

        await asyncio.sleep(_QUIET_S)
        times["quiet"] = (0.0, time.monotonic())
        for _ in range(_TRIES):
            for path, name, body in _bodies():
                await timed(name, lambda path=path, body=body: _post(http, path, body))  # type: ignore[misc]
            for name, data in _wire():
                await timed(name, lambda data=data: _raw(url, data))  # type: ignore[misc]
        begun = time.monotonic()
        bodies = [(path, body) for path, _, body in _bodies()]
        await work_off(bodies, lambda job: _post(http, *job), _TOGETHER)
        times["together"] = (begun, time.monotonic())
        *times["slow"], times["left"] = await _slow_lines(url)
        answer = await http.get("/health")
        times["well"] = answer.status_code == httpx.codes.OK
    return times


def _measure(ingress: str) -> dict[str, Any]:
    """The delays through one ingress."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        judge = base_judge(root / "judge")
        overrides = ("--ingress", ingress, "--limits.body_s", str(_BODY_S))
        with server(root, *overrides, judge=judge) as url, probing(url) as seen:
            times = asyncio.run(_attack(url))
        return _delays(times, seen[0])


def _delays(times: dict[str, Any], seen: Delays) -> dict[str, Any]:
    tries = {name: [seen.worst(*span) or 0.0 for span in spans] for name, spans in times["alone"].items()}
    best = {name: min(delays) for name, delays in tries.items()}
    slowest = sorted(best, key=lambda name: -best[name])[:5]
    return {
        "quiet_s": seen.worst(*times["quiet"]),
        "request_s": max(best.values()),
        "together_s": seen.worst(*times["together"]),
        "slow_s": seen.worst(*times["slow"]),
        "slow_left": times["left"],
        "failed": seen.failed + (not times["well"]),
        "first_try_s": max(delays[0] for delays in tries.values()),
        "slowest": {name: [round(delay, 3) for delay in tries[name]] for name in slowest},
        "statuses": times["statuses"],
        "probes": len(seen.probes),
    }


def run() -> Result:
    """HAProxy first, then Ray Serve's proxy."""
    found = {ingress: _measure(ingress) for ingress in ("haproxy", "proxy")}
    shown = ("quiet_s", "request_s", "together_s", "slow_s", "failed")
    value = {f"{ingress}_{name}": seen[name] for ingress, seen in found.items() for name in shown}
    return Result(
        value,
        n=sum(seen["probes"] for seen in found.values()),
        bars={
            **{f"{i}_{name}": Bar("at_most", 1.0) for i in found for name in ("request_s", "slow_s")},
            **{f"{ingress}_failed": Bar("at_most", 0) for ingress in found},
        },
        details=found,
    )


BENCHMARK = Benchmark("serve-slow", "worst delay of /health by any request under 4 MB, and by 600 slow bodies", run)
