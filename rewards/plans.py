"""Which responses of a prompt are compared with which, in rounds.

A plan is a generator over slots 0..n-1: it yields a round of slot pairs, is sent the winners of that round (None for
a tie or a failure), and ends. Most plans need one round; `knockout` asks only what the results so far leave open.
Who sits where, and which of a pair is shown first, is drawn by a hash of seed, prompt and text, so that neither the
order nor the names of the policies in the pool can leak into the labels. Add a plan by adding a function to `PLANS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from mr3.records import Candidate

Slots = list[tuple[int, int]]


@dataclass(frozen=True)
class Round:
    """Comparisons that don't depend on each other. A `decisive` one makes a preference; others only lead to it."""

    pairs: Slots
    decisive: bool = True


Winners = list[int | None]
Plan = Generator[Round, Winners, None]


def all_pairs(n: int) -> Plan:
    """Every pair once: n(n-1)/2 comparisons."""
    yield Round(list(combinations(range(n), 2)))


def _row(n: int) -> Slots:
    return [(i, i + 1) for i in range(n - 1)]


def chain(n: int) -> Plan:
    """Neighbours in a row: n-1 comparisons, each response in one or two."""
    yield Round(_row(n))


def circular(n: int) -> Plan:
    """Neighbours in a ring: n comparisons, each response in exactly two (one comparison for n = 2)."""
    yield Round(_row(n) + ([(n - 1, 0)] if n > 2 else []))


def _neighbours(slots: Sequence[int]) -> tuple[Slots, list[int]]:
    """Pairs of neighbours, and who is left over."""
    pairs = [(slots[i], slots[i + 1]) for i in range(0, len(slots) - 1, 2)]
    return pairs, list(slots[2 * len(pairs) :])


def knockout(n: int) -> Plan:
    """The best and the worst, and then the two against each other: at most 3n/2 - 1 comparisons.

    The first round parts the field; winners go on for the best, losers for the worst. A tie is decided by lot (the
    slots are drawn), which no preference can come from: only the last comparison is decisive.
    """
    pairs, left = _neighbours(range(n))
    upper, lower = list(left), list(left)
    if n > 2:
        for (a, b), winner in zip(pairs, (yield Round(pairs, decisive=False)), strict=True):
            first = winner if winner is not None else a
            upper.append(first)
            lower.append(b if first == a else a)
        while len(upper) > 1 or len(lower) > 1:
            up, upper_left = _neighbours(upper)
            down, lower_left = _neighbours(lower)
            winners = yield Round([*up, *down], decisive=False)
            upper = upper_left + [a if w is None else w for (a, _), w in zip(up, winners, strict=False)]
            lower = lower_left + [
                b if w in (None, a) else a for (a, b), w in zip(down, winners[len(up) :], strict=True)
            ]
        pairs = [(upper[0], lower[0])]
    if pairs and pairs[0][0] != pairs[0][1]:  # one slot can be both where the judge contradicts itself
        yield Round(pairs)


PLANS: dict[str, Callable[[int], Plan]] = {
    "all_pairs": all_pairs,
    "chain": chain,
    "circular": circular,
    "knockout": knockout,
}
ONE_ROUND = frozenset({"all_pairs", "chain", "circular"})


def _drawn(key: str, position: int = 0) -> bytes:
    return hashlib.blake2b(f"{position}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def shuffled(values: Sequence[Any], *key: Any) -> list[Any]:
    """A permutation that is the same in every process: sorted by a hash of the key and the position."""
    name = "\0".join(map(str, key))
    order = sorted(range(len(values)), key=lambda i: _drawn(name, i))
    return [values[i] for i in order]


@dataclass(frozen=True)
class Board:
    """Who sits where, and how each pair is shown, for one prompt."""

    slots: tuple[str, ...]
    seed: int
    prompt_id: str
    texts: Mapping[str, str]

    @classmethod
    def of(cls, texts: Mapping[str, str], seed: int, prompt_id: str) -> Board:
        """Slots drawn by a hash of each text: a response that is added later moves nobody else.

        Args:
            texts: response id -> text; all different.
        """
        drawn = {i: (_drawn(f"slots\0{seed}\0{prompt_id}\0{text}"), text) for i, text in texts.items()}
        return cls(tuple(sorted(texts, key=drawn.__getitem__)), seed, prompt_id, texts)

    def shown(self, a: int, b: int) -> tuple[str, str]:
        """Response ids of two slots, the one that is shown first in front: the same whenever the two meet."""
        first, second = sorted((self.slots[a], self.slots[b]), key=self.texts.__getitem__)
        texts = f"{self.texts[first]}\0{self.texts[second]}"
        turned = _drawn(f"orientation\0{self.seed}\0{self.prompt_id}\0{texts}")[0] & 1
        return (second, first) if turned else (first, second)

    def capped(self, pairs: Slots, cap: int | None) -> Slots:
        """At most `cap` of the pairs, drawn by a hash."""
        return pairs if cap is None else shuffled(pairs, "cap", self.seed, self.prompt_id)[:cap]


def plan_pairs(
    plan: str, texts: Mapping[str, str], seed: int, prompt_id: str, cap: int | None = None
) -> list[tuple[str, str]]:
    """The comparisons of a plan of one round, as pairs of response ids, first shown first; at most `cap` of them.

    Args:
        texts: response id -> text; all different.

    Raises:
        ValueError: for an unknown plan, or one of several rounds.
    """
    if plan not in ONE_ROUND:
        raise ValueError(f"plan {plan!r} has no fixed list of pairs: choose one of {', '.join(sorted(ONE_ROUND))}")
    board = Board.of(texts, seed, prompt_id)
    pairs = next(PLANS[plan](len(board.slots))).pairs
    return [board.shown(a, b) for a, b in board.capped(pairs, cap)]


def distinct(responses: Sequence[Candidate]) -> dict[str, str]:
    """Response id -> id of the first response with the same text (blanks at the ends ignored).

    Identical texts are judged once; a pair of them could only be chosen == rejected.
    """
    first: dict[str, str] = {}
    return {r.id: first.setdefault(r.text.strip(), r.id) for r in responses}


def authors(policies: Mapping[str, str], same_as: Mapping[str, str]) -> dict[str, str]:
    """Id of a judged response -> who wrote its text: every policy that did, by name, joined with " + ".

    Crediting one of them would let a name decide whose response was chosen.

    Args:
        policies: response id -> policy.
        same_as: response id -> id of the equal response that is judged for it, as `distinct` gives it.
    """
    found: dict[str, set[str]] = {}
    for name, policy in policies.items():
        found.setdefault(same_as[name], set()).add(policy)
    return {name: " + ".join(sorted(wrote)) for name, wrote in found.items()}
