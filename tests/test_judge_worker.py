"""The judging worker and its stream: nothing judged twice, no row lost or shifted, rows that kill engines are named."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mr3.inference.engine import Completion, EngineDead, Request
from mr3.inference.session import ray_session
from mr3.inference.store import Store
from mr3.inference.stored_work import Gate
from mr3.inference.stream import StreamSettings, stream_groups
from mr3.judge_card import write_card
from mr3.judging.config import JudgeConfig
from mr3.judging.judge import Judge
from mr3.judging.run import group_row
from mr3.judging.worker import JudgeWorker
from mr3.records import Task
from tests.judging_support import (
    CARD,
    PoisonedWorker,
    ScriptedEngine,
    item,
    make_tokenizer,
    pair,
    prefers_sixes,
    written,
)
from tests.store_support import died


def judge_folder(path: Path) -> JudgeConfig:
    """A judge whose endpoint is never called: the tests put their own engine in."""
    make_tokenizer().save_pretrained(path)
    (path / "config.json").write_text('{"model_type": "qwen3"}')
    write_card(path, CARD)
    return JudgeConfig(model=str(path), backend="endpoint", revision="1", url="http://127.0.0.1:9/v1")


def worker(tmp_path: Path, engine: Any, run: str | None = None) -> JudgeWorker:
    config = judge_folder(tmp_path / "judge")
    made = JudgeWorker(config.model_dump(), str(tmp_path / "store"), "model@1", run)
    made.cached.judge = Judge(CARD, make_tokenizer(), engine, "model@1")
    return made


def dump(task: Task, **more: Any) -> dict[str, Any]:
    return item(task, **more).model_dump(mode="json")


def ask(made: JudgeWorker, *rows: dict[str, str]) -> list[dict[str, Any]]:
    batch = {key: np.array([r[key] for r in rows], dtype=object) for key in ("group", "payload")}
    answer = asyncio.run(made(batch))
    assert list(answer["group"]) == [r["group"] for r in rows]
    return [json.loads(p) for p in answer["payload"]]


def test_a_stored_verdict_is_not_judged_again_and_bears_the_asking_tasks_name(tmp_path: Path) -> None:
    engine = ScriptedEngine(prefers_sixes)
    made = worker(tmp_path, engine)
    rows = [
        group_row("g1", [dump(pair()), dump(pair(), swapped=True)], {"prompt": "p1"}),
        group_row("g2", [dump(pair(id="twin")), dump(pair("ten", "six", id="other"))]),
    ]
    first = ask(made, *rows)
    assert [len(call) for call in engine.calls] == [3], "two tasks of one content are judged once"
    assert [g["meta"] for g in first] == [{"prompt": "p1"}, None]
    assert [[v["task_id"] for v in g["verdicts"]] for g in first] == [["t", "t"], ["twin", "other"]]
    assert [[v["score"][-1] for v in g["verdicts"]] for g in first] == [["A", "A"], ["A", "B"]]
    assert Store(tmp_path / "store").refresh() == 3
    again = ask(worker(tmp_path, engine), *rows)
    assert len(engine.calls) == 1
    assert [g["verdicts"] for g in again] == [g["verdicts"] for g in first]
    assert [[g["new"] for g in answer] for answer in (first, again)] == [[2, 2], [0, 0]]


def test_a_failed_engine_is_asked_again_in_the_next_run_but_other_failures_are_kept(tmp_path: Path) -> None:
    def answer(request: Request) -> Completion | str:
        if "DOWN" in (request.prompt or ""):
            return Completion(id=request.id, finish="failed", error="503")
        return "</think>nothing" if "MUTE" in (request.prompt or "") else written("Tie")

    rows = [group_row(n, [dump(pair(input=n, id=n))]) for n in ("fine", "DOWN", "MUTE")]
    outcomes = [g["verdicts"][0]["outcome"] for g in ask(worker(tmp_path, ScriptedEngine(answer)), *rows)]
    assert outcomes == ["ok", "engine_failed", "parse_failed"]
    Store(tmp_path / "store").refresh()
    engine = ScriptedEngine(lambda r: written("Tie"))
    outcomes = [g["verdicts"][0]["outcome"] for g in ask(worker(tmp_path, engine), *rows)]
    assert outcomes == ["ok", "ok", "parse_failed"]
    assert [len(call) for call in engine.calls] == [1]


def suspects(tmp_path: Path, engine: Any, *marks: tuple[list[int], bool], proven: bool = True) -> list[dict[str, Any]]:
    """Judge nine rows of one batch after engines died with some of them (rows, alone).

    Args:
        proven: those engines had answered something before.
    """
    tasks = [pair(input=str(i), id=str(i)) for i in range(9)]
    before = worker(tmp_path, engine)
    ids = [before.cached.judge.prepare(item(task)).id for task in tasks]
    run = Store(tmp_path / "store").open_run()
    for rows, alone in marks:
        died(tmp_path / "store", [ids[i] for i in rows], alone, run, proven=proven)
    [answer] = ask(worker(tmp_path, engine, run), group_row("g", [dump(t) for t in tasks]))
    assert len(list((tmp_path / "store" / "marks").iterdir())) == len(marks), "who lives leaves no further mark"
    verdicts: list[dict[str, Any]] = answer["verdicts"]
    return verdicts


ALL = list(range(9))


def test_a_batch_that_was_with_a_dead_engine_runs_alone_and_whole(tmp_path: Path) -> None:
    engine = ScriptedEngine(prefers_sixes)
    verdicts = suspects(tmp_path, engine, (ALL[:5], False))
    assert [len(call) for call in engine.calls] == [4, 5]
    assert [v["attempts"] for v in verdicts] == [2] * 5 + [1] * 4


def test_a_batch_that_killed_an_engine_alone_runs_in_parts_and_then_row_by_row(tmp_path: Path) -> None:
    engine = ScriptedEngine(prefers_sixes)
    suspects(tmp_path / "parts", engine, (ALL, False), (ALL, True))
    assert [len(call) for call in engine.calls] == [3, 3, 3]
    engine.calls.clear()
    verdicts = suspects(tmp_path / "rows", engine, (ALL, False), (ALL, True), (ALL[3:6], True))
    assert [len(call) for call in engine.calls] == [3, 3, 1, 1, 1]
    assert [v["attempts"] for v in verdicts] == [3, 3, 3, 4, 4, 4, 3, 3, 3]


def test_a_row_that_was_alone_with_a_death_comes_last(tmp_path: Path) -> None:
    engine = ScriptedEngine(prefers_sixes)
    verdicts = suspects(tmp_path, engine, (ALL[:3], False), (ALL[:3], True), (ALL[:3], True), ([0], True))
    ids = [v["id"] for v in verdicts]
    assert [[ids.index(r.id) for r in call] for call in engine.calls] == [ALL[3:], [1], [2], [0]]


def test_a_row_that_killed_two_engines_alone_is_never_tried_again(tmp_path: Path) -> None:
    engine = ScriptedEngine(prefers_sixes)
    verdicts = suspects(tmp_path, engine, (ALL, False), ([1], True), ([1], True))
    assert [v["outcome"] for v in verdicts] == ["ok", "engine_failed", *["ok"] * 7]
    assert verdicts[1]["attempts"] == 3 and "2 of them with nothing beside it" in verdicts[1]["reason"]
    assert [len(call) for call in engine.calls] == [8]
    assert Store(tmp_path / "store").refresh() == 9, "it is kept, so that the next run does not try it either"


def test_a_row_is_tried_again_where_the_engines_that_died_with_it_may_have_been_broken(tmp_path: Path) -> None:
    engine = ScriptedEngine(prefers_sixes)
    verdicts = suspects(tmp_path, engine, (ALL, False), ([1], True), ([1], True), proven=False)
    assert [v["outcome"] for v in verdicts] == ["ok"] * 9 and [len(call) for call in engine.calls] == [8, 1]


def test_equal_judgements_of_two_batches_at_once_are_made_once(tmp_path: Path) -> None:
    engine = ScriptedEngine(prefers_sixes)
    made = worker(tmp_path, engine)
    batches = [
        {
            "group": np.array([name]),
            "payload": np.array([group_row(name, [dump(pair(id=name))])["payload"]], dtype=object),
        }
        for name in ("one", "two")
    ]

    async def both() -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(made(batch) for batch in batches)))

    answers = [json.loads(answer["payload"][0]) for answer in asyncio.run(both())]
    assert [len(call) for call in engine.calls] == [1]
    assert [[v["task_id"] for v in a["verdicts"]] for a in answers] == [["one"], ["two"]]
    assert sorted(a["new"] for a in answers) == [0, 1]
    assert json.loads(asyncio.run(made(batches[0]))["payload"][0])["new"] == 0, "and remembered"


def test_a_dead_engine_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(request: Request) -> str:
        raise EngineDead("gone")

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("mr3.inference.stored_work.os._exit", leave)
    monkeypatch.setattr("mr3.inference.hosts.in_actor", lambda: True)
    with pytest.raises(SystemExit) as left:
        ask(worker(tmp_path, ScriptedEngine(dead)), group_row("g", [dump(pair())]))
    assert left.value.code == 1


def test_the_gate_lets_many_in_together_and_one_alone() -> None:
    async def scene() -> list[str]:
        gate, log = Gate(), []

        async def together(name: str) -> None:
            async with gate.together():
                log.append(f"+{name}")
                await asyncio.sleep(0.01)
                log.append(f"-{name}")

        async def alone(name: str) -> None:
            async with gate.alone():
                log.append(f"+{name}")
                await asyncio.sleep(0.01)
                log.append(f"-{name}")

        await asyncio.gather(together("a"), together("b"), alone("X"), alone("Y"), together("c"))
        return log

    log = asyncio.run(scene())
    assert log[:2] == ["+a", "+b"]
    for name in "XY":
        assert log.index(f"-{name}") == log.index(f"+{name}") + 1
    assert sorted(log) == sorted(f"{s}{n}" for s in "+-" for n in "abcXY")


def test_a_row_that_kills_engines_ends_as_engine_failed_and_the_others_are_judged(tmp_path: Path) -> None:
    config = judge_folder(tmp_path / "judge")
    texts = [f"question {i}" for i in range(12)]
    texts[5] = "POISON"
    rows = [group_row(t, [dump(pair(input=t, id=t))]) for t in texts]
    arguments = {"judge": config.model_dump(), "store": str(tmp_path / "store"), "identity": "model@1"}
    arguments["run"] = Store(tmp_path / "store").open_run()
    with ray_session():
        settings = StreamSettings(batch_groups=3, concurrency=2)
        found = {g: json.loads(p) for g, p in stream_groups(rows, PoisonedWorker, arguments, settings)}
    assert sorted(found) == sorted(texts)
    outcomes = {name: {v["outcome"] for v in payload["verdicts"]} for name, payload in found.items()}
    assert outcomes.pop("POISON") == {"engine_failed"}
    assert set(map(frozenset, outcomes.values())) == {frozenset({"ok"})}
    assert Store(tmp_path / "store").refresh() == 12


class RunEngine(ScriptedEngine):
    """Always says the same; waits until it may answer, and counts what it was asked."""

    def __init__(self, score: str, opened: asyncio.Event | None = None) -> None:
        super().__init__(lambda _: written(score))
        self._opened = opened

    async def generate(self, requests: Any) -> list[Completion]:
        if self._opened is not None:
            await self._opened.wait()
        return await super().generate(requests)


def two_runs(tmp_path: Path, first: Any, second: Any, release: asyncio.Event, patience: float) -> Any:
    """Three rows are with the engine of one run; it answers when a second run has judged all six, or lost patience."""
    runs = [worker(tmp_path, engine) for engine in (first, second)]
    prepared = [runs[0].cached.judge.prepare(item(pair(input=str(i), id=str(i)))) for i in range(6)]

    async def both() -> Any:
        one = asyncio.create_task(runs[0].cached.ask([prepared[i] for i in range(3)]))
        await asyncio.sleep(0.05)
        two = asyncio.create_task(runs[1].cached.ask(prepared))
        await asyncio.wait({two}, timeout=patience)
        waited = not two.done()
        release.set()
        return waited, await one, await two

    return asyncio.run(both())


def scores(answers: Any) -> list[str]:
    return [json.loads(text)["score"] for text in answers.results.values()]


def test_a_run_waits_for_what_another_run_is_judging_and_judges_the_rest(tmp_path: Path) -> None:
    release = asyncio.Event()
    first, second = RunEngine("Assistant A", release), RunEngine("Assistant B")
    waited, one, two = two_runs(tmp_path, first, second, release, 0.5)
    assert waited and [len(c) for c in second.calls] == [3], "the rest at once, and nothing twice"
    assert set(scores(one)) == {"Assistant A"} and len(one.new) == 3
    assert sorted(scores(two)) == ["Assistant A"] * 3 + ["Assistant B"] * 3 and len(two.new) == 3
    assert dict(Store(tmp_path / "store").items()) == {**one.results, **two.results}
    assert not list((tmp_path / "store" / "marks").iterdir())


def test_what_was_judged_twice_is_answered_as_the_store_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mr3.inference.marks.STALE_S", -1.0)  # as if both were frozen for a while
    release = asyncio.Event()
    first, second = RunEngine("Assistant A", release), RunEngine("Assistant B")
    waited, one, two = two_runs(tmp_path, first, second, release, 60)
    assert not waited
    assert set(scores(one)) == {"Assistant B"} == set(scores(two)), "the second was done first"
    assert one.superseded == one.new and len(one.new) == 3 and not two.superseded and len(two.new) == 6
    store = Store(tmp_path / "store")
    assert dict(store.items()) == two.results and store.kept_aside() == 3


def test_a_failure_that_is_not_kept_gives_way_to_another_runs_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mr3.inference.marks.STALE_S", -1.0)
    release = asyncio.Event()
    first = RunEngine("Assistant A", release)
    first.answer = lambda r: Completion(id=r.id, finish="failed", error="503")
    _, one, _ = two_runs(tmp_path, first, RunEngine("Assistant B"), release, 60)
    assert set(scores(one)) == {"Assistant B"}


def test_a_failure_of_another_run_is_judged_here(tmp_path: Path) -> None:
    release = asyncio.Event()
    first = RunEngine("Assistant A", release)
    first.answer = lambda r: Completion(id=r.id, finish="failed", error="503")
    waited, one, two = two_runs(tmp_path, first, RunEngine("Assistant B"), release, 0.5)
    assert waited and set(scores(one)) == {None} and set(scores(two)) == {"Assistant B"}


def test_open_marks_of_another_run_never_fail_a_good_row(tmp_path: Path) -> None:
    tasks = [pair(input=str(i), id=str(i)) for i in range(2)]
    made = worker(tmp_path, ScriptedEngine(prefers_sixes))
    for task in tasks:
        for _ in range(2):
            died(tmp_path / "store", [made.cached.judge.prepare(item(task)).id], alone=True)
    answer = ask(worker(tmp_path, ScriptedEngine(prefers_sixes)), group_row("g", [dump(t) for t in tasks]))
    assert [(v["outcome"], v["attempts"]) for v in answer[0]["verdicts"]] == [("ok", 1)] * 2
