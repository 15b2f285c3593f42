"""Rows of known sets become labelled tasks: the family by the row, texts and rubric from the template library.

Which of a family's rubrics a row gets, and in which order its keys stand, is drawn by a hash of the row's id, so it
is the same in every run (never by a salted hash).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mr3.records import stable_hash
from mr3.sources.labelled import Labelled, OwnTexts, SetAside
from mr3.sources.registry import KnownSet
from mr3.sources.spec import Texts

_PARAPHRASES = 3
_RUBRIC_NAME = "published"


@lru_cache(maxsize=4)
def _templates(folder: str) -> Any:
    from mr3.families import Templates

    return Templates.load(folder)


def templates_of(texts: Texts, set_name: str) -> Any:
    """The template library.

    Raises:
        ValueError: when no folder is named.
    """
    if texts.templates_dir is None:
        raise ValueError(
            f"the set {set_name} needs the published templates: get the folder data/mr3_rubrics of rubricreward/mr3, "
            "and set texts.templates_dir to it"
        )
    return _templates(str(texts.templates_dir))


def plain_gold(value: Any) -> str:
    """A label as the judges write it: numbers and booleans as strings."""
    if isinstance(value, bool) or (isinstance(value, str) and value in ("True", "False")):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def labelled_row(where: str, row: Mapping[str, Any], about: KnownSet, texts: Texts) -> Labelled | SetAside:
    """One row of a known set; what the families or templates have no text for is set aside by name."""
    from mr3.families import family_of_row, task_of_row

    library = templates_of(texts, about.name)
    draw = int(stable_hash("rubric", texts.seed, about.name, str(row["id"]))[:8], 16)
    choice = {"rubric_index": draw % _PARAPHRASES, "key_order": "reversed" if draw >> 16 & 1 else "file"}
    try:
        family = family_of_row(about.family_name, row)
        task = task_of_row(row, family, library, "en", **choice)
        own = None
        if row["language"] != "en":
            told = task_of_row(row, family, library, row["language"], **choice)
            own = OwnTexts(rubric=told.rubric, instruction=told.instruction)
        return Labelled(source=about.name, gold=plain_gold(row["actual_score"]), task=task, own=own)
    except ValueError as error:
        return SetAside(where, str(error), "no_texts")
