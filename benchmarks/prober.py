"""Asks for `/health` all the time from a process of its own, so that what else a benchmark does is not measured."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from urllib.parse import urlsplit

_ASK = b"GET /health HTTP/1.1\r\nHost: probe\r\n\r\n"
_EVERY_S = 0.02
_GIVE_UP_S = 30.0
Probe = tuple[float, float, bool]


@dataclass(frozen=True)
class Delays:
    """What was asked: when (`time.monotonic`), how long the answer took, and whether it was a 200."""

    probes: list[Probe]

    def worst(self, begun: float = 0.0, ended: float = float("inf")) -> float | None:
        """The longest wait for an answer that was awaited at any moment between the two; None without any."""
        return max((s for at, s, _ in self.probes if at + s >= begun and at <= ended), default=None)

    @property
    def failed(self) -> int:
        """Answers that were no 200, or did not come within 30 s."""
        return sum(not fine for _, _, fine in self.probes)


def _answer(line: socket.socket) -> bool:
    line.sendall(_ASK)
    got = b""
    while b"\r\n\r\n" not in got or not got.endswith(b"}"):
        part = line.recv(4_096)
        if not part:
            return False
        got += part
    return got.startswith(b"HTTP/1.1 200")


def _ask_all_the_time(url: str, stop: Event, out: Connection) -> None:
    """On a new connection and on a kept one by turns."""
    where = urlsplit(url)
    address = (where.hostname or "", where.port or 80)
    probes: list[Probe] = []
    kept: socket.socket | None = None
    while not stop.is_set():
        at, fine = time.monotonic(), False
        line: socket.socket | None = None
        try:
            line = kept or socket.create_connection(address, _GIVE_UP_S)
            fine = _answer(line)
        except OSError:
            pass
        probes.append((at, time.monotonic() - at, fine))
        if kept is None and fine:
            kept = line
        else:
            if line is not None:
                line.close()
            kept = None
        time.sleep(_EVERY_S)
    out.send(probes)


@contextmanager
def probing(url: str) -> Iterator[list[Delays]]:
    """Probes while the block runs; the list holds what was seen, after it."""
    context = multiprocessing.get_context("spawn")
    stop, (mine, theirs) = context.Event(), context.Pipe(duplex=False)
    process = context.Process(target=_ask_all_the_time, args=(url, stop, theirs), daemon=True)
    process.start()
    seen: list[Delays] = []
    try:
        yield seen
    finally:
        stop.set()
        if mine.poll(2 * _GIVE_UP_S):
            seen.append(Delays(mine.recv()))
        process.join(_GIVE_UP_S)
        process.kill()
