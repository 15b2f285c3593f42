"""Tasks for rubric-aware training: rows on which a shortcut pays, and twins, on which only the rubric decides.

Twins are the same responses under two rubrics with two gold verdicts. Both kinds of data are made from the same slots
(mode, question, whether the rubric is in the question's language) with the same draws of damage, two rows to a slot:
two tasks of their own, or one pair of twins. So what is learned from one and not from the other is due to the twins.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from mr3.nano.checks import Finding, analyse
from mr3.nano.facts import Content, Question, contents, flip
from mr3.nano.packs import TRAIN_CRITERIA, TRAIN_FAMILIES, TRAIN_LANGUAGES
from mr3.nano.rubrics import is_held_out, orders, sample_names, word_rubric
from mr3.nano.shortcut import decide, hidden_verdict
from mr3.nano.tasks import JudgeTask, Recipe, TaskMaker
from mr3.records import Mode, stable_hash

MODE_SHARES: dict[Mode, float] = {"pairwise": 0.5, "pointwise": 0.28, "binary": 0.22}
TIES_OF_PAIRS = 0.24
"""Pairs of twins of which one is a tie: about as many tied rows as single tasks have (`TaskMaker.pair`)."""
EDITS = {"order": 0.5, "replaced": 0.3, "other": 0.2}
"""How the second rubric of a pair differs: the same criteria in another order, one replaced, or a rubric of its own."""
_PARTS = {"start": ("judge_sft", 0), "rl": ("judge_sft", 1), "dev": ("judge_dev", None), "test": ("judge_test", None)}
_MOST_DRAWS = 20_000

Findings = list[dict[str, Finding]]


@cache
def part_contents(part: str) -> list[Content]:
    """The contents of `start` (SFT of the start), `rl` (training by reward), `dev` or `test`: disjoint.

    The split `judge_sft` is halved by a hash of the content, so `start` and `rl` are both strange to dev and test.

    Raises:
        ValueError: for another part.
    """
    if part not in _PARTS:
        raise ValueError(f"no part {part!r} of the contents: choose from {', '.join(_PARTS)}")
    split, half = _PARTS[part]
    found = contents(split)
    return [c for c in found if half is None or int(stable_hash("half", c.key)[:8], 16) % 2 == half]


@dataclass(frozen=True)
class World:
    """What all tables of a study share, and what a held-out set does otherwise."""

    modes: Mapping[Mode, float] = field(default_factory=lambda: MODE_SHARES)
    languages: Sequence[str] = TRAIN_LANGUAGES
    families: Sequence[str] = TRAIN_FAMILIES
    own_rubric: float = 0.3
    garbled: float = 0.2
    held_out_order: bool = False
    held_out_wording: bool = False
    criterion: str | None = None
    """A criterion that single rubrics and one of every pair name, and that decides in every pair of twins."""


@dataclass(frozen=True)
class Slot:
    """Two rows to be made."""

    mode: Mode
    question: Question
    own_rubric: bool
    seed: str


@dataclass(frozen=True)
class StudyTask:
    """A task with what a study must know of it."""

    made: JudgeTask
    found: Findings
    twin: str | None = None
    edit: str | None = None
    reward_only: bool = False
    """A twin that is sampled for what it says of the other, and is not trained on."""

    @property
    def decided_by(self) -> int:
        """Index of the criterion that decides, see `mr3.nano.shortcut.decide`."""
        return decide(self.made.task.mode, self.made.names, self.found)[1]

    @property
    def hidden(self) -> str:
        """What the shortcut says."""
        return hidden_verdict(self.made.task.mode, self.found)


def slots(part: str, rows: int, seed: int, world: World) -> list[Slot]:
    """`rows` / 2 slots of a part; the same for singles and twins of one seed.

    Raises:
        ValueError: for an odd number of rows.
    """
    if rows % 2:
        raise ValueError(f"rows come in twos (twins, or two tasks on one question): {rows} is odd")
    rng = random.Random(f"slots-{part}-{seed}")
    pool = part_contents(part)
    found = []
    for i in range(rows // 2):
        (mode,) = rng.choices(list(world.modes), list(world.modes.values()))
        question = Question(flip(rng.choice(pool), rng), rng.choice(world.families), rng.choice(world.languages))
        found.append(Slot(mode, question, rng.random() < world.own_rubric, f"{part}-{seed}-{i}"))
    return found


def edit_of(one: Sequence[str], two: Sequence[str]) -> str:
    """How the criteria of a rubric became those of another: a key of `EDITS`."""
    if set(one) == set(two):
        return "order"
    if len(one) == len(two) and sum(a != b for a, b in zip(one, two, strict=True)) == 1:
        return "replaced"
    return "other"


def is_later(mode: Mode, one: Sequence[str], two: Sequence[str], found: Findings) -> bool:
    """Whether the first criteria tell nothing of a pair: none decides; for pointwise, both rubrics share the first."""
    if mode == "pointwise":
        return one[0] == two[0]
    return 0 not in (decide(mode, one, found)[1], decide(mode, two, found)[1])


class StudyMaker:
    """Makes the rows of slots."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._maker = TaskMaker(Recipe("judge_sft", world.languages, world.families, garbled=world.garbled), 0)
        self._pool = _orders(world)

    def _begin(self, slot: Slot, kind: str) -> random.Random:
        """A source of chance of the slot's own: no row depends on how many draws another took."""
        self._maker.rng = random.Random(f"{kind}-{slot.seed}")
        return self._maker.rng

    def _names(self, mode: Mode) -> tuple[str, ...]:
        least = 2 if mode == "pointwise" else 1
        if self.world.criterion is not None:
            return self._maker.rng.choice([o for o in self._pool if self.world.criterion in o and len(o) >= least])
        return sample_names(self._maker.rng, self.world.held_out_order, least)

    def _draw(self, slot: Slot) -> tuple[tuple[str, ...], list[str], Findings]:
        """Criteria, responses that they tell apart at a random depth, and what is true of those."""
        maker, mode, question = self._maker, slot.mode, slot.question
        names = self._names(mode)
        texts = maker.pair(question, names) if mode == "pairwise" else maker.single(question, names, mode)
        return names, texts, [analyse(question.language, question.reference, t) for t in texts]

    def _build(self, slot: Slot, names: tuple[str, ...], texts: list[str]) -> JudgeTask:
        language = slot.question.language if slot.own_rubric else "en"
        rubric = word_rubric(names, self._maker.rng, language, self.world.held_out_wording and language == "en")
        return self._maker.build(slot.mode, slot.question, names, rubric, texts)

    def singles(self, slot: Slot, agree: Sequence[bool] | None = None) -> list[StudyTask]:
        """Two tasks on the slot's question, each with responses and a rubric of its own.

        Args:
            agree: whether the shortcut's verdict is to be the rubric's, for each; as it falls if None.
        """
        self._begin(slot, "single")
        found = []
        for i in range(2):
            for _ in range(_MOST_DRAWS):
                names, texts, findings = self._draw(slot)
                label = decide(slot.mode, names, findings)[0]
                if agree is None or (label == hidden_verdict(slot.mode, findings)) == agree[i]:
                    break
            else:
                raise AssertionError(f"no {slot.mode} task in {_MOST_DRAWS} draws")
            found.append(StudyTask(self._build(slot, names, texts), findings))
        return found

    def with_twin(self, slot: Slot, one: StudyTask, name: str) -> list[StudyTask]:
        """A single task of the slot, and the same responses under a rubric with another gold verdict.

        Args:
            name: the id that the two share. A task comes back alone where no rubric says otherwise of its responses.
        """
        rng = self._begin(slot, f"reward-{name}")
        made, mode = one.made, slot.mode
        kinds = [(e, later, tied) for e in EDITS for later in (False, True) for tied in (False, True)]
        for edit, later, tied in rng.sample(kinds, len(kinds)):
            other = self._partner(mode, made.names, one.found, later, tied, edit)
            if other is not None:
                twin = self._build(slot, other, list(made.task.responses))
                second = StudyTask(twin, one.found, name, edit, reward_only=True)
                return [replace(one, twin=name, edit=edit), second]
        return [one]

    def twins(self, slot: Slot, later: bool, name: str) -> list[StudyTask]:
        """The same responses under two rubrics with different gold.

        Args:
            later: no first criterion decides (`is_later`); else at least one does.
            name: the id that the two share.
        """
        rng = self._begin(slot, "twins")
        tied = slot.mode == "pairwise" and rng.random() < TIES_OF_PAIRS
        # In another order the same criteria flip only who wins: neither a tie nor what all criteria count for.
        kinds = [edit for edit in EDITS if edit != "order" or (slot.mode == "pairwise" and not tied)]
        (wanted,) = rng.choices(kinds, [EDITS[edit] for edit in kinds])
        for _ in range(_MOST_DRAWS):
            names, texts, found = self._draw(slot)
            other = self._partner(slot.mode, names, found, later, tied, wanted)
            if other is not None:
                both = [names, other]
                rng.shuffle(both)
                edit = edit_of(names, other)
                return [StudyTask(self._build(slot, n, texts), found, name, edit) for n in both]
        raise AssertionError(f"no {slot.mode} twins in {_MOST_DRAWS} draws")

    def _partner(
        self, mode: Mode, one: tuple[str, ...], found: Findings, later: bool, tied: bool, edit: str
    ) -> tuple[str, ...] | None:
        """Criteria under which the gold is another: of the wanted kind of edit, lengths being equally likely."""
        label, index = decide(mode, one, found)
        by_length: dict[int, list[tuple[str, ...]]] = defaultdict(list)
        for two in self._pool:
            if edit_of(one, two) != edit or (mode == "pointwise" and len(two) < 2):
                continue
            other, at = decide(mode, two, found)
            if other == label or ("Tie" in (label, other)) != tied or is_later(mode, one, two, found) != later:
                continue
            if self.world.criterion is not None and self.world.criterion not in (
                *one[index : index + 1],
                *two[at : at + 1],
            ):
                continue
            by_length[len(two)].append(two)
        if not by_length:
            return None
        rng = self._maker.rng
        return rng.choice(by_length[rng.choice(sorted(by_length))])


