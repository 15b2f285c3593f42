"""Contents of the nano world: language-free facts, the questions about them, and the split that each belongs to."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from functools import cache

from mr3.nano.packs import Pack, packs
from mr3.records import stable_hash

SPLITS = {
    "judge_sft": 0.40,
    "judge_dev": 0.05,
    "judge_test": 0.12,
    "policy_sft": 0.16,
    "pool": 0.17,
    "policy_test": 0.10,
}
_LARGEST_COUNT = 12


@dataclass(frozen=True)
class Content:
    """n of noun x and m of noun y (indices into a pack's nouns): the facts of a question, free of language."""

    x: int
    n: int
    y: int
    m: int

    @property
    def key(self) -> str:
        """The same for both orders of the two facts."""
        return stable_hash(sorted([(self.x, self.n), (self.y, self.m)]))

    @property
    def split(self) -> str:
        """Decided by the facts alone, so it is the same in every language and family."""
        point = int(self.key[:12], 16) / 16**12
        for name, share in SPLITS.items():
            if point < share:
                return name
            point -= share
        return next(reversed(SPLITS))


@dataclass(frozen=True)
class Question:
    """A content asked in one family and language."""

    content: Content
    family: str
    language: str

    @property
    def reference(self) -> int:
        """The right number (`lookup` asks for the second noun)."""
        c = self.content
        return {"lookup": c.m, "total": c.n + c.m, "difference": abs(c.n - c.m)}[self.family]

    @property
    def text(self) -> str:
        """The question as a user would put it."""
        pack = packs()[self.language]
        c = self.content
        facts = pack.facts.format(x=pack.nouns[c.x], n=c.n, y=pack.nouns[c.y], m=c.m)
        return facts + pack.joiner + pack.ask[self.family].format(x=pack.nouns[c.y])

    @property
    def meta(self) -> dict[str, str | int]:
        """What the checker needs."""
        return {
            "language": self.language,
            "reference": self.reference,
            "family": self.family,
            "content": self.content.key,
        }


@cache
def _contents() -> tuple[tuple[Content, str], ...]:
    """Every content with its split: 8,712 hashes, for which every maker of tasks would ask again."""
    counts = range(1, _LARGEST_COUNT + 1)
    nouns = range(len(packs()["en"].nouns))
    found = [
        Content(x, n, y, m)
        for x, y in itertools.combinations(nouns, 2)
        for n, m in itertools.product(counts, counts)
        if n != m
    ]
    return tuple((content, content.split) for content in found)


def contents(split: str | None = None) -> list[Content]:
    """Every distinct content (one order of the two facts), of one split or of all."""
    return [content for content, of in _contents() if split is None or of == split]


def flip(content: Content, rng: random.Random) -> Content:
    """Either order of the two facts."""
    if rng.random() < 0.5:
        return content
    return Content(content.y, content.m, content.x, content.n)


def distractor(question: Question, rng: random.Random) -> int:
    """A plausible wrong number in 1..24."""
    c, right = question.content, question.reference
    near = {c.n, c.m, c.n + c.m, abs(c.n - c.m), right - 1, right + 1, rng.randint(1, 24)}
    return rng.choice(sorted(v for v in near if 1 <= v <= 24 and v != right))


def number_text(pack: Pack, value: int, digits: bool) -> str:
    """A number as digits or in the pack's words."""
    return str(value) if digits else pack.number(value)
