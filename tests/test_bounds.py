"""Every wait for an engine ends: in an answer, in `timed_out`, or in an error with a name."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from mr3.inference import bounds, engine
from mr3.inference.bounds import BoundedEngine
from mr3.inference.endpoint_engine import EndpointEngine
from mr3.inference.engine import Completion, EngineConfig, EngineDead, Request, Sampling

LIMIT_S, PATIENCE_S = 0.2, 30.0
CONFIG = EngineConfig(model="m", backend="my.module:Engine", seconds_per_token=1e-6, url="http://127.0.0.1:9/v1")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "GRACE_S", LIMIT_S)
    monkeypatch.setattr(bounds, "REACT_S", LIMIT_S)


class Deaf:
    """Answers nothing that contains DEAF; `stubborn` does not even end when it is cancelled."""

    takes_text = True

    def __init__(self, stubborn: bool = False) -> None:
        self.stubborn, self.cancelled = stubborn, 0

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        while any("DEAF" in (r.prompt or "") for r in requests):
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                self.cancelled += 1
                if not self.stubborn or self.cancelled > 1:
                    raise
        return [Completion(id=r.id, text="x", finish="stop") for r in requests]

    def close(self) -> None:
        return


def ask(made: BoundedEngine | EndpointEngine, *prompts: str) -> list[str]:
    requests = [Request(id=p, prompt=p, sampling=Sampling()) for p in prompts]

    async def scene() -> list[Completion]:
        return await asyncio.wait_for(made.generate(requests), PATIENCE_S)

    return [c.finish for c in asyncio.run(scene())]


def test_a_late_call_times_out_and_the_engine_goes_on() -> None:
    inner = Deaf()
    made = BoundedEngine(inner, CONFIG)
    for _ in range(bounds.SILENT_LIMITS):
        assert ask(made, "DEAF", "fine") == ["timed_out"] * 2 and ask(made, "fine") == ["stop"]
    assert inner.cancelled == bounds.SILENT_LIMITS


def test_an_engine_that_answers_nothing_ends_the_run() -> None:
    made = BoundedEngine(Deaf(), CONFIG)
    assert [ask(made, "DEAF") for _ in range(bounds.SILENT_LIMITS - 1)] == [["timed_out"]] * 2
    with pytest.raises(ValueError, match=r"my.module:Engine has answered nothing for 3 times"):
        ask(made, "DEAF")


def test_calls_that_are_late_together_count_once() -> None:
    async def scene(made: BoundedEngine) -> list[str]:
        requests = [Request(id="a", prompt="DEAF", sampling=Sampling())]
        answers = await asyncio.gather(*(made.generate(requests) for _ in range(20)))
        return [c.finish for (c,) in answers]

    assert asyncio.run(scene(BoundedEngine(Deaf(), CONFIG))) == ["timed_out"] * 20


def test_an_engine_that_does_not_react_is_given_up() -> None:
    with pytest.raises(EngineDead, match="does not react"):
        ask(BoundedEngine(Deaf(stubborn=True), CONFIG), "DEAF")


def test_a_cancelled_call_cancels_the_engines_work() -> None:
    async def scene(inner: Deaf) -> None:
        made = BoundedEngine(inner, CONFIG)
        call = asyncio.create_task(made.generate([Request(id="a", prompt="DEAF", sampling=Sampling())]))
        await asyncio.sleep(LIMIT_S / 4)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(0)
        assert call.cancelled() and inner.cancelled == 1

    asyncio.run(scene(Deaf()))


_BLOCKING = """
import asyncio, time
from mr3.inference import bounds, engine
from mr3.inference.engine import EngineConfig, Request, Sampling
engine.GRACE_S = bounds.REACT_S = 0.2

class Blocks:
    takes_text = True
    async def generate(self, requests):
        time.sleep(3600)

made = bounds.BoundedEngine(Blocks(), EngineConfig(model="m", backend="a:B", seconds_per_token=1e-6))
asyncio.run(made.generate([Request(id="a", prompt="b", sampling=Sampling())]))
"""


def test_a_process_whose_engine_blocks_it_ends_with_a_word() -> None:
    done = subprocess.run([sys.executable, "-c", _BLOCKING], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "the engine blocks its process" in done.stderr


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server that sends a space now and then, and never an answer."""
    import socket
    import threading

    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.05)
    stop = threading.Event()

    def serve() -> None:
        open_ones: list[socket.socket] = []
        while not stop.is_set():
            try:
                found, _ = server.accept()
                found.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                open_ones.append(found)
            except TimeoutError:
                pass
            for one in list(open_ones):
                try:
                    one.sendall(b"1\r\n \r\n")
                except OSError:
                    open_ones.remove(one)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    stop.set()
    thread.join()
    server.close()


def test_an_endpoint_that_keeps_a_call_open_times_out(dripping: str) -> None:
    begun = time.monotonic()
    made = EndpointEngine(CONFIG.model_copy(update={"backend": "endpoint", "url": dripping}))
    assert ask(made, "a", "b") == ["timed_out"] * 2 and time.monotonic() - begun < PATIENCE_S