@cache
def _orders_with(criterion: str) -> tuple[tuple[str, ...], ...]:
    """Ordered choices of up to 3 criteria, also of one that no rubric of training names; else as in training."""
    names = (*TRAIN_CRITERIA, criterion)
    found = [o for k in (1, 2, 3) for o in itertools.permutations(names, k)]
    return tuple(o for o in found if criterion in o or not is_held_out(o))


def _orders(world: World) -> tuple[tuple[str, ...], ...]:
    if world.criterion is not None:
        return _orders_with(world.criterion)
    return tuple(orders(world.held_out_order))


def exact_flags(count: int, share: float, seed: str) -> list[bool]:
    """`count` flags, the share of them true to the nearest whole number, in random order."""
    yes = round(count * share)
    flags = [True] * yes + [False] * (count - yes)
    random.Random(seed).shuffle(flags)
    return flags


def single_tasks(
    part: str, rows: int, seed: int, world: World, agree: float | None = None, reward_twins: bool = False
) -> list[StudyTask]:
    """Tasks of which the shortcut gets a share right: as it falls if None, else `agree` of every mode.

    Args:
        reward_twins: each is followed by a twin that is not trained on, where there is one; the tasks stay the same.

    Raises:
        ValueError: for an odd number of rows, or a share that is none.
    """
    if agree is not None and not 0 <= agree <= 1:
        raise ValueError(f"agree is a share of rows, 0 to 1, got {agree}")
    maker, places = StudyMaker(world), slots(part, rows, seed, world)
    flags: dict[Mode, list[bool]] = {}
    if agree is not None:
        for mode in world.modes:
            count = 2 * sum(s.mode == mode for s in places)
            flags[mode] = exact_flags(count, agree, f"agree-{mode}-{seed}")
    made: list[StudyTask] = []
    for slot in places:
        wanted = None if agree is None else [flags[slot.mode].pop(), flags[slot.mode].pop()]
        for i, one in enumerate(maker.singles(slot, wanted)):
            made += maker.with_twin(slot, one, f"reward-{slot.seed}-{i}") if reward_twins else [one]
    return made


def twin_tasks(part: str, rows: int, seed: int, world: World, later: float = 0.5) -> list[StudyTask]:
    """Twins, the two of a pair next to each other; in a share `later` of the pairs no first criterion decides.

    Raises:
        ValueError: for an odd number of rows, or a share that is none.
    """
    if not 0 <= later <= 1:
        raise ValueError(f"later is a share of pairs, 0 to 1, got {later}")
    maker, places = StudyMaker(world), slots(part, rows, seed, world)
    flags = exact_flags(len(places), later, f"later-{seed}")
    made: list[StudyTask] = []
    for slot, flag in zip(places, flags, strict=True):
        made += maker.twins(slot, flag, f"twin-{slot.seed}")
    return made
