"""Draw a wanted number from each of several groups with bounded memory: a stream is read three times, never held.

Every item has a number that is a hash of what it is, so the items with the smallest numbers of a group are a random
sample that does not depend on the stream's order. Counting the numbers by their leading bits finds the bin in which
the last wanted one lies; only the numbers of that bin are then collected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

_BITS = 64
_BIN_BITS = 12
Numbers = Callable[[], Iterable[tuple[str, int]]]
"""Starts the stream of (group, number) anew; numbers are of 64 bits."""


@dataclass(frozen=True)
class Cut:
    """The largest number drawn of a group, and how many items that bear it are drawn."""

    number: int
    equal: int


def count(numbers: Numbers) -> Counter[str]:
    """Items of each group."""
    found: Counter[str] = Counter()
    for group, _ in numbers():
        found[group] += 1
    return found


class Draw:
    """The wanted items of each group."""

    def __init__(self, numbers: Numbers, wanted: Mapping[str, int]) -> None:
        """Read the stream twice.

        Args:
            wanted: how many of each group; of groups that are not named all are taken.
        """
        self._cuts = _cuts(numbers, wanted)
        self._wanted = frozenset(wanted)

    def taker(self) -> Callable[[str, int], bool]:
        """Says of each item of the stream, in order and once, whether it is drawn."""
        equal: Counter[str] = Counter()

        def takes(group: str, number: int) -> bool:
            if group not in self._wanted:
                return True
            cut = self._cuts.get(group)
            if cut is None or number > cut.number:
                return False
            if number == cut.number:
                equal[group] += 1
                return equal[group] <= cut.equal
            return True

        return takes


def _bin(number: int) -> int:
    return number >> (_BITS - _BIN_BITS)


def _cuts(numbers: Numbers, wanted: Mapping[str, int]) -> dict[str, Cut]:
    """The cut of every group of which something is wanted and something is there."""
    bins: dict[str, Counter[int]] = {}
    for group, number in numbers():
        if wanted.get(group, 0) > 0:
            bins.setdefault(group, Counter())[_bin(number)] += 1
    last = {group: _last_bin(found, wanted[group]) for group, found in bins.items()}
    held: dict[str, list[int]] = {group: [] for group in bins}
    for group, number in numbers():
        if group in last and _bin(number) == last[group][0]:
            held[group].append(number)
    cuts = {}
    for group, (_, rest) in last.items():
        drawn = sorted(held[group])[:rest]
        cuts[group] = Cut(drawn[-1], drawn.count(drawn[-1]))
    return cuts


def _last_bin(bins: Counter[int], wanted: int) -> tuple[int, int]:
    """The bin with the last wanted number, and how many are wanted of it."""
    before = 0
    for place in sorted(bins):
        if before + bins[place] >= wanted:
            return place, wanted - before
        before += bins[place]
    return place, bins[place]
