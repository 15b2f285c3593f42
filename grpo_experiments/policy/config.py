"""What `mr3 grpo` is told when it trains a policy (`trains: policy`). Free of torch, vllm and ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from grpo_experiments.guards import StepGuard
from mr3.config import StageConfig
from mr3.judging.config import JudgeConfig
from mr3.launch import Launch, planned_processes
from mr3.records import PoolMode
from mr3.rubrics import Criterion, Rubric
from mr3.rubrics.checks import check_mode
from mr3.sft.config import Precision

Kind = Literal["judge", "judge-without-rubric", "gold", "length"]
Compare = Literal["group", "reference"]
BLANK = Rubric(name="blank", criteria=[Criterion(name="good", description="The response is good.")])
"""What a judge without a rubric is shown: nothing that tells what is wanted."""
_OURS = {
    "reward_weights": "reward.kind (one reward: beside another one TRL counts a None as 0)",
    "model_init_kwargs": "dtype and attention",
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Actors(_Section):
    """The reward actors: replicas of the judge, each a Ray actor with an engine."""

    replicas: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, ge=0, description="of each replica")
    num_gpus: float = Field(0.0, ge=0, description="of each replica; Ray gives it GPUs that no other actor has")
    batch_size: int = Field(64, ge=1, description="tasks of one call, which goes to the replica with the least work")
    deadline_s: float = Field(900.0, gt=0, description="a step's judgements that are not there by then have no reward")


class Server(_Section):
    """A judge of `mr3 serve` instead of actors."""

    url: str
    api_key_env: str | None = Field(None, description="environment variable that holds the key")
    batch_size: int = Field(16, ge=1, description="tasks of one request")
    deadline_s: float = Field(600.0, gt=0, description="of one request with all its retries")


class RewardSettings(_Section):
    """Where the reward comes from."""

    kind: Kind = "judge"
    rubric: Rubric | None = Field(
        None, description="the house rubric; its criteria are the checker's where one is given"
    )
    judge: JudgeConfig | None = Field(None, description="asked through reward actors of this run")
    actors: Actors = Actors()
    server: Server | None = Field(None, description="asked over HTTP instead: give `judge` or this")
    store: Path | None = Field(
        None, description="verdict store of the actors, shared with `mr3 label`; OUTPUT_DIR/store"
    )
    mode: PoolMode = Field("pairwise", description="pairwise: see `compare`; pointwise and binary: expected score")
    compare: Compare = Field(
        "group", description="pairwise: with the other completions of the prompt, or its reference"
    )
    plan: Literal["all_pairs", "circular"] = Field("all_pairs", description="which pairs of a group are judged")
    orders: Literal["both", "one"] = "both"
    samples: int = Field(1, ge=1, le=64, description="judgements per order; more than 1 needs a sampling judge")
    silent_steps: int = Field(
        5, ge=1, description="so many generations of nothing but failed judgements end the training"
    )

    @property
    def asks(self) -> bool:
        """Whether a judge is asked at all."""
        return self.kind in ("judge", "judge-without-rubric")

    @model_validator(mode="after")
    def _whole(self) -> RewardSettings:
        if self.asks and (self.judge is None) == (self.server is None):
            raise ValueError(f"reward.kind is {self.kind}: give either `judge` (reward actors) or `server` (HTTP)")
        if not self.asks and (self.judge is not None or self.server is not None):
            raise ValueError(f"reward.kind is {self.kind}, which asks no judge: leave out `judge` and `server`")
        if self.kind == "judge" and self.rubric is None:
            raise ValueError("reward.kind is judge: give the rubric by which it judges")
        if self.asks:
            check_mode(self.shown_rubric, self.mode)
        return self

    @property
    def shown_rubric(self) -> Rubric:
        """What the judge is shown."""
        return BLANK if self.kind == "judge-without-rubric" or self.rubric is None else self.rubric


class Log(_Section):
    """What is kept of a run beside TRL's own records; nothing of it grows without end."""

    steps: int = Field(10_000, ge=1, description="lines of steps.jsonl; a longer run is thinned to every 2nd, 4th, ...")
    samples: int = Field(4, ge=0, description="completions that are kept of a step, with reward and truth")
    sample_steps: int = Field(200, ge=1, description="steps of which samples are kept, spread over the run")


