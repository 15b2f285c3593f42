"""The project's own texts as a library: the language files for the general modes, English ones for other families."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

import yaml

from mr3.families.errors import TextsMissing
from mr3.families.table import FAMILIES, Family
from mr3.languages import Language, instructions_for
from mr3.languages import language as language_of
from mr3.prompts.texts import FamilyTexts
from mr3.records import Task

_LOG = logging.getLogger(__name__)
_GENERAL = ("pointwise", "pairwise", "binary")
_DEFAULTS = {"choice": "mcq"}


@cache
def _english() -> dict[str, Any]:
    source = resources.files("mr3.prompts") / "own.yaml"
    texts: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return texts


def _criteria(family: Family) -> tuple[tuple[str, str], ...]:
    """The ranked criteria of a strict pair's domain; IndoPref has two for all of its own."""
    if family.section is None or family.own != "pairwise":
        return ()
    texts = _english()
    names = texts["indopref"] if family.file == "indopref" else texts["ranked"][family.section]
    return tuple((name, texts["criteria"][name]) for name in names)


@cache
def _notice(kind: str, code: str) -> None:
    _LOG.warning("the own texts of %s exist in English only: tasks in %s are instructed in English", kind, code)


class OwnTexts:
    """The texts of `mr3.languages`.

    Instructions in a language whose texts no machine has verified come in English, with a notice in the log, unless
    `unverified` asks for them. Identity line and forcing sentence always are in the thinking language: they say which
    language that is.

    Args:
        unverified: take texts that were not verified.
        instructions: language of the instructions by code, and whether it must be verified.
        language: language by code.
    """

    name = "own"

    def __init__(
        self,
        unverified: bool = False,
        instructions: Callable[[str, bool], Language] = instructions_for,
        language: Callable[[str], Language] = language_of,
    ) -> None:
        self._unverified = unverified
        self._instructions = instructions
        self._language = language
        self._families: dict[tuple[str, str], FamilyTexts] = {}

    def _known(self, find: Callable[[], Language], family: str, code: str) -> Language:
        try:
            return find()
        except ValueError as error:
            raise TextsMissing(f"family {family}: {error}", family, code) from error

    def family(self, family: Family, language: str) -> FamilyTexts:
        """As the protocol says."""
        key = (family.name, language)
        if key not in self._families:
            self._families[key] = self._read(family, language)
        return self._families[key]

    def _read(self, family: Family, code: str) -> FamilyTexts:
        general = family.own in _GENERAL
        found = self._known(lambda: self._instructions(code, not self._unverified), family.name, code)
        if not general and found.code != "en":
            _notice(family.name, code)
            found = self._known(lambda: self._language("en"), family.name, "en")
        texts: dict[str, Any] = _english().get(family.own, {})
        levels = dict(texts.get("levels", {}))
        instruction = texts.get("instruction", "")
        if general:
            template = getattr(found.templates, family.own)
            instruction, levels = template.instruction, dict(template.levels)
        if family.labels is not None and family.mode != "choice":
            levels = {label: levels[label] for label in family.labels}
        titles = found.titles
        return FamilyTexts(
            language=found.code,
            instruction_title=titles.instruction,
            instruction=instruction,
            rubric_title=titles.rubric,
            format_title=titles.format,
            response_title=titles.response,
            input_title=getattr(titles, family.input) if family.input else "",
            conversation_title=titles.conversation,
            part_title=getattr(titles, family.parts, ""),
            reference_title=titles.reference,
            rubrics=(levels,) if levels else (),
            explanation=found.schema_texts.explanation,
            score=texts.get("score", found.schema_texts.score),
            generic=general,
            criteria=_criteria(family),
        )

    def default(self, task: Task) -> Family:
        """The project's own family of the task's mode."""
        return FAMILIES[_DEFAULTS.get(task.mode, task.mode)]

    def identity(self, language: str) -> str:
        """As the protocol says."""
        return self._known(lambda: self._language(language), "any", language).identity

    def forcing(self, language: str) -> str:
        """As the protocol says."""
        return self._known(lambda: self._language(language), "any", language).forcing

    def teacher_system(self, language: str) -> str:
        """As the protocol says: there is none, so a teacher keeps its own in English."""
        return ""
