"""Which judge, and how it is run: the `judge:` block of every config that judges. Free of torch, vllm and ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mr3.inference.engine import EngineConfig, Sampling, known_backend
from mr3.inference.identity import ENDPOINTS, check_stated, hub_commit, model_identity, tokenizer_revision
from mr3.judge_card import FILE, JudgeCard, find_card, no_judge
from mr3.prompts import TextsName
from mr3.records import Mode, Strategy

ADAPTER = "adapter_config.json"


class JudgeConfig(BaseModel):
    """A judge by folder or hub id. Its `judge.json` says how it is prompted; what is set here must agree with it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="model folder, hub id, or folder of a LoRA adapter (its base is read from it)")
    revision: str | None = Field(
        None, description="hub revision, or a name of the weights behind an endpoint: part of every verdict's id"
    )
    backend: str = Field("vllm", description="vllm, endpoint (completions), chat, or package.module:Class of your own")
    url: str | None = Field(None, description="base URL of an OpenAI-compatible endpoint")
    engine: dict[str, Any] = Field(default_factory=dict, description="vLLM EngineArgs by name")
    host: str | None = Field(None, description="name of a Ray actor that holds the engine for all that use this judge")
    seconds_per_token: float = Field(1.0, gt=0, description="after 60 s and this per token a request is timed_out")
    silence_s: float = Field(120.0, gt=0, description="a host that gives no sign of life for so long is replaced")
    sampling: dict[str, Any] = Field(default_factory=dict, description="changes to the card's sampling")
    profile: str | None = Field(None, description="prompt profile; needed where the model has no judge.json")
    format: str | None = Field(None, description="how a judge without a judge.json answers: mr3, r3, rm-r1, ...")
    modes: tuple[Mode, ...] | None = Field(None, description="what a judge without a judge.json can judge")
    strategy: Strategy | None = Field(None, description="eng-eng where the model has no judge.json")
    texts: TextsName | None = Field(None, description="own or published; for profiles other than compact")
    unverified_texts: bool | None = Field(None, description="own texts also of languages that were not verified")
    templates_dir: Path | None = Field(None, description="your copy of the published templates (data/mr3_rubrics)")
    max_prompt_tokens: int | None = Field(None, description="needed where the model has no judge.json")
    max_output_tokens: int | None = Field(None, description="needed where the model has no judge.json")

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, backend: str) -> str:
        return known_backend(backend)

    @model_validator(mode="after")
    def _named_weights(self) -> Self:
        check_stated(self.model, self.backend, self.revision)
        return self

    @field_validator("sampling")
    @classmethod
    def _known(cls, sampling: dict[str, Any]) -> dict[str, Any]:
        Sampling.model_validate(sampling)
        return sampling

    @property
    def card(self) -> JudgeCard:
        """The judge's card with this config's sampling.

        Raises:
            ValueError: when the model has no card and no profile is given, or card and config disagree.
        """
        base = self._base_card()
        if self.templates_dir is not None:
            base = base.model_copy(update={"templates_dir": self.templates_dir})
        limit = base.max_output_tokens
        own = {**base.sampling.model_dump(), "max_tokens": min(base.sampling.max_tokens, limit)}
        if "max_tokens" not in base.sampling.model_fields_set:
            own["max_tokens"] = limit
        if self.sampling.get("max_tokens", 0) > limit:
            raise ValueError(
                f"judge.sampling.max_tokens {self.sampling['max_tokens']} is over the {limit} output tokens of the "
                f"judge's card: set at most {limit}"
            )
        return JudgeCard.model_validate({**base.model_dump(), "sampling": {**own, **self.sampling}})

    def _base_card(self) -> JudgeCard:
        given = {
            "profile": self.profile,
            "max_prompt_tokens": self.max_prompt_tokens,
            "max_output_tokens": self.max_output_tokens,
        }
        names = ("format", "modes", "strategy", "texts", "unverified_texts")
        optional = {name: getattr(self, name) for name in names}
        card = find_card(self.model)
        if card is None:
            missing = [name for name, value in given.items() if value is None]
            if not missing:
                said = {name: value for name, value in optional.items() if value is not None}
                return JudgeCard.model_validate({**given, **said})
            raise ValueError(f"{no_judge(self.model)}, or set judge.{', judge.'.join(missing)}")
        for name, value in {**given, **optional}.items():
            if value is not None and value != getattr(card, name):
                raise ValueError(
                    f"judge.{name} is {value!r}, but the card ({FILE}) of {self.model} says {getattr(card, name)!r}: "
                    "a judge runs only with what it was trained with; leave the key out"
                )
        return card

    @property
    def has_process(self) -> bool:
        """Whether its engine works in a process of ours, and can take that down; an endpoint is asked only."""
        return self.backend not in ("endpoint", "chat")

    @property
    def is_adapter(self) -> bool:
        """Whether the model is a folder with a LoRA adapter, and no weights of its own."""
        folder = Path(self.model)
        return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()

    @property
    def base(self) -> str:
        """The model that an adapter is for, or the model itself."""
        if not self.is_adapter:
            return self.model
        about = json.loads((Path(self.model) / ADAPTER).read_text(encoding="utf-8"))
        base: str = about["base_model_name_or_path"]
        return base

    @property
    def tokenizer(self) -> str:
        """Where the tokenizer is: an adapter folder may hold one."""
        return self.model if (Path(self.model) / "tokenizer_config.json").is_file() else self.base

    @property
    def tokenizer_revision(self) -> str | None:
        """The tokenizer's revision on the hub."""
        return tokenizer_revision(self.backend, self.revision)

    def inputs(self) -> list[str | Path]:
        """What a stage that uses the judge depends on, as inputs of `stage_run`."""
        templates = self.card.templates_dir
        return [self.model, *([self.base] if self.is_adapter else []), *([templates] if templates else [])]

    def absolute(self) -> JudgeConfig:
        """The same judge for a process with another working directory, of the commit that this process sees."""
        changes: dict[str, Any] = {}
        if Path(self.model).is_dir():
            changes["model"] = str(Path(self.model).resolve())
        if self.backend not in ENDPOINTS and not Path(self.base).is_dir():
            changes["revision"] = hub_commit(self.base, self.revision) or self.revision
        templates = self.card.templates_dir
        if templates is not None:
            changes["templates_dir"] = templates.resolve()
        return self.model_copy(update=changes) if changes else self

    def engine_config(self) -> EngineConfig:
        """The engine that hosts this judge; it holds the longest prompt and answer of the card.

        Raises:
            ValueError: when the judge can't be prompted: a bad card, or published templates that are not there.
        """
        card = self.card
        card.renderer()
        return EngineConfig(
            model=self.base,
            adapter=self.model if self.is_adapter else None,
            revision=self.revision,
            backend=self.backend,
            url=self.url,
            engine=self.engine,
            max_model_len=card.max_model_len,
            seeded=card.sampling.seed is not None,
            host=self.host,
            seconds_per_token=self.seconds_per_token,
            silence_s=self.silence_s,
        )

    def identity(self) -> str:
        """What verdicts are kept under: see `mr3.inference.identity`. Each adds sampling, limits and its own prompt.

        Raises:
            ValueError: when the judge can't be run as configured, or its weights can't be named.
        """
        return model_identity(self.engine_config())
