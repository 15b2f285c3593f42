"""An engine of the user's never keeps a run waiting: every call has a time limit that follows from its tokens."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mr3.inference.engine import Completion, Engine, EngineConfig, EngineDead, Request, prompt_size, time_limit

log = logging.getLogger("mr3.inference")
REACT_S = 30.0
"""How long a call that is given up may take to end, and an event loop to notice that a call is late."""
SILENT_LIMITS = 3
"""An engine that answers nothing to anybody for so many time limits ends the run."""
_LOOK_S = 1.0


class Watchdog:
    """Ends this process where a deadline passes and nobody takes it back: the event loop itself hangs."""

    def __init__(self) -> None:
        self._deadlines: dict[int, float] = {}
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """The block ends within that time, or the process does."""
        number = next(self._numbers)
        self._deadlines[number] = time.monotonic() + seconds
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="engine-watchdog", daemon=True)
            self._thread.start()
        try:
            yield
        finally:
            del self._deadlines[number]

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            if min(self._deadlines.copy().values(), default=float("inf")) < time.monotonic():
                log.error("the engine blocks its process, and does not react: the process ends (the command goes on)")
                os._exit(1)


_WATCHDOG = Watchdog()


class BoundedEngine:
    """An engine whose late calls end as `timed_out`, and which is given up when it does not react at all."""

    def __init__(self, engine: Engine, config: EngineConfig) -> None:
        self.takes_text = engine.takes_text
        self._engine, self._config = engine, config
        self._silent = 0
        """Time limits in a row in which nobody had an answer; calls that were late together count once."""
        self._counted = float("-inf")

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """As the engine does; all requests of a late call are `timed_out`.

        Raises:
            EngineDead: when a call does not even end when it is cancelled.
            ValueError: when the engine has answered nothing at all for several time limits.
        """
        if not requests:
            return []
        limit = max(time_limit(self._config, prompt_size(r), r.sampling) for r in requests)
        begun = time.monotonic()
        call = asyncio.ensure_future(self._engine.generate(requests))
        with _WATCHDOG.within(limit + 2 * REACT_S):
            try:
                await asyncio.wait({call}, timeout=limit)
            finally:
                late = not call.done()
                call.cancel()  # a caller that gave up wants no more tokens
            if late:
                await asyncio.wait({call}, timeout=REACT_S)
        if not call.done():
            raise EngineDead(f"{self._config.backend} gave no answer in {limit:.0f} s, and does not react")
        if call.cancelled():
            self._count_silence(begun, limit)
            return [self._late(r, limit) for r in requests]
        self._silent = 0
        return call.result()

    def _count_silence(self, begun: float, limit: float) -> None:
        if begun >= self._counted:
            self._silent += 1
            self._counted = time.monotonic()
        if self._silent >= SILENT_LIMITS:
            raise ValueError(
                f"the engine {self._config.backend} has answered nothing for {self._silent} times {limit:.0f} s, the "
                "limit for its tokens (see seconds_per_token). What was answered before is stored: mend the engine, "
                "and the same command goes on"
            )

    @staticmethod
    def _late(request: Request, limit: float) -> Completion:
        error = f"no answer in {limit:.0f} s, the limit for its tokens (see seconds_per_token)"
        return Completion(id=request.id, finish="timed_out", error=error)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()
