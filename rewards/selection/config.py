"""The config of `mr3 pairs`: whose labels, which pairs, in which formats, and how they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mr3.config import StageConfig
from rewards.pairs import RULES

Format = Literal["trl", "kto", "ranked", "llamafactory"]
PUBLISHING = (
    "title",
    "licence",
    "licences",
    "allow_unknown_licences",
    "audits",
    "push_to_hub",
    "private",
)
"""Keys that don't change the data: they may differ from run to run of a finished folder."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelSource(_Section):
    """One finished label run: one judge under one rubric."""

    folder: Path = Field(description="folder that `mr3 label` made")
    name: str = Field("", description="how provenance columns and the card call it; default: the folder's name")
    weight: float = Field(1.0, gt=0.0, allow_inf_nan=False, description="of this run's say")


class Agreement(_Section):
    """When several label runs together say that one response is better.

    A label that abstains is left out of the share; one that vetoes stops the pair.
    """

    min_labels: int = Field(1, ge=1, description="so many label runs must favour the winner")
    min_share: float = Field(
        1.0,
        gt=0.5,
        le=1.0,
        description="weight of the label runs that favour the winner, over that of all which favour a side",
    )
    tie: Literal["abstain", "veto"] = Field(
        "abstain", description="what a tie (or a flip) does to the others' decision"
    )
    failed: Literal["abstain", "veto"] = Field("abstain", description="the same for a failed comparison")
    missing: Literal["abstain", "veto"] = Field("abstain", description="the same for one that a run did not make")


class LanguageCheck(_Section):
    """Responses must be in the prompt's language; where that can't be told they pass, and are counted."""

    check: Literal["both", "chosen"] = Field("both", description="which side of a pair must be in the language")
    among: tuple[str, ...] | None = Field(
        None, description="languages that responses can be in at all; fewer choices are surer on short texts"
    )


class PairsConfig(StageConfig):
    """Config of `mr3 pairs`.

    Margins are on one scale for all modes, 0 to 1: |2 P - 1| for pairwise labels, the difference of two scores over
    the width of the scale for pointwise and binary ones; over several labels the weighted mean, opposed ones negative.
    """

    labels: list[LabelSource] = Field(min_length=1, description="label runs of one pool: {folder, name, weight}")
    agreement: Agreement = Agreement()
    min_margin: float = Field(0.0, ge=0.0, le=1.0, description="leave out decisions closer than this")
    max_margin: float = Field(1.0, ge=0.0, le=1.0, description="leave out decisions clearer than this")
    max_length_ratio: float | None = Field(
        None, ge=1.0, description="the longer response has at most so many times the characters of the shorter"
    )
    language: LanguageCheck | None = Field(None, description="response language against prompt language; unset: off")
    rule: str = Field(
        "all",
        description="which of the pairs left are taken: all, best_worst, best_random, or nearest_below (the best "
        "response against the closest that it beat by `gap`)",
    )
    gap: float = Field(0.0, ge=0.0, le=1.0, description="for nearest_below: the least margin")
    max_per_prompt: int | None = Field(None, ge=1, description="at most so many pairs per prompt")
    balance: Literal["smallest"] | int | None = Field(
        None, description="pairs per language: as many as the smallest language has (of those with any), or a number"
    )
    max_pairs: int | None = Field(None, ge=1, description="at most so many pairs in all")
    heldout_share: float = Field(
        0.0, ge=0.0, lt=1.0, description="share of prompts whose pairs go to files of their own; never by seed"
    )
    heldout_by: str | None = Field(
        None, description="key of the prompts' meta that decides the split (equal for translations); default: the text"
    )
    formats: list[Format] = Field(["trl"], min_length=1)
    title: str = "Preference pairs"
    licence: str | None = Field(None, description="licence of the set, as the hub names it: apache-2.0")
    licences: dict[str, str] = Field(default_factory=dict, description="licence of each source policy, by its name")
    allow_unknown_licences: bool = Field(False, description="push even where a policy's licence is not given")
    audits: list[Path] = Field(default_factory=list, description="audit.json files of these label runs, for the card")
    push_to_hub: str | None = Field(None, description="upload to this data set repository (owner/name)")
    private: bool = Field(True, description="make the repository private, where it does not exist yet")

    @field_validator("labels")
    @classmethod
    def _named_once(cls, labels: list[LabelSource]) -> list[LabelSource]:
        named = [s if s.name else s.model_copy(update={"name": s.folder.name}) for s in labels]
        names = [s.name for s in named]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"two labels are called {twice[0]!r}: give each its own name")
        return named

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, rule: str) -> str:
        if rule not in RULES:
            raise ValueError(f"unknown pair rule {rule!r}: choose one of {', '.join(RULES)}")
        return rule

    @field_validator("balance")
    @classmethod
    def _some(cls, balance: str | int | None) -> str | int | None:
        if isinstance(balance, int) and balance < 1:
            raise ValueError(f"balance is {balance}: give 1 or more pairs per language, or smallest")
        return balance

    @field_validator("formats")
    @classmethod
    def _formats_once(cls, formats: list[Format]) -> list[Format]:
        return sorted(set(formats))

    @field_validator("push_to_hub")
    @classmethod
    def _repository(cls, repository: str | None) -> str | None:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        if repository is not None:
            try:
                validate_repo_id(repository)
            except HFValidationError as error:
                raise ValueError(f"{repository!r} is no repository name ({error}): give owner/name") from error
        return repository

    @model_validator(mode="after")
    def _consistent(self) -> PairsConfig:
        if self.min_margin > self.max_margin:
            raise ValueError(f"min_margin {self.min_margin} is over max_margin {self.max_margin}: no pair could pass")
        if self.agreement.min_labels > len(self.labels):
            raise ValueError(
                f"agreement.min_labels is {self.agreement.min_labels}, but {len(self.labels)} labels are given"
            )
        if self.gap and self.rule != "nearest_below":
            raise ValueError(f"gap belongs to rule nearest_below, not {self.rule}: use min_margin for all pairs")
        return self

    @property
    def data(self) -> PairsConfig:
        """The config without what only concerns publishing: it decides whether a folder is this run's."""
        defaults: dict[str, Any] = {
            name: PairsConfig.model_fields[name].get_default(call_default_factory=True) for name in PUBLISHING
        }
        return self.model_copy(update=defaults)
