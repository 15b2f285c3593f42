"""Rows of known sets become labelled tasks: the family by the row, texts and rubric from the template library.

Which of a family's rubrics a row gets, and in which order its keys stand, is drawn by a hash of the row's id, so it
is the same in every run (never by a salted hash).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mr3.families import KeyOrder, family_of_row, task_of_row
from mr3.prompts.texts import Texts as PromptTexts
from mr3.records import stable_hash
from mr3.sources.labelled import Labelled, OwnTexts, SetAside
from mr3.sources.registry import KnownSet
from mr3.sources.spec import Texts

ORDERS: tuple[KeyOrder, KeyOrder] = ("file", "reversed")


@lru_cache(maxsize=4)
def library_of(texts: Texts) -> PromptTexts:
    """The library of prompt texts that a config names.

    Raises:
        ValueError: when the published templates are asked for and not there.
    """
    from mr3.prompts import open_texts

    return open_texts(texts.name, texts.templates_dir, texts.unverified)


def plain_gold(value: Any) -> str:
    """A label as the judges write it: numbers and booleans as strings."""
    if isinstance(value, bool) or (isinstance(value, str) and value in ("True", "False")):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def labelled_row(where: str, row: Mapping[str, Any], about: KnownSet, texts: Texts) -> Labelled | SetAside:
    """One row of a known set; what the families or templates have no text for is set aside by name."""
    library = library_of(texts)
    draw = int(stable_hash("rubric", texts.seed, about.name, str(row["id"]))[:8], 16)
    index, order = draw & 0xFFFF, ORDERS[draw >> 16 & 1]
    try:
        family = family_of_row(about.family_name, row)
        task = task_of_row(row, family, library, "en", index, order)
        own = None
        if row["language"] != "en":
            told = task_of_row(row, family, library, row["language"], index, order)
            own = OwnTexts(rubric=told.rubric, instruction=told.instruction)
        return Labelled(source=about.name, gold=plain_gold(row["actual_score"]), task=task, own=own)
    except ValueError as error:
        return SetAside(where, str(error), "no_texts")
