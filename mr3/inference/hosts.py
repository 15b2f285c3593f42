"""Where an engine lives: in this process, in a named Ray actor that later stages find again, or behind HTTP.

A host is one process with a name. It builds the engine of a model when somebody first asks for it, and gives up an
idle one for the next, so that five checkpoints cost one start of vLLM (15 s and 1.5 GB on a CPU) instead of five.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mr3.importing import load_named
from mr3.inference.bounds import BoundedEngine
from mr3.inference.engine import Completion, Engine, EngineConfig, EngineDead, Request
from mr3.inference.session import NAMESPACE
from mr3.inference.watched import PING, Watched
from mr3.records import stable_hash

_PREFIX = "engine-host-"
KEPT = 2
"""Engines that one host keeps, so that two policies can be compared, or two judges."""


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


class EngineHost:
    """The actor's class."""

    def __init__(self) -> None:
        self._engines = EngineCache(_engine_here)
        self._building = asyncio.Lock()

    def ping(self) -> None:
        """A sign of life, from a thread that engines don't block."""

    async def generate(self, key: str, config: EngineConfig, requests: list[Request]) -> list[Completion]:
        """As the engine does; a dead engine ends the process, so that Ray replaces the actor."""
        async with self._building:
            engine = self._engines.take(key, config)
        try:
            return await engine.generate(requests)
        except EngineDead:
            os._exit(1)
        finally:
            self._engines.give(key)


class RemoteEngine:
    """An engine in a host; a host that dies or freezes is replaced, and its callers hear of it."""

    takes_text = False

    def __init__(self, handle: Any, config: EngineConfig, silence_s: float, own: bool = False) -> None:
        self._host, self._config, self._own = Watched(handle, "the process of the engine", silence_s), config, own
        self._key = engine_key(config)

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One call for the whole batch. It takes as long as the host lives and its engine's own limits allow.

        Raises:
            HostDied: when the host died with the requests, or froze.
            ValueError: when the engine refuses its settings.
        """
        answers: list[Completion] = await self._host.call("generate", self._key, self._config, list(requests))
        return answers

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
