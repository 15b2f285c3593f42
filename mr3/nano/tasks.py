"""Judge tasks of the nano world, balanced so that the rubric decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mr3.nano.facts import Content, Question, contents, flip
from mr3.nano.junk import add_junk
from mr3.nano.packs import TRAIN_FAMILIES, TRAIN_LANGUAGES
from mr3.nano.responses import Attributes, Mix, garble, splice, write_response
from mr3.nano.rubrics import sample_names, word_rubric
from mr3.nano.verdicts import gold
from mr3.records import Mode, Task
from mr3.rubrics import Rubric

_TIES = 0.12
_JUNK_IN_BOTH = 0.25


@dataclass(frozen=True)
class JudgeTask:
    """A task with its gold label and gold completion."""

    task: Task
    question: Question
    names: tuple[str, ...]
    label: str
    completion: str


@dataclass(frozen=True)
class Recipe:
    """What a task set is drawn from."""

    split: str
    languages: Sequence[str] = TRAIN_LANGUAGES
    families: Sequence[str] = TRAIN_FAMILIES
    own_rubric: float = 0.0
    held_out_rubric: bool = False
    criterion: str | None = None
    garbled: float = 0.0
    junk: float = 0.0


class TaskMaker:
    """A seeded source of tasks for one recipe."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self.recipe, self.rng = recipe, random.Random(seed)
        self.junk = random.Random(f"junk-{seed}")  # of its own: all else is the same with and without junk
        self.contents: list[Content] = contents(recipe.split)
        self.made = 0

    def question(self) -> Question:
        """A question of the split."""
        content = flip(self.rng.choice(self.contents), self.rng)
        return Question(content, self.rng.choice(self.recipe.families), self.rng.choice(self.recipe.languages))

    def names(self, least: int = 1) -> tuple[str, ...]:
        """Criteria in order; a held-out criterion stands first when the recipe asks for one."""
        names = sample_names(self.rng, self.recipe.held_out_rubric, least)
        if self.recipe.criterion is not None:
            names = (self.recipe.criterion, *names[:2])
        return names

    def rubric(self, names: tuple[str, ...], question: Question) -> Rubric:
        """In English, or in the question's language."""
        own = self.rng.random() < self.recipe.own_rubric
        language = question.language if own else "en"
        return word_rubric(names, self.rng, language, self.recipe.held_out_rubric and language == "en")

    def _damage(self, text: str, question: Question) -> str:
        if self.rng.random() >= self.recipe.garbled:
            return text
        if self.rng.random() < 0.6:
            return garble(text, self.rng)
        return splice(text, write_response(question, Mix().sample(self.rng), self.rng), self.rng)

    def _with_junk(self, texts: list[str], question: Question) -> list[str]:
        """Junk in one response or in both, in the recipe's share of the tasks."""
        lot = self.junk
        if lot.random() >= self.recipe.junk:
            return texts
        only = None if lot.random() < _JUNK_IN_BOTH else lot.randrange(len(texts))
        return [add_junk(t, question, lot) if only in (None, i) else t for i, t in enumerate(texts)]

    def pair(self, question: Question, names: tuple[str, ...]) -> list[str]:
        """Two responses that are equal up to a random criterion of the rubric, which decides (or none does)."""
        first = Mix(language=0.6).sample(self.rng)
        second: Attributes = Mix(language=0.6).sample(self.rng)
        depth = len(names) if self.rng.random() < _TIES else self.rng.randrange(len(names))
        for name in names[:depth]:
            second = second.with_(name, getattr(first, name))
        if depth < len(names):
            second = second.with_(names[depth], not getattr(first, names[depth]))
        texts = [write_response(question, a, self.rng) for a in (first, second)]
        self.rng.shuffle(texts)
        return [self._damage(t, question) for t in texts]

    def single(self, question: Question, names: tuple[str, ...], mode: Mode) -> list[str]:
        """One response; for binary, half of them meet every criterion."""
        attributes = Mix(language=0.6).sample(self.rng)
        if mode == "binary" or self.rng.random() < 0.3:
            full = self.rng.random() < 0.5
            for name in names:
                attributes = attributes.with_(name, True)
            if not full:
                attributes = attributes.with_(self.rng.choice(names), False)
        return [self._damage(write_response(question, attributes, self.rng), question)]

    def task(self, mode: Mode) -> JudgeTask:
        """One task with its gold."""
        question = self.question()
        names = self.names(least=2 if mode == "pointwise" else 1)
        texts = self.pair(question, names) if mode == "pairwise" else self.single(question, names, mode)
        texts = self._with_junk(texts, question)
        return self.build(mode, question, names, self.rubric(names, question), texts)

    def build(
        self, mode: Mode, question: Question, names: tuple[str, ...], rubric: Rubric, texts: list[str]
    ) -> JudgeTask:
        """Assemble, number and label a task."""
        label, completion = gold(mode, question, names, texts)
        self.made += 1
        task = Task(
            id=f"{self.recipe.split}-{mode}-{self.made}",
            mode=mode,
            input=question.text,
            responses=texts,
            rubric=rubric,
            language=question.language,
        )
        return JudgeTask(task, question, names, label, completion)

    def flip_pair(self) -> list[JudgeTask]:
        """The same two responses under two rubrics that want opposite winners."""
        while True:
            question = self.question()
            one = self.names(least=2)
            two = (one[1], one[0], *one[2:])
            first, second = Mix(language=0.6).sample(self.rng), Mix(language=0.6).sample(self.rng)
            value = self.rng.random() < 0.5
            first, second = first.with_(one[0], value), second.with_(one[0], not value)
            first, second = first.with_(one[1], not value), second.with_(one[1], value)
            texts = [write_response(question, a, self.rng) for a in (first, second)]
            made = [self.build("pairwise", question, n, self.rubric(n, question), texts) for n in (one, two)]
            if {m.label for m in made} == {"Assistant A", "Assistant B"}:
                return made
