"""What the tests of the store share: processes that died with a mark, and stores as other machines see them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from mr3.inference.store import Attempt, Store


def dead_pid() -> int:
    """The number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def died(
    folder: Path,
    ids: Sequence[str],
    alone: bool = False,
    run: str | None = None,
    in_stage: bool = False,
    proven: bool = False,
) -> str:
    """A process of a run that died with these ids at its engine; returns the run."""
    store = Store(folder, run)
    name = store.open_run()
    store.claim(ids, Attempt(alone, proven, in_stage))
    record = folder / "owners" / f"{store._marks.owner}.json"
    store._marks._stop.set()  # type: ignore[union-attr]
    record.write_text(json.dumps({**json.loads(record.read_text()), "pid": dead_pid()}))
    return name


@contextmanager
def machine_named(name: str) -> Iterator[None]:
    """As on another machine: it has its own index, and can't see our processes."""
    with mock.patch("platform.node", lambda: name):
        yield
