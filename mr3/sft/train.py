"""The SFT run itself: rows into packs, TRL's SFTTrainer, the trained model as an ordinary folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from mr3.artifacts import metrics_of, read_json, write_json
from mr3.compact_head import use_compact_head
from mr3.launch import is_main_process
from mr3.sft.batches import PackCollator, write_packs
from mr3.sft.config import SftConfig
from mr3.sft.data import Encoded, Row, encode, parquet_rows, replay_rows, turn_end
from mr3.sft.order import SAMPLING, arranged, in_packs
from mr3.sft.source import read_rows
from mr3.training import (
    PlainProgress,
    last_checkpoint,
    load_model,
    load_tokenizer,
    lora_config,
    mean_loss,
    quiet_trainer,
    require_sharding,
    save_trained,
    trl_config,
    use_threads,
)

log = logging.getLogger("mr3.sft")


def encoded_rows(config: SftConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Row], dict[str, Any]]:
    """Rows in training order, and their counts.

    Raises:
        ValueError: when no row is left.
    """
    encoded = encode(tokenizer, read_rows(config), config.max_tokens)
    if not encoded.rows and not encoded.dropped:
        raise ValueError(f"{config.data} holds no rows: make it again with `mr3 data`")
    if not encoded.rows:
        raise ValueError(f"every row of {config.data} was dropped ({_reasons(encoded)}): raise max_tokens")
    if encoded.dropped:
        log.warning("rows left out whole, none is cut: %s", _reasons(encoded))
    rows, replay = encoded.rows, replayed(config, tokenizer, encoded.rows)
    counts = {
        "rows": len(rows),
        "dropped": dict(encoded.dropped),
        "dropped_too_long": encoded.dropped["too_long"] + encoded.dropped["prompt_too_long"],
        "completion_tokens": encoded.completion_tokens,
        "longest_prompt": encoded.longest_prompt,
        "longest_completion": encoded.longest_completion,
    }
    if config.replay_share > 0:
        counts["replay_rows"] = len(replay)
    return arranged(rows, replay, config.order, config.packing, config.seed), counts


def _reasons(encoded: Encoded) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in encoded.dropped.items())


def replayed(config: SftConfig, tokenizer: PreTrainedTokenizerBase, rows: list[Row]) -> list[Row]:
    """Replayed text beside the rows, in the config's share."""
    if config.replay is None or config.replay_share == 0:
        return []
    count = round(len(rows) * config.replay_share / (1 - config.replay_share))
    length = sorted(len(row) for row in rows)[len(rows) // 2]
    return replay_rows(tokenizer, config.replay, count, length, config.seed)


def _prepare(config: SftConfig, tokenizer: PreTrainedTokenizerBase, arguments: SFTConfig, folder: Path) -> Any:
    """Write the packs, by the main process alone; every process gets their counts."""
    counts_file, state = folder / "packs.json", arguments.distributed_state
    if state.is_main_process:
        rows, counts = encoded_rows(config, tokenizer)
        tokens = sum(len(row) for row in rows)
        multiple = pass_rows(config, arguments.per_device_train_batch_size, state.num_processes)
        packs = in_packs(rows, config.packing, config.max_tokens, multiple, int(tokenizer.pad_token_id))
        if config.packing:
            counts |= {"packs": len(packs), "pack_fill": round(tokens / (len(packs) * config.max_tokens), 4)}
        before = read_json(counts_file) if counts_file.is_file() else None
        if before is not None and before["processes"] != state.num_processes:
            raise ValueError(
                f"{folder} was begun with {before['processes']} processes, not {state.num_processes}: the rows of a "
                "step would be others. Go on with as many, or give another --output_dir"
            )
        write_packs(packs, folder / "packs.arrow")
        write_json(counts_file, {"processes": state.num_processes, "tokens": tokens, "counts": counts})
    state.wait_for_everyone()
    return read_json(counts_file)


def pass_rows(config: SftConfig, batch: int, processes: int) -> int:
    """What the number of rows (or packs) is filled up to a multiple of: those of one pass of all processes, where the
    order is kept in several of them; else 1."""
    return batch * processes if config.order == "kept" and processes > 1 else 1


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


def trainer_options(config: SftConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """TRL's options: the `trl` block and what order, packing and the template ask for."""
    options: dict[str, Any] = {
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "ddp_find_unused_parameters": False,  # every weight is used: looking for others costs a pass over the graph
    } | config.trl
    if config.order is not None:
        options["train_sampling_strategy"] = SAMPLING[config.order]
    if flattened(config):
        options["padding_free"] = True
    end = turn_end(tokenizer)
    if end != tokenizer.eos_token_id:
        # A base model's tokenizer stops at <|endoftext|>; what is trained must be what inference stops at.
        options.setdefault("eos_token", tokenizer.convert_ids_to_tokens(end))
    return options


def flattened(config: SftConfig) -> bool:
    """Flash attention wants packed batches as one long row with sequence lengths: TRL's padding-free collator."""
    return config.packing and "flash" in (config.attention or "")


def train(config: SftConfig, folder: Path, metrics: dict[str, Any], callbacks: Sequence[TrainerCallback] = ()) -> None:
    """Train, save `folder/model`, fill `metrics`. Every process of a distributed run calls this.

    Raises:
        ValueError: for no usable row, an unknown option, or a resume with another number of processes.
    """
    use_threads()
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.model)
    arguments = trl_config(SFTConfig, trainer_options(config, tokenizer), folder / "trainer", config.seed)
    require_sharding()
    prepared = _prepare(config, tokenizer, arguments, folder)
    tokens = prepared["tokens"]
    if config.same_tokens_as is not None:
        arguments.num_train_epochs = metrics_of(config.same_tokens_as)["tokens"] / tokens
    model = load_model(config.model, dtype=config.dtype, attention=config.attention)
    progress = PlainProgress("sft", ("loss", "mean_token_accuracy"))
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        optimizers=(_muon(model, arguments, config.muon_lr), None) if config.muon_lr is not None else (None, None),
        data_collator=PackCollator(int(tokenizer.pad_token_id)) if config.packing and not flattened(config) else None,
        train_dataset=Dataset.from_file(str(folder / "packs.arrow")),
        processing_class=tokenizer,
        peft_config=lora_config(config.peft),
        callbacks=[progress, *callbacks],
    )
    if config.muon_lr is not None and trainer.is_fsdp_enabled:
        raise ValueError("muon_lr needs whole matrices, which FSDP cuts in pieces: leave it out")
    quiet_trainer(trainer)
    use_compact_head(model)
    checkpoint = last_checkpoint(folder / "trainer")
    begun = read_json(Path(checkpoint) / "trainer_state.json")["global_step"] if checkpoint else 0
    result = trainer.train(resume_from_checkpoint=checkpoint)
    trained = round(tokens * float(result.metrics["epoch"]))
    metrics.update(
        prepared["counts"],
        processes=prepared["processes"],
        steps=result.global_step,
        tokens=trained,
        train_loss=mean_loss(progress.curve) if checkpoint else result.training_loss,
        tokens_per_epoch=tokens,
        tokens_per_s=round(trained * (1 - begun / result.global_step) / float(result.metrics["train_runtime"])),
        resumed_at=begun,
        curve=progress.curve,
    )
    if config.held_out is not None:
        metrics["held_out_loss"] = held_out_loss(config, tokenizer, trainer, folder)
    save_trained(
        trainer, folder, base=config.model, lora=config.peft is not None, dtype=config.dtype, card=config.judge
    )
    if is_main_process():
        for name in ("packs.arrow", "packs.json"):
            os.unlink(folder / name)


def held_out_loss(config: SftConfig, tokenizer: PreTrainedTokenizerBase, trainer: SFTTrainer, folder: Path) -> float:
    """Loss on whole held-out rows, unpacked order, as TRL's evaluation gives it."""
    assert config.held_out is not None
    rows = parquet_rows(config.held_out, config.columns.prompt, config.columns.completion)
    path, state = folder / "held_out.arrow", trainer.args.distributed_state
    if state.is_main_process:
        write_packs([[row] for row in encode(tokenizer, rows, config.max_tokens).rows], path)
    state.wait_for_everyone()
    found: float = trainer.evaluate(Dataset.from_file(str(path)))["eval_loss"]
    if state.is_main_process:
        path.unlink()
    return found
