"""Which of a rubric's criteria a trace names.

Conservative on the side of the judge: a criterion counts as not mentioned only if no word of its name occurs, inflected
or not. Only rubrics with named criteria, in the language of the trace, are looked at.
"""

from __future__ import annotations

import re
import unicodedata

from mr3.rubrics import Rubric

_WORD = re.compile(r"[^\W_]+")
_STEM = 5


def _flat(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _found(word: str, text: str) -> bool:
    """A word or its beginning: endings differ ("polite", "politeness"), and not every script marks where words end."""
    return word[:_STEM] in text


def mentioned(rubric: Rubric, trace: str) -> tuple[int, int]:
    """How many of the rubric's criteria the trace names, and how many there are."""
    text = _flat(trace)
    named = 0
    for criterion in rubric.criteria:
        words = _WORD.findall(_flat(criterion.name))
        long = [w for w in words if len(w) > 3] or words
        named += any(_found(word, text) for word in long)
    return named, len(rubric.criteria)
