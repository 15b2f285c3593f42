"""The config of the data factory. Free of torch, vllm and ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.config import StageConfig
from mr3.inference.engine import Sampling
from mr3.inference.stated import StatedModel
from mr3.inference.stream import StreamSettings
from mr3.judge_card import find_card
from mr3.judging.config import JudgeConfig
from mr3.languages.codes import ALL, canonical
from mr3.records import Strategy
from mr3.sources.registry import known_sets
from mr3.sources.spec import COMMIT, SetSource, SourceSpec, Texts

Asked = Literal["eng-eng", "tgt-eng", "tgt-tgt"]
Order = Literal[
    "shuffled",
    "easy-hard",
    "hard-easy",
    "english-first",
    "english-first-easy-hard",
    "english-first-hard-easy",
    "consistency",
    "length",
]
TRANSLATED: Asked = "tgt-eng"
"""Whose traces are translated: the prompt is in the task's language already, as it will be for the translated trace."""
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
"""The six of the paper, which are written by default."""


def check_gpus(name: str, engine: Mapping[str, Any], stream: StreamSettings | None) -> None:
    """An engine needs the GPUs that it is cut over.

    Raises:
        ValueError: when its replicas are given fewer.
    """
    needed = int(engine.get("tensor_parallel_size", 1)) * int(engine.get("pipeline_parallel_size", 1))
    if stream is not None and 0 < stream.num_gpus < needed:
        raise ValueError(f"{name}: its engine needs {needed} GPUs, a replica has {stream.num_gpus:g}: see stream")


class Cost(BaseModel):
    """What a model's calls take: stated here, for `--dry-run`. Take it from a first run's metrics, or from a bill."""

    model_config = ConfigDict(extra="forbid")

    output_tokens: float = Field(gt=0, description="written in one call, on average")
    tokens_per_s: float | None = Field(None, gt=0, description="written by one replica at full load")
    gpu_hour: float | None = Field(None, ge=0, description="price of an hour of one GPU")
    million_in: float | None = Field(None, ge=0, description="price of a million tokens of prompts, of an endpoint")
    million_out: float | None = Field(None, ge=0, description="price of a million tokens that are written")


class AskedModel(JudgeConfig):
    """A model that judges for the factory: the teacher, or the student. As a `judge:` block, and how it talks."""

    name: str = Field(description="in the names of the published columns")
    dialect: Dialect = Field(
        "qwen3", description="qwen3: <think> tags; plain: the same, one line break; gpt-oss: harmony"
    )
    template_arguments: dict[str, Any] = Field(
        default_factory=dict, description="of the chat template; of gpt-oss, which needs none: reasoning_effort"
    )
    date: str = Field("2025-08-28", description="the day that a model which is told the date is told")
    stream: StreamSettings | None = Field(None, description="its own replicas and GPUs; unset: those of the config")
    cost: Cost | None = Field(None, description="what its calls take, for --dry-run")

    @model_validator(mode="after")
    def _fits(self) -> AskedModel:
        odd = self.template_arguments.keys() - {"reasoning_effort"}
        if self.dialect == "gpt-oss" and odd:
            raise ValueError(f"{self.name}: gpt-oss knows reasoning_effort alone, not {', '.join(sorted(odd))}")
        check_gpus(self.name, self.engine, self.stream)
        return self


class Translator(StatedModel):
    """Who translates traces, and how."""

    max_model_len: int = 8_192
    sampling: Sampling = Sampling(temperature=0.7, top_p=0.8, top_k=20, max_tokens=2_048)
    chunk_chars: int = Field(1_500, ge=50, description="longest piece of a trace that is translated at once")
    keep: list[str] = Field(
        default_factory=lambda: ["Assistant", "Tie", "Both Bad", "Response", "true", "false"],
        description="words that stay as they are",
    )
    stream: StreamSettings | None = Field(None, description="its own replicas and GPUs; unset: those of the config")
    cost: Cost | None = Field(None, description="what a call (one piece of a trace) takes, for --dry-run")

    @model_validator(mode="after")
    def _fits(self) -> Translator:
        check_gpus("translator", self.engine, self.stream)
        return self


class Decontamination(BaseModel):
    """Against which texts, and how long an equal stretch counts."""

    model_config = ConfigDict(extra="forbid")

    benchmarks: list[SourceSpec] = Field(default_factory=list)
    ngram: int = Field(50, ge=8, description="letters and digits in a row, blanks and punctuation left out")
    dense_ngram: int = Field(18, ge=4, description="the same for Han, kana and Hangul, which say more per character")
    common: int = Field(
        20, ge=1, description="a stretch in more than so many items of one benchmark is a set phrase, not a leak"
    )


