"""What a language file holds: names, script, and every text of a prompt, validated when it is read.

Texts are brought to Unicode's composed form (NFC). Errors name the file and the key.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

KEPT_WORDS = ("Assistant A", "Assistant B", "Tie", "true", "false")
"""Labels that no language translates, because they are the scores."""


def _one_line(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    if not text or text != text.strip():
        raise ValueError("must not be empty, nor begin or end with a blank")
    if any(unicodedata.category(c) in ("Cc", "Co", "Cn", "Cs") or c in "\ufeff\ufffd\u2028\u2029" for c in text):
        raise ValueError("must be one line without control, private or unassigned characters")
    if "  " in text:
        raise ValueError("has two blanks in a row")
    for mark in ("<|", "{", "}", "<think>", "</think>"):
        if mark in text:
            raise ValueError(f"holds {mark!r}, which means something to chat templates or to filling in")
    return text


Text = Annotated[str, AfterValidator(_one_line)]


class Part(BaseModel):
    """Strict and immutable, as every part of a language."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Titles(Part):
    """Headings of the sections of a prompt; `response` heads the judge's own answer."""

    instruction: Text
    rubric: Text
    format: Text
    response: Text
    input: Text
    conversation: Text
    math_problem: Text
    math_solution: Text
    code_problem: Text
    code_solution: Text
    question: Text
    options: Text
    reference: Text

    @model_validator(mode="after")
    def _told_apart(self) -> Titles:
        by_text: dict[str, list[str]] = {}
        for name in type(self).model_fields:
            text: str = getattr(self, name)
            if text.startswith("#"):
                raise ValueError(f"{name}: the heading mark is added by the profile, leave the # out")
            by_text.setdefault(text.casefold(), []).append(name)
        for names in by_text.values():
            if len(names) > 1:
                raise ValueError(f"{' and '.join(names)} have the same title: a judge could not tell them apart")
        return self


class ModeTexts(Part):
    """The instruction of one mode, and what each score means."""

    instruction: Text
    levels: dict[str, Text]

    @field_validator("levels", mode="before")
    @classmethod
    def _quoted(cls, levels: Any) -> Any:
        if isinstance(levels, dict):
            bare = [key for key in levels if not isinstance(key, str)]
            if bare:
                raise ValueError(f"write the key {bare[0]!r} in quotes: YAML reads it as {type(bare[0]).__name__}")
        return levels

    @field_validator("levels")
    @classmethod
    def _different(cls, levels: dict[str, str]) -> dict[str, str]:
        if len({text.casefold() for text in levels.values()}) < len(levels):
            raise ValueError("two levels have the same description")
        return levels


class Templates(Part):
    """Texts of the three modes that have texts of their own."""

    pointwise: ModeTexts
    pairwise: ModeTexts
    binary: ModeTexts

    @model_validator(mode="after")
    def _labels(self) -> Templates:
        wanted = {
            "pointwise": list("12345"),
            "pairwise": ["Assistant A", "Assistant B", "Tie"],
            "binary": ["true", "false"],
        }
        for mode, labels in wanted.items():
            found = list(getattr(self, mode).levels)
            if found != labels:
                raise ValueError(f"{mode}.levels must be {', '.join(labels)} in this order, not {', '.join(found)}")
        return self


class SchemaTexts(Part):
    """Descriptions of the two fields of the answer's JSON schema."""

    explanation: Text
    score: Text


class Language(Part):
    """One language: its names, how it is written, and its texts."""

    code: str
    name: Text = Field(description="in English")
    endonym: Text = Field(description="in the language itself")
    script: str = Field(pattern="^[A-Z][a-z]{3}$", description="ISO 15924")
    direction: Literal["ltr", "rtl"]
    notes: str = Field("", description="in English: what is unusual about the code, the script or the texts")
    identity: Text = Field(description="first line of the system message where the judge thinks in this language")
    forcing: Text = Field(description="first sentence of a forced trace, put into the prompt")
    titles: Titles
    templates: Templates
    schema_texts: SchemaTexts = Field(alias="schema")

    @field_validator("code", mode="before")
    @classmethod
    def _code_in_quotes(cls, code: Any) -> Any:
        if code is False:
            raise ValueError("write the code no in quotes: YAML reads it as false")
        return code

    @model_validator(mode="after")
    def _says_who_it_is(self) -> Language:
        if "mR3" not in self.identity:
            raise ValueError("identity must name the judge: mR3")
        return self

    def long_texts(self) -> dict[str, str]:
        """Texts long enough to tell a language by: the opening, and each mode's instruction with its levels."""
        texts = {"opening": f"{self.identity} {self.forcing}"}
        for mode in Templates.model_fields:
            part: ModeTexts = getattr(self.templates, mode)
            texts[mode] = " ".join([part.instruction, *part.levels.values()])
        return texts

    def texts(self) -> dict[str, str]:
        """Every text of the language by its dotted key (`titles.rubric`, `templates.binary.levels.true`)."""
        found: dict[str, str] = {}

        def walk(node: Any, path: str) -> None:
            if isinstance(node, dict):
                for key, value in node.items():
                    walk(value, f"{path}.{key}" if path else key)
            else:
                found[path] = node

        walk(self.model_dump(by_alias=True, include=_WITH_TEXTS), "")
        return found

    @cached_property
    def content_hash(self) -> str:
        """Of all texts, script and direction; the notes don't count."""
        blob = json.dumps([self.texts(), self.script, self.direction], ensure_ascii=False, sort_keys=True)
        return hashlib.blake2b(blob.encode(), digest_size=8).hexdigest()


_WITH_TEXTS = {"endonym", "identity", "forcing", "titles", "templates", "schema_texts"}


def read_language(path: Path) -> Language:
    """Read and validate one file.

    Raises:
        ValueError: naming the file and every key that is wrong.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable as UTF-8 YAML: {error}") from error
    try:
        language = Language.model_validate(data)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'language'}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"{path} is not a valid language:\n" + "\n".join(lines)) from error
    if language.code != path.stem:
        raise ValueError(
            f"{path} is not a valid language:\n  code: is {language.code!r}, the file's name says {path.stem!r}"
        )
    return language
