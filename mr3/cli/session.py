"""What commands that run a graph of stages hold while they run: their folder alone, and one Ray session."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def alone(folder: Path, command: str) -> Iterator[None]:
    """One run per folder at a time.

    Raises:
        ValueError: when another one is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another `mr3 {command}` is at work in {folder}: wait, or give another --output_dir"
            ) from error
        yield


class Session:
    """The Ray session, started by the first stage that wants it and shared by all."""

    def __init__(self, stack: ExitStack, cpus: int) -> None:
        self._stack, self._cpus, self._started = stack, cpus, False

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._started:
            return
        from mr3.inference.session import ray_session

        os.environ["RAY_ADDRESS"] = self._stack.enter_context(ray_session(self._cpus))
        self._started = True
