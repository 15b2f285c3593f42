"""What the tests of serving share: the real application over a scripted engine, asked in process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from mr3.inference.engine import Completion, Engine, Request, Sampling
from mr3.judge_card import JudgeCard
from mr3.judging.judge import Judge
from mr3.rubrics import Criterion, Rubric
from rewards.serving.admission import Admission
from rewards.serving.app import Parts, build_app
from rewards.serving.chat import ChatService
from rewards.serving.config import Limits
from rewards.serving.engine import ServedEngine
from rewards.serving.judging import JudgeService, ServedJudge
from rewards.serving.keys import digest
from rewards.serving.metrics import Families, ServerMetrics
from tests.rewards_support import PlainTemplate, ScriptedEngine

T = TypeVar("T")
KEY = "a-key-of-the-tests"
HOUSE = Rubric(name="house", criteria=[Criterion(name="correct", description="The answer is correct.")])
PAIR = {"mode": "pairwise", "input": "2 + 2?", "responses": ["It is 4.", "It is 5."], "rubric": "house"}
SINGLE = {"mode": "binary", "input": "2 + 2?", "responses": ["It is 4."], "rubric": "house"}


class HeldEngine(ScriptedEngine):
    """Answers only after `release` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.release = asyncio.Event()

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        await self.release.wait()
        return await super().generate(requests)


@dataclass
class Served:
    """An application, what is behind it, and a client that talks to it in process."""

    app: Any
    admission: Admission
    metrics: ServerMetrics
    engine: ServedEngine
    http: httpx.AsyncClient

    async def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return await self.http.post(path, json=body, **more)

    async def judge(self, *tasks: dict[str, Any], **more: Any) -> httpx.Response:
        return await self.post("/v1/judge", {"tasks": list(tasks), **more})


def served(
    engine: Engine | None = None,
    limits: Limits | None = None,
    keys: Sequence[str] = (),
    die: Callable[[], None] | None = None,
    sampling: Sampling | None = None,
    modes: Sequence[str] = ("pointwise", "pairwise", "binary"),
) -> Served:
    """The real application over an engine."""
    limits = limits or Limits()
    more = {} if die is None else {"die": die}
    guarded = ServedEngine(engine or ScriptedEngine(), limits.timeout, **more)
    card = JudgeCard(
        profile="compact",
        max_prompt_tokens=1_500,
        max_output_tokens=24,
        sampling=sampling or Sampling(max_tokens=24),
        modes=modes,
    )
    beside = ThreadPoolExecutor(1)
    judge = ServedJudge(Judge(card, PlainTemplate(), guarded, "scripted@1"), guarded, beside)
    admission, metrics = Admission(limits.tasks_in_flight), ServerMetrics()

    async def families() -> dict[str, Families]:
        return {"r1": metrics.families(), "r2": metrics.families()}

    parts = Parts(
        judging=JudgeService(judge, {"house": HOUSE}, limits, admission, metrics),
        chat=ChatService("tiny", card, PlainTemplate(), guarded, admission, metrics, beside),
        admission=admission,
        metrics=metrics,
        all_families=families,
        digests=[digest(key) for key in keys],
        limits=limits,
        beside=beside,
        created=1,
    )
    app = build_app(parts)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {keys[0]}"} if keys else {}
    http = httpx.AsyncClient(transport=transport, base_url="http://judge", headers=headers)
    return Served(app, admission, metrics, guarded, http)


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run an async test."""

    async def main() -> T:
        async with asyncio.timeout(30):
            return await work()

    return asyncio.run(main())
