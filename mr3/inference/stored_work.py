"""Work on items by id through an engine and the exactly-once store: looked up, else made, stored, and then answered.

Engines die. What was with one that died is a suspect: it is tried again with nothing beside it; if the engine dies
again, so are its parts (about the square root of their number each), and last the single items. An item that has
killed two engines alone is given up instead of killing another. So a machine that was taken away costs a batch one run
alone, and an item that kills engines is found in five deaths.

Where the engine is in an actor's process, that ends with it: Ray starts another and retries the whole batch, and the
marks in the store tell what was with the dead one. Where it is in a host, the host alone is replaced. Where it is in
the stage's own process, the stage ends, and the store remembers the death for the next start of the command.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from mr3.inference.engine import EngineDead, HostDied
from mr3.inference.store import Attempt, Deaths, Store
from mr3.inference.watched import Lives

log = logging.getLogger("mr3.inference")
Item = TypeVar("Item")
Given = TypeVar("Given", contravariant=True)
DEATHS_ALONE = 2
"""An item that was alone with so many dying engines is given up."""
MOST_DEATHS = 20
"""So many engines that die one after the other without any answer are no item's fault: the run ends."""
_REMEMBERED = 20_000
_POLL_S = 0.5
"""Between looks at what other runs are making."""


async def end_tasks(left: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel them and see their ends, before their loop is closed."""
    tasks = list(left)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Gate:
    """Many may pass together, or one alone. Nothing is awaited on the way out: whoever is cancelled leaves it whole."""

    def __init__(self) -> None:
        self._inside = 0
        self._alone = False
        self._waiting_alone = 0
        self._change = asyncio.Event()

    def _changed(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Beside others; waits while somebody is, or wants to be, alone."""
        while self._alone or self._waiting_alone:
            await self._change.wait()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._changed()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """With nobody else inside."""
        self._waiting_alone += 1
        try:
            while self._alone or self._inside:
                await self._change.wait()
            self._alone = True
        finally:
            self._waiting_alone -= 1
            if not self._alone:  # cancelled: others waited for it
                self._changed()
        try:
            yield
        finally:
            self._alone = False
            self._changed()


@dataclass(frozen=True, slots=True)
class Answers:
    """Results as JSON by id, and the ids that were made for this call (not found anywhere).

    `superseded`: those of them for which another run's result came first, and counts.
    """

    results: Mapping[str, str]
    new: frozenset[str]
    superseded: frozenset[str] = frozenset()


@dataclass(slots=True)
class Batch:
    """What has come so far of one call: results by id, and of those that were made whether another one counts."""

    results: dict[str, str] = field(default_factory=dict)
    made: dict[str, bool] = field(default_factory=dict)


Task = asyncio.Task[Batch]


@dataclass(frozen=True, slots=True)
class Made:
    """A result as JSON, and whether it is stored: an engine that failed or was late may answer in the next run."""

    text: str
    lasting: bool


class Maker(Protocol[Given]):
    """What makes results of items."""

    async def make(self, items: Sequence[Given], deaths: Sequence[int]) -> list[Made]:
        """The results, in the order of the items; `deaths` engines died with each before.

        Raises:
            EngineDead: when the engine can't go on.
        """

    def give_up(self, item: Given, reason: str, deaths: int) -> str:
        """The result, as JSON, of an item that kills engines."""


class StoredWork(Generic[Item]):
    """Results of items by id. What is asked for by several at the same time is made once.

    Args:
        ends_process: whether this process exists to be replaced with its engine, as a Ray actor does.
        in_stage: the engine lives in this process, which nobody replaces.
        alone: entered while items are tried with nothing beside them; where several processes share an engine, it keeps
            the others out. What raises HostDied in there, and not on the way in, died with these items.
    """

    def __init__(
        self,
        store: Store,
        maker: Maker[Item],
        ends_process: bool,
        in_stage: bool = False,
        alone: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        self._store, self._maker, self._ends_process = store, maker, ends_process
        self._in_stage, self._alone = in_stage, alone
        self._store.catch_up()  # a process that replaces a dead one must see what that one had stored
        self._deaths = store.deaths()
        self._lives = Lives()
        self._deaths_in_a_row = 0
        self._answered = False
        self._gate = Gate()
        self._flying: dict[str, Task] = {}
        self._waiting: Counter[Task] = Counter()
        self._recent: OrderedDict[str, str] = OrderedDict()

    async def ask(self, wanted: Mapping[str, Item]) -> Answers:
        """The results of all items by id. Every new one is stored before it is returned.

        Raises:
            ValueError: when the store can't be written, or every engine dies.
        """
        found = {i: self._recent[i] for i in wanted if i in self._recent}
        found |= self._store.lookup([i for i in wanted if i not in found])
        # What was with an engine that died, and is stored now, was answered by a later one of this run.
        self._answered = self._answered or any(i in self._deaths and self._deaths[i].of_run for i in found)
        waited = {self._flying[i] for i in wanted if i not in found and i in self._flying}
        mine = {i: item for i, item in wanted.items() if i not in found and i not in self._flying}
        own: Task | None = None
        if mine:
            own = asyncio.create_task(self._make_all(mine))
            own.add_done_callback(lambda _: self._landed(mine))
            self._flying |= dict.fromkeys(mine, own)
            waited.add(own)
        for batch in await self._wait(waited):
            found |= {i: text for i, text in batch.results.items() if i in wanted}
        made = own.result().made if own is not None else {}
        return Answers(found, frozenset(made), frozenset(i for i, other in made.items() if other))

    async def _wait(self, tasks: Collection[Task]) -> list[Batch]:
        """Their results. Each of them ends early only when everybody who waited for it was cancelled."""
        self._waiting.update(tasks)
        try:
            return [await asyncio.shield(task) for task in tasks]
        finally:
            self._waiting.subtract(tasks)
            for task in tasks:
                if not self._waiting[task]:
                    del self._waiting[task]
                    task.cancel()

    async def _make_all(self, missing: Mapping[str, Item]) -> Batch:
        """Make what no other run is making, then wait for the rest: claiming nothing, so that nobody waits for us."""
        batch = Batch()
        while left := {i: item for i, item in missing.items() if i not in batch.results}:
            try:
                await self._make_missing(left, batch)
            except HostDied:
                continue  # another one takes its place
            if held := [i for i in missing if i not in batch.results]:
                batch.results |= await self._of_others(held)
                deaths = self._store.deaths()  # one of this run's may be why nobody stored them
                self._deaths |= {i: deaths[i] for i in held if i in deaths and i not in self._deaths}
        self._recent |= batch.results
        while len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        return batch

    async def _of_others(self, ids: list[str]) -> dict[str, str]:
        """Wait until other runs have stored these ids, or given them up; returns what they stored."""
        while True:
            # In this order: who is done stores before it gives up its claim.
            held = await asyncio.to_thread(self._store.held, ids)
            stored = await asyncio.to_thread(self._store.lookup, ids)
            if not held - stored.keys():
                return stored
            await asyncio.sleep(_POLL_S)

    def _landed(self, ids: Iterable[str]) -> None:
        for i in ids:
            del self._flying[i]

    async def _make_missing(self, missing: Mapping[str, Item], batch: Batch) -> None:
        suspects = {i: item for i, item in missing.items() if i in self._deaths}
        others = {i: item for i, item in missing.items() if i not in self._deaths}
        if others:
            async with self._gate.together():
                await self._make(others, False, batch)
        if suspects:
            async with self._gate.alone():
                await self._make_suspects(suspects, batch)

    async def _make_suspects(self, suspects: Mapping[str, Item], batch: Batch) -> None:
        """Each in the largest group that has killed no engine yet; an item that was alone with a death comes last.

        So where processes are killed from outside, again and again, it is not the same item each time.
        """
        by_deaths: dict[int, list[str]] = {}
        last = []
        for i in sorted(suspects, key=lambda i: self._deaths[i].single):
            deaths = self._deaths[i]
            if deaths.single >= DEATHS_ALONE:
                last.append(i)
            else:
                by_deaths.setdefault(min(deaths.alone, 2), []).append(i)
        for alone, group in by_deaths.items():
            size = (len(group), math.isqrt(len(group) - 1) + 1, 1)[alone]
            for begin in range(0, len(group), size):
                await self._make({i: suspects[i] for i in group[begin : begin + size]}, True, batch)
        for i in last:
            deaths = self._deaths[i]
            if self._answered and not deaths.proven:  # perhaps all engines were broken then, and this one is not
                await self._make({i: suspects[i]}, True, batch)
                continue
            reason = f"engines died on this row, {DEATHS_ALONE} of them with nothing beside it"
            text = self._maker.give_up(suspects[i], reason, deaths.all)
            # Kept although the engine failed: what kills engines that work is never tried again. Where none has
            # answered anything, it may be no row's fault, and the next run tries again.
            await self._keep({i: Made(text, lasting=deaths.proven > 0)}, batch)

    async def _make(self, group: Mapping[str, Item], alone: bool, batch: Batch) -> None:
        """Make those of a group that no other run is making."""
        proven, life = self._answered, self._lives.now
        claim = self._store.claim(list(group), Attempt(alone, proven, self._in_stage))
        batch.results |= claim.stored
        mine = {i: item for i, item in group.items() if i in claim.mine}
        try:
            if mine:
                async with self._alone() if alone else nullcontext():
                    results = await self._with_engine(mine, Attempt(alone, proven), claim.mark)
                await self._keep(dict(zip(mine, results, strict=True)), batch)
                self._deaths_in_a_row, self._answered = 0, True
        except HostDied as error:
            self._replaced(error, life)
            raise
        finally:
            # Where the process ends, the mark stays, and says what was with an engine that died.
            self._store.end(claim.mark)

    async def _with_engine(self, mine: Mapping[str, Item], given: Attempt, mark: Path) -> list[Made]:
        deaths = [self._deaths[i].all if i in self._deaths else 0 for i in mine]
        try:
            return await self._maker.make(list(mine.values()), deaths)
        except HostDied:
            for i in mine:
                self._deaths.setdefault(i, Deaths()).count(given.alone, len(mine), given.proven)
            self._store.died(mark)
            raise
        except EngineDead as error:
            self._end_process(error, mark)

    async def _keep(self, results: Mapping[str, Made], batch: Batch) -> None:
        """Store results, and answer with what the store says of them: another run may have been first."""
        texts = {i: r.text for i, r in results.items()}
        lasting = {i: r.text for i, r in results.items() if r.lasting}
        # Writing waits for the disk; other batches of this process go on meanwhile.
        others = await asyncio.to_thread(self._store.write, lasting)
        if len(lasting) < len(texts):
            others |= await asyncio.to_thread(self._store.lookup, [i for i in texts if i not in lasting])
        batch.results |= {**texts, **others}
        batch.made |= {i: i in others for i in texts}
        if any([self._deaths.pop(i, None) for i in results]):
            await asyncio.to_thread(self._store.forget, frozenset(results))

    def _replaced(self, error: HostDied, life: int) -> None:
        if self._lives.ended(life):
            self._deaths_in_a_row += 1
            log.warning("%s; its rows are tried again", error)
        if self._deaths_in_a_row >= MOST_DEATHS:
            raise ValueError(f"{self._deaths_in_a_row} engines died one after the other without an answer: {error}")

    def _end_process(self, error: EngineDead, mark: Path) -> NoReturn:
        if self._ends_process:
            log.error("the engine died, and this process ends with it: %s", error)
            os._exit(1)  # only a new process gets a new engine; Ray starts one and retries the batch
        self._store.died(mark)
        raise ValueError(
            f"the engine died: {error}. What was answered is stored; the same command goes on, tries what was with the "
            "engine in smaller and smaller groups, and gives up a row that kills engines"
        ) from error
