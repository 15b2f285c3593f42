"""Run a graph of commands as subprocesses, a few at once, each with its own log.

In: jobs with their needs. Out: the first job that failed, or None. An exception (Ctrl-C) stops the children first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Protocol

from mr3.cli.orphan import PARENT

_POLL_S = 0.1
_PATIENCE_S = {signal.SIGINT: 15.0, signal.SIGTERM: 5.0, signal.SIGKILL: 5.0}


def _nothing() -> None:
    return


@dataclass
class Job:
    """One command. `is_done` is asked when its needs are met; `prepare` runs just before the start.

    `cores`: how many of the `at_once` places it takes; one that takes more than there are runs alone.
    """

    name: str
    command: Sequence[str]
    log: Path
    needs: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    is_done: Callable[[], bool] = lambda: False
    prepare: Callable[[], None] = _nothing
    cores: int = 1


@dataclass
class Child:
    """A job that is running."""

    job: Job
    process: subprocess.Popen[bytes]
    begun: float

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.begun

    def stop(self) -> None:
        """Interrupt the child and all it started; first politely, at last not."""
        for sign, patience in _PATIENCE_S.items():
            try:
                os.killpg(self.process.pid, sign)
                self.process.wait(patience)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue
            return


class View(Protocol):
    """Who is told what happens."""

    def skipped(self, job: Job) -> None: ...
    def started(self, job: Job) -> None: ...
    def ended(self, child: Child, code: int) -> None: ...
    def tick(self, children: Sequence[Child]) -> None: ...


def check_graph(needs: Mapping[str, Sequence[str]]) -> None:
    """Raises: ValueError: for a need that is no job, or a circle."""
    for name, wanted in needs.items():
        unknown = [w for w in wanted if w not in needs]
        if unknown:
            raise ValueError(f"stage {name!r} needs {unknown[0]!r}, which is not a stage here: {', '.join(needs)}")
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise ValueError(f"stages wait for each other in a circle: {' -> '.join(error.args[1])}") from error


def _start(job: Job) -> Child:
    job.prepare()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        log.write(f"$ {' '.join(job.command)}\n".encode())
        log.flush()
        environment = {**os.environ, **job.environment, PARENT: str(os.getpid())}
        # Its own session: Ctrl-C in the terminal comes to us alone, and we pass it on in order.
        process = subprocess.Popen(
            list(job.command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    return Child(job, process, time.monotonic())


def run_jobs(jobs: Sequence[Job], at_once: int, view: View) -> Job | None:
    """Run all jobs, earlier ones in the list first where there is a choice.

    Returns:
        None when all ended well, else the first job that failed; the others are stopped then.
    """
    order = {job.name: i for i, job in enumerate(jobs)}
    check_graph({job.name: job.needs for job in jobs})
    graph = TopologicalSorter({job.name: job.needs for job in jobs})
    graph.prepare()
    ready: list[Job] = []
    children: list[Child] = []
    try:
        while graph.is_active():
            ready += [jobs[order[name]] for name in graph.get_ready()]
            ready.sort(key=lambda job: order[job.name])
            while ready and (not children or sum(c.job.cores for c in children) + ready[0].cores <= at_once):
                job = ready.pop(0)
                if job.is_done():
                    view.skipped(job)
                    graph.done(job.name)
                    break  # what it was needed for may come before what is ready already
                children.append(_start(job))
                view.started(job)
            else:
                time.sleep(_POLL_S)
            for child in [c for c in children if c.process.poll() is not None]:
                children.remove(child)
                view.ended(child, child.process.returncode)
                if child.process.returncode != 0:
                    return child.job
                graph.done(child.job.name)
            view.tick(children)
        return None
    finally:
        for child in children:
            child.stop()
