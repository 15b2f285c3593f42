"""At least 2,000 bad requests, made from the running server's own OpenAPI document.

Every one must be answered with a 4xx and a message, `/health` must answer beside them at any time, and the server must
still give the answers that it gave before, with nothing left in work.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from benchmarks.fuzzing import BadRequest, Schemas, broken_bodies, broken_requests
from benchmarks.prober import probing
from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.served import KEY, demo_tasks, on_the_wire, server, work_off
from rewards.serving.client import JudgeClient
from rewards.serving.schema import ErrorBody, JudgeResult

_BODIES = 1_500
_AROUND = 600
_BODY_BYTES = 200_000
_CLIENTS = 8
_PROBES = 24
_RAW = (
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"POST /v1/judge HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/judge HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    b"POST /v1/judge HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nbad header line\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    b"NONSENSE\r\n\r\n",
)
"""What is no HTTP at all: the server may answer with a 4xx or hang up."""


@dataclass
class _Seen:
    """What was answered."""

    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def _has_message(response: httpx.Response) -> bool:
    try:
        return bool(ErrorBody.model_validate_json(response.content).error.message)
    except ValidationError:
        return False


async def _throw(url: str, bad: Sequence[BadRequest]) -> _Seen:
    seen = _Seen()
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=60.0) as http:

        async def send(request: BadRequest) -> None:
            headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
            try:
                response = await http.request(request.method, url + request.path, content=request.body, headers=headers)
            except httpx.TransportError as error:
                seen.statuses[type(error).__name__] += 1
                seen.wrong.append(f"{request.kind}: {type(error).__name__}")
                return
            seen.kinds[request.kind] += 1
            seen.statuses[str(response.status_code)] += 1
            if not 400 <= response.status_code < 500 or not _has_message(response):
                shown = f"{request.method} {request.path[:80]} {request.body[:300]!r} {dict(request.headers)}"
                seen.wrong.append(f"{request.kind}: {response.status_code} {response.text[:100]} for {shown}")

        await work_off(bad, send, _CLIENTS)
    return seen


async def _raw(url: str) -> list[str]:
    """Bytes that are no HTTP; those that were answered with anything but a 4xx."""
    where, wrong = urlsplit(url), []
    for data in _RAW:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(data)
        writer.write_eof()
        try:
            answer = await asyncio.wait_for(reader.read(4_096), 30)
        except ConnectionError:
            answer = b""
        if answer and not answer.startswith(b"HTTP/1.1 4"):
            wrong.append(f"{data[:60]!r}: {answer[:60]!r}")
        writer.close()
    return wrong


async def _probe(url: str) -> list[JudgeResult]:
    tasks = [on_the_wire(task) for task in demo_tasks()[:_PROBES]]
    async with JudgeClient(url, KEY) as client:
        return await client.judge_batch(tasks, batch_size=4)


async def _in_work(url: str) -> float:
    """Requests and tasks that the server says it has, but for this one."""
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as http:
        page = (await http.get(f"{url}/metrics")).text
    counts = {
        sample.name: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name in ("mr3_requests_in_flight", "mr3_tasks_in_flight")
    }
    return sum(counts.values()) - 1


async def _attack(url: str) -> tuple[_Seen, list[str], bool, float]:
    before = await _probe(url)
    async with httpx.AsyncClient() as http:
        schemas = Schemas((await http.get(f"{url}/openapi.json")).json())
    lot = random.Random(0)
    bad = list(islice(broken_bodies(schemas, lot), _BODIES))
    bad += islice(broken_requests(schemas, lot, _BODY_BYTES), _AROUND)
    lot.shuffle(bad)
    seen = await _throw(url, bad)
    raw = await _raw(url)
    return seen, raw, await _probe(url) == before, await _in_work(url)


def run() -> Result:
    """Answers before, the bad requests, answers after."""
    small = ("--limits.body_bytes", str(_BODY_BYTES))
    with tempfile.TemporaryDirectory() as folder, server(Path(folder), *small) as url, probing(url) as health:
        seen, raw, same, left = asyncio.run(_attack(url))
    return Result(
        {
            "not_refused": len(seen.wrong),
            "raw_not_refused": len(raw),
            "same_answers_after": int(same),
            "left_in_work": left,
            "health_s": health[0].worst(),
            "health_failed": health[0].failed,
            "requests": sum(seen.statuses.values()) + len(_RAW),
        },
        n=sum(seen.statuses.values()) + len(_RAW),
        bars={
            "not_refused": Bar("at_most", 0),
            "raw_not_refused": Bar("at_most", 0),
            "same_answers_after": Bar("at_least", 1),
            "left_in_work": Bar("at_most", 0),
            "health_s": Bar("at_most", 1.0),
            "health_failed": Bar("at_most", 0),
            "requests": Bar("at_least", 2_000),
        },
        details={"statuses": dict(seen.statuses), "kinds": dict(seen.kinds), "wrong": [*seen.wrong, *raw][:20]},
    )


BENCHMARK = Benchmark("serve-fuzz", "bad requests from the server's own OpenAPI document", run)
