"""`mr3 sft`: supervised fine-tuning of a judge or a policy with TRL's SFTTrainer.

Rows are conversational prompt-completion rows; a `judge:` block makes the result a judge (judge.json beside the
model). Ctrl-C leaves a checkpoint that the same command goes on from.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mr3.artifacts import metrics_of, stage_run
from mr3.config import StageConfig
from mr3.records import Mode, Strategy
from mr3.stage import stage_main

log = logging.getLogger("mr3.sft")


class JudgeBlock(BaseModel):
    """What makes the trained model a judge; goes into judge.json."""

    model_config = ConfigDict(extra="forbid")

    profile: str
    strategy: Strategy = "eng-eng"
    modes: tuple[Mode, ...] = ("pointwise", "pairwise", "binary")
    max_prompt_tokens: int
    max_output_tokens: int


class SftConfig(StageConfig):
    """One SFT run."""

    model: str = Field(description="base to start from: a folder or a hub id")
    data: Path = Field(description="Parquet of prompt-completion rows")
    max_rows: int | None = None
    max_tokens: int = Field(1_024, description="longer rows are dropped and counted")
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
    judge: JudgeBlock | None = None
    muon_lr: float | None = Field(
        None, gt=0, description="train the blocks' matrices with Muon at this rate; trl.learning_rate is for the rest"
    )
    trl: dict[str, Any] = Field(default_factory=dict, description="TRL's SFTConfig by name")


def _rows(config: SftConfig, tokenizer: Any) -> tuple[list[dict[str, list[int]]], dict[str, Any]]:
    import pyarrow.parquet as pq

    from mr3.sft.data import encode, replay_rows

    table = pq.read_table(config.data, columns=["prompt", "completion"])
    raw = table.slice(0, config.max_rows).to_pylist() if config.max_rows else table.to_pylist()
    if not raw:
        raise ValueError(f"{config.data} holds no rows: make it again with `mr3 data`")
    encoded = encode(tokenizer, raw, config.max_tokens)
    if not encoded.rows:
        raise ValueError(f"every row of {config.data} is longer than max_tokens={config.max_tokens}: raise it")
    rows = encoded.rows
    counts = {
        "rows": len(rows),
        "dropped_too_long": encoded.dropped,
        "completion_tokens": encoded.completion_tokens,
        "longest_prompt": encoded.longest_prompt,
        "longest_completion": encoded.longest_completion,
    }
    if config.replay is not None and config.replay_share > 0:
        count = round(len(rows) * config.replay_share / (1 - config.replay_share))
        length = sorted(len(r["input_ids"]) for r in rows)[len(rows) // 2]
        extra = replay_rows(tokenizer, config.replay, count, length, config.seed)
        rows = rows + extra
        counts["replay_rows"] = len(extra)
        random.Random(config.seed).shuffle(rows)
    return rows, counts


def run(config: SftConfig) -> None:
    """Train and save `output_dir/model`.

    Raises:
        ValueError: for a missing model or data file, no usable row, or an unknown option.
    """
    for path, what in ((config.data, "data"), (config.replay, "replay")):
        if path is not None and not path.is_file():
            raise ValueError(f"no {what} file at {path}: make it with `mr3 data`, or give another path")
    inputs: list[str | Path] = [config.data, *([config.replay] if config.replay else []), config.model]
    with stage_run("sft", config, inputs) as stage:
        if stage.finished:
            log.info("%s is finished: nothing to do", stage.folder)
            return
        _train(config, stage.folder, stage.metrics)


def _muon(model: Any, arguments: Any, muon_lr: float) -> Any:
    """Muon beside AdamW, the latter with the trainer's own settings."""
    from mr3.muon import MuonAdamW

    return MuonAdamW(
        model.named_parameters(),
        lr=arguments.learning_rate,
        muon_lr=muon_lr,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        eps=arguments.adam_epsilon,
        weight_decay=arguments.weight_decay,
    )


def _train(config: SftConfig, folder: Path, metrics: dict[str, Any]) -> None:
    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    from mr3.compact_head import use_compact_head
    from mr3.judge_card import JudgeCard, write_card
    from mr3.training import (
        PlainProgress,
        last_checkpoint,
        load_model,
        load_tokenizer,
        quiet_trainer,
        trl_config,
        use_threads,
    )

    use_threads()
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.model)
    rows, counts = _rows(config, tokenizer)
    tokens = sum(len(r["input_ids"]) for r in rows)
    options = {"dataset_kwargs": {"skip_prepare_dataset": True}, "max_length": None} | config.trl
    if config.same_tokens_as is not None:
        options["num_train_epochs"] = metrics_of(config.same_tokens_as)["tokens"] / tokens
    progress = PlainProgress("sft", ("loss", "mean_token_accuracy"))
    model, arguments = load_model(config.model), trl_config(SFTConfig, options, folder / "trainer", config.seed)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        optimizers=(_muon(model, arguments, config.muon_lr), None) if config.muon_lr is not None else (None, None),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[progress],
    )
    quiet_trainer(trainer)
    use_compact_head(model)
    result = trainer.train(resume_from_checkpoint=last_checkpoint(folder / "trainer"))
    model_folder = folder / "model"
    trainer.save_model(str(model_folder))
    tokenizer.save_pretrained(str(model_folder))
    if config.judge is not None:
        write_card(model_folder, JudgeCard.model_validate(config.judge.model_dump()))
    metrics.update(
        counts,
        steps=result.global_step,
        tokens=round(tokens * float(result.metrics["epoch"])),
        train_loss=result.training_loss,
        tokens_per_epoch=tokens,
        tokens_per_s=round(tokens * float(result.metrics["epoch"]) / float(result.metrics["train_runtime"])),
        curve=progress.curve,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 sft --config FILE`."""
    return stage_main("sft", SftConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
