"""The task families as records, read from families.yaml: mode, scores, headings, and where the published texts are."""

from __future__ import annotations

import difflib
import re
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from mr3.families.errors import FamilyError
from mr3.records import Mode

Title = Literal["input", "conversation", "math_problem", "code_problem", "question"]
Parts = Literal["assistants", "responses", "response", "math_solution", "code_solution", "options", "none"]


class Layout(BaseModel):
    """The blanks of the published prompts: they come from an indented f-string, so they are facts, not a style."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    indent: int = Field(description="blanks before headings and bodies of the user message, but for the first heading")
    tail: int = Field(description="blanks that end the user message")
    gap: tuple[str, str] = Field(description="text between instruction and rubric, and between rubric and format")


class Family(BaseModel):
    """One kind of judgement; families.yaml says what the fields mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    mode: Mode
    labels: tuple[str, ...] | None = None
    file: str | None = Field(None, description="published template file; None: no published texts")
    section: str | None = None
    input: Title | None
    parts: Parts
    own: str
    layout: Layout
    shuffled: bool = True
    english: bool = False

    @property
    def published_file(self) -> str:
        """The file name of the published templates.

        Raises:
            FamilyError: when the family is the project's own.
        """
        if self.file is None:
            raise FamilyError(f"there are no published texts for family {self.name}: use `texts: own`", self.name)
        return f"{self.file}_translated_templates.json"


def family_name(text: str) -> str:
    """A family's or data set's name in one spelling: lower case, words joined by dashes."""
    return re.sub(r"[\s_]+", "-", text.strip().lower())


@cache
def _data() -> dict[str, Any]:
    source = resources.files("mr3.families") / "families.yaml"
    data: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return data


def _make(name: str, kind: dict[str, Any], **more: Any) -> Family:
    return Family.model_validate({**kind, **more, "name": name, "layout": _data()["layouts"][kind["layout"]]})


def _all() -> dict[str, Family]:
    found = {name: _make(name, kind) for name, kind in _data()["kinds"].items()}
    for group, about in _data()["groups"].items():
        sections = {section: section for section in about["sections"]} | about.get("renamed", {})
        for said, section in sections.items():
            name = f"{group}-{family_name(said)}"
            found[name] = _make(name, about["kind"], section=section, english=said in about.get("english", []))
    return found


FAMILIES: dict[str, Family] = _all()


def find_family(name: str) -> Family:
    """The family of that name.

    Raises:
        FamilyError: for an unknown name, with the nearest one.
    """
    key = family_name(name)
    if key in FAMILIES:
        return FAMILIES[key]
    near = difflib.get_close_matches(key, FAMILIES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise FamilyError(f"unknown task family {name!r}: {hint}Families: {', '.join(FAMILIES)}", name)
