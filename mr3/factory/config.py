"""The config of the data factory. Free of torch, vllm and ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.config import StageConfig
from mr3.inference.engine import EngineConfig, Sampling
from mr3.inference.identity import check_stated
from mr3.inference.stream import StreamSettings
from mr3.judge_card import load_card
from mr3.judging.config import JudgeConfig
from mr3.records import Strategy
from mr3.sources.registry import known_sets
from mr3.sources.spec import SetSource, SourceSpec, Texts

Asked = Literal["eng-eng", "tgt-eng", "tgt-tgt"]
Order = Literal[
    "shuffled", "easy-hard", "hard-easy", "english-first", "english-first-easy-hard", "english-first-hard-easy"
]
Dialect = Literal["qwen3", "plain", "gpt-oss"]
ASKED: tuple[Asked, ...] = ("eng-eng", "tgt-eng", "tgt-tgt")
ORDERS: tuple[Order, ...] = (
    "shuffled",
    "easy-hard",
    "hard-easy",
    "english-first",
    "english-first-easy-hard",
    "english-first-hard-easy",
)


class AskedModel(JudgeConfig):
    """A model that judges for the factory: the teacher, or the student. As a `judge:` block, and how it talks."""

    name: str = Field(description="in the names of the published columns")
    dialect: Dialect = Field(
        "qwen3", description="qwen3: <think> tags; plain: the same, one line break; gpt-oss: harmony"
    )
    template_arguments: dict[str, Any] = Field(default_factory=dict, description="of the chat template")
    date: str = Field("2025-08-05", description="the day that a template which asks for the date is told")


class Translator(BaseModel):
    """Who translates traces, and how."""

    model_config = ConfigDict(extra="forbid")

    model: str
    revision: str | None = None
    backend: str = "vllm"
    url: str | None = None
    engine: dict[str, Any] = Field(default_factory=dict, description="vLLM EngineArgs by name")
    max_model_len: int = 8_192
    sampling: Sampling = Sampling(temperature=0.7, top_p=0.8, top_k=20, max_tokens=2_048)
    chunk_chars: int = Field(1_500, ge=50, description="longest piece of a trace that is translated at once")
    keep: list[str] = Field(
        default_factory=lambda: ["Assistant", "Tie", "Both Bad", "Response", "true", "false"],
        description="words that stay as they are",
    )

    @model_validator(mode="after")
    def _named_weights(self) -> Translator:
        check_stated(self.model, self.backend, self.revision)
        return self

    def engine_config(self) -> EngineConfig:
        """The engine that hosts the translator."""
        return EngineConfig(
            model=self.model,
            revision=self.revision,
            backend=self.backend,
            url=self.url,
            engine=self.engine,
            max_model_len=self.max_model_len,
            seeded=True,
        )


class Decontamination(BaseModel):
    """Against which texts, and how long an equal stretch counts."""

    model_config = ConfigDict(extra="forbid")

    benchmarks: list[SourceSpec] = Field(default_factory=list)
    ngram: int = Field(50, ge=8, description="letters and digits in a row, blanks and punctuation left out")
    dense_ngram: int = Field(18, ge=4, description="the same for Han, kana and Hangul, which say more per character")
    common: int = Field(
        20, ge=1, description="a stretch in more than so many different texts of benchmarks is a set phrase, not a leak"
    )


class Difficulty(BaseModel):
    """The student, and which rows are hard enough."""

    model_config = ConfigDict(extra="forbid")

    student: AskedModel
    samples: int = Field(5, ge=1, description="k answers per row")
    strategy: Asked = "eng-eng"
    most_right: int | None = Field(None, ge=0, description="keep rows with at most so many right; unset: k - 1")
    prefer_right: int = Field(2, ge=0, description="when rows are cut, those with at most so many right come first")

    @property
    def limit(self) -> int:
        """The largest number of right answers that a kept row has."""
        return self.samples - 1 if self.most_right is None else self.most_right


class Selection(BaseModel):
    """How many rows, and in which balance."""

    model_config = ConfigDict(extra="forbid")

    rows: int | None = Field(None, ge=1, description="rows in the end; unset: all that are left")
    alpha: float = Field(
        0.5, ge=0, le=1, description="shares of languages, and of sources in them: (rows there)^alpha; 0 equal, 1 as is"
    )
    per_language: int | None = Field(None, ge=1, description="at most so many rows of one language")
    per_source: int | None = Field(None, ge=1, description="at most so many rows of one source")


class Output(BaseModel):
    """Which files are written."""

    model_config = ConfigDict(extra="forbid")

    orders: list[Order] = Field(default_factory=lambda: list(ORDERS))
    dialect: Dialect = Field("qwen3", description="in which completions are written")
    published_order: Order = "easy-hard"
    tokenizer: str | None = Field(
        None, description="counts tokens for the curriculum; unset: as the teacher's engine counted prompt and answer"
    )
    prompts: dict[Dialect, str] = Field(
        default_factory=dict,
        description="dialect -> tokenizer whose chat template renders the published prompt columns",
    )


class FactoryConfig(StageConfig):
    """From sources to training rows."""

    sources: list[SourceSpec] = Field(min_length=1)
    without: list[str] = Field(default_factory=list, description="languages that are left out of every source")
    texts: Texts = Texts()
    profile: str = Field("mr3-train", description="prompt profile, see mr3.prompts")
    strategies: list[Asked] = Field(default_factory=lambda: list(ASKED), min_length=1)
    require: list[Asked] | None = Field(None, description="strategies that must be right; unset: all of `strategies`")
    teacher: AskedModel
    translator: Translator | None = Field(None, description="makes tgt-tgt-translated from the traces of eng-eng")
    require_translation: bool = Field(False, description="a row whose trace can't be translated is dropped")
    decontaminate: Decontamination = Decontamination()
    difficulty: Difficulty | None = None
    select: Selection = Selection()
    output: Output = Output()
    stream: StreamSettings = StreamSettings()
    ray: bool = Field(True, description="false: engines run in this process (an endpoint, or one small model)")
    store: Path | None = Field(None, description="store of answers, may be shared; default: in output_dir")

    def asked(self, model: AskedModel) -> AskedModel:
        """A model with what the factory asks of every model: its profile and texts, where no card names others.

        Raises:
            ValueError: when the model's card says another profile: a judge runs only with what it was trained with.
        """
        try:
            load_card(model.model)
        except ValueError:
            given = {"profile": self.profile, "texts": self.texts.name, "templates_dir": self.texts.templates_dir}
            model = model.model_copy(update={k: v for k, v in given.items() if getattr(model, k) is None})
        if model.card.profile != self.profile:
            raise ValueError(
                f"{model.name} was trained with the prompt profile {model.card.profile}, and this config has "
                f"{self.profile}: set `profile: {model.card.profile}`"
            )
        return model

    @property
    def required(self) -> list[Asked]:
        """Strategies under which a kept row is right."""
        return self.strategies if self.require is None else self.require

    @property
    def trained(self) -> list[Strategy]:
        """Strategies that are written."""
        return [*self.strategies, *(["tgt-tgt-translated"] if self.translator else [])]  # type: ignore[list-item]

    @model_validator(mode="after")
    def _fits(self) -> FactoryConfig:
        if len(set(self.strategies)) != len(self.strategies):
            raise ValueError("a strategy is named twice in strategies")
        missing = [s for s in self.required if s not in self.strategies]
        if missing or not self.required:
            raise ValueError(
                f"require must name some of strategies ({', '.join(self.strategies)}), not {missing or []}"
            )
        if self.translator is not None and "eng-eng" not in self.strategies:
            raise ValueError("translated traces are made from those of eng-eng: add it to strategies")
        taught = [s.set for s in self.sources if isinstance(s, SetSource)]
        sets = known_sets()
        wrong = [name for name in taught if name in sets and sets[name].use == "test"]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} is a benchmark and is never taught: take it out of sources")
        return self