class TraceRules(BaseModel):
    """Which traces are fit to learn from, beside being right; null switches a filter off."""

    model_config = ConfigDict(extra="forbid")

    in_language: float | None = Field(
        0.5,
        gt=0,
        le=1,
        description="least share of a trace in the language that its strategy names (it may quote others)",
    )
    enough_letters: int = Field(200, ge=12, description="shorter traces, and unknown languages, pass and are counted")
    repeated: float | None = Field(
        0.5, gt=0, le=1, description="a trace repeats itself when so much of it, or of its end, was said before"
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
    prompts: dict[Dialect, str | None] = Field(
        default_factory=dict,
        description="dialect -> tokenizer whose chat template renders the published prompt columns; gpt-oss needs none",
    )


class Estimate(BaseModel):
    """What `--dry-run` assumes where it can't count."""

    model_config = ConfigDict(extra="forbid")

    sample: int = Field(200, ge=1, description="rows per source that are read and rendered, for the prompts' lengths")
    chars_per_token: float = Field(3.5, gt=0, description="of prompts")
    prompt_tokens: int = Field(1_500, ge=1, description="of a prompt from a source that can't be read now")
    right: float = Field(0.6, ge=0, le=1, description="share of rows that are right under all required strategies")
    pieces: float = Field(6, gt=0, description="pieces of a trace, with its explanation, that a translator gets")


class FactoryConfig(StageConfig):
    """From sources to training rows."""

    incidental = frozenset({"stream", "estimate", "dry_run"})

    sources: list[SourceSpec] = Field(min_length=1)
    languages: list[str] | None = Field(None, description="rows in other languages are set aside; unset: all")
    without: list[str] = Field(default_factory=list, description="languages that are left out of every source")
    allow_set_aside: bool = Field(False, description="go on when over 5% of a source is no row")
    texts: Texts = Texts()
    profile: str = Field("mr3-train", description="prompt profile, see mr3.prompts")
    strategies: list[Asked] = Field(default_factory=lambda: list(ASKED), min_length=1)
    require: list[Asked] | None = Field(None, description="strategies that must be right; unset: all of `strategies`")
    presample: Selection | None = Field(None, description="rows that go to the teacher, in balance; unset: all")
    teacher: AskedModel
    translator: Translator | None = Field(None, description="makes tgt-tgt-translated from the traces of tgt-eng")
    require_translation: bool = Field(False, description="a row whose trace can't be translated is dropped")
    decontaminate: Decontamination = Decontamination()
    traces: TraceRules = TraceRules()
    difficulty: Difficulty | None = None
    select: Selection = Selection()
    output: Output = Output()
    stream: StreamSettings = Field(StreamSettings(), description="of models that have none of their own")
    estimate: Estimate = Estimate()
    dry_run: bool = Field(False, description="print calls, tokens, hours and money, start no model (--dry-run)")
    ray: bool = Field(True, description="false: engines run in this process (an endpoint, or one small model)")
    store: Path | None = Field(None, description="store of answers, may be shared; default: in output_dir")

    def asked(self, model: AskedModel) -> AskedModel:
        """A model with what the factory asks of every model: its profile and texts, where no card names others.

        Raises:
            ValueError: when the model's card says another profile: a judge runs only with what it was trained with.
        """
        if find_card(model.model) is None:
            given = {"profile": self.profile, "texts": self.texts.name, "templates_dir": self.texts.templates_dir}
            model = model.model_copy(update={k: v for k, v in given.items() if getattr(model, k) is None})
        if model.card.profile != self.profile:
            raise ValueError(
                f"{model.name} was trained with the prompt profile {model.card.profile}, and this config has "
                f"{self.profile}: set `profile: {model.card.profile}`"
            )
        return model

    def stream_of(self, model: AskedModel | Translator) -> StreamSettings:
        """The replicas of a model."""
        return model.stream or self.stream

    @property
    def speaks_harmony(self) -> bool:
        """Whether a gpt-oss model reads the prompts, or published ones are written for it."""
        models = [self.teacher, *([self.difficulty.student] if self.difficulty else [])]
        return "gpt-oss" in {*(m.dialect for m in models), *self.output.prompts}

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
        absent = [s for s in self.required if s not in self.strategies]
        if absent or not self.required:
            raise ValueError(f"require must name some of strategies ({', '.join(self.strategies)}), not {absent or []}")
        if self.translator is not None and TRANSLATED not in self.strategies:
            raise ValueError(f"translated traces are made from those of {TRANSLATED}: add it to strategies")
        specs = (*self.sources, *self.decontaminate.benchmarks)
        on_hub = [s for s in specs if isinstance(s, SetSource) and s.path is None]
        unpinned = [s.set for s in on_hub if not COMMIT.fullmatch(s.revision)]
        if unpinned:
            raise ValueError(
                f"{', '.join(unpinned)} would be read from a branch of the hub, which can change: set revision to a "
                "commit of 40 hex digits, or path to local files"
            )
        strange = [code for code in self.languages or () if canonical(code) not in ALL]
        if strange:
            raise ValueError(f"languages names {', '.join(strange)}, which are unknown: `mr3 languages list` shows all")
        missing = [d for d, tokenizer in self.output.prompts.items() if tokenizer is None and d != "gpt-oss"]
        if missing:
            raise ValueError(f"output.prompts.{missing[0]} needs a tokenizer, whose chat template renders them")
        taught = [s.set for s in self.sources if isinstance(s, SetSource)]
        sets = known_sets()
        wrong = [name for name in taught if name in sets and sets[name].use == "test"]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} is a benchmark and is never taught: take it out of sources")
        return self