class Estimate(_Section):
    """What the dry run assumes of the machine."""

    peak_tflops: float = Field(989, gt=0, description="dense bf16, of one GPU (989: H100 SXM)")
    mfu: float = Field(0.4, gt=0, le=1, description="share of the peak in training")
    memory_gib: float = Field(80, gt=0, description="of one GPU")
    tokens_per_s: float = Field(2_000, gt=0, description="that one process of the trainer generates")
    judge_tokens_per_s: float = Field(2_000, gt=0, description="that one reward actor writes")
    judge_tokens: int = Field(256, gt=0, description="that a verdict takes")
    completion_tokens: int | None = Field(None, gt=0, description="mean; unset: trl.max_completion_length")


class PolicyGrpoConfig(StageConfig):
    """One GRPO run of a policy."""

    incidental: ClassVar[frozenset[str]] = frozenset({"estimate", "dry_run", "launch"})

    trains: Literal["policy"]
    model: str = Field(description="policy to start from: a folder or a hub id")
    prompts: Path = Field(description="Parquet with prompt_id, prompt, language and meta (`mr3 data`)")
    max_prompts: int | None = Field(None, ge=1, description="so many of them, drawn by the seed")
    references: Path | None = Field(
        None, description="Parquet with prompt_id and a text for each prompt to be compared with"
    )
    reference_column: str = Field("text", description="the text's column there")
    thinking: bool = Field(False, description="`enable_thinking` of Qwen3-like chat templates; thoughts are not judged")
    reward: RewardSettings
    checker: str | None = Field(None, description="ground truth, logged beside the reward: package.module:function")
    generation_parts: int = Field(
        1, ge=1, description="generate a step in so many parts: the first is judged while the next is written"
    )
    peft: dict[str, Any] | None = Field(None, description="peft's LoraConfig by name; unset: all weights are trained")
    dtype: Precision = Field("auto", description="of the weights; auto: fp32 on a CPU, as stored on a GPU")
    attention: str | None = Field(None, description="transformers' attn_implementation")
    guards: StepGuard = StepGuard()
    log: Log = Log()
    launch: Launch | None = Field(None, description="the processes of this run; another number is refused")
    architecture: dict[str, Any] | None = Field(
        None, description="the model's config.json as far as it counts: --dry-run then needs no download"
    )
    estimate: Estimate = Estimate()
    dry_run: bool = Field(False, description="print memory, tokens, calls and time, train nothing (--dry-run)")
    trl: dict[str, Any] = Field(default_factory=dict, description="TRL's GRPOConfig by name")

    @model_validator(mode="after")
    def _whole(self) -> PolicyGrpoConfig:
        for name in self.trl:
            if name in _OURS:
                raise ValueError(f"trl.{name} is set by this stage: see {_OURS[name]}")
        reward = self.reward
        if reward.kind == "gold" and self.checker is None:
            raise ValueError("reward.kind is gold: name the checker that it comes from")
        if self.checker is not None and reward.rubric is None:
            raise ValueError("a checker is read by a rubric (the order of its criteria): give reward.rubric")
        by_reference = reward.mode == "pairwise" and reward.compare == "reference" and reward.kind != "length"
        if by_reference and self.references is None:
            raise ValueError("reward.compare is reference: give `references`, a response to each prompt (`mr3 sample`)")
        return self

    @property
    def in_groups(self) -> bool:
        """Whether a reward is relative to the other completions of its prompt, so that its mean says nothing."""
        return self.reward.kind != "length" and self.reward.mode == "pairwise" and self.reward.compare == "group"

    @property
    def store(self) -> Path:
        """The folder of the verdict store."""
        return self.reward.store or self.output_dir / "store"

    def processes(self) -> int:
        """Of this run, as `planned_processes` counts them."""
        return planned_processes(self.launch)
