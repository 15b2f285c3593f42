"""The replica's engine: every generation has a deadline from its token limit, and a dead engine ends the process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence

from mr3.inference.engine import Completion, Engine, EngineDead, Request


def end_process() -> None:
    """Only a new process gets a new engine: Ray Serve sees the replica die and starts another."""
    os._exit(1)


class ServedEngine:
    """An engine whose late answers are given up, each by itself.

    Args:
        timeout: seconds that a generation of up to n tokens may take.
        die: what to do when the engine is dead.
    """

    def __init__(self, engine: Engine, timeout: Callable[[int], float], die: Callable[[], None] = end_process) -> None:
        from ray.exceptions import RayActorError

        self.takes_text = engine.takes_text
        self._engine, self._timeout, self._die = engine, timeout, die
        self._deaths: tuple[type[Exception], ...] = (EngineDead, RayActorError)
        self._answered = time.monotonic()
        self._stalled: str | None = None

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """As the engine does; requests are handed over singly, so that one that hangs fails alone."""
        if not requests:
            return []
        begun = time.monotonic()
        tasks = [asyncio.ensure_future(self._one(request)) for request in requests]
        seconds = max(self._timeout(r.sampling.max_tokens) for r in requests)
        try:
            _, late = await asyncio.wait(tasks, timeout=seconds)
        finally:
            for task in tasks:
                task.cancel()
        if late and self._answered < begun:
            self._stalled = f"the engine gave no answer to anybody for {seconds:.0f} s"
        return [
            Completion(id=r.id, finish="timed_out", error=f"timed out: no answer within {seconds:.0f} s")
            if task in late
            else task.result()
            for r, task in zip(requests, tasks, strict=True)
        ]

    async def _one(self, request: Request) -> Completion:
        try:
            (completion,) = await self._engine.generate([request])
        except self._deaths:
            self._die()
            raise
        self._answered = time.monotonic()
        self._stalled = None
        return completion

    def check(self) -> None:
        """Whether it answers at all. A busy engine is healthy: only silence for a whole deadline is not.

        Raises:
            RuntimeError: when nothing came back for as long as any request may take.
        """
        if self._stalled is not None:
            raise RuntimeError(self._stalled)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()
