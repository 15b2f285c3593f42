"""The record of a rubric: named criteria in order, or one description per score level.

Its content hash goes into every verdict's id, so that a changed rubric means a new judgement.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MOST_CRITERIA, MOST_LEVELS = 256, 128
"""More than any judge was trained with; they bound what one rubric can cost whoever reads it."""
Label = Annotated[str, Field(max_length=100)]


class Criterion(BaseModel):
    """One thing that the judge looks at; earlier criteria rank higher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    description: str = Field(min_length=1)
    weight: float = 1.0

    @field_validator("weight")
    @classmethod
    def _finite_positive(cls, weight: float) -> float:
        if not math.isfinite(weight) or weight <= 0:
            raise ValueError(f"weight must be a finite number above 0, got {weight}")
        return weight


class Rubric(BaseModel):
    """Ranked criteria, and optionally a description per score level (`levels`: label -> text, worst first)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "rubric"
    language: str = "en"
    criteria: list[Criterion] = Field(default_factory=list, max_length=MOST_CRITERIA)
    levels: dict[Label, str] = Field(default_factory=dict, max_length=MOST_LEVELS)
    absent: bool = Field(False, description="there is no rubric: only multiple choice goes without one")
    worst_first: bool = Field(
        False,
        exclude_if=lambda said: not said,
        description="levels that are words stand from worst to best; pointwise needs it said, as words have no order",
    )

    @model_validator(mode="after")
    def _named_once(self) -> Rubric:
        if self.absent and (self.criteria or self.levels):
            raise ValueError(f"rubric {self.name!r} is absent, and yet has criteria or levels: leave one out")
        if not self.absent and not self.criteria and not self.levels:
            raise ValueError(f"rubric {self.name!r} has neither criteria nor levels: name at least one criterion")
        for kind in ("name", "description"):
            values = [getattr(c, kind).strip().casefold() for c in self.criteria]
            if len(set(values)) < len(values):
                twice = min(v for v, times in Counter(values).items() if times > 1)
                raise ValueError(
                    f"rubric {self.name!r} has duplicate criteria: the {kind} {twice!r} is used more than "
                    "once; merge them or rename one"
                )
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Rubric:
        """As pydantic's, with a hash of its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("content_hash", None)
        return copied

    @cached_property
    def content_hash(self) -> str:
        """Of what the judge sees (not of the rubric's name, nor of what is said about its levels)."""
        unseen = {"name", "worst_first"}
        seen = self.model_dump(exclude=unseen if self.absent else {*unseen, "absent"})
        blob = json.dumps(seen, ensure_ascii=False, sort_keys=True)
        return hashlib.blake2b(blob.encode(), digest_size=8).hexdigest()
