"""Rubrics of the nano world: which criteria, in which order, in which words; and what is held out of judge training."""

from __future__ import annotations

import itertools
import random

from mr3.nano.packs import TRAIN_CRITERIA, english_wordings, packs
from mr3.records import stable_hash
from mr3.rubrics import Criterion, Rubric

_HELD_OUT_SHARE = 0.2


def is_held_out(names: tuple[str, ...]) -> bool:
    """Whether this ordered choice of criteria is kept out of judge training (a fifth of those with two or more)."""
    return len(names) > 1 and int(stable_hash("order", names)[:8], 16) / 16**8 < _HELD_OUT_SHARE


def orders(held_out: bool) -> list[tuple[str, ...]]:
    """All ordered choices of 1 to 4 training criteria, of one side of the split."""
    found = [o for k in range(1, 5) for o in itertools.permutations(TRAIN_CRITERIA, k)]
    return [o for o in found if is_held_out(o) == held_out]


def sample_names(rng: random.Random, held_out: bool = False, least: int = 1) -> tuple[str, ...]:
    """Criteria in order: the number first, so that short rubrics are as common as long ones."""
    while True:
        names = tuple(rng.sample(TRAIN_CRITERIA, rng.randint(max(least, 2 if held_out else 1), 4)))
        if is_held_out(names) == held_out:
            return names


def word_rubric(
    names: tuple[str, ...], rng: random.Random, language: str = "en", held_out_wording: bool = False
) -> Rubric:
    """Put criteria into words; every wording has an equal chance."""
    criteria = []
    for name in names:
        if language == "en":
            wordings = english_wordings()[name]["held_out" if held_out_wording else "seen"]
        else:
            wordings = packs()[language].criteria[name]
        criteria.append(Criterion(name=name, description=rng.choice(wordings)))
    return Rubric(name="nano", language=language, criteria=criteria)
