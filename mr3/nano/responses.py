"""Responses with controlled attributes, and garbled ones such as a weak policy writes."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from mr3.nano.facts import Question, distractor, number_text
from mr3.nano.packs import CRITERIA, LANGUAGES, packs


@dataclass(frozen=True)
class Attributes:
    """What a response is to be like; the names are the criteria's."""

    correct: bool
    language: bool
    polite: bool
    brief: bool
    digits: bool
    sure: bool

    def with_(self, name: str, value: bool) -> Attributes:
        """A copy with one attribute set."""
        return replace(self, **{name: value})


@dataclass(frozen=True)
class Mix:
    """Probability of each attribute: a policy's character."""

    correct: float = 0.5
    language: float = 0.5
    polite: float = 0.5
    brief: float = 0.5
    digits: float = 0.5
    sure: float = 0.5

    def sample(self, rng: random.Random) -> Attributes:
        """Independent draws."""
        return Attributes(**{name: rng.random() < getattr(self, name) for name in CRITERIA})


def write_response(
    question: Question,
    attributes: Attributes,
    rng: random.Random,
    other_language: str | None = None,
) -> str:
    """A response to `question` with exactly these attributes (as the checkers see them)."""
    code = question.language
    if not attributes.language:
        code = other_language or rng.choice([c for c in LANGUAGES if c != question.language])
    pack = packs()[code]
    value = question.reference if attributes.correct else distractor(question, rng)
    kind = rng.randrange(len(pack.answer))
    template = (pack.answer if attributes.sure else pack.unsure)[kind]
    parts = [template.format(n=number_text(pack, value, attributes.digits))]
    if not attributes.brief:
        parts.insert(1 if rng.random() < 0.7 else 0, rng.choice(pack.filler))
    if attributes.polite:
        parts.insert(0 if rng.random() < 0.7 else len(parts), rng.choice(pack.thanks))
    return pack.joiner.join(parts)


def garble(text: str, rng: random.Random) -> str:
    """One small accident: a lost or doubled word, a cut, sentences in another order, a sentence said twice."""
    kind = rng.randrange(5)
    if kind == 0 or " " not in text:
        cut = rng.randrange(max(1, len(text) // 2), len(text))
        return text[:cut].rstrip()
    if kind == 1:
        words = text.split(" ")
        del words[rng.randrange(len(words))]
        return " ".join(words)
    if kind == 2:
        words = text.split(" ")
        at = rng.randrange(len(words))
        words.insert(at, words[at])
        return " ".join(words)
    sentences = [s + "." for s in text.rstrip(".").split(". ")]
    if kind == 3:
        rng.shuffle(sentences)
        return " ".join(sentences)
    sentences.append(rng.choice(sentences))
    return " ".join(sentences)


def splice(first: str, second: str, rng: random.Random) -> str:
    """The head of one text and the tail of another: languages mixed within one response."""
    at, to = rng.randrange(1, len(first)), rng.randrange(0, max(1, len(second) - 1))
    return (first[:at].rstrip() + " " + second[to:].lstrip()).strip()
