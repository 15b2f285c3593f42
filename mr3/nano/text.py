"""Pretraining text of the nano base: languages, number words, arithmetic, copying, statements about attributes.

Nothing here judges: no rubric, no assistants to compare, no score, no verdict. A test reads the generator's output
for those.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Iterator, Sequence

from mr3.nano.checks import Finding, analyse
from mr3.nano.facts import Content, Question, contents, flip
from mr3.nano.packs import CRITERIA, FAMILIES, LANGUAGES, english_wordings, packs
from mr3.nano.responses import Mix, garble, splice, write_response

_POINTS = (
    "{}",
    "{}.",
    "Is it {}?",
    "The text: {}.",
    "See whether it is so: {}.",
    "This is about: {}.",
    "One looks at {}.",
)


def _turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


class TextWorld:
    """A seeded stream of short documents.

    Args:
        listed: share of the texts with statements that begin with a numbered list of the attributes to come.
        chat: share of dialogues and texts with statements that are put as a chat.
        any_letters: texts in chats are called by any small letters, not always x and y.
    """

    def __init__(self, seed: int, listed: float = 0.0, chat: float = 0.0, any_letters: bool = False) -> None:
        self.rng = random.Random(seed)
        self.listed, self.chat, self.any_letters = listed, chat, any_letters
        self.contents: list[Content] = contents()
        self.kinds: list[tuple[float, Callable[[], str]]] = [
            (0.20, self.dialogue),
            (0.13, self.one_text),
            (0.40, self.two_texts),
            (0.12, self.numbered_list),
            (0.06, self.number_drill),
            (0.03, self.dictionary),
            (0.03, self.record),
            (0.03, self.same_or_not),
        ]

    def documents(self) -> Iterator[str]:
        """Endless documents."""
        weights = [w for w, _ in self.kinds]
        makers = [make for _, make in self.kinds]
        while True:
            yield self.rng.choices(makers, weights)[0]()

    def question(self, language: str | None = None) -> Question:
        """Any content in any family and language."""
        content = flip(self.rng.choice(self.contents), self.rng)
        return Question(content, self.rng.choice(FAMILIES), language or self.rng.choice(LANGUAGES))

    def response(self, question: Question) -> str:
        """Any response, one in six of them damaged."""
        text = write_response(question, Mix(language=0.65).sample(self.rng), self.rng)
        point = self.rng.random()
        if point < 0.11:
            return garble(text, self.rng)
        if point < 0.17:
            return splice(text, write_response(question, Mix().sample(self.rng), self.rng), self.rng)
        return text

    def dialogue(self) -> str:
        """A question and a response, mostly a right one in the same language."""
        question = self.question()
        mix = Mix(correct=0.85, language=0.9)
        response = write_response(question, mix.sample(self.rng), self.rng)
        if self._in_chat():
            return _turn("user", question.text) + _turn("assistant", response)
        return f"{question.text}\n{response}"

    def _in_chat(self) -> bool:
        return self.chat > 0 and self.rng.random() < self.chat

    def one_text(self) -> str:
        """A text with some of its attributes, the evidence first."""
        if self._in_chat():
            return self.chat_about("x")
        question = self.question()
        text = self.response(question)
        findings = analyse(question.language, question.reference, text)
        names, lines = self._attributes()
        lines += [question.text, f"x: {text}"]
        return "\n".join(lines + _notes("x", [findings], names, question))

    def two_texts(self) -> str:
        """Two texts side by side, attribute by attribute."""
        if self._in_chat():
            return self.chat_about("xy")
        question = self.question()
        texts = [self.response(question), self.response(question)]
        found = [analyse(question.language, question.reference, t) for t in texts]
        names, lines = self._attributes()
        lines += [question.text, f"x: {texts[0]}", f"y: {texts[1]}"]
        return "\n".join(lines + _notes("xy", found, names, question))

    def chat_about(self, keys: str) -> str:
        """Texts and a list of points as a chat; the answer notes each point in its order, and ends in plain JSON."""
        if self.any_letters:
            keys = "".join(self.rng.sample(string.ascii_lowercase, len(keys)))
        question = self.question()
        texts = [self.response(question) for _ in keys]
        found = [analyse(question.language, question.reference, text) for text in texts]
        names = self.rng.sample(CRITERIA, self.rng.randint(1, 4))
        points = [f"{i}. {self.rng.choice(_POINTS).format(self._plain(name))}" for i, name in enumerate(names, start=1)]
        notes = _notes(keys, found, names, question)
        given = [f"# Text {k}\n{text}" for k, text in zip(keys, texts, strict=True)]
        count = "1 point" if len(names) == 1 else f"{len(names)} points"
        return (
            _turn("system", "\n".join(["# Task", "Write down what is true.", "# Points", *points]))
            + _turn("user", "\n".join(["# Question", question.text, *given, f"# Your Notes on {count}"]))
            + _turn("assistant", "\n".join(["<think>", *notes, "</think>", self.record()]))
        )

    def numbered_list(self) -> str:
        """A list, other text, and the list again by number; plain words for an attribute come back as its name."""
        items = [self._item() for _ in range(self.rng.randint(1, 5))]
        lines = [f"{i}. {said}" for i, (said, _) in enumerate(items, start=1)]
        question = self.question()
        lines += [question.text, *(self.response(question) for _ in range(self.rng.randint(0, 2)))]
        wordy = self.rng.random() < 0.5
        for i, (_, again) in enumerate(items, start=1):
            lines.append(f"{i} {again}{': ' + self.response(question) if wordy else ''}")
        return "\n".join(lines)

    def _item(self) -> tuple[str, str]:
        """What a list holds, and how it is said again."""
        if self.rng.random() < 0.7:
            name = self.rng.choice(CRITERIA)
            return self._plain(name), name
        word = self.rng.choice(packs()[self.rng.choice(LANGUAGES)].nouns)
        return word, word

    def _plain(self, name: str) -> str:
        """Plain words for an attribute."""
        return self.rng.choice(english_wordings()[name]["traits"])

    def _attributes(self) -> tuple[list[str], list[str]]:
        """Which attributes a text speaks of, and the list that it begins with (or none)."""
        if self.listed <= 0 or self.rng.random() >= self.listed:
            return self.rng.sample(CRITERIA, self.rng.randint(2, 4)), []
        names = self.rng.sample(CRITERIA, self.rng.randint(1, 4))
        return names, [f"{i}. {self._plain(name)}" for i, name in enumerate(names, start=1)]

    def number_drill(self) -> str:
        """Number words and small sums."""
        pack = packs()[self.rng.choice(LANGUAGES)]
        lines = []
        for _ in range(4):
            n, m = self.rng.randint(1, 12), self.rng.randint(1, 12)
            word = self.rng.randint(1, 24)
            lines.append(f"{pack.number(word)} = {word}, {n} + {m} = {n + m}, {max(n, m)} - {min(n, m)} = {abs(n - m)}")
        return "\n".join(lines)

    def dictionary(self) -> str:
        """The same sentence or word in two languages."""
        one, two = (packs()[c] for c in self.rng.sample(LANGUAGES, 2))
        kind = self.rng.choice(("thanks", "answer", "unsure", "filler", "nouns"))
        at = self.rng.randrange(len(getattr(one, kind)))
        n = self.rng.randint(1, 24)
        left = getattr(one, kind)[at].replace("{n}", str(n))
        right = getattr(two, kind)[at].replace("{n}", str(n))
        return f"{one.name}: {left}\n{two.name}: {right}"

    def record(self) -> str:
        """Plain JSON."""
        pack = packs()[self.rng.choice(LANGUAGES)]
        fields = {"name": self.rng.choice(pack.nouns), "count": str(self.rng.randint(1, 24)), "language": pack.name}
        names = self.rng.sample(sorted(fields), self.rng.randint(2, 3))
        return json.dumps({name: fields[name] for name in names}, ensure_ascii=False)

    def same_or_not(self) -> str:
        """Equality of things side by side."""
        pack = packs()[self.rng.choice(LANGUAGES)]
        lines = []
        for _ in range(5):
            n = self.rng.randint(1, 24)
            m = n if self.rng.random() < 0.5 else self.rng.randint(1, 24)
            lines.append(f"{n} {pack.number(m)} {m} {'same' if n == m else 'differ'}")
        return "\n".join(lines)


def _notes(keys: str, found: Sequence[dict[str, Finding]], names: Sequence[str], question: Question) -> list[str]:
    """A numbered line per attribute: each text's evidence and whether it is met."""
    notes = []
    for i, name in enumerate(names, start=1):
        parts = [f"{k} {f[name].evidence} {'yes' if f[name].met else 'no'}" for k, f in zip(keys, found, strict=True)]
        notes.append(f"{i} {name}{subject(name, question)}: {', '.join(parts)}")
    return notes


def subject(name: str, question: Question) -> str:
    """What a finding is compared with: the right number (a sum with its operands), or the question's language."""
    if name == "correct":
        c = question.content
        chain = {
            "lookup": "",
            "total": f" {c.n} + {c.m} =",
            "difference": f" {max(c.n, c.m)} - {min(c.n, c.m)} =",
        }[question.family]
        return f"{chain} {question.reference}"
    if name == "language":
        return f" {packs()[question.language].name}"
    return ""
