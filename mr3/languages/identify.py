"""Which language a text is in, by py3langid (its model ships in the wheel: nothing is downloaded).

Short texts and languages that the model does not know have no answer: `None`, never a guess that looks like one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from mr3.languages.codes import base_code, twins_of
from mr3.languages.registry import is_verified, verified
from mr3.languages.scripts import without_kept_words

MIN_LETTERS = 12
"""Fewer letters than this decide nothing; letters of scripts without blanks between words count thrice."""
ENOUGH_LETTERS = 200
"""Fewer letters than this, counted alike, don't tell in which language a whole trace is."""
_PIECE = 250
_PIECES = 6
_SURE = 0.8
_VARIETIES = {"ary": "ar", "arz": "ar", "pcm": "en", "sdh": "ku", "uzs": "uz", "wuu": "zh", "yue": "zh"}
"""Answers of the identifier that are no language of a prompt, and the language whose writing they share."""
_DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class Identified:
    """A language code and how sure the identifier is of it, from 0 to 1, among the languages that were asked for."""

    language: str
    confidence: float


@cache
def _identifier(among: tuple[str, ...] | None) -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    found = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if among is not None:
        found.set_languages(among)
    return found


@cache
def known_languages() -> frozenset[str]:
    """The codes that the identifier can tell apart."""
    return frozenset(base_code(code) for code in _identifier(None).labels if code != "zxx")


def _weight(text: str) -> int:
    letters = "".join(filter(str.isalpha, text))
    return len(letters) + 2 * len(_DENSE.findall(letters))


def identify(text: str, among: Sequence[str] | None = None) -> Identified | None:
    """The likeliest language of a text; None where the text is too short to tell (see MIN_LETTERS).

    Args:
        among: only these are possible; those that the identifier does not know are left out of the choice.

    Raises:
        ValueError: when the identifier knows none of `among`.
    """
    choice: tuple[str, ...] | None = None
    if among is not None:
        choice = tuple(sorted({base_code(code) for code in among} & known_languages()))
        if not choice:
            raise ValueError(f"the language identifier knows none of {', '.join(among)}: leave the language check out")
    if _weight(text) < MIN_LETTERS:
        return None
    language, confidence = _identifier(choice).classify(text)
    return Identified(base_code(language), float(confidence))


def is_in(text: str, language: str, among: Sequence[str] | None = None) -> bool | None:
    """Whether a text is in a language; None where that can't be told (a short text, an unknown language)."""
    code = base_code(language)
    if code not in known_languages():
        return None
    found = identify(text, None if among is None else [*among, code])
    return None if found is None else found.language == code


Unknown = Literal["unknown_language", "too_short", "unsure"]


@dataclass(frozen=True)
class LanguageShare:
    """How much of a text is in a language, from 0 to 1; None where that can't be told, with the reason."""

    share: float | None
    reason: Unknown | None = None


@cache
def recognised(language: str) -> bool:
    """Whether the identifier is to be believed about a language.

    Of those with texts here it recognises those whose texts were verified; Bosnian, for one, it takes for its twins.
    """
    code = base_code(language)
    if code in verified().languages:
        return is_verified(code) and code in known_languages()
    return code in known_languages()


def _pieces(text: str) -> list[str]:
    """A few stretches, spread evenly: a trace that drifts away shows wherever it does, and a long one costs no more."""
    count = min(_PIECES, max(1, round(len(text) / _PIECE)))
    step = len(text) / count
    return [
        text[int(k * step) : int(k * step) + max(_PIECE, int(step) if count < _PIECES else 0)] for k in range(count)
    ]


def _other(ranked: Sequence[tuple[str, float]], wanted: set[str]) -> float:
    """How sure it is of the likeliest language that is not wanted, its near twins with it."""
    of: dict[str, float] = {}
    for label, p in ranked:
        code = _VARIETIES.get(label, base_code(label))
        if code not in wanted:
            group = min({code, *twins_of(code)})
            of[group] = of.get(group, 0.0) + float(p)
    return max(of.values(), default=0.0)


def share_in(text: str, language: str, enough: int = ENOUGH_LETTERS) -> LanguageShare:
    """The share of a long text that is in a language or a near twin of it, by the letters of its pieces.

    Labels, which no language translates, are left out. Pieces of which the identifier is not sure (formulas, names,
    code) don't count; where they are the larger part, nothing is said.

    Args:
        enough: letters below which nothing is said (see ENOUGH_LETTERS).
    """
    if not recognised(language):
        return LanguageShare(None, "unknown_language")
    if text.isascii() and len(text) < enough:
        return LanguageShare(None, "too_short")
    pieces = [without_kept_words(piece) for piece in _pieces(text)]
    weights = [_weight(piece) for piece in pieces]
    total = sum(weights)
    if total < enough:
        return LanguageShare(None, "too_short")
    code = base_code(language)
    wanted = {code, *twins_of(code)}
    inside = sure = 0
    for piece, letters in zip(pieces, weights, strict=True):
        ranked = _identifier(None).rank(piece)
        # Of all that share the writing together: between twins alone the identifier is never sure.
        is_it = sum(p for label, p in ranked if _VARIETIES.get(label, base_code(label)) in wanted)
        if is_it >= _SURE or _other(ranked, wanted) >= _SURE:
            sure += letters
            inside += letters * (is_it >= _SURE)
    return LanguageShare(inside / sure) if 2 * sure >= total else LanguageShare(None, "unsure")
