"""Which language a text is in, by py3langid (its model ships in the wheel: nothing is downloaded).

Short texts and languages that the model does not know have no answer: `None`, never a guess that looks like one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from mr3.languages.codes import base_code

MIN_LETTERS = 12
"""Fewer letters than this decide nothing; letters of scripts without blanks between words count thrice."""
_DENSE = (("\u3040", "\u30ff"), ("\u3400", "\u9fff"), ("\uac00", "\ud7af"))


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
    letters = [c for c in text if c.isalpha()]
    dense = sum(any(low <= c <= high for low, high in _DENSE) for c in letters)
    return len(letters) + 2 * dense


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
