"""What `mr3 sft` is told: data, order, packing, limits, LoRA, the judge's card, and TRL's own options."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.config import StageConfig
from mr3.judge_card import JudgeCard
from mr3.launch import Launch, planned_processes

Order = Literal["kept", "shuffled", "grouped"]
Precision = Literal["auto", "float32", "bfloat16"]
# What this stage does itself, so that TRL's own way to do it would be ignored or do it twice.
_OURS = {
    "packing": "packing",
    "packing_strategy": "packing",
    "padding_free": "packing",
    "shuffle_dataset": "order",
    "max_length": "max_tokens",
    "truncation_mode": "max_tokens",
    "dataset_kwargs": "data",
    "completion_only_loss": "data",
    "assistant_only_loss": "data",
    "model_init_kwargs": "dtype and attention",
}


class Columns(BaseModel):
    """Where a row's texts stand. Prompt: chat messages or a rendered string; completion alike."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = "prompt"
    completion: str = "completion"


class Estimate(BaseModel):
    """What the dry run assumes of the machine."""

    model_config = ConfigDict(extra="forbid")

    gpus: int | None = Field(None, gt=0, description="where launch says nothing of processes; unset: 1")
    peak_tflops: float = Field(989, gt=0, description="dense bf16, of one GPU (989: H100 SXM)")
    mfu: float = Field(0.4, gt=0, le=1, description="share of the peak that the model's own FLOPs reach")
    memory_gib: float = Field(80, gt=0, description="of one GPU")
    rows: int = Field(256, gt=0, description="rows that are rendered and packed")


class SftConfig(StageConfig):
    """One SFT run."""

    model: str = Field(description="base to start from: a folder or a hub id")
    data: str = Field(description="Parquet of prompt-completion rows, or the id of a data set on the hub")
    columns: Columns = Columns()
    max_rows: int | None = None
    max_tokens: int = Field(1_024, description="longer rows are dropped and counted; the length of a packed row")
    order: Order | None = Field(
        None, description="kept: as in the file; shuffled; grouped: by length; unset: trl.train_sampling_strategy"
    )
    packing: bool = Field(False, description="fill rows up to max_tokens with whole examples, in order")
    replay: Path | None = Field(None, description="Parquet of plain documents mixed in")
    replay_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of rows that are replayed text; a row holds documents up to the others' length",
    )
    same_tokens_as: Path | None = Field(
        None, description="folder of a finished training stage: train for as many tokens as it did, in place of epochs"
    )
    held_out: Path | None = Field(None, description="Parquet of rows whose loss is measured at the end")
    judge: JudgeCard | None = Field(None, description="makes the result a judge: its judge.json")
    peft: dict[str, Any] | None = Field(None, description="peft's LoraConfig by name; unset: all weights are trained")
    dtype: Precision = Field(
        "auto", description="of the weights that the optimizer changes; auto: fp32 on a CPU, as stored on a GPU"
    )
    attention: str | None = Field(None, description="transformers' attn_implementation")
    muon_lr: float | None = Field(
        None, gt=0, description="train the blocks' matrices with Muon at this rate; trl.learning_rate is for the rest"
    )
    licence: str | None = Field(None, description="of the trained model, for its card")
    architecture: dict[str, Any] | None = Field(
        None, description="the base's config.json as far as it counts: --dry-run then needs no download"
    )
    launch: Launch | None = Field(
        None, description="the processes of this run: a study or demo starts them, and another number is refused"
    )
    estimate: Estimate = Estimate()
    dry_run: bool = Field(False, description="print tokens, steps, memory and time, train nothing (--dry-run)")
    trl: dict[str, Any] = Field(default_factory=dict, description="TRL's SFTConfig by name")

    def processes(self) -> int:
        """Of this run, as `planned_processes` counts them."""
        return planned_processes(self.launch, self.estimate.gpus)

    @model_validator(mode="after")
    def _one_owner_per_matter(self) -> SftConfig:
        for name in self.trl:
            if name in _OURS:
                raise ValueError(f"trl.{name} has no effect here: this stage's own option is {_OURS[name]}")
        if self.order is not None and "train_sampling_strategy" in self.trl:
            raise ValueError("order and trl.train_sampling_strategy say the same: give one of them")
        if self.packing and self.order not in ("kept", "shuffled"):
            raise ValueError("packing needs an order: kept or shuffled (rows are packed in order, so not grouped)")
        if self.launch is not None and self.estimate.gpus not in (None, self.launch.processes):
            raise ValueError(
                f"estimate.gpus is {self.estimate.gpus}, launch.processes {self.launch.processes}: leave out gpus"
            )
        if self.peft is not None and self.muon_lr is not None:
            raise ValueError("muon_lr is for full matrices: leave it out, or leave out peft")
        return self
