"""The Ray session: a start that took too long is tried again, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from mr3.inference import session


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What each start of Ray does, in turn: raise, or go well."""
    import ray

    script: list[BaseException | None] = []

    def init(**settings: Any) -> None:
        found = script.pop(0)
        if found is not None:
            raise found

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return script


LATE = Exception("The current node timed out during startup. This could happen because some of the raylet failed.")


def test_a_late_start_is_tried_again(starts: list[BaseException | None]) -> None:
    starts += [LATE, LATE, None]
    session._start(4, {})
    assert not starts


def test_it_ends_after_three(starts: list[BaseException | None]) -> None:
    starts += [LATE, LATE, LATE, None]
    with pytest.raises(ValueError, match=r"in 3 tries.*timed out during startup"):
        session._start(4, {})
    assert starts == [None]


def test_other_errors_are_the_users_at_once(starts: list[BaseException | None]) -> None:
    starts += [ConnectionError("no port"), None]
    with pytest.raises(ConnectionError):
        session._start(4, {})
    assert starts == [None]


def test_a_shutdown_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import threading

    import ray

    end = threading.Event()
    monkeypatch.setattr(ray, "shutdown", lambda: end.wait(60))
    monkeypatch.setattr(session, "_SHUTDOWN_S", 0.1)
    session._shut_down()
    assert "does not end" in caplog.text
    end.set()


def test_the_drivers_process_is_no_actor() -> None:
    assert not session.in_actor()


def test_ray_datas_traces_are_in_its_log_and_not_on_the_screen() -> None:
    code = """
import logging
import ray.data
from ray.data.exceptions import omit_traceback_stdout
from mr3.inference.session import keep_traces_off_screen
keep_traces_off_screen()
def fails():
    raise RuntimeError("the actor is gone")
try:
    omit_traceback_stdout(fails)()
except RuntimeError:
    logging.getLogger("ray.data.some.part").warning("no resources", exc_info=True)
    logging.getLogger("ray.data.some.part").warning("the store is full")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = done.stdout + done.stderr
    assert "the store is full" in said and "Traceback" not in said and "Exception occurred" not in said
