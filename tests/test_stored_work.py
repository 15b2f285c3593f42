"""Work through the store: who is cancelled disturbs nobody, and what kills engines is found, wherever they live."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mr3.inference import stored_work
from mr3.inference.engine import Completion, EngineConfig, EngineDead, HostDied, Request, Sampling
from mr3.inference.generate_worker import GenerateWorker
from mr3.inference.store import Store
from mr3.inference.stored_work import Gate, Made, StoredWork

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
