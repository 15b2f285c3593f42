"""Where an engine lives: in this process, in a named Ray actor that later stages find again, or behind HTTP.

A host is one process with a name. It builds the engine of a model when somebody first asks for it, and gives up an
idle one for the next, so that five checkpoints cost one start of vLLM (15 s and 1.5 GB on a CPU) instead of five.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from mr3.importing import load_named
from mr3.inference.bounds import BoundedEngine
from mr3.inference.engine import Completion, Engine, EngineConfig, EngineDead, HostDied, Request
from mr3.inference.session import NAMESPACE, in_actor
from mr3.inference.store import Store
from mr3.inference.stored_work import Maker, StoredWork
from mr3.inference.watched import PING, Watched
from mr3.records import stable_hash

_PREFIX = "engine-host-"
KEPT = 2
"""Engines that one host keeps, so that two policies can be compared, or two judges."""
_ASK_AGAIN_S = 0.2
_LAPSE_S = 30.0
"""Who wants to be alone with an engine, or is, and is not heard of for so long, has ended or is frozen."""
Item = TypeVar("Item")


def _stamp(model: str | None) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a model folder's files: new weights are another engine."""
    folder = Path(model or "")
    if not model or not folder.is_dir():
        return []
    files = sorted(p for p in folder.iterdir() if p.is_file())
    return [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]


def engine_key(config: EngineConfig) -> str:
    """The same for the same model files and settings."""
    return stable_hash(config.model_dump(mode="json"), _stamp(config.model), _stamp(config.adapter), length=16)


class EngineCache:
    """Engines by key; at most `kept` of them, but one with work in flight is never closed."""

    def __init__(self, build: Callable[[EngineConfig], Engine], kept: int = KEPT) -> None:
        self._build, self._kept = build, kept
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._busy: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._engines)

    def take(self, key: str, config: EngineConfig) -> Engine:
        """The engine, built if it is not there; `give` it back when its answers are in."""
        if key not in self._engines:
            self._make_room()
            self._engines[key] = self._build(config)
        self._engines.move_to_end(key)
        self._busy[key] = self._busy.get(key, 0) + 1
        return self._engines[key]

    def give(self, key: str) -> None:
        """One request less in flight."""
        self._busy[key] -= 1

    def _make_room(self) -> None:
        idle = [key for key in self._engines if not self._busy[key]]
        for key in idle[: max(0, len(self._engines) - self._kept + 1)]:
            self._engines.pop(key).close()
        gc.unfreeze()  # vLLM froze the heap, and the closed engine with it
        gc.collect()


class Turns:
    """Who may go to an engine that several processes share: any number together, or one alone.

    Nobody waits here: who may not go in is told so, and asks again. So whoever loses the process knows whether its
    requests were in. A wish to be alone keeps newcomers out; wishes and turns that nobody uses lapse.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._inside: Counter[str | None] = Counter()
        self._seen: dict[str, float] = {}
        self._alone: str | None = None

    def _lapse(self) -> None:
        now = self._clock()
        self._seen = {t: at for t, at in self._seen.items() if self._inside[t] or now - at < _LAPSE_S}
        if self._alone not in self._seen:
            self._alone = None

    def enter(self, turn: str) -> bool:
        """Whether this caller is alone from now on, until it leaves."""
        self._seen[turn] = self._clock()
        self._lapse()
        if self._alone is None and not self._inside.total():
            self._alone = turn
        return self._alone == turn

    def leave(self, turn: str) -> None:
        """It is done, or has given up waiting."""
        self._seen.pop(turn, None)
        self._lapse()

    def open_to(self, turn: str | None) -> bool:
        """Whether requests of this turn (None: of no turn) may go in now."""
        self._lapse()
        return not self._seen if turn is None else self._alone == turn

    @contextmanager
    def inside(self, turn: str | None) -> Iterator[None]:
        """While requests are in."""
        self._inside[turn] += 1
        try:
            yield
        finally:
            self._inside[turn] -= 1
            if turn in self._seen:
                self._seen[turn] = self._clock()


class EngineHost:
    """The actor's class."""

    def __init__(self) -> None:
        self._engines = EngineCache(_engine_here)
        self._building = asyncio.Lock()
        self._turns = Turns()

    def ping(self) -> None:
        """A sign of life, from a thread that engines don't block."""

    async def enter(self, turn: str) -> bool:
        """Whether the engine is this caller's alone now; if not, ask again."""
        return self._turns.enter(turn)

    async def leave(self, turn: str) -> None:
        """The engine is everybody's again."""
        self._turns.leave(turn)

    async def generate(
        self, key: str, config: EngineConfig, requests: list[Request], turn: str | None = None
    ) -> list[Completion] | None:
        """As the engine does; a dead engine ends the process, so that Ray replaces the actor.

        Returns None where somebody else is, or wants to be, alone with the engine: ask again.
        """
        if not self._turns.open_to(turn):
            return None
        with self._turns.inside(turn):
            async with self._building:
                engine = self._engines.take(key, config)
            try:
                return await engine.generate(requests)
            except EngineDead:
                os._exit(1)
            finally:
                self._engines.give(key)


