"""The published sets that the factory and the evaluation know by name, as data (`sets.yaml`)."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field


class KnownSet(BaseModel):
    """One published set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    hub: str | None = Field(None, description="hub id; None: local files only")
    split: str = "train"
    use: Literal["train", "test"]
    columns: list[str] = Field(description="columns that are read")
    asks: list[str] = Field(description="columns whose text is what the row asks")
    gold_scale: tuple[int, int] | None = Field(
        None, description="first and last whole number of the set's golds, where they are not the scores themselves"
    )
    rows: int | None = None
    licence: str | None = None
    set_family: str | None = Field(None, description="name of the set in mr3.families; unset: its own")

    @property
    def golds(self) -> range:
        """Golds that stand for the family's scores in their order; empty where they are the scores themselves."""
        return range(0) if self.gold_scale is None else range(self.gold_scale[0], self.gold_scale[1] + 1)

    @property
    def family_name(self) -> str:
        """Under which name `mr3.families` knows the set."""
        return self.set_family or self.name


@cache
def known_sets() -> dict[str, KnownSet]:
    """Every known set by name."""
    text = (resources.files("mr3.sources") / "sets.yaml").read_text(encoding="utf-8")
    return {name: KnownSet(name=name, **about) for name, about in yaml.safe_load(text).items()}


def known_set(name: str) -> KnownSet:
    """A known set.

    Raises:
        ValueError: for another name, with the nearest one.
    """
    sets = known_sets()
    if name not in sets:
        near = difflib.get_close_matches(name, sets, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown set {name!r}: {hint}Known: {', '.join(sets)}")
    return sets[name]


def benchmarks() -> list[str]:
    """Names of the sets that are never taught."""
    return [name for name, about in known_sets().items() if about.use == "test"]
