"""The checkers: what is true of any text as a response to a nano question, with the evidence for it.

They read policy-written, garbled text as well as procedural text; gold labels, gold traces and the
policies' true quality all come from here, never from a judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from mr3.nano.packs import LANGUAGES, packs

NONE = "none"
_SENTENCE = re.compile(r"[^.!?。！？।]+[.!?。！？।]*")
_WORD = re.compile(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*")


@dataclass(frozen=True)
class Finding:
    """One criterion on one response: the evidence in the text, and whether the criterion is met."""

    evidence: str
    met: bool


@cache
def _number_pattern() -> tuple[re.Pattern[str], dict[str, int]]:
    values = {word.casefold(): i for p in packs().values() for i, word in enumerate(p.numbers, start=1)}
    words = sorted(values, key=len, reverse=True)
    return re.compile(r"(?<![\w'])(?:\d+|" + "|".join(map(re.escape, words)) + r")(?![\w'])"), values


def find_number(text: str) -> tuple[str, int] | None:
    """The first number in the text, as written and as a value."""
    pattern, values = _number_pattern()
    match = pattern.search(text.casefold())
    if match is None:
        return None
    found = text[match.start() : match.end()] if len(text) == len(text.casefold()) else match.group()
    word = match.group()
    return found, int(word) if word.isdigit() else values[word]


def _units(text: str) -> list[str]:
    """Words; for scripts without spaces, pairs of neighbouring characters."""
    units: list[str] = []
    for word in _WORD.findall(text.casefold()):
        if ord(word[0]) >= 0x3040 and not 0xAC00 <= ord(word[0]) <= 0xD7A3:
            units += [word[i : i + 2] for i in range(max(1, len(word) - 1))]
        else:
            units.append(word)
    return units


@cache
def _vocabulary() -> dict[str, frozenset[str]]:
    """Unit -> the languages whose sentences hold it (number words left out)."""
    found: dict[str, set[str]] = {}
    for code, pack in packs().items():
        for sentence in pack.thanks + pack.answer + pack.unsure + pack.filler:
            for unit in _units(sentence.replace("{n}", " ")):
                found.setdefault(unit, set()).add(code)
    return {unit: frozenset(codes) for unit, codes in found.items()}


def sentence_language(sentence: str) -> str | None:
    """The language that most of the sentence's known words belong to, or None."""
    votes = dict.fromkeys(LANGUAGES, 0.0)
    for unit in _units(sentence):
        codes = _vocabulary().get(unit, frozenset())
        for code in codes:
            votes[code] += 1 / len(codes)
    best = max(votes, key=lambda code: votes[code])
    return best if votes[best] > 0 else None


@cache
def _marks(kind: str) -> re.Pattern[str]:
    words = {mark.casefold() for p in packs().values() for mark in getattr(p, kind)}
    return re.compile("|".join(re.escape(w) for w in sorted(words, key=len, reverse=True)))


def _opening(sentence: str) -> str:
    """The first word of a sentence, or its first two characters where words are not spaced."""
    units = _WORD.findall(sentence)
    if not units:
        return NONE
    first: str = units[0]
    return first[:2] if 0x3040 <= ord(first[0]) < 0xAC00 else first


def analyse(language: str, reference: int, response: str) -> dict[str, Finding]:
    """All six criteria with their evidence."""
    sentences = [s.strip() for s in _SENTENCE.findall(response) if s.strip()]
    thanks = [s for s in sentences if _marks("thanks_marks").search(s.casefold())]
    unsure = [s for s in sentences if _marks("unsure_marks").search(s.casefold())]
    numbered = [s for s in sentences if find_number(s)]
    extra = [s for s in sentences if s not in thanks and s not in numbered[:1]]
    number = find_number(response)
    heard = [code for code in map(sentence_language, sentences) if code is not None]
    foreign = [code for code in heard if code != language]
    spoken = foreign[0] if foreign else (language if heard else None)
    surface, value = number if number else (NONE, None)
    return {
        "correct": Finding(f"{surface} {value if number else NONE}", value == reference),
        "language": Finding(packs()[spoken].name if spoken else NONE, spoken == language),
        "polite": Finding(_opening(thanks[0]) if thanks else NONE, bool(thanks)),
        "brief": Finding(_opening(extra[0]) if extra else NONE, not extra),
        "digits": Finding(surface, surface.isdigit()),
        "sure": Finding(_opening(unsure[0]) if unsure else NONE, not unsure),
    }


def check(meta: dict[str, Any], response: str) -> dict[str, bool]:
    """Criterion -> met, for a response to the question that `meta` describes."""
    findings = analyse(str(meta["language"]), int(meta["reference"]), response)
    return {name: finding.met for name, finding in findings.items()}
