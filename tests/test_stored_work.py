"""Work through the store: who is cancelled disturbs nobody, and what kills engines is found, wherever they live."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mr3.inference import hosts, stored_work
from mr3.inference.engine import Completion, EngineConfig, EngineDead, HostDied, Request, Sampling
from mr3.inference.generate_worker import GenerateWorker
from mr3.inference.store import Store
from mr3.inference.stored_work import Gate, Made, StoredWork
from tests.store_support import died

PATIENCE_S = 20.0


class Echo:
    """Results are the items; some kill what holds the engine."""

    def __init__(self, poison: str = "POISON", seconds: float = 0.0) -> None:
        self.poison, self.seconds = poison, seconds
        self.calls: list[list[str]] = []
        self.cancelled = 0

    async def make(self, items: Sequence[str], deaths: Sequence[int]) -> list[Made]:
        self.calls.append(list(items))
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if any(self.poison in item for item in items):
            raise HostDied("the host died")
        return [Made(f"{item}+{n}", lasting=True) for item, n in zip(items, deaths, strict=True)]

    def give_up(self, item: str, reason: str, deaths: int) -> str:
        return f"{item} killed {deaths}"


def work(tmp_path: Path, maker: Echo) -> StoredWork[str]:
    return StoredWork[str](Store(tmp_path), maker, ends_process=False)


def named(*items: str) -> dict[str, str]:
    return {f"id-{item}": item for item in items}


def test_a_cancelled_wait_to_be_alone_lets_others_go_on() -> None:
    async def scene() -> None:
        gate = Gate()

        async def together(seconds: float) -> None:
            async with gate.together():
                await asyncio.sleep(seconds)

        async def alone() -> None:
            async with gate.alone():
                await asyncio.sleep(0.01)

        first = asyncio.create_task(together(0.05))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(alone())
        await asyncio.sleep(0)
        second = asyncio.create_task(together(0))  # waits for the one who wants to be alone
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait_for(asyncio.gather(first, second, alone(), together(0)), PATIENCE_S)

    asyncio.run(scene())


def test_a_cancelled_asker_cancels_nobody_else(tmp_path: Path) -> None:
    async def scene() -> None:
        maker = Echo(seconds=0.1)
        made = work(tmp_path, maker)
        first = asyncio.create_task(made.ask(named("a", "b")))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(made.ask(named("b", "c")))
        await asyncio.sleep(0.01)
        first.cancel()
        answers = await asyncio.wait_for(second, PATIENCE_S)
        assert dict(answers.results) == {"id-b": "b+0", "id-c": "c+0"} and answers.new == {"id-c"}
        assert maker.calls == [["a", "b"], ["c"]] and first.cancelled()

    asyncio.run(scene())
    assert Store(tmp_path).refresh() == 3


def test_work_that_nobody_waits_for_any_more_ends_and_is_no_death(tmp_path: Path) -> None:
    async def scene() -> None:
        maker = Echo(seconds=3_600)
        made = work(tmp_path, maker)
        askers = [asyncio.create_task(made.ask(named("a"))) for _ in range(2)]
        await asyncio.sleep(0.01)
        for asker in askers:
            asker.cancel()
        await asyncio.gather(*askers, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert maker.cancelled == 1
        maker.seconds = 0
        assert (await made.ask(named("a"))).results == {"id-a": "a+0"}, "and can be asked for again"

    asyncio.run(scene())
    assert not Store(tmp_path).deaths()


def test_an_item_that_kills_hosts_is_given_up_and_the_others_are_made(tmp_path: Path) -> None:
    maker = Echo()
    items = [*map(str, range(8)), "POISON"]
    answers = asyncio.run(work(tmp_path, maker).ask(named(*items)))
    found = dict(answers.results)
    assert found.pop("id-POISON") == "POISON killed 5"
    assert sorted(found) == sorted(named(*items[:-1])) and not any("killed" in text for text in found.values())
    assert maker.calls[-1] == ["POISON"]
    again = Echo()
    assert asyncio.run(work(tmp_path, again).ask(named(*items))).results == answers.results and not again.calls


def test_hosts_that_all_die_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{stored_work.MOST_DEATHS} engines died one after the other"):
        asyncio.run(work(tmp_path, Echo(poison="")).ask(named(*map(str, range(100)))))
    assert Store(tmp_path).refresh() == 0, "an engine that answers nothing says nothing of a row"


def test_an_engine_that_dies_in_the_drivers_process_is_an_error_with_a_name(tmp_path: Path) -> None:
    class Dead(Echo):
        async def make(self, items: Sequence[str], deaths: Sequence[int]) -> list[Made]:
            raise EngineDead("the loop broke")

    with pytest.raises(ValueError, match=r"the engine died: the loop broke.*the same command goes on"):
        asyncio.run(work(tmp_path, Dead()).ask(named("a")))


def test_calls_that_are_lost_together_are_one_death(tmp_path: Path) -> None:
    class DiesOnce(Echo):
        async def make(self, items: Sequence[str], deaths: Sequence[int]) -> list[Made]:
            if not any(deaths):
                await asyncio.sleep(0.05)
                raise HostDied("the host died")
            return await super().make(items, deaths)

    async def scene() -> None:
        made = work(tmp_path, DiesOnce())
        asked = (made.ask(named(str(i))) for i in range(stored_work.MOST_DEATHS + 10))
        answers = await asyncio.gather(*asked)
        assert all("+1" in text for answer in answers for text in answer.results.values())

    asyncio.run(scene())


class InStage(Echo):
    """An engine in the stage's own process."""

    broken = False

    async def make(self, items: Sequence[str], deaths: Sequence[int]) -> list[Made]:
        self.calls.append(list(items))
        if self.broken or any(self.poison in item for item in items):
            raise EngineDead("a fault in a kernel")
        return [Made(item, lasting=True) for item in items]


