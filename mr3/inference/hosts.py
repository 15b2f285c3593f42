"""Where an engine lives: in this process, in a named Ray actor that later stages find again, or behind HTTP."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mr3.inference.engine import Completion, Engine, EngineConfig, Request
from mr3.records import stable_hash

_PREFIX = "engine-"


def _stamp(model: str) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a model folder's files: new weights are another engine."""
    folder = Path(model)
    if not folder.is_dir():
        return []
    files = sorted(p for p in folder.iterdir() if p.is_file())
    return [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]


def shared_name(config: EngineConfig) -> str:
    """The actor's name: the same for the same model files and settings."""
    return _PREFIX + stable_hash(config.model_dump(mode="json"), _stamp(config.model), length=16)


class RemoteEngine:
    """An engine in a named actor."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One call for the whole batch."""
        answers: list[Completion] = await self._handle.generate.remote(list(requests))
        return answers

    def close(self) -> None:
        """The actor stays for others."""


class EngineHost:
    """The actor's class."""

    def __init__(self, config: EngineConfig) -> None:
        from mr3.inference.vllm_engine import VLLMEngine

        self._engine = VLLMEngine(config)

    async def generate(self, requests: list[Request]) -> list[Completion]:
        """As the engine does; a dead engine ends the process, so that Ray replaces the actor."""
        from mr3.inference.vllm_engine import EngineDead

        try:
            return await self._engine.generate(requests)
        except EngineDead:
            os._exit(1)

    async def ready(self) -> bool:
        """Answers when the engine is up."""
        return True


def shared_engine(config: EngineConfig) -> RemoteEngine:
    """Find or start the named actor that holds this engine (one per model and settings in a Ray session)."""
    import ray

    from mr3.inference.session import NAMESPACE

    host = ray.remote(EngineHost).options(
        name=shared_name(config),
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=1,
        max_restarts=-1,
        max_task_retries=2,
        max_concurrency=64,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}},
    )
    return RemoteEngine(host.remote(config))


def release(config: EngineConfig) -> None:
    """End a shared engine, if there is one."""
    import ray

    from mr3.inference.session import NAMESPACE

    try:
        handle = ray.get_actor(shared_name(config), namespace=NAMESPACE)
    except ValueError:
        return
    ray.kill(handle)


def open_engine(config: EngineConfig) -> Engine:
    """The engine that a config asks for."""
    if config.backend == "endpoint":
        from mr3.inference.endpoint_engine import EndpointEngine

        return EndpointEngine(config)
    if config.shared:
        return shared_engine(config.model_copy(update={"shared": False}))
    from mr3.inference.vllm_engine import VLLMEngine

    return VLLMEngine(config)
