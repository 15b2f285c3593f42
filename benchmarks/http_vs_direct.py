"""Verdicts per second through `mr3 serve` and HTTP, over a direct Ray actor with the same judge and engine settings.

64 clients at once on both sides, one task to a call (`ratio`) or 16 (`ratio_batches`), the sides in turn in one Ray
session. Both sides begin with tasks in the client's memory and end with results there. Each ingress has a session of
its own; `ratio` is that of the default one, Ray Serve's own `proxy` stands beside it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.served import CLIENTS, KEY, demo_tasks, direct_judge, on_the_wire, server, work_off
from mr3.records import Task
from mr3.stats import paired_bootstrap
from rewards.serving.client import JudgeClient
from rewards.serving.config import Limits
from rewards.serving.ingress import SWITCH, Ingress, prepare_ingress
from rewards.serving.schema import JudgeResult

_ROUNDS = 4
_TASKS = 384
_WARM = 64
_BATCH = 16
Ask = Callable[[Sequence[Task]], Awaitable[list[JudgeResult]]]


async def _rate(tasks: Sequence[Task], size: int, ask: Ask) -> float:
    """Verdicts per second over all tasks, `size` to a call."""
    jobs = [tasks[i : i + size] for i in range(0, len(tasks), size)]
    begun = time.monotonic()
    answers = await work_off(jobs, ask)
    return sum(len(r.verdicts) for answer in answers for r in answer) / (time.monotonic() - begun)


async def _measure(url: str, actor: Any, tasks: Sequence[Task]) -> dict[str, list[float]]:
    async def direct(part: Sequence[Task]) -> list[JudgeResult]:
        found: list[JudgeResult] = await actor.judge.remote(list(part))
        return found

    rates: dict[str, list[float]] = {"http": [], "direct": [], "http_batches": [], "direct_batches": []}
    async with JudgeClient(url, KEY, connections=CLIENTS) as client:

        async def http(part: Sequence[Task]) -> list[JudgeResult]:
            return await client.judge_batch([on_the_wire(task) for task in part], batch_size=len(part))

        await _rate(tasks[:_WARM], 1, http)
        await _rate(tasks[:_WARM], 1, direct)
        for number in range(_ROUNDS):
            order: list[tuple[str, Ask]] = [("http", http), ("direct", direct)]
            for side, ask in order if number % 2 else order[::-1]:
                rates[side].append(await _rate(tasks, 1, ask))
                rates[f"{side}_batches"].append(await _rate(tasks, _BATCH, ask))
    return rates


def _ratio(rates: dict[str, list[float]], kind: str = "") -> float:
    return sum(rates[f"http{kind}"]) / sum(rates[f"direct{kind}"])


def _through(ingress: Ingress, tasks: Sequence[Task]) -> tuple[str, dict[str, list[float]]]:
    """What passed requests on with that setting, and the rates of both sides, in a Ray session of its own."""
    from mr3.inference.session import ray_session

    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        used = "haproxy" if SWITCH in prepare_ingress(ingress, Path(folder), Limits().body_s) else "proxy"
        try:
            with ray_session() as address:
                actor = direct_judge()
                os.environ["RAY_ADDRESS"] = address
                with server(Path(folder), "--ingress", ingress) as url:
                    return used, asyncio.run(_measure(url, actor, tasks))
        finally:
            os.environ.clear()
            os.environ.update(before)


def run() -> Result:
    """Both sides in turn; ratios of their mean rates."""
    tasks = demo_tasks()[:_TASKS]
    used, rates = _through("auto", tasks)
    _, through_proxy = _through("proxy", tasks)
    by_round = [h / d for h, d in zip(rates["http"], rates["direct"], strict=True)]
    mean = {side: sum(values) / len(values) for side, values in rates.items()}
    return Result(
        {
            "ratio": _ratio(rates),
            "ratio_batches": _ratio(rates, "_batches"),
            "verdicts_per_s": mean["http"],
            "proxy": _ratio(through_proxy),
            "proxy_batches": _ratio(through_proxy, "_batches"),
        },
        n=_ROUNDS,
        interval=paired_bootstrap(by_round, [0.0] * _ROUNDS)["interval"],
        baseline={"name": "a direct Ray actor", "verdicts_per_s": mean["direct"]},
        details={
            "rates": {"auto": rates, "proxy": through_proxy},
            "auto": used,
            "tasks": len(tasks),
            "clients": CLIENTS,
        },
    )


BENCHMARK = Benchmark(
    "http-vs-direct", "verdicts/s through HTTP over a direct Ray actor", run, {"ratio": Bar("at_least", 0.85)}
)
