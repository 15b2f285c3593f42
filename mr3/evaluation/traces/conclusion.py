"""The conclusion that a trace states, to be held against the score that the judge then gave.

Conservative: only a plain statement in the last three sentences counts ("the score is 4", "Assistant A is better than
Assistant B", a last line ending in ": A"). Denials, conditions, hedges, two claims in one sentence, and languages whose
phrases `conclusions.yaml` does not list give `None`: the trace says nothing that can be checked. So agreement is
reported with the share of traces that it is of.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from mr3.languages.codes import base_code

_TAIL = 1_500
_SENTENCES = 3
_NOUNS = ("Assistant", "Response", "Chatbot")
_SIDES = {"Assistant A": "A", "Assistant B": "B", "Response 1": "1", "Response 2": "2"}
_UNSPACED = frozenset({"zh", "ja", "th", "ko"})
"""Words stand without blanks, or take endings that say no or but."""
_LOOK_ALIKE = str.maketrans({"А": "A", "В": "B", "Α": "A", "Β": "B"})
_LONE = re.compile(r"(?<=\s)[АВΑΒ](?!\w)")
_END = re.compile(r"(?<=[.!?])\s+|[。！？।॥؟\n]+")
_MARKUP = re.compile(r"[*_`#>\"“”«»„']+")


@cache
def phrases() -> dict[str, dict[str, list[str]]]:
    """The listed languages and their phrases."""
    text = (resources.files("mr3.evaluation.traces") / "conclusions.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, list[str]]] = yaml.safe_load(text)
    return found


def _plain(text: str) -> str:
    """The end of a trace: one form per character, ASCII digits, no markup."""
    flat = unicodedata.normalize("NFKC", text)[-_TAIL:]
    return "".join(str(unicodedata.digit(c)) if c.isdecimal() else c for c in flat)


def _slot(label: str, labels: Sequence[str], nouns: Sequence[str]) -> str:
    """A pattern for one label as a trace writes it, bare words and numbers with clear edges ("4", "4/5", not "4.5")."""
    side = _SIDES.get(label)
    if side is None:
        rest = rf"(?:\s?/\s?{labels[-1]})?(?![A-Za-z0-9/]|[.,-]\d)" if label.isdigit() else r"(?![A-Za-z0-9_])"
        # An option is a capital: "the answer is a number" names none.
        word = f"(?-i:{label})" if len(label) == 1 else re.escape(label)
        return rf"(?<![A-Za-z0-9.,/-]){word}{rest}"
    words = "|".join((*_NOUNS, *nouns))
    return rf"(?:{words})\s?(?-i:{side})(?![A-Za-z0-9])"


@dataclass(frozen=True, slots=True)
class _Reader:
    """Compiled patterns of one language and scale."""

    labels: tuple[str, ...]
    mention: tuple[re.Pattern[str], ...]
    claims: tuple[tuple[re.Pattern[str], ...], ...]
    comparisons: tuple[tuple[re.Pattern[str], ...], ...]
    against: re.Pattern[str] | None


def _words(items: Sequence[str]) -> str:
    return "|".join(sorted(map(re.escape, items), key=len, reverse=True))


def _compile(patterns: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(p, re.IGNORECASE) for p in patterns)


@cache
def _reader(labels: tuple[str, ...], language: str) -> _Reader:
    about: Mapping[str, Any] = phrases().get(language, {})
    slots = [_slot(label, labels, about.get("nouns", [])) for label in labels]
    edges = ("", "") if language in _UNSPACED else (r"(?<!\w)", r"(?!\w)")
    claims, comparisons = [], []
    for label, slot in zip(labels, slots, strict=True):
        own = [rf"score\s*[:=]\s*{slot}", rf"\[\[{slot}\]\]", rf"boxed\{{{slot}\}}"]
        if about:
            copula = _words([*about["copula"], *(about.get("of", []) if label.isdigit() else [])])
            joint = rf"\s*[:=：]?\s*(?:(?:{copula})\s*[:：]?\s*)?" if copula else r"\s*[:=：]?\s*"
            own.append(rf"{edges[0]}(?:{_words(about['verdict'])}){joint}{slot}")
        better = about.get("better", []) if label in _SIDES else []
        own += [p.replace("{X}", slot) for p in better]
        claims.append(_compile(own))
        than = _words(about.get("than", []))
        others = "|".join(f"(?:{s})" for s in slots if s != slot)
        link = rf"(?:,?\s*(?:{than})\s*|\s*)" if than else r"\s*"
        over = [p.replace("{X}", slot) + rf"{link}(?:\w+ )?(?:{others})" for p in better]
        comparisons.append(_compile(over if others else []))
    against = about.get("against", [])
    denial = re.compile(f"{edges[0]}(?:{_words(against)}){edges[1]}|\\w+n't", re.IGNORECASE) if against else None
    return _Reader(labels, _compile(slots), tuple(claims), tuple(comparisons), denial)


def _last_line(text: str, labels: Sequence[str]) -> str | None:
    """A label that ends the last line after a colon, an equals sign or an arrow; the letter of a side will do."""
    line = text.rstrip().rsplit("\n", 1)[-1]
    for label in labels:
        names = [re.escape(label), *([_SIDES[label]] if label in ("Assistant A", "Assistant B") else [])]
        if re.search(rf"(?::|=|->|→|⇒)\s*(?:{'|'.join(names)})\.?$", line):
            return label
    return None


def conclusion(trace: str, labels: Sequence[str], language: str) -> str | None:
    """The label that the trace concludes with, in the order that the judge saw; None where that can't be told.

    Args:
        language: of the trace.
    """
    text = _plain(trace)
    at_the_end = _last_line(text, labels)
    if at_the_end is not None:
        return at_the_end
    reader = _reader(tuple(labels), base_code(language))
    sentences = [s for s in _END.split(_MARKUP.sub("", text)) if s and s.strip()]
    for sentence in reversed(sentences[-_SENTENCES:]):
        said = _LONE.sub(lambda m: m.group().translate(_LOOK_ALIKE), sentence)
        claimed = [n for n, patterns in enumerate(reader.claims) if any(p.search(said) for p in patterns)]
        mentions = {n for n, pattern in enumerate(reader.mention) if pattern.search(said)}
        if not claimed:
            continue
        if len(claimed) > 1 or said.rstrip().endswith("?") or (reader.against and reader.against.search(said)):
            return None
        compared = any(p.search(said) for p in reader.comparisons[claimed[0]])
        return reader.labels[claimed[0]] if mentions <= {claimed[0]} or compared else None
    return None
