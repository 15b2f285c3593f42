"""Rows of known sets become labelled tasks: the family by the row, texts and rubric from the template library.

Which of a family's rubrics a row gets, and in which order its keys stand, is drawn by a hash of the row's id, so it
is the same in every run (never by a salted hash).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from mr3.families import FAMILIES, KeyOrder, TextsMissing, family_of_row, task_of_row
from mr3.prompts.texts import Texts as PromptTexts
from mr3.records import stable_hash
from mr3.sources.labelled import Labelled, OwnTexts, SetAside, legal_label
from mr3.sources.registry import KnownSet
from mr3.sources.spec import GoldScale, Texts

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


def _number(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


class _OffScale(ValueError):
    """A gold that is no score; `other` says that it is one on the other scale, so that the scale is misread."""

    def __init__(self, message: str, other: bool = False) -> None:
        super().__init__(message)
        self.other = other


def _score(value: Any, about: KnownSet, scale: GoldScale, labels: Sequence[str]) -> str:
    """The score that a gold stands for.

    Raises:
        _OffScale: for a gold that is none of the scale's.
    """
    plain = plain_gold(value)
    found = legal_label(plain, labels)
    number = _number(plain)
    if not about.golds:
        if found in labels:
            return found
        raise _OffScale(f"gold {value!r} is none of {', '.join(labels)}")
    published = number is not None and number in about.golds
    scored = number is not None and str(number) in labels
    if scale == "set" and published:
        assert number is not None
        return labels[about.golds.index(number)]
    if scale == "verdict" and scored:
        return str(number)
    declared = f"{about.golds[0]} to {about.golds[-1]}" if scale == "set" else f"{labels[0]} to {labels[-1]}"
    other = "verdict" if scale == "set" else "set"
    hint = f": if these are golds of the other scale, say `gold_scale: {other}`" if published or scored else ""
    raise _OffScale(f"gold {value!r} is not on the scale {declared}{hint}", published or scored)


def labelled_row(
    where: str,
    row: Mapping[str, Any],
    about: KnownSet,
    texts: Texts,
    scale: GoldScale = "set",
    own_language: bool = True,
) -> Labelled | SetAside:
    """One row of a known set; what is no row, or has no text in the families or templates, is set aside by name.

    Args:
        own_language: the row's own language needs texts too; only prompts of eng-eng do without.
    """
    known = {"id": str(row["id"]), "language": str(row["language"]), "gold": plain_gold(row["actual_score"])}
    try:
        return _labelled(row, about, texts, scale, own_language)
    except _OffScale as error:
        return SetAside(where, str(error), "other_scale" if error.other else "off_scale", **known)
    except TextsMissing as error:
        return SetAside(where, str(error), "no_texts", **known)
    except ValueError as error:
        return SetAside(where, str(error), "invalid", **known)


def _labelled(row: Mapping[str, Any], about: KnownSet, texts: Texts, scale: GoldScale, own_language: bool) -> Labelled:
    library = library_of(texts)
    draw = int(stable_hash("rubric", texts.seed, about.name, str(row["id"]))[:8], 16)
    index, order = draw & 0xFFFF, ORDERS[draw >> 16 & 1]
    family = family_of_row(about.family_name, row)
    labels = FAMILIES[family].labels
    assert labels is not None, "published families have scores of their own"
    gold = _score(row["actual_score"], about, scale, labels)
    task = task_of_row(row, family, library, "en", index, order)
    own = None
    if own_language and row["language"] != "en":
        shown = task_of_row(row, family, library, row["language"], index, order)
        own = OwnTexts(rubric=shown.rubric, instruction=shown.instruction)
    return Labelled(source=about.name, gold=gold, task=task, own=own)
