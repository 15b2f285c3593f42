"""Calls to a Ray actor that can die or freeze: bounded by signs of life and not by the clock of the work.

The actor's class has a method `ping` in a concurrency group of its own (`PING`), so that work does not keep it waiting.
An actor that gives no sign of life is replaced, which needs `max_restarts`; what was with it is its caller's to repeat.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from mr3.inference.engine import HostDied
from mr3.inference.liveness import LOOKS

log = logging.getLogger("mr3.inference")
PING = "ping"
_AGAIN_S = 0.5
START_S = 300.0
"""A process that is being started may be silent for so long."""


async def _answer(call: Any) -> Any:
    return await call


class Lives:
    """The lives of one process, one after the other: calls that were lost with the same one are one death."""

    def __init__(self) -> None:
        self.now = 0
        """The number of the present life: note it before a call."""

    def ended(self, life: int) -> bool:
        """A call that was begun in this life was lost with it. Returns whether that is news."""
        if life != self.now:
            return False
        self.now += 1
        return True


class Watched:
    """An actor's handle.

    Args:
        what: the actor's process, for messages.
        silence_s: seconds of silence that are borne; a process that is being started may take longer.
    """

    def __init__(self, handle: Any, what: str, silence_s: float) -> None:
        self._handle, self._what, self._silence_s = handle, what, silence_s
        self._started = False

    async def call(self, method: str, *arguments: Any) -> Any:
        """What a method returns. It takes as long as the actor lives.

        Raises:
            HostDied: when the actor died with the call, or froze.
            ValueError: that the method raised.
        """
        from ray.exceptions import RayActorError, RayTaskError

        answers: asyncio.Future[Any] | None = None
        try:
            await self.alive()
            answers = asyncio.ensure_future(_answer(getattr(self._handle, method).remote(*arguments)))
            while not (await asyncio.wait({answers}, timeout=self._silence_s / LOOKS))[0]:
                await self.alive()
            return await answers
        except RayTaskError as error:
            if isinstance(error.cause, ValueError):
                raise ValueError(str(error.cause)) from error
            raise
        except RayActorError as error:
            why = str(error).strip().splitlines()
            raise HostDied(f"{self._what} died ({type(error).__name__}: {why[0] if why else 'no reason'})") from error
        finally:
            if answers is not None:
                answers.cancel()

    async def alive(self) -> None:
        """Wait for a sign of life, also of an actor that is just being started again; replace one that gives none.

        Raises:
            HostDied: when it gave none.
        """
        import ray
        from ray.exceptions import ActorUnavailableError

        begun = time.monotonic()
        while (left := begun + self._patience() - time.monotonic()) > 0:
            ping = self._handle.ping.options(concurrency_group=PING).remote()
            try:
                await asyncio.wait_for(_answer(ping), left)
                self._started = True
                return
            except ActorUnavailableError:
                self._started = False
                await asyncio.sleep(_AGAIN_S)
            except TimeoutError:
                break
        told = f"{self._what} gave no sign of life for {self._patience():g} s"
        log.warning("%s: it is replaced", told)
        ray.kill(self._handle, no_restart=False)
        self._started = False
        raise HostDied(told)

    def _patience(self) -> float:
        return self._silence_s if self._started else max(self._silence_s, START_S)

    def tell(self, method: str, *arguments: Any) -> None:
        """Call a method, and wait for nothing."""
        getattr(self._handle, method).remote(*arguments)

    def kill(self) -> None:
        """End it for good."""
        import ray

        ray.kill(self._handle)
