"""How much a replica takes on: whole requests (so that it can drain), tasks and bytes (so that it pushes back)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rewards.serving.errors import ApiError

_LONGEST_WAIT_S = 30
_SMOOTHING = 0.1
_BODIES_BYTES = 512 << 20
_BODIES_WAIT_S = 2


class Admission:
    """Counts of one replica; all calls come from one event loop."""

    def __init__(self, most_tasks: int, most_bytes: int = _BODIES_BYTES) -> None:
        self._most, self._most_bytes = most_tasks, most_bytes
        self._idle = asyncio.Event()
        self._idle.set()
        self._seconds = 1.0
        self.requests = 0
        self.tasks = 0
        self.body_bytes = 0
        self.draining = False

    def refuse_while_draining(self) -> None:
        """So that a stopping server reads no bodies.

        Raises:
            ApiError: 503 while the server stops.
        """
        if self.draining:
            raise ApiError(503, "the server is stopping", headers={"Retry-After": "5", "Connection": "close"})

    @contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """Memory for one body: call what is given with the bytes of every part; all is free again at the end.

        Raises:
            ApiError: 429 with Retry-After, from the call, when all bodies together would be too large.
        """
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if self.body_bytes + size > self._most_bytes:
                message = f"busy: {self.body_bytes >> 20} MB of requests are held; try again in {_BODIES_WAIT_S} s"
                raise ApiError(429, message, code="busy", headers={"Retry-After": str(_BODIES_WAIT_S)})
            held += size
            self.body_bytes += size

        try:
            yield take
        finally:
            self.body_bytes -= held

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request that a drain waits for.

        Raises:
            ApiError: 503 while the server stops.
        """
        self.refuse_while_draining()
        self.requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.requests -= 1
            if not self.requests:
                self._idle.set()

    @contextmanager
    def work(self, tasks: int) -> Iterator[None]:
        """Room for some tasks.

        Raises:
            ApiError: 429 with Retry-After, from how long requests take at present, when there is none.
        """
        if self.tasks + tasks > self._most:
            wait = min(_LONGEST_WAIT_S, max(1, math.ceil(self._seconds)))
            message = f"busy: {self.tasks} of {self._most} tasks are in work; try again in {wait} s"
            raise ApiError(429, message, code="busy", headers={"Retry-After": str(wait)})
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self.tasks += tasks
        try:
            yield
        finally:
            self.tasks -= tasks
            self._seconds += _SMOOTHING * (loop.time() - begun - self._seconds)

    async def drain(self, seconds: float) -> int:
        """Refuse new requests, wait for those in flight; returns how many are left after so many seconds."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return self.requests
        return 0
