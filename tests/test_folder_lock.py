"""One process in a folder: a second is refused by name, what the dead held is taken over."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mr3 import folder_lock as locks
from mr3.artifacts import stage_run
from mr3.config import StageConfig
from mr3.folder_lock import LOCK, folder_lock

_HOLD = """
import sys, time
from pathlib import Path
from mr3.artifacts import stage_run
from mr3.config import StageConfig
with stage_run("work", StageConfig(output_dir=Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that works in the folder."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LEASE_S", 1.0)
    monkeypatch.setattr(locks, "BEAT_S", 0.1)


def test_a_second_process_is_told_who_works_there_and_a_killed_one_leaves_nothing_locked(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    config = StageConfig(output_dir=folder)
    with holder(folder) as process:
        message = rf"in use by process {process.pid} on {socket.gethostname()} \(running since \d{{4}}-.*--output_dir"
        with pytest.raises(ValueError, match=message), stage_run("work", config):
            raise AssertionError("two at once")
        process.send_signal(signal.SIGKILL)
        process.wait()
        begun = time.monotonic()
        with stage_run("work", config) as run:
            assert run.resumed and not run.finished
        assert time.monotonic() - begun < locks.LEASE_S, "the dead of this machine are not waited for"
    assert not (folder / LOCK).exists()
    with stage_run("work", config) as run:
        assert run.finished


def test_a_finished_folder_needs_no_lock(tmp_path: Path) -> None:
    config = StageConfig(output_dir=tmp_path)
    with stage_run("work", config):
        pass
    with folder_lock(tmp_path), stage_run("work", config) as run:
        assert run.finished


def test_an_error_lets_go(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), stage_run("work", StageConfig(output_dir=tmp_path)):
            raise KeyError("x")
    assert not (tmp_path / LOCK).exists()


def elsewhere(folder: Path) -> None:
    """The lock as a process of another machine holds it."""
    file = folder / LOCK
    file.write_text(file.read_text().replace(f"host={socket.gethostname()}", "host=another-machine"))


@pytest.mark.usefixtures("quick")
def test_another_machines_owner_is_watched_and_taken_over_when_it_stands_still(tmp_path: Path) -> None:
    folder_lock_file = tmp_path / LOCK
    with folder_lock(tmp_path):
        record = folder_lock_file.read_text()
    folder_lock_file.write_text(record)
    elsewhere(tmp_path)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.1):
            os.utime(folder_lock_file)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(ValueError, match=r"in use by process .* on another-machine"), folder_lock(tmp_path):
            raise AssertionError("two at once")
    finally:
        stop.set()
        thread.join()
    begun = time.monotonic()
    with folder_lock(tmp_path):
        assert time.monotonic() - begun >= 0.9, "it might have been alive"
        assert "another-machine" not in folder_lock_file.read_text()


@pytest.mark.usefixtures("quick")
def test_who_lost_the_folder_stops_and_does_not_finish(tmp_path: Path) -> None:
    config = StageConfig(output_dir=tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # test runners may ignore it in their workers
    try:
        with pytest.raises(KeyboardInterrupt), stage_run("work", config):
            os.replace(tmp_path / LOCK, tmp_path / "aside")  # another machine's claim in its place
            (tmp_path / LOCK).write_text((tmp_path / "aside").read_text())
            elsewhere(tmp_path)
            time.sleep(60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "manifest.json").exists() and (tmp_path / LOCK).exists(), "the other's lock stays"
