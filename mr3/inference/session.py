"""One Ray session: joined where RAY_ADDRESS names one, else started here and shut down at the end."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mr3.inference.liveness import SessionLost

log = logging.getLogger("mr3.inference")
NAMESPACE = "mr3"
_STARTS = 3
_TOO_LATE = "timed out during startup"
_ONE_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's own switch (2.60; the name is of where its default is 0): with 0 all that a session starts listens on the
loopback interface alone, its metrics page and its agents' ports too."""
OBJECT_STORE_BYTES = 1 << 30
"""What flows between our actors is text: Ray's own choice, a third of the memory, would fill up on a long run."""
BLOCK_BYTES = 8 << 20
"""A block of Ray Data. Its own choice, 128 MB, is what each of its processes holds of a long pool, more than once."""


_SHUTDOWN_S = 20.0
_RECONNECT_S = "180"
"""Ray itself ends a driver that can't reach the head (GCS) for 60 s; `liveness` says so earlier, in words."""


def in_actor() -> bool:
    """Whether this process is a Ray actor: one that Ray replaces when it ends."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None


def _start(cpus: int, settings: dict[str, Any]) -> None:
    """A session of our own; on a busy machine Ray may take longer than the 30 s that it (2.60) gives itself."""
    import ray

    # Ray makes its token readable by all; a folder of its own closes it from the first moment.
    token = Path.home() / ".ray" / "auth_token"
    token.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in range(_STARTS - 1, -1, -1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **settings,
            )
            if token.is_file() and token.stat().st_mode & 0o077:
                token.chmod(0o600)
            return
        except Exception as error:  # Ray raises a bare Exception here
            if _TOO_LATE not in str(error):
                raise
            if not left:
                raise ValueError(f"Ray did not start in {_STARTS} tries, perhaps on a busy machine: {error}") from error
            log.warning("Ray did not start within 30 s (a busy machine?): trying again")
            ray.shutdown()


def _is_for_users(record: logging.LogRecord) -> bool:
    """Whether Ray Data says what our own message does not: not its traces, and not its call for issue reports."""
    return record.exc_info is None and record.name != "ray.data.exceptions"


def keep_traces_off_screen() -> None:
    """What ends a run is one message of ours. Ray Data's traces of it go to its log file, in the session's folder."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.addFilter(_is_for_users)


@contextmanager
def ray_session(cpus: int | None = None) -> Iterator[str]:
    """Yield the session's address.

    `cpus` are logical: Ray Data's tasks and our actors each want one, so there are more than cores by default.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Else one idle Python process per logical CPU starts with the session: half a minute of a core for 16.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    # Arrow's own pool (mimalloc) keeps what it has freed; each of Ray Data's processes would hold its largest block.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", _RECONNECT_S)
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.setdefault(_ONE_MACHINE, "0")
    import ray

    if ray.is_initialized():
        yield ray.get_runtime_context().gcs_address
        return
    settings = {"namespace": NAMESPACE, "logging_level": logging.WARNING, "log_to_driver": False}
    if address:
        ray.init(address=address, **settings)
    else:
        _start(cpus or 16, settings)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    context.memory_usage_poll_interval_s = None  # else a thread per task that reads the process's memory maps
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    keep_traces_off_screen()
    lost = False
    try:
        yield ray.get_runtime_context().gcs_address
    except SessionLost:
        lost = True
        raise
    finally:
        if lost:  # a shutdown can hang now, or end this process before it has said why
            atexit.unregister(ray.shutdown)
        else:
            _shut_down()


def _shut_down() -> None:
    """`ray.shutdown` in bounded time: it can wait for ever for a part of the session that hangs."""
    import ray

    ending = threading.Thread(target=ray.shutdown, name="ray-shutdown", daemon=True)
    ending.start()
    ending.join(_SHUTDOWN_S)
    if ending.is_alive():
        log.warning("the Ray session does not end: its processes are left to themselves")
        atexit.unregister(ray.shutdown)  # it would hang there again
