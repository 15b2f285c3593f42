"""What `mr3 demo` shows: a live table on a terminal, plain lines elsewhere; and the times that it keeps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mr3.artifacts import read_json, write_json
from mr3.cli.schedule import Child, Job

_PLAIN_EVERY_S = 30.0
_LIVE_EVERY_S = 0.5
_SAVE_EVERY_S = 10.0


def last_lines(log: Path, count: int = 1) -> list[str]:
    """The last non-empty lines of a log."""
    if not log.is_file():
        return []
    with log.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 16_384))
        text = stream.read().decode("utf-8", "replace")
    lines = [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-count:]


def last_words(log: Path) -> str:
    """The last line that was written for people: trainers also print their raw records."""
    lines = [line for line in last_lines(log, 10) if not line.lstrip().startswith("{")]
    return lines[-1] if lines else ""


class Clock:
    """Seconds per stage and in all, and the peak of memory, kept in timing.json over interruptions."""

    def __init__(self, file: Path) -> None:
        self._file = file
        kept: dict[str, Any] = read_json(file) if file.is_file() else {}
        self.stages: dict[str, float] = kept.get("stages", {})
        self.peak_rss_gb: float = kept.get("peak_rss_gb", 0.0)
        self._before: float = kept.get("total", 0.0)
        self._begun = time.monotonic()
        self._saved = self._begun

    @property
    def total(self) -> float:
        """Of all calls together."""
        return self._before + time.monotonic() - self._begun

    def add(self, stage: str, seconds: float) -> None:
        """Time that a stage has taken, also one that failed."""
        self.stages[stage] = round(self.stages.get(stage, 0.0) + seconds, 2)
        self.save()

    def save(self, peak_rss_gb: float = 0.0) -> None:
        """Write timing.json."""
        self.peak_rss_gb = max(self.peak_rss_gb, round(peak_rss_gb, 3))
        self._saved = time.monotonic()
        state = {"total": round(self.total, 2), "stages": self.stages, "peak_rss_gb": self.peak_rss_gb}
        write_json(self._file, state)

    def save_sometimes(self, peak_rss_gb: float) -> None:
        """So that a kill loses seconds only."""
        if time.monotonic() - self._saved > _SAVE_EVERY_S:
            self.save(peak_rss_gb)


class PlainView:
    """One line per event, and one per running stage every half minute."""

    def __init__(self, clock: Clock, peak: Callable[[], float], say: Callable[[str], None]) -> None:
        self._clock, self._peak, self._say = clock, peak, say
        self._spoken = time.monotonic()

    def _line(self, text: str) -> None:
        self._spoken = time.monotonic()
        self._say(f"[{self._clock.total:6.1f} s] {text}")

    def skipped(self, job: Job) -> None:
        """Finished by an earlier call."""
        self._line(f"{job.name}: finished before")

    def started(self, job: Job) -> None:
        """A child runs."""
        self._line(f"{job.name}: started")

    def ended(self, child: Child, code: int) -> None:
        """A child is through."""
        self._clock.add(child.job.name, child.seconds)
        self._clock.save(self._peak())
        self._line(f"{child.job.name}: {'finished' if code == 0 else f'FAILED ({code})'} in {child.seconds:.1f} s")

    def tick(self, children: Sequence[Child]) -> None:
        """Called ten times a second."""
        self._clock.save_sometimes(self._peak())
        if time.monotonic() - self._spoken > _PLAIN_EVERY_S:
            for child in children:
                self._line(f"{child.job.name}: {child.seconds:.0f} s, {last_words(child.job.log)[:150]}")


class LiveView(PlainView):
    """A table that is drawn again in place."""

    def __init__(self, clock: Clock, peak: Callable[[], float], names: Sequence[str]) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(clock, peak, lambda text: None)
        self._state: dict[str, str] = dict.fromkeys(names, "waiting")
        self._drawn = 0.0
        self._live = Live(console=Console(stderr=True), auto_refresh=False)
        self._live.start()

    def skipped(self, job: Job) -> None:
        """Finished by an earlier call."""
        self._state[job.name] = "finished before"

    def started(self, job: Job) -> None:
        """A child runs."""
        self._state[job.name] = "running"

    def ended(self, child: Child, code: int) -> None:
        """A child is through."""
        super().ended(child, code)
        self._state[child.job.name] = "finished" if code == 0 else "FAILED"
        self._draw([])

    def tick(self, children: Sequence[Child]) -> None:
        """Draw twice a second."""
        self._clock.save_sometimes(self._peak())
        if time.monotonic() - self._drawn > _LIVE_EVERY_S:
            self._draw(children)

    def _draw(self, children: Sequence[Child]) -> None:
        from rich.table import Table
        from rich.text import Text

        self._drawn = time.monotonic()
        running = {child.job.name: child for child in children}
        table = Table(title=f"mr3 demo   {self._clock.total:.0f} s   peak {self._peak():.1f} GB", title_justify="left")
        for column in ("stage", "state", "seconds", "last line"):
            table.add_column(column, no_wrap=True)
        for name, state in self._state.items():
            child = running.get(name)
            seconds = child.seconds if child else self._clock.stages.get(name, 0.0)
            line = last_words(child.job.log) if child else ""
            table.add_row(name, state, f"{seconds:.0f}" if seconds else "", Text(line[:90]))
        self._live.update(table, refresh=True)

    def close(self) -> None:
        """Leave the last table on the screen."""
        self._live.stop()
