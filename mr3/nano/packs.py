"""The nano world's languages: one YAML pack each, and which of them no judge is trained on."""

from __future__ import annotations

from functools import cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict, Field

TRAIN_LANGUAGES = ("en", "es", "fr", "de", "tr", "id", "ru", "el", "ar", "hi", "zh", "ja")
UNSEEN_LANGUAGES = ("sw", "uk", "ko")
LANGUAGES = TRAIN_LANGUAGES + UNSEEN_LANGUAGES
FAMILIES = ("lookup", "total", "difference")
TRAIN_FAMILIES = ("lookup", "total")
CRITERIA = ("correct", "language", "polite", "brief", "digits", "sure")
TRAIN_CRITERIA = ("correct", "language", "polite", "brief", "digits")
LARGEST = 24


class Pack(BaseModel):
    """One language: words for things and numbers, and sentences for every attribute of a response."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    name: str
    script: str
    nouns: list[str] = Field(min_length=12, max_length=12)
    numbers: list[str] = Field(min_length=LARGEST, max_length=LARGEST, description="words for 1..24")
    facts: str
    ask: dict[str, str]
    thanks: list[str]
    thanks_marks: list[str]
    answer: list[str]
    unsure: list[str]
    unsure_marks: list[str]
    filler: list[str]
    criteria: dict[str, list[str]]

    def number(self, value: int) -> str:
        """The word for 1..24."""
        return self.numbers[value - 1]

    @property
    def joiner(self) -> str:
        """What stands between two sentences."""
        return "" if self.code in ("zh", "ja") else " "


@cache
def packs() -> dict[str, Pack]:
    """All languages by code."""
    folder = resources.files("mr3.nano") / "languages"
    found = {}
    for code in LANGUAGES:
        text = (folder / f"{code}.yaml").read_text(encoding="utf-8")
        found[code] = Pack.model_validate(yaml.safe_load(text))
    return found


@cache
def english_wordings() -> dict[str, dict[str, list[str]]]:
    """English wordings of each criterion: `seen` in judge training, and `held_out`; and `traits`, plain words."""
    source = resources.files("mr3.nano") / "wordings.yaml"
    wordings: dict[str, dict[str, list[str]]] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return wordings
