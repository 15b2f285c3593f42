"""Who is at work on what: each process has a record that it touches while it lives, and marks that name it.

A mark says which ids are with an engine. The mark of a process that beats is a claim, which other runs wait for; the
mark of a dead process of the same run is a death with these ids; all others are swept by the next run.

A death that a living process has seen is kept for all runs, until its ids are stored: the mark is moved to `deaths/`.
So is what a stage left that died without a word, with an engine in its own process: nobody else could remember it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from mr3.files import clock_of, write_whole
from mr3.inference.index import boot_id

BEAT_S = 5.0
STALE_S = 45.0
"""A process that has not beaten for so long holds no claim: it is frozen, or its machine is gone."""
_NOW_S = 1.0
Order = tuple[int, str]


@dataclass
class Deaths:
    """How many engines died with an id: in all, with nothing beside its group, and with nothing beside itself.

    Attributes:
        proven: those of `single` that were known to work, as they had answered something before.
        of_run: whether this run has seen one of them.
    """

    all: int = 0
    alone: int = 0
    single: int = 0
    proven: int = 0
    of_run: bool = False

    def count(self, alone: bool, ids: int, proven: bool, of_run: bool = True) -> None:
        """One more, with `ids` at the engine."""
        self.all += 1
        self.alone += alone
        self.single += alone and ids == 1
        self.proven += alone and ids == 1 and proven
        self.of_run |= of_run


@dataclass(frozen=True)
class Attempt:
    """How ids are given to an engine.

    Args:
        alone: with nothing beside them.
        proven: the engine is known to work.
        in_stage: it lives in the process of a stage, and dies with it; nobody replaces that one.
    """

    alone: bool = False
    proven: bool = False
    in_stage: bool = False


BESIDE_OTHERS = Attempt()


def _namespace() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def machine() -> str:
    """The same for processes that can see each other's numbers: not for two containers of one name."""
    return "/".join((platform.node(), boot_id(), _namespace()))


def _born(pid: int) -> float | None:
    """When a living process was started: numbers of processes are given again. None for one that has ended."""
    with contextlib.suppress(OSError):
        # In ticks since the machine's start, which setting the clock does not change; the name may hold spaces.
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else float(rest[18])
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _name() -> str:
    return uuid.uuid4().hex[:16]