_TURN: ContextVar[str | None] = ContextVar("turn", default=None)
"""Under which turn requests go to a host that others share."""


class RemoteEngine:
    """An engine in a host; a host that dies or freezes is replaced, and its callers hear of it."""

    takes_text = False
    elsewhere = True

    def __init__(self, handle: Any, config: EngineConfig, silence_s: float, own: bool = False) -> None:
        self._host, self._config, self._own = Watched(handle, "the process of the engine", silence_s), config, own
        self._key = engine_key(config)

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One call for the whole batch. It takes as long as the host lives and its engine's own limits allow.

        Raises:
            HostDied: when the host died with the requests, or froze.
            ValueError: when the engine refuses its settings.
        """
        turn = _TURN.get()
        while True:
            answers: list[Completion] | None = await self._host.call(
                "generate", self._key, self._config, list(requests), turn
            )
            if answers is not None:
                return answers
            if turn is None:
                await asyncio.sleep(_ASK_AGAIN_S)
            else:  # it lapsed, or the host is a new one
                await self._enter(turn)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Nobody else's requests are at the engine meanwhile: what dies now, dies of ours.

        Raises:
            HostDied: on the way in, when the host died without having said that we must wait: of nothing of ours.
        """
        if self._own:
            yield
            return
        turn = uuid.uuid4().hex
        try:
            await self._enter(turn)
            before = _TURN.set(turn)
            try:
                yield
            finally:
                _TURN.reset(before)
        except HostDied:
            raise  # and its turns are gone with it
        except BaseException:
            self._host.tell("leave", turn)
            raise
        else:
            self._host.tell("leave", turn)

    async def _enter(self, turn: str) -> None:
        waits = False
        while True:
            try:
                if await self._host.call("enter", turn):
                    return
                waits = True
            except HostDied:
                if not waits:
                    raise
                waits = False  # it died of somebody else's requests
            await asyncio.sleep(_ASK_AGAIN_S)

    def close(self) -> None:
        """A host that others share stays for them."""
        if self._own:
            self._host.kill()


_DETACHED = {"namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}


def hosted_engine(config: EngineConfig) -> RemoteEngine:
    """This engine in a process of its own: the host that the config names, which is started if it is not there.

    Where it names none, the host is the caller's alone, and ends when it is closed.
    """
    import ray

    # The host may have another working directory.
    places = {"model": config.model, "adapter": config.adapter}
    absolute = {k: str(Path(v).resolve()) for k, v in places.items() if v and Path(v).is_dir()}
    named = {} if config.host is None else {"name": _PREFIX + config.host, **_DETACHED}
    handle = ray.remote(concurrency_groups={PING: 1})(EngineHost).options(
        **named,
        num_cpus=1,
        max_restarts=-1,
        max_concurrency=64,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}},
    )
    default = EngineConfig.model_fields["silence_s"].default  # how long a caller waits makes no other engine
    inside = config.model_copy(update={**absolute, "host": None, "silence_s": default})
    return RemoteEngine(handle.remote(), inside, config.silence_s, own=config.host is None)


def _engine_here(config: EngineConfig) -> Engine:
    """vLLM, or a class of the user's that takes the config and keeps the protocol `Engine`."""
    if config.backend != "vllm":
        return BoundedEngine(load_named(config.backend, "backend")(config), config)
    from mr3.inference.vllm_engine import VLLMEngine

    return VLLMEngine(config)


def open_engine(config: EngineConfig) -> Engine:
    """The engine that a config asks for.

    Raises:
        ValueError: when the backend is a class that can't be loaded, or an endpoint without `url:`.
    """
    if config.backend == "chat":
        from mr3.inference.chat_endpoint import ChatEndpoint

        return ChatEndpoint(config)
    if config.backend == "endpoint":
        from mr3.inference.endpoint_engine import EndpointEngine

        return EndpointEngine(config)
    return _engine_here(config) if config.host is None else hosted_engine(config)


def stored_work(store: Store, maker: Maker[Item], engine: Engine) -> StoredWork[Item]:
    """Work through the store that is made with this engine: what its death means follows from where it lives."""
    actor = in_actor()
    alone = engine.alone if isinstance(engine, RemoteEngine) else nullcontext
    in_stage = not actor and not getattr(engine, "elsewhere", False)
    return StoredWork(store, maker, ends_process=actor, in_stage=in_stage, alone=alone)
