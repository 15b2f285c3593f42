"""Whether texts are written in the script that their language names, by Unicode's script property (fontTools).

Simplified and traditional Chinese share one Unicode script; they are told apart by the character sets of their
countries: GB 2312 holds the simplified forms, Big5 the traditional ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

from mr3.languages.model import KEPT_WORDS, Language

_PARTS = {"Jpan": {"Hani", "Hira", "Kana"}, "Kore": {"Hang"}, "Hans": {"Hani"}, "Hant": {"Hani"}}
_CHARACTER_SETS = {"Hans": "gb2312", "Hant": "big5"}
_OTHER = {"Hans": "big5", "Hant": "gb2312"}
_FOREIGN = re.compile(rf"\b(?:{'|'.join(KEPT_WORDS)}|mR3|JSON|A|B)\b", re.ASCII)


def without_kept_words(text: str) -> str:
    """The text without what stays in Latin letters everywhere: the labels, mR3, JSON."""
    return re.sub(" +", " ", _FOREIGN.sub("", text)).strip()


def _letters(text: str) -> Iterable[str]:
    return (c for c in text if c.isalpha())


def foreign_letters(text: str, script: str) -> str:
    """The letters of a text that are not of a script (ISO 15924), each once, in order.

    Raises:
        ValueError: for a script that Unicode does not know.
    """
    from fontTools import unicodedata

    parts = _PARTS.get(script, {script})
    if not all(part in unicodedata.Scripts.NAMES for part in parts):
        raise ValueError(f"unknown script {script!r}: give an ISO 15924 code such as Latn, Cyrl, Arab, Jpan or Hant")
    letters = _letters(without_kept_words(text))
    return "".join(dict.fromkeys(c for c in letters if unicodedata.script(c) not in parts | {"Zyyy", "Zinh"}))


def _outside(text: str, charset: str) -> str:
    """The Chinese characters of a text that a character set does not hold."""
    from fontTools import unicodedata

    return "".join(
        dict.fromkeys(c for c in text if unicodedata.script(c) == "Hani" and not c.encode(charset, errors="ignore"))
    )


def script_problems(language: Language) -> list[str]:
    """What is wrong with the script or the direction of a language, one line per text."""
    from fontTools import unicodedata

    script, found = language.script, []
    part = next(iter(_PARTS.get(script, {script})))
    says = cast("str", unicodedata.script_horizontal_direction(part, "?")).lower()
    if says != language.direction:
        found.append(f"direction: the file says {language.direction}, but {script} is written {says}")
    for key, text in language.texts().items():
        wrong = foreign_letters(text, script)
        if wrong:
            found.append(f"{key}: not {script}: {wrong}")
        if script in _CHARACTER_SETS and (wrong := _outside(text, _CHARACTER_SETS[script])):
            found.append(f"{key}: not {script}: {wrong}")
    if script in _OTHER and not _outside(" ".join(language.long_texts().values()), _OTHER[script]):
        found.append(f"no character of the texts is {script} only")
    return found
