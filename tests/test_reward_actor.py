"""One row, one verdict: a label run, a reward actor and the HTTP server give the same id and score; actors that die."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mr3.inference.engine import Completion, EngineConfig, HostDied, Request, TokenLogprobs
from mr3.judging.config import JudgeConfig
from mr3.records import PoolRow
from rewards.actor import ActorJudge, RewardActor, _Replica
from rewards.serving.client import JudgeClient, JudgeRefused, JudgeUnavailable
from rewards.serving.judging import JudgeService, ServedJudge
from rewards.serving.schema import JudgeResult, JudgeStrategy, JudgeTask
from rewards.serving.trl_reward import TrlReward
from rewards.tasks import TaskSettings
from rewards.worker import LabelWorker
from tests.rewards_support import make_judge, scripted
from tests.serving_support import HOUSE, run

BACKEND = f"{__name__}:Odds"


class Odds:
    """The scripted judge with odds: 0.9 for what it writes, and 0.1 for the first other label."""

    takes_text = True
    asked = 0

    def __init__(self, config: EngineConfig) -> None:
        self.config = config

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        Odds.asked += len(requests)
        return [self._answer(r) for r in requests]

    @staticmethod
    def _answer(request: Request) -> Completion:
        text = scripted(request.prompt or "")
        if '"score": "' not in text:
            return Completion(id=request.id, text=text, finish="stop")
        begin, _, rest = text.partition('"score": "')
        score = rest.split('"')[0]
        other = {"Assistant A": "Assistant B", "Assistant B": "Assistant A", "true": "false"}.get(score, "true")
        if score == "Tie":
            other = "Assistant A"
        top = {score: float(np.log(0.9)), other: float(np.log(0.1))}
        tokens = [(begin + '"score": "', {}), (score, top), (rest[len(score) :], {})]
        return Completion(
            id=request.id,
            text=text,
            finish="stop",
            logprobs=[TokenLogprobs(token=t, top=p or {t: 0.0}) for t, p in tokens],
        )  # fmt: skip

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def judge(tmp_path: Path) -> JudgeConfig:
    model = make_judge(tmp_path / "judge")
    return JudgeConfig.model_validate({"model": str(model), "backend": BACKEND, "sampling": {"logprobs": 20}})


ROW = {
    "prompt_id": "p-1",
    "prompt": [{"role": "user", "content": "2 + 2?"}],
    "language": "de",
    "responses": [{"id": f"r{i}", "text": t, "policy": "x"} for i, t in enumerate(["It is 4.", "It is 5.", "4!"])],
}


def labelled(judge: JudgeConfig, store: Path, mode: str) -> dict[str, float | None]:
    """Verdict id -> expected score, of a label run over the row."""
    settings = TaskSettings.model_validate({"rubric": HOUSE, "mode": mode, "seed": 3})
    worker = LabelWorker(judge.model_dump(mode="json"), str(store), judge.identity(), settings.model_dump(mode="json"))
    payload = PoolRow.model_validate(ROW).model_dump_json()
    made = asyncio.run(worker({"group": np.array(["g"]), "payload": np.array([payload], dtype=object)}))
    return {v["id"]: v["expected"] for v in json.loads(made["payload"][0])["verdicts"]}


class InProcess:
    """The actor's class without Ray, with what it was asked and what it answered."""

    def __init__(self, judge: JudgeConfig, store: Path) -> None:
        self.actor = RewardActor(judge.model_dump(mode="json"), str(store), judge.identity())
        self.results: list[JudgeResult] = []
        self.new = 0

    async def judge_batch(
        self, tasks: Sequence[JudgeTask], strategy: JudgeStrategy | None = None, *, batch_size: int = 16
    ) -> list[JudgeResult]:
        how = (strategy or JudgeStrategy()).model_dump(mode="json")
        found, new, _ = await self.actor.judge([t.model_dump(mode="json") for t in tasks], how)
        self.new += new
        results = [JudgeResult.model_validate(r) for r in found]
        self.results += results
        return results


class Noted(JudgeClient):
    """A client that keeps the results."""

    def __init__(self, app: Any) -> None:
        super().__init__("http://judge", transport=httpx.ASGITransport(app))
        self.results: list[JudgeResult] = []

    async def judge_batch(self, *args: Any, **more: Any) -> list[JudgeResult]:
        found = await super().judge_batch(*args, **more)
        self.results += found
        return found


@pytest.mark.parametrize("mode", ["pairwise", "binary"])
def test_a_row_has_one_verdict_however_it_is_asked(judge: JudgeConfig, tmp_path: Path, mode: Any) -> None:
    by_label = labelled(judge, tmp_path / "labelled", mode)
    assert len(by_label) == (6 if mode == "pairwise" else 3) and None not in by_label.values()
    texts = [r["text"] for r in ROW["responses"]]  # type: ignore[index]
    columns = {"prompt_id": ["p-1"] * 3, "language": ["de"] * 3}

    def rewards_of(client: Any) -> list[float | None]:
        reward = TrlReward(client, HOUSE, mode=mode, seed=3)
        return run(lambda: reward([ROW["prompt"]] * 3, texts, **columns))

    def verdicts(client: Any) -> dict[str, float | None]:
        return {v.id: v.expected for result in client.results for v in result.verdicts}

    fresh, shared = InProcess(judge, tmp_path / "own"), InProcess(judge, tmp_path / "labelled")
    served_judge = over_http(judge)
    found = [rewards_of(client) for client in (fresh, shared, served_judge)]
    assert found[0] == found[1] == found[2] and None not in found[0] and len(set(found[0])) > 1
    assert verdicts(fresh) == verdicts(shared) == verdicts(served_judge) == by_label
    assert fresh.new == len(by_label) and shared.new == 0, "what was labelled is not judged again"


