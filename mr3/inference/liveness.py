"""Signs of life: an actor beats from a thread of its own, and whoever waits for it replaces one that has frozen.

A frozen process (stopped, or swapped out for good) holds its work for ever: Ray replaces only what has ended. Beats go
through the key-value store of the Ray session's head (GCS), so they also tell whether that one answers.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import Any

log = logging.getLogger("mr3.inference")
LOOKS = 8
"""Beats, and looks at them, in the time after which silence counts. Looks are counted, and no clock is read: after the
whole machine has slept, nobody is late."""
_NAMESPACE = b"mr3-beats"
_PAUSE_S = 1.0
_HEAD = "the head of the Ray session (GCS)"
_GOES_ON = "Everything answered so far is stored; the same command goes on"


class SessionLost(ValueError):
    """The Ray session does not answer; nothing more can be asked of it, not even to end."""


def _own_processes() -> dict[str, subprocess.Popen[bytes]]:
    """The parts of the session that this process has started, by name; none where it joined one."""
    import ray._private.worker as worker

    node = worker._global_node
    return {} if node is None else {name: infos[0].process for name, infos in node.all_processes.items() if infos}


def end_lost_session() -> None:
    """Kill what this process has started of a lost session, and wait for nothing: to be called as the last thing.

    `ray.shutdown` would wait for what hangs; and soon after its raylet, Ray ends this process too.
    """
    for process in _own_processes().values():
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def start_beating(group: str, silence_s: float) -> None:
    """Beat from now on, as this actor, until the process ends.

    Args:
        group: the watchers' name for actors like this one.
    """
    import ray

    context = ray.get_runtime_context()
    key = f"{group}/{context.get_actor_id()}".encode()
    me = pickle.dumps((os.getpid(), time.time_ns(), context.current_actor))
    _beat(key, 0, me)  # one that dies while it opens its engine is counted too
    threading.Thread(target=_keep_beating, args=(key, me, silence_s / LOOKS), name="beat", daemon=True).start()


def _keep_beating(key: bytes, me: bytes, every: float) -> None:
    from ray.exceptions import RayError

    number = 0
    while True:
        time.sleep(every)
        number += 1
        try:
            _beat(key, number, me)
        except RayError:  # the head is away: the driver sees that too
            log.debug("no beat", exc_info=True)


def _beat(key: bytes, number: int, me: bytes) -> None:
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(key, number.to_bytes(8, "big") + me, overwrite=True, namespace=_NAMESPACE)


class Unchanged:
    """Counts the looks in a row at which a thing was as before."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Any, int]] = {}

    def look(self, name: str, value: Any) -> int:
        """How many looks in a row, this one included, found this value; 0 at the first."""
        before, count = self._seen.get(name, (None, -1))
        count = count + 1 if value == before else 0
        self._seen[name] = value, count
        return count


class Watch:
    """Looks at the beats of a group of actors from a thread, and replaces those that have stopped.

    Args:
        silence_s: how long an actor, or the session, may give no sign of life.
    """

    def __init__(self, group: str, silence_s: float) -> None:
        import ray

        self.pause = min(_PAUSE_S, silence_s / LOOKS)
        self._group, self._silence_s = group, silence_s
        self._node = ray.get_runtime_context().get_node_id()
        self._beats, self._looks = Unchanged(), Unchanged()
        self._processes: set[bytes] = set()
        self._deaths = 0
        self._looked = 0
        self._node_lost = False
        self._stop = threading.Event()
        threading.Thread(target=self._keep_looking, name="watch", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()

    def answered(self) -> None:
        """A result came: processes that died before it are forgotten."""
        self._deaths = 0

    def check(self, most_deaths: int) -> None:
        """Call it every `pause` while waiting.

        Raises:
            SessionLost: when the head of the session or this machine's part of it does not answer.
            ValueError: when so many processes have died since the last result.
        """
        ended = [name for name, process in _own_processes().items() if process.poll() is not None]
        for name, part in (("raylet", "this machine's part of the Ray session (raylet)"), ("gcs_server", _HEAD)):
            if name in ended:
                raise SessionLost(f"{part} was killed, or broke. {_GOES_ON}")
        if self._node_lost:
            raise SessionLost(f"this machine's part of the Ray session (raylet) does not answer any more. {_GOES_ON}")
        if self._looks.look("", self._looked) * self.pause > self._silence_s + self.pause:
            raise SessionLost(f"{_HEAD} has not answered for {self._silence_s:g} s. {_GOES_ON}")
        if self._deaths > most_deaths:
            raise ValueError(
                f"{self._deaths} processes with an engine died one after the other without a result: their logs (in "
                f"Ray's session folder) say why. {_GOES_ON}"
            )

    def _keep_looking(self) -> None:
        from ray.exceptions import RayError

        while not self._stop.wait(self._silence_s / LOOKS):
            try:
                self._look()
            except RayError:  # no answer: `check` counts that
                log.debug("no look", exc_info=True)

    def _look(self) -> None:
        import ray
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

        for key in _internal_kv_list(f"{self._group}/".encode(), namespace=_NAMESPACE):
            value = _internal_kv_get(key, namespace=_NAMESPACE)
            if value is None:
                continue
            me = value[8:]
            if me not in self._processes:
                self._processes.add(me)
                self._deaths += 1
            unchanged = self._beats.look(key.decode(), value)
            if unchanged and unchanged % LOOKS == 0:
                _replace(me, self._silence_s, first=unchanged == LOOKS)
        self._node_lost = not any(n["Alive"] for n in ray.nodes() if n["NodeID"] == self._node)
        self._looked += 1


def _replace(me: bytes, silence_s: float, first: bool) -> None:
    """Kill the actor's process, frozen or not; Ray starts it anew and tries its work again."""
    import ray

    pid, _, actor = pickle.loads(me)
    if first:
        log.warning("process %d has given no sign of life for %g s: it is replaced", pid, silence_s)
    ray.kill(actor, no_restart=False)
