"""The published template folder as a library of texts: one JSON file per family, language by language.

The folder is the user's own copy of `data/mr3_rubrics` of the public repository; files may be `.json` or `.json.gz`.
Nothing of it is part of this project, and nothing stands in for it. Rubrics that the public set has no family for
(ranked criteria, pointwise levels, lists) have the general layout: the published headings, identity and first sentences
around the rubric's own text and the project's own instruction for the mode, which names no criteria.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from mr3.families.errors import FamilyError, TextsMissing
from mr3.families.table import FAMILIES, Family
from mr3.prompts.own import OwnTexts
from mr3.prompts.texts import FamilyTexts
from mr3.records import Task

_LOG = logging.getLogger(__name__)
_HEADINGS = "arena-single"
"""The published family whose headings the general layout has: it exists in the most languages."""
REPOSITORY = "https://github.com/rubricreward/mr3"
INSTRUCTIONS = "instruction_msg_translated.json"
IDENTITIES = "system_msg_translated_qwen3.json"
TEACHERS = "system_msg_translated.json"
FORCINGS = "thinking_msg_translated.json"
_TITLES = {
    "input": "input_tag",
    "conversation": "input_tag",
    "math_problem": "input_tag",
    "code_problem": "input_tag",
    "question": "input_tag",
    "math_solution": "math_solution",
    "code_solution": "code_solution",
    "options": "options_tag",
}
# Codes of one language that stand in different files: `he` and `iw`, and five with a three-letter code in one of them.
_TWINS = (("he", "iw"), ("rw", "kin"), ("sn", "sna"), ("st", "sot"), ("om", "orm"), ("lg", "lug"))
_TWIN = {**dict(_TWINS), **{b: a for a, b in _TWINS}}


def how_to_get(folder: Path | None) -> str:
    """The sentence for a user whose copy is missing."""
    where = f"there are no published templates at {folder}" if folder else "no folder of published templates is given"
    return (
        f"{where}: the published judges need them. Get them with `git clone {REPOSITORY}` and point templates_dir "
        "(`mr3 render --templates`) to its data/mr3_rubrics"
    )


@cache
def _notice(family: str) -> None:
    _LOG.warning(
        "the public set has no texts for mode %s with such a rubric: the general layout, with the project's own "
        "instruction under the published headings",
        family,
    )


class Templates:
    """A published template folder; files are read when they are first needed.

    Args:
        own: instructions of the general layout.
    """

    name = "published"

    def __init__(self, folder: Path, own: OwnTexts | None = None) -> None:
        self.folder = folder
        self._own = own or OwnTexts()
        self._files: dict[str, Mapping[str, Any]] = {}
        self._families: dict[tuple[str, str], FamilyTexts] = {}

    @classmethod
    def load(cls, path: str | Path) -> Templates:
        """The folder at `path`.

        Raises:
            ValueError: when it is not there or not such a folder, with the way to get it.
        """
        found = cls(Path(path))
        missing = [name for name in (INSTRUCTIONS, IDENTITIES, FORCINGS) if found._path(name) is None]
        if missing:
            raise ValueError(f"{how_to_get(found.folder)} (it lacks {', '.join(missing)})")
        return found

    def _path(self, name: str) -> Path | None:
        for file in (self.folder / name, self.folder / f"{name}.gz"):
            if file.is_file():
                return file
        return None

    def _file(self, name: str) -> Mapping[str, Any]:
        if name not in self._files:
            path = self._path(name)
            if path is None:
                raise ValueError(f"{how_to_get(self.folder)} (it lacks {name})")
            raw = path.read_bytes()
            try:
                data = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
            except (gzip.BadGzipFile, EOFError, ValueError) as error:
                raise ValueError(f"{path} is not readable as JSON ({error}): get the file again") from error
            if not isinstance(data, dict):
                raise ValueError(f"{path} must hold one object by language code: get the file again")
            self._files[name] = data
        return self._files[name]

    def _of_language(self, name: str, language: str, family: str) -> Any:
        """An entry by code, or by the other code of the same language."""
        entries = self._file(name)
        for code in (language, _TWIN.get(language)):
            if code is not None and code in entries:
                return entries[code]
        raise TextsMissing(
            f"the published {name} has no texts in language {language!r} (family {family}); it has "
            f"{', '.join(sorted(entries))}. Use eng-eng for this language, or `texts: own`",
            family,
            language,
        )

    def languages(self, family: Family) -> tuple[str, ...]:
        """The codes that a family's file holds with the family's section, sorted."""
        entries = self._file(family.published_file)
        return tuple(sorted(code for code, e in entries.items() if family.section is None or family.section in e))

    def all_languages(self) -> tuple[str, ...]:
        """The codes that have an instruction title, sorted: a prompt can be in no other language."""
        return tuple(sorted(self._file(INSTRUCTIONS)))

    def family(self, family: Family, language: str) -> FamilyTexts:
        """As the protocol says; never another language than the one asked for."""
        key = (family.name, language)
        if key not in self._families:
            self._families[key] = (
                self._general(family, language) if family.file is None else self._read(family, language)
            )
        return self._families[key]

    def _general(self, family: Family, language: str) -> FamilyTexts:
        """Published headings around the project's own instruction, both in the instruction's language."""
        _notice(family.name)
        own = self._own.family(family, language)
        headings = self.family(FAMILIES[_HEADINGS], own.language)
        names = ("instruction_title", "rubric_title", "format_title", "response_title")
        titles = {name: getattr(headings, name) for name in (*names, "input_title", "conversation_title")}
        return replace(own, **titles)

    def _read(self, family: Family, language: str) -> FamilyTexts:
        name = family.published_file
        entry = self._of_language(name, language, family.name)
        section = entry
        if family.section is not None:
            if family.section not in entry:
                known = ", ".join(self.languages(family)) or "none"
                raise TextsMissing(
                    f"the published {name} has no {family.section!r} in language {language!r} (family {family.name}); "
                    f"languages that have it: {known}. Use eng-eng for this language, or `texts: own`",
                    family.name,
                    language,
                )
            section = entry[family.section]
        try:
            return self._texts(family, language, entry, section)
        except (KeyError, TypeError, IndexError) as error:
            raise TextsMissing(
                f"the published {name} is not whole for language {language!r} (family {family.name}): {error} is "
                "missing or of another kind; get the file again",
                family.name,
                language,
            ) from error

    def _texts(self, family: Family, language: str, entry: Any, section: Any) -> FamilyTexts:
        tags = entry["tags"]
        schema = section["schema"] if "schema" in section else entry["schema"]
        properties = schema["properties"]
        if set(properties["score"]["enum"]) != set(family.labels or ()):
            raise KeyError("schema.properties.score.enum")
        input_title = tags[_TITLES[family.input]] if family.input else ""
        return FamilyTexts(
            language=language,
            instruction_title=self._of_language(INSTRUCTIONS, language, family.name),
            instruction=section["task_description"],
            rubric_title=tags["evaluation_rubric_tag"] if family.mode != "choice" else "",
            format_title=tags["response_format_tag"],
            response_title=tags["your_response_tag"],
            input_title=input_title,
            conversation_title=input_title,
            part_title=tags[_TITLES[family.parts]] if family.parts in _TITLES else "",
            reference_title=None,
            rubrics=tuple(section["rubric_list"]) if family.mode != "choice" else (),
            explanation=properties["explanation"]["description"],
            score=properties["score"]["description"],
            fixed_schema=schema,
        )

    def default(self, task: Task) -> Family:
        """The published family of a task with its scores, else the general layout of its mode; a choice has none.

        Pairs with the scores of strict pairs, of the arena or of HelpSteer3, and choices, are published.
        """
        for name in ("strict-pair-general", "arena-single", "helpsteer3", "mcq"):
            family = FAMILIES[name]
            if family.mode == task.mode and set(task.labels) == set(family.labels or ()):
                return family
        if task.mode in FAMILIES:
            return FAMILIES[task.mode]
        raise TextsMissing(
            f"task {task.id!r}: there are no published texts for mode {task.mode} with the scores "
            f"{', '.join(task.labels[:8])}, only with {', '.join(FAMILIES['mcq'].labels or ())} and no rubric: write "
            "the options so, or use `texts: own`",
            task.mode,
            task.language,
        )

    def _message(self, name: str, language: str) -> str:
        try:
            found = self._of_language(name, language, "any")
        except TextsMissing as error:
            raise TextsMissing(str(error).replace(" (family any)", ""), "any", language) from error
        if not isinstance(found, str):
            raise FamilyError(f"the published {name} must hold a text for {language!r}: get it again", "any", language)
        return found

    def identity(self, language: str) -> str:
        """As the protocol says."""
        return self._message(IDENTITIES, language)

    def forcing(self, language: str) -> str:
        """As the protocol says."""
        return self._message(FORCINGS, language)

    def teacher_system(self, language: str) -> str:
        """As the protocol says."""
        return self._message(TEACHERS, language)
