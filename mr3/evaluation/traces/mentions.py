"""Which of a rubric's criteria a trace names.

Conservative on the side of the judge: a criterion counts as not mentioned only if no word of its name occurs, inflected
or not. Only rubrics with named criteria, in the language of the trace, are looked at.
"""

from __future__ import annotations

import unicodedata

import regex

from mr3.rubrics import Rubric

# Vowel signs and joiners are part of a word: without them `शुद्धता` would be four words of a letter or two.
_WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{M}\p{N}\u200c\u200d]*")
_CHARACTER = regex.compile(r"\X")
_STEM, _LONG = 5, 4


def flat(text: str) -> str:
    """The text as names are looked for in it: one spelling of equal characters, in small letters."""
    return unicodedata.normalize("NFKC", text).casefold()


def name_stems(name: str) -> list[str]:
    """The beginnings by which a criterion's name is found in a flat text, of its longer words where it has some.

    Endings differ ("polite", "politeness"). A stem counts characters as a reader does: a letter with its signs is one.
    """
    words = [_CHARACTER.findall(word) for word in _WORD.findall(flat(name))]
    long = [word for word in words if len(word) >= _LONG] or words
    return ["".join(word[:_STEM]) for word in long]


def mentioned(rubric: Rubric, trace: str) -> tuple[int, int]:
    """How many of the rubric's criteria the trace names, and how many there are."""
    text = flat(trace)
    named = sum(any(stem in text for stem in name_stems(criterion.name)) for criterion in rubric.criteria)
    return named, len(rubric.criteria)
