"""What `mr3 grpo` is told for a judge: tasks, rewards, how samples are compared, guards, and TRL's own options.

Free of torch, vllm and ray.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from grpo_experiments.composite import Combine, Composite
from grpo_experiments.guards import GuardSettings
from grpo_experiments.terms import open_terms
from mr3.config import StageConfig
from mr3.launch import Launch, planned_processes
from mr3.sft.config import Estimate, Precision

Baseline = Literal["group", "bundle"]
# What this stage does itself: TRL's own way to do it would do it twice, or otherwise.
_OURS = {
    "reward_weights": "rewards",
    "multi_objective_aggregation": "combine",
    "model_init_kwargs": "dtype and attention",
    "num_generations_eval": "held_out_samples",
}


class LogSettings(BaseModel):
    """What is kept of every step."""

    model_config = ConfigDict(extra="forbid")

    texts: int = Field(4, ge=0, description="completions of a step and process that are kept with their text")


class GrpoEstimate(Estimate):
    """What the dry run assumes of machine and completions."""

    bandwidth_gbs: float = Field(
        2_000, gt=0, description="memory bandwidth that decoding reaches (H100: 3,350 at most)"
    )
    completion_tokens: int | None = Field(None, gt=0, description="mean of a completion; unset: half of the longest")


class GrpoConfig(StageConfig):
    """One GRPO run of a judge."""

    trains: Literal["judge"] = "judge"
    model: str = Field(description="judge folder (with judge.json) to start from")
    templates_dir: Path | None = Field(
        None, description="your copy of the published templates, if the judge needs them"
    )
    tasks: Path = Field(description="Parquet of tasks with gold labels")
    max_tasks: int | None = Field(None, gt=0, description="so many of them, drawn by the seed; twins stay together")
    held_out: Path | None = Field(None, description="Parquet of tasks that are evaluated and never trained on")
    held_out_tasks: int = Field(
        0, ge=0, description="how many are evaluated; without held_out they are taken out of tasks, by content"
    )
    held_out_samples: int = Field(4, ge=1, description="completions per held-out task")
    rewards: dict[str, float | dict[str, Any]] = Field(description="reward term -> weight, or its options with one")
    combine: Combine = "mean"
    baseline: Baseline = Field(
        "group",
        description="whose samples a reward is compared with: the prompt's, or its twins' and orders' too",
    )
    orders: Literal["one", "both"] = Field("one", description="both: pairwise tasks also with A and B exchanged")
    resample: int = Field(
        0, ge=0, description="rounds in which prompts without a gradient (all rewards equal) are replaced by others"
    )
    reader: str | None = Field(None, description="judge that reads explanations; unset: the start")
    guards: GuardSettings = GuardSettings()
    log: LogSettings = LogSettings()
    peft: dict[str, Any] | None = Field(None, description="peft's LoraConfig by name; unset: all weights are trained")
    dtype: Precision = Field("auto", description="of the weights; auto: fp32 on a CPU, as stored on a GPU")
    attention: str | None = Field(None, description="transformers' attn_implementation")
    architecture: dict[str, Any] | None = Field(
        None, description="the model's config.json as far as it counts: --dry-run then needs no download"
    )
    launch: Launch | None = Field(None, description="the processes of this run; another number is refused")
    estimate: GrpoEstimate = GrpoEstimate()
    dry_run: bool = Field(False, description="print memory, tokens and time, train nothing (--dry-run)")
    trl: dict[str, Any] = Field(default_factory=dict, description="TRL's GRPOConfig by name")

    _composite: Composite = PrivateAttr()

    def composite(self) -> Composite:
        """The reward."""
        return self._composite

    def estimate_completion(self, longest: int) -> float:
        """Tokens of a completion that the dry run counts with."""
        longest = self.trl.get("max_completion_length", longest)
        return float(self.estimate.completion_tokens or longest / 2)

    def processes(self) -> int:
        """Of this run, as `planned_processes` counts them."""
        return planned_processes(self.launch, self.estimate.gpus)

    @model_validator(mode="after")
    def _can_be_trained(self) -> Self:
        for name in self.trl:
            if name in _OURS:
                raise ValueError(f"trl.{name} has no place here: this stage's own option is {_OURS[name]}")
        self._composite = Composite(open_terms(self.rewards), self.combine)
        if "swapped" in self._composite.needs and self.orders != "both":
            raise ValueError("a reward term looks at both orders: set orders: both")
        scale = self.trl.get("scale_rewards", "group")
        cancelled = [n for n, t in self._composite.terms.items() if t.per_group and t.weight > 0]
        if cancelled and self.baseline == "group" and (scale in ("group", True) or self.combine == "normalised"):
            raise ValueError(
                f"rewards.{cancelled[0]} multiplies the samples of a group by one number, which a baseline of the "
                "group cancels: set baseline: bundle (or, to weigh groups by it, trl.scale_rewards: none and "
                "combine: mean)"
            )
        if self.resample and scale == "batch":
            raise ValueError("resample replaces groups, and trl.scale_rewards: batch ties them together: choose one")
        return self
