"""The exactly-once store: results by id, shared by any number of runs, processes and machines.

Results lie in numbered parts (`parts`), of which the first that holds an id has its result: for all readers, for good.
Who writes is told the winners, and answers with them. A derived index (`index`) finds the part of an id, and marks
(`marks`) say what is with whose engine: so that two runs seldom judge the same, and a death is known by what it left.
"""

from __future__ import annotations

import platform
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from mr3.files import clock_of, disk_trouble
from mr3.inference.index import BrokenIndex, Index
from mr3.inference.marks import BESIDE_OTHERS, Attempt, Deaths, Marks
from mr3.inference.parts import PartLog, open_folder

__all__ = ["Attempt", "Claim", "Deaths", "Store"]
_STALE_SECONDS = 3_600
_CACHED_PARTS = 64
T = TypeVar("T")


@dataclass(frozen=True)
class Claim:
    """What came of marking ids: `mine` are to be made now, `stored` were made before, others are with another run."""

    mark: Path
    mine: frozenset[str]
    stored: Mapping[str, str]


class Store:
    """Results by id. Any number of processes look up and write, several threads of one included.

    Args:
        run: the run for which this process works, as its driver's `open_run` named it; None for one of its own.

    Raises:
        ValueError: here and by every method, when the folder can't be used; what to do is in the message.
    """

    def __init__(self, folder: str | Path, run: str | None = None) -> None:
        self.folder = Path(folder)
        self._lock = threading.RLock()
        self._cache: OrderedDict[int, dict[str, str]] = OrderedDict()
        with self._trouble():
            open_folder(self.folder)
            self._log = PartLog(self.folder)
            self._index = Index(self.folder / f"index-{platform.node() or 'local'}.sqlite")
            self._marks = Marks(self.folder, run)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """This process is done: its claims end."""
        with self._trouble():
            self._marks.close()
            self._index.close()

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        """What the file system refuses, as an error that says what to do."""
        try:
            yield
        except OSError as error:
            reason = disk_trouble(error) or "it can't be used"
            raise ValueError(
                f"{reason} for the store {self.folder} ({error}): mend that, or move the folder and set `store:`, then "
                "run the same command again; everything stored so far is kept"
            ) from error

    # Reading.

    def refresh(self) -> int:
        """For the start of a run: sweep what dead runs left, bring the index up to date; returns the number of ids."""
        with self._trouble():
            self._marks.sweep()
            self._sweep()
        found = self.catch_up()
        for file, ids in list(self._marks.remembered()):
            if self._indexed(partial(self._knows, ids)):
                self.end(file)  # whatever killed that engine, no id of it is asked for again
        return found

    def _knows(self, ids: Sequence[str]) -> bool:
        return sum(map(len, self._index.find(ids).values())) == len(set(ids))

    def _sweep(self) -> None:
        """Take away what kills left half written; young files may be another process's."""
        left = [path for place in (".*.tmp", "*/.*.tmp") for path in self.folder.glob(place)]
        now = clock_of(self._log.folder) if left else 0.0
        for path in left:
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()

    def catch_up(self) -> int:
        """Bring this machine's index up to date with all parts; returns the number of ids."""
        return self._indexed(self._catch_up)

    def _catch_up(self) -> int:
        listed = self._log.numbers()
        gone = set(self._index.numbers()).difference(listed)
        if any(not self._log.exists(number) for number in gone):
            self._make_again()  # parts were taken away: what the index says of them is wrong
        else:
            self._advance(max(listed, default=0))
        return self._index.ids()

    def _make_again(self) -> None:
        with self._index.writing():
            self._index.clear()
            self._cache.clear()
            self._take_in(1, max(self._log.numbers(), default=0), {})

    def _advance(self, last: int, own: Mapping[int, Mapping[str, str]] | None = None) -> None:
        """Take in the parts up to `last`, and what follows them without a gap; `own` need not be read."""
        following = self._index.position() + 1
        if following > last and not self._log.exists(following):
            return
        with self._index.writing():
            self._take_in(self._index.position() + 1, last, own or {})

    def _take_in(self, number: int, last: int, own: Mapping[int, Mapping[str, str]]) -> None:
        while number <= last or self._log.exists(number):
            if number not in own and not self._log.exists(number) and not self._log.appears(number, last):
                number += 1
                continue
            rows = own.get(number)
            if rows is None:
                rows = self._log.read(number)
            self._index.add(number, rows, len(rows))
            self._log.last = max(self._log.last, number)
            number += 1

    def _indexed(self, action: Callable[[], T]) -> T:
        """An action on the index, which is made again if it is broken."""
        with self._lock, self._trouble():
            try:
                return action()
            except BrokenIndex:
                self._index.forget()
            try:
                self._make_again()
                return action()
            except BrokenIndex as error:
                raise ValueError(
                    f"the index of {self.folder} is broken as soon as it is made ({error.__cause__}): the disk under "
                    "it fails; move the store to another one"
                ) from error

    def count(self) -> int:
        """Distinct ids in the index."""
        return self._indexed(self._index.ids)

    def kept_aside(self) -> int:
        """Answers in the store that came later than another one for the same id."""
        return self._indexed(lambda: self._index.rows() - self._index.ids())

    def lookup(self, ids: Sequence[str]) -> dict[str, str]:
        """Payloads of the ids that are in the store; ids without one are absent from the answer."""
        if not ids:
            return {}

        def action() -> dict[str, str]:
            self._advance(0)
            return self._find(ids)

        return self._indexed(action)

    def _find(self, ids: Sequence[str]) -> dict[str, str]:
        while True:
            found: dict[str, str] = {}
            places = self._index.find(ids)
            for number, keys in places.items():
                rows = self._part(number)
                found |= {key: rows[key] for key in keys if key in rows}
            if len(found) == sum(map(len, places.values())):
                return found
            self._make_again()  # a part is not what it was: it is empty now, and later answers may count

    def _part(self, number: int) -> dict[str, str]:
        if number not in self._cache:
            self._cache[number] = self._log.read(number)
            if len(self._cache) > _CACHED_PARTS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(number)
        return self._cache[number]

    def items(self) -> Iterator[tuple[str, str]]:
        """Every stored id once, part by part."""
        for number in self._indexed(self._index.numbers):
            yield from self._indexed(partial(self._first_in, number)).items()

    def _first_in(self, number: int) -> dict[str, str]:
        """The rows of a part that no earlier part has."""
        keys = list(self._part(number))
        rows = self._find(keys)
        return {key: rows[key] for key in self._index.find(keys).get(number, ())}

    # Writing.

    def write(self, rows: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, str]:
        """Store id -> payload as one part, whole or not at all.

        Returns the payloads that count instead, of those ids that somebody else had stored before: ours are kept aside.
        """
        own: dict[str, str] = {}
        for key, payload in rows.items() if isinstance(rows, Mapping) else rows:
            own.setdefault(key, payload)
        if not own:
            return {}
        with self._trouble():
            number = self._log.commit(list(own), list(own.values()))

        def action() -> dict[str, str]:
            self._advance(number, {number: own})
            places = self._index.find(list(own))
            return self._find([key for place, keys in places.items() if place != number for key in keys])

        return self._indexed(action)

    # Marks.

    def open_run(self) -> str:
        """The name of a run that begins with this process and is alive as long as it is."""
        with self._lock, self._trouble():
            self._marks.live()
        return self._marks.run

    def claim(self, ids: Sequence[str], given: Attempt = BESIDE_OTHERS) -> Claim:
        """Mark ids as given to an engine: those that nobody else has.

        End the claim's `mark` when the engine has answered: what is marked when a process dies, died with it.
        """
        with self._lock, self._trouble():
            mark = self._marks.start(ids, given)
            # In this order: who is done stores before it takes its mark away.
            held = self._marks.held(mark)
            stored = self.lookup(ids)
            mine = frozenset(ids) - held - stored.keys()
            if len(mine) < len(set(ids)):
                first, mark = mark, self._marks.start([i for i in ids if i in mine], given)
                self.end(first)
        return Claim(mark, mine, stored)

    def end(self, mark: Path) -> None:
        """The engine lived: take the mark back."""
        with self._trouble():
            mark.unlink(missing_ok=True)

    def died(self, mark: Path) -> None:
        """The engine died with what is marked, and this process lives: remember it, for all runs."""
        with self._trouble():
            self._marks.died(mark)

    def forget(self, ids: Collection[str]) -> None:
        """These ids had their answers: that they killed engines alone counts no more."""
        with self._trouble():
            self._marks.forget(ids)

    def held(self, ids: Iterable[str]) -> set[str]:
        """Which of the ids living processes of other runs are making."""
        with self._lock, self._trouble():
            return self._marks.held() & set(ids)

    def deaths(self) -> dict[str, Deaths]:
        """What engines that died had with them, by id: those of this run, and those that are remembered."""
        with self._lock, self._trouble():
            return self._marks.deaths()