def over_http(judge: JudgeConfig) -> Noted:
    """The real application over a judge of its own, without a store."""
    from concurrent.futures import ThreadPoolExecutor

    from mr3.judging.opening import open_judge
    from rewards.serving.admission import Admission
    from rewards.serving.app import Parts, build_app
    from rewards.serving.chat import ChatService
    from rewards.serving.config import Limits
    from rewards.serving.engine import ServedEngine
    from rewards.serving.metrics import ServerMetrics

    opened, beside = open_judge(judge), ThreadPoolExecutor(1)
    engine = ServedEngine(opened.engine, Limits().timeout)
    limits, admission, metrics = Limits(), Admission(256), ServerMetrics()

    async def families() -> dict[str, Any]:
        return {}

    parts = Parts(
        judging=JudgeService(ServedJudge(opened, engine, beside), {}, limits, admission, metrics),
        chat=ChatService("judge", opened.card, opened.tokenizer, engine, admission, metrics, beside),
        admission=admission,
        metrics=metrics,
        all_families=families,
        digests=[],
        limits=limits,
        beside=beside,
        created=1,
    )
    return Noted(build_app(parts))


def test_an_actor_refuses_what_it_can_not_judge(judge: JudgeConfig, tmp_path: Path) -> None:
    actor = InProcess(judge, tmp_path / "s").actor
    task = {"mode": "binary", "input": "q", "responses": ["4"], "rubric": "house"}
    with pytest.raises(ValueError, match="actors have no library"):
        asyncio.run(actor.judge([task], {}))
    given = {**task, "rubric": HOUSE.model_dump(mode="json")}
    with pytest.raises(ValueError, match="decodes greedily"):
        asyncio.run(actor.judge([given], {"samples": 3}))
    found, new, _ = asyncio.run(actor.judge([given, {**given, "input": "BROKEN"}], {}))
    assert [r["score"] for r in found] == [pytest.approx(0.9), None] and new == 2
    assert found[1]["outcome"] == "parse_failed" and "trace" not in found[0]["verdicts"][0]


class Fragile:
    """A watched actor that dies on the calls that are named, and else answers 1."""

    def __init__(self, *deaths: int) -> None:
        self.calls, self.deaths, self.sizes = 0, set(deaths), list[int]()

    async def call(self, method: str, tasks: list[Any], strategy: dict[str, Any]) -> Any:
        assert method == "judge"
        self.calls += 1
        number = self.calls
        self.sizes.append(len(tasks))
        await asyncio.sleep(0)
        if number in self.deaths or -1 in self.deaths:
            raise HostDied("it died")
        if any(task["input"] == "WRONG" for task in tasks):
            raise ValueError("can't do that")
        return [{"outcome": "ok", "score": 1.0, "verdicts": []} for _ in tasks], len(tasks), 7


TASK = JudgeTask(mode="binary", input="q", responses=["4"], rubric=HOUSE)


def asking(*actors: Fragile, deadline_s: float = 60.0) -> ActorJudge:
    return ActorJudge([_Replica(a) for a in actors], deadline_s)  # type: ignore[arg-type]


def test_a_death_is_asked_again_and_the_work_is_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewards.actor._AGAIN_S", 0.0)
    first, second = Fragile(1), Fragile()
    judge = asking(first, second)
    results = run(lambda: judge.judge_batch([TASK] * 10, batch_size=3))
    assert [r.score for r in results] == [1.0] * 10
    assert judge.deaths == 1 and judge.new == 10 and first.sizes and second.sizes
    assert max(first.sizes + second.sizes) <= 3


def test_calls_that_are_lost_together_are_one_death(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewards.actor._AGAIN_S", 0.0)
    dies_once = Fragile(*range(1, 31))
    judge = asking(dies_once)
    results = run(lambda: judge.judge_batch([TASK] * 30, batch_size=1))
    assert [r.score for r in results] == [1.0] * 30 and dies_once.calls == 60
    assert judge.deaths == 1 and judge.replicas[0].deaths_in_a_row == 0


def test_a_replica_that_can_not_come_back_leaves_the_work_to_others() -> None:
    dead, alive = Fragile(-1), Fragile()
    judge = asking(dead, alive)
    for _ in range(30):
        assert [r.score for r in run(lambda: judge.judge_batch([TASK] * 4, batch_size=1))] == [1.0] * 4
    assert 1 <= judge.deaths <= 6 and dead.calls <= 2 * judge.deaths


def test_actors_that_only_die_are_an_absent_judge_and_not_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewards.actor._AGAIN_S", 0.0)
    judge = asking(Fragile(-1))
    with pytest.raises(JudgeUnavailable, match="it died"):
        run(lambda: judge.judge_batch([TASK]))
    reward = TrlReward(asking(Fragile(-1)), HOUSE)
    assert run(lambda: reward(["q"], ["4"])) == [None]
    with pytest.raises(JudgeRefused, match="can't do that"):
        run(lambda: asking(Fragile()).judge_batch([TASK.model_copy(update={"input": "WRONG"})]))


def test_a_deadline_holds_for_actors_too() -> None:
    class Hanging(Fragile):
        async def call(self, *_: Any) -> Any:
            await asyncio.sleep(3_600)

    with pytest.raises(JudgeUnavailable, match="no answer"):
        run(lambda: asking(Hanging(), deadline_s=0.1).judge_batch([TASK]))