def start(tmp_path: Path, wanted: dict[str, str], maker: Echo) -> dict[str, str] | None:
    """One start of a command without actors; None where it ends with an error."""
    with Store(tmp_path) as driver:
        run = driver.open_run()
        driver.refresh()
        with Store(tmp_path, run) as store:
            try:
                return dict(asyncio.run(StoredWork(store, maker, False, in_stage=True).ask(wanted)).results)
            except ValueError as error:
                assert "the engine died" in str(error)
                return None


@pytest.mark.parametrize("place", [0, 3, 5])
def test_a_row_that_kills_the_engine_of_a_stage_is_given_up_after_some_starts(tmp_path: Path, place: int) -> None:
    rows = [f"row {i}" for i in range(5)]
    wanted = named(*rows[:place], "POISON", *rows[place:])
    found = [start(tmp_path, wanted, InStage()) for _ in range(6)]
    assert found[:3] == [None] * 3, "it takes some starts"
    results = found[-1]
    assert results is not None and results["id-POISON"].startswith("POISON killed")
    assert {i: text for i, text in results.items() if i != "id-POISON"} == named(*rows)
    again = InStage()
    assert start(tmp_path, wanted, again) == results and not again.calls
    assert not list((tmp_path / "deaths").iterdir()), "what is stored is no suspect any more"


def test_a_row_that_is_all_there_is_may_be_tried_by_a_later_run(tmp_path: Path) -> None:
    found = [start(tmp_path, named("POISON"), InStage()) for _ in range(4)]
    assert found == [None, None, None, {"id-POISON": "POISON killed 3"}]
    healed = InStage(poison="nothing")
    assert start(tmp_path, named("POISON"), healed) == {"id-POISON": "POISON"}, "the engine may have been broken"


def test_an_engine_that_was_broken_for_days_convicts_nobody(tmp_path: Path) -> None:
    wanted, broken = named("a", "b"), InStage()
    broken.broken = True
    for _ in range(6):
        assert start(tmp_path, wanted, broken) is None
    assert start(tmp_path, wanted, InStage()) == {"id-a": "a", "id-b": "b"}


def test_what_dies_with_its_stage_without_a_word_is_remembered(tmp_path: Path) -> None:
    died(tmp_path, ["a", "b"], in_stage=True)
    died(tmp_path, ["a"], alone=True)
    driver = Store(tmp_path)
    driver.refresh()
    deaths = driver.deaths()
    assert {i: d.all for i, d in deaths.items()} == {"a": 1, "b": 1}, "the death of an actor's driver is no engine's"
    driver.write({"a": "1"})
    driver.refresh()
    assert driver.deaths() == deaths
    driver.write({"b": "1"})
    driver.refresh()
    assert not driver.deaths()


def test_a_worker_that_is_started_again_knows_which_hosts_died(tmp_path: Path) -> None:
    class Leaves(Echo):
        async def make(self, items: Sequence[str], deaths: Sequence[int]) -> list[Made]:
            if self.calls:
                raise ValueError("this worker ends")
            return await super().make(items, deaths)

    wanted = named("a", "b", "c", "POISON")
    with pytest.raises(ValueError, match="this worker ends"):
        asyncio.run(work(tmp_path, Leaves()).ask(wanted))
    maker = Echo()
    answers = asyncio.run(work(tmp_path, maker).ask(wanted))
    assert answers.results["id-POISON"] == "POISON killed 5" and len(maker.calls) < 12


