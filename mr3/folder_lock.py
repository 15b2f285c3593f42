"""A folder that one process works in at a time, on one machine or on several that share a drive.

The lock is filelock's lease: a file that names its owner and is touched every few seconds. What a killed process of
this machine held is taken over at once; an owner on another machine can't be looked at, so what it held is taken over
when nobody has touched the file for `LEASE_S` seconds of the waiting machine's own clock.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import LeaseCompromise, SoftFileLease, Timeout

log = logging.getLogger(__name__)
LOCK = ".lock"
LEASE_S = 30.0
BEAT_S = 5.0


def _touched(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _refusal(folder: Path, lease: SoftFileLease) -> ValueError:
    owner, who, since = lease.owner, "another process", ""
    if owner is not None:
        host = owner.hostname.partition("?")[0]  # behind it filelock names a container's processes
        who = f"process {owner.pid} on {host}"
        with suppress(psutil.Error):
            begun = time.localtime(psutil.Process(owner.pid).create_time())
            since = f" (running since {time.strftime('%Y-%m-%d %H:%M:%S', begun)})"
    return ValueError(f"{folder} is in use by {who}{since}: wait for it, end it, or give another --output_dir")


def _acquire(folder: Path, lease: SoftFileLease) -> None:
    """Take the lease, or refuse as soon as its owner is seen to be alive."""
    file = Path(lease.lock_file)
    try:
        lease.acquire(timeout=0)
        return
    except Timeout:
        first = _touched(file)
    log.info("%s is locked: looking whether its owner is alive (up to %.0f s)", folder, LEASE_S)
    try:
        lease.acquire(timeout=2 * LEASE_S, poll_interval=0.2, cancel_check=lambda: _touched(file) not in (first, None))
    except Timeout:
        raise _refusal(folder, lease) from None


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder that exists.

    Raises:
        ValueError: when a living process holds it, or another one took it over from this one, which was suspended or
            cut off from the drive.
    """

    def lost(why: LeaseCompromise) -> None:
        log.error("%s is no longer held by this process (%s): stopping", folder, why.reason)
        os.kill(os.getpid(), signal.SIGINT)  # interrupts the main thread, also while it sleeps

    lease = SoftFileLease(folder / LOCK, lease_duration=LEASE_S, heartbeat_interval=BEAT_S, on_compromise=lost)
    _acquire(folder, lease)
    try:
        yield
        if lease.compromise is not None:
            raise ValueError(f"{folder} was taken over by another process: its run goes on, and this one ends")
    finally:
        lease.release()
