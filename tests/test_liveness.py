"""A process that freezes is replaced, and a session that is gone ends the run with a word."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mr3.inference.engine import Completion, EngineConfig, Request, Sampling
from mr3.inference.hosts import hosted_engine
from mr3.inference.liveness import LOOKS, SessionLost, Unchanged, Watch
from mr3.inference.session import ray_session
from mr3.inference.stream import StreamSettings, stream_groups

SILENCE_S, PATIENCE_S = 8.0, 240.0


def test_looks_in_a_row_that_found_nothing_new_are_counted() -> None:
    looks = Unchanged()
    assert [looks.look("a", v) for v in (1, 1, 1, 2, 2)] == [0, 1, 2, 0, 1]
    assert looks.look("b", 2) == 0


class Still(Watch):
    """A watch whose looks are the test's."""

    def __init__(self) -> None:
        self._silence_s, self._looks, self.pause = SILENCE_S, Unchanged(), SILENCE_S / LOOKS
        self._looked, self._deaths, self._node_lost = 0, 0, False

    def look(self, deaths: int = 0, node_lost: bool = False) -> None:
        self._looked += 1
        self._deaths += deaths
        self._node_lost = node_lost


def test_a_head_that_does_not_answer_ends_the_run_and_one_that_is_slow_does_not() -> None:
    watch = Still()
    for _ in range(3 * LOOKS):
        watch.check(30)
        if _ % LOOKS == 0:
            watch.look()
    with pytest.raises(SessionLost, match=r"head of the Ray session \(GCS\).*the same command goes on"):
        for _ in range(2 * LOOKS):
            watch.check(30)


def test_a_lost_machine_ends_the_run() -> None:
    watch = Still()
    watch.look(node_lost=True)
    with pytest.raises(SessionLost, match="raylet"):
        watch.check(30)


@pytest.mark.parametrize(("name", "said"), [("raylet", "raylet"), ("gcs_server", "GCS"), ("log_monitor", None)])
def test_a_part_of_the_session_that_ended_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, name: str, said: str | None
) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    monkeypatch.setattr("mr3.inference.liveness._own_processes", lambda: {name: process})
    if said is None:
        Still().check(30)
        return
    with pytest.raises(SessionLost, match=said):
        Still().check(30)


def test_deaths_count_until_a_result_comes() -> None:
    watch = Still()
    for _ in range(5):
        watch.look(deaths=8)
        watch.check(10)
        watch.answered()
    watch.look(deaths=11)
    with pytest.raises(ValueError, match="11 processes with an engine died"):
        watch.check(10)


def _freeze(file: Path, found: Callable[[list[str]], bool]) -> threading.Thread:
    """Stop the process that wrote the file's last line, once."""

    def wait() -> None:
        end = time.monotonic() + PATIENCE_S
        while not (file.is_file() and found(file.read_text().split())) and time.monotonic() < end:
            time.sleep(0.1)
        os.kill(int(file.read_text().split()[-1]), signal.SIGSTOP)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


class Noting:
    """Writes its process down at every call."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        with self._file.open("a") as out:
            out.write(f"{os.getpid()}\n")
        await asyncio.sleep(0.2)
        return {"group": batch["group"], "payload": np.array([str(os.getpid())] * len(batch["group"]), dtype=object)}


@pytest.mark.slow
def test_a_worker_that_freezes_is_replaced_and_every_group_comes_back_once(tmp_path: Path) -> None:
    file, rows = tmp_path / "calls", [{"group": str(i), "payload": "{}"} for i in range(60)]
    settings = StreamSettings(batch_groups=2, concurrency=2, silence_s=SILENCE_S)
    with ray_session():
        hand = _freeze(file, lambda lines: len(lines) > 5)
        found = list(stream_groups(rows, Noting, {"file": str(file)}, settings))
        hand.join()
    assert sorted(g for g, _ in found) == sorted(r["group"] for r in rows)
    assert len({pid for _, pid in found}) == 2


class HostedEngine:
    """Writes its process down at every call; dies on a poisonous prompt."""

    takes_text = True

    def __init__(self, config: EngineConfig) -> None:
        self._file, self._seconds = Path(config.engine["file"]), config.engine["seconds"]

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        with self._file.open("a") as out:
            out.write(f"{os.getpid()}\n")
        if any(r.prompt == "POISON" for r in requests):
            os._exit(1)
        await asyncio.sleep(self._seconds)
        return [Completion(id=r.id, text=str(os.getpid()), finish="stop") for r in requests]

    def close(self) -> None:
        return


@pytest.mark.slow
def test_a_host_that_freezes_or_dies_is_replaced_and_its_callers_hear_of_it(tmp_path: Path) -> None:
    from mr3.inference.engine import HostDied

    file = tmp_path / "calls"
    config = EngineConfig(
        model="m",
        backend="tests.test_liveness:HostedEngine",
        engine={"file": str(file), "seconds": 1.0},
        silence_s=SILENCE_S,
    )

    def ask(prompt: str) -> str:
        (answer,) = asyncio.run(engine.generate([Request(id="a", prompt=prompt, sampling=Sampling())]))
        return answer.text

    with ray_session():
        engine = hosted_engine(config)
        first = ask("a")
        with pytest.raises(HostDied):
            ask("POISON")
        second = ask("a")
        hand = _freeze(file, lambda lines: len(lines) > 3)
        with pytest.raises(HostDied, match="no sign of life"):
            ask("a")
        hand.join()
        third = ask("a")
        engine.close()
    assert len({first, second, third}) == 3