class Process:
    """What Ray makes of a host: calls are lost with its process, and another one takes its place."""

    def __init__(self, *_: Any) -> None:
        self.host = hosts.EngineHost()
        self.deaths = 0
        self._calls: set[asyncio.Future[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def die(self, code: int) -> None:
        self.deaths += 1
        self.host = hosts.EngineHost()
        for call in [c for c in self._calls if not c.done()]:
            call.set_exception(HostDied("the host died"))
        raise asyncio.CancelledError

    async def call(self, method: str, *arguments: Any) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.add(answer)

        async def run() -> None:
            result = await getattr(self.host, method)(*arguments)
            if not answer.done():
                answer.set_result(result)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await answer
        finally:
            self._calls.discard(answer)

    def tell(self, method: str, *arguments: Any) -> None:
        self._tasks.add(asyncio.ensure_future(self.call(method, *arguments)))


class Hosted(Echo):
    """Asks an engine."""

    def __init__(self, engine: hosts.RemoteEngine) -> None:
        super().__init__()
        self.engine = engine

    async def make(self, items: Sequence[str], deaths: Sequence[int]) -> list[Made]:
        requests = [Request(id=item, prompt=item, sampling=Sampling()) for item in items]
        return [Made(c.id, lasting=True) for c in await self.engine.generate(requests)]


class Slow:
    """Takes its time, and dies of poison at once."""

    takes_text = True

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        await asyncio.sleep(0.02)
        if any("POISON" in (r.prompt or "") for r in requests):
            raise EngineDead("a fault in a kernel")
        await asyncio.sleep(0.1)
        return [Completion(id=r.id, text="x", finish="stop") for r in requests]

    def close(self) -> None:
        return


@pytest.mark.parametrize("beside", [0, 12])
def test_a_poison_row_of_another_worker_convicts_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: int
) -> None:
    monkeypatch.setattr(hosts, "_engine_here", lambda config: Slow())
    monkeypatch.setattr(hosts, "_ASK_AGAIN_S", 0.01)

    async def scene() -> None:
        process = Process()
        monkeypatch.setattr(hosts, "Watched", lambda *_: process)
        monkeypatch.setattr(hosts.os, "_exit", process.die)
        run = driver.open_run()
        one, two = (
            hosts.stored_work(Store(tmp_path, run), Hosted(engine), engine)
            for engine in (hosts.RemoteEngine(None, EngineConfig(model="m"), 9.0) for _ in range(2))
        )
        await one.ask(named("first"))
        await two.ask(named("second"))
        bad = asyncio.create_task(one.ask(named(*(f"row {i}" for i in range(beside)), "POISON")))
        good = asyncio.create_task(two.ask(named("innocent")))
        assert (await good).results == {"id-innocent": "innocent"}
        assert "POISON killed" in (await bad).results["id-POISON"] and process.deaths <= 5
        assert sum("killed" in text for text in (await bad).results.values()) == 1

    with Store(tmp_path) as driver:
        asyncio.run(asyncio.wait_for(scene(), PATIENCE_S))


class Fatal:
    """Dies with its host on a poisonous prompt, is late on a slow one."""

    takes_text = True

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        if any("POISON" in (r.prompt or "") for r in requests):
            raise HostDied("the host died")
        return [
            Completion(id=r.id, text="x", finish="timed_out" if "SLOW" in (r.prompt or "") else "stop")
            for r in requests
        ]

    def close(self) -> None:
        return


def test_generation_gives_up_a_request_that_kills_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mr3.inference.generate_worker.open_engine", lambda config: Fatal())
    groups = {name: ["a", name] for name in ("fine", "POISON", "SLOW")}
    rows = [
        json.dumps({"requests": [Request(id=t, prompt=t, sampling=Sampling()).model_dump(mode="json") for t in texts]})
        for texts in groups.values()
    ]
    batch: dict[str, Any] = {"group": np.array(list(groups)), "payload": np.array(rows, dtype=object)}
    worker = GenerateWorker(EngineConfig(model="m"), "m", str(tmp_path))
    made = [json.loads(p)["completions"] for p in asyncio.run(worker(batch))["payload"]]
    assert [[c["finish"] for c in group] for group in made] == [
        ["stop", "stop"],
        ["stop", "failed"],
        ["stop", "timed_out"],
    ]
    assert "engines died on this row" in made[1][1]["error"]
    assert Store(tmp_path).refresh() == 3, "what was late is tried again by the next run, what kills engines is not"