class Marks:
    """The marks of one process on a store.

    Args:
        run: the run that this process works for, the name of its driver's record; None for a run of its own.
    """

    def __init__(self, folder: Path, run: str | None) -> None:
        self.owner = _name()
        self.run = run or self.owner
        self._marks, self._owners, self._deaths = folder / "marks", folder / "owners", folder / "deaths"
        for path in (self._marks, self._owners, self._deaths):
            path.mkdir(exist_ok=True)
        self._record = json.dumps(
            {"run": self.run, "machine": machine(), "pid": os.getpid(), "born": _born(os.getpid())}
        ).encode()
        self._stop: threading.Event | None = None
        self._count = count()
        self._known: dict[str, frozenset[str]] = {}
        self._now = (float("-inf"), 0.0)

    # Life.

    def live(self) -> None:
        """From now on this process is shown alive, until `close` or its end."""
        if self._stop is None:
            write_whole(self._file(self.owner), self._record, sync=False)
            self._stop = threading.Event()
            threading.Thread(target=self._beat, args=(self._stop,), name="store heartbeat", daemon=True).start()

    def close(self) -> None:
        """This process is done with the store."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None
            self._file(self.owner).unlink(missing_ok=True)

    def _beat(self, stop: threading.Event) -> None:
        file = self._file(self.owner)
        while not stop.wait(BEAT_S):
            with contextlib.suppress(OSError):  # without a beat the claims lapse; whoever writes next says why
                try:
                    os.utime(file)
                except FileNotFoundError:  # swept by others, to whom we were frozen
                    if file.parent.is_dir() and not stop.is_set():
                        write_whole(file, self._record, sync=False)

    def _file(self, owner: str) -> Path:
        return self._owners / f"{owner}.json"

    def _time(self) -> float:
        """About now, by the store's own clock, by which all machines compare."""
        asked, found = self._now
        if time.monotonic() - asked > _NOW_S:
            found = clock_of(self._owners)
            self._now = (time.monotonic(), found)
        return found

    def _beats(self, owner: str) -> bool:
        """Whether an owner's claims hold."""
        try:
            quiet = self._time() - self._file(owner).stat().st_mtime
        except FileNotFoundError:
            return False
        return quiet < STALE_S and not self._dead(owner)

    def _dead(self, owner: str) -> bool:
        """Whether an owner has ended: seen at once on its own machine, elsewhere by its silence."""
        file = self._file(owner)
        record = _load(file)
        if record is not None and record["machine"] == machine():
            return bool(_born(record["pid"]) != record["born"])
        try:
            return self._time() - file.stat().st_mtime >= STALE_S
        except FileNotFoundError:
            return True

    # Marks.

    def start(self, ids: Sequence[str], given: Attempt) -> Path:
        """Claim ids and mark them as given to an engine."""
        self.live()
        mark = self._marks / f"{self.run}.{self.owner}.{next(self._count):08d}.json"
        write_whole(mark, json.dumps({"ids": list(ids), **asdict(given)}).encode(), sync=False)
        return mark

    def died(self, mark: Path) -> None:
        """The engine died with what is marked: remember it, for all runs."""
        with contextlib.suppress(FileNotFoundError):  # swept by others, to whom we were frozen
            mark.rename(self._deaths / mark.name)

    def remembered(self) -> Iterator[tuple[Path, list[str]]]:
        """The deaths that are kept: their files, and the ids."""
        for _, _, entry in self._all(self._deaths):
            mark = _load(Path(entry.path)) or {"ids": []}
            yield Path(entry.path), mark["ids"]

    def forget(self, ids: Collection[str]) -> None:
        """Away with the deaths of nothing but one of these ids."""
        for file, dead in list(self.remembered()):
            if len(dead) == 1 and dead[0] in ids:
                _remove(file)

    def _all(self, folder: Path | None = None) -> Iterator[tuple[str, str, os.DirEntry[str]]]:
        """(run, owner, file) of every mark."""
        with os.scandir(folder or self._marks) as entries:
            for entry in entries:
                words = entry.name.split(".")
                if len(words) == 4 and words[3] == "json":
                    yield words[0], words[1], entry

    def held(self, before: Path | None = None) -> set[str]:
        """The ids that living processes of other runs claim; with `before`, by marks that are older than that one."""
        others = [(owner, entry) for run, owner, entry in self._all() if run != self.run]
        self._known = {e.name: self._known[e.name] for _, e in others if e.name in self._known}
        if not others:
            return set()
        limit = _order(before.stat(), before.name) if before else None
        found: set[str] = set()
        beating = {owner: self._beats(owner) for owner in {owner for owner, _ in others}}
        for owner, entry in others:
            try:
                if not beating[owner] or (limit and _order(entry.stat(), entry.name) > limit):
                    continue
                if entry.name not in self._known:
                    mark = _load(Path(entry.path))
                    self._known[entry.name] = frozenset(mark["ids"] if mark else ())
            except FileNotFoundError:
                continue  # taken back just now
            found |= self._known[entry.name]
        return found

    def deaths(self) -> dict[str, Deaths]:
        """What engines that died had with them, by id: those of this run, and those that are kept."""
        found: dict[str, Deaths] = {}
        dead: dict[str, bool] = {self.owner: False}
        files = [(run, Path(entry.path)) for run, _, entry in self._all(self._deaths)]
        for run, owner, entry in self._all():
            if run != self.run:
                continue
            if owner not in dead:
                dead[owner] = self._dead(owner)
            if dead[owner]:
                files.append((run, Path(entry.path)))
        for run, file in sorted(files, key=lambda death: death[1].name):
            mark = _load(file) or {"alone": False, "ids": []}
            ids = mark["ids"]
            for key in ids:
                found.setdefault(key, Deaths()).count(
                    mark["alone"], len(ids), mark.get("proven", False), run == self.run
                )
        return found

    def sweep(self) -> None:
        """Take away what dead processes of dead runs left; what was with an engine in a stage's own process is kept."""
        over: dict[str, bool] = {}

        def is_over(owner: str) -> bool:
            if owner not in over:
                over[owner] = owner != self.owner and self._dead(owner)
            return over[owner]

        for run, owner, entry in list(self._all()):
            if is_over(run) and is_over(owner):
                mark = _load(Path(entry.path)) or {}
                if mark.get("in_stage", False):
                    self.died(Path(entry.path))
                else:
                    _remove(Path(entry.path))
        for file in list(self._owners.glob("*.json")):
            record = _load(file)
            if is_over(file.stem) and (record is None or is_over(record["run"])):
                _remove(file)


def _load(file: Path) -> dict[str, Any] | None:
    """What a mark or a record says; None where it is gone, or was lost with the power of a machine."""
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return found


def _order(state: os.stat_result, name: str) -> Order:
    return state.st_mtime_ns, name


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):  # another user's; it is read as what it is
        file.unlink(missing_ok=True)
