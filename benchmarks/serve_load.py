"""`/v1/judge` under 64 clients for two minutes: nothing but 200 and 429, and every answer the one that a direct,
greedy judge gives to the same task.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.served import CLIENTS, KEY, demo_tasks, direct_judge, on_the_wire, server, work_off
from mr3.records import Task
from rewards.serving.schema import JudgeRequest, JudgeResponse, JudgeResult

_SECONDS = 120.0
_TASKS = 1_024


@dataclass
class _Seen:
    """What the clients met."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    verdicts: int = 0


def _said(result: JudgeResult) -> tuple[Any, ...]:
    """What must be the same: outcomes, labels, explanations and the comparison."""
    verdicts = [(v.id, v.outcome, v.score, v.explanation) for v in result.verdicts]
    return result.outcome, result.score, result.comparison, verdicts


def _direct(tasks: Sequence[Task]) -> list[JudgeResult]:
    """Every task by a direct judge."""
    from mr3.inference.session import ray_session

    with ray_session():
        actor = direct_judge()

        async def ask(task: Task) -> JudgeResult:
            (found,) = await actor.judge.remote([task])
            result: JudgeResult = found
            return result

        async def all_of_them() -> list[JudgeResult]:
            return await work_off(tasks, ask)

        return asyncio.run(all_of_them())


async def _load(url: str, tasks: Sequence[Task], right: Sequence[JudgeResult]) -> _Seen:
    seen, ends = _Seen(), time.monotonic() + _SECONDS
    bodies = [JudgeRequest(tasks=[on_the_wire(t)]).model_dump_json().encode() for t in tasks]
    numbers = cycle(range(len(tasks)))
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)

    async def client(http: httpx.AsyncClient) -> None:
        while time.monotonic() < ends:
            number = next(numbers)
            begun = time.monotonic()
            try:
                response = await http.post("/v1/judge", content=bodies[number])
            except httpx.HTTPError as error:
                seen.statuses[type(error).__name__] += 1
                continue
            seen.statuses[str(response.status_code)] += 1
            if response.status_code == 429:
                await asyncio.sleep(float(response.headers["retry-after"]))
            if response.status_code != 200:
                continue
            seen.seconds.append(time.monotonic() - begun)
            (result,) = JudgeResponse.model_validate_json(response.content).results
            seen.verdicts += len(result.verdicts)
            if _said(result) != _said(right[number]):
                seen.wrong.append(tasks[number].id)

    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=None) as http:
        await asyncio.gather(*(client(http) for _ in range(CLIENTS)))
    return seen


def _quantile(seconds: Sequence[float], share: float) -> float | None:
    """The smallest value that so many of them do not exceed."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def run() -> Result:
    """The direct answers first, then the load."""
    tasks = demo_tasks()[:_TASKS]
    right = _direct(tasks)
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:
        seen = asyncio.run(_load(url, tasks, right))
    answered = len(seen.seconds)
    return Result(
        {
            "errors": sum(seen.statuses.values()) - seen.statuses["200"] - seen.statuses["429"],
            "wrong_answers": len(seen.wrong),
            "p50_s": _quantile(seen.seconds, 0.5),
            "p99_s": _quantile(seen.seconds, 0.99),
            "requests_per_s": answered / _SECONDS,
            "answers": answered,
        },
        n=sum(seen.statuses.values()),
        bars={"errors": Bar("at_most", 0), "wrong_answers": Bar("at_most", 0), "answers": Bar("at_least", 1)},
        details={"statuses": dict(seen.statuses), "verdicts": seen.verdicts, "wrong": sorted(set(seen.wrong))[:20]},
    )


BENCHMARK = Benchmark("serve-load", "/v1/judge under 64 clients for two minutes", run)
