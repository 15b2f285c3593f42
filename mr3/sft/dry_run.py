"""`mr3 sft --dry-run`: the model on the meta device, the first rows packed, and what a run would need."""

from __future__ import annotations

import logging
import math
import os
import socket
from importlib import resources
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

import torch
from huggingface_hub import constants
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import AutoTokenizer
from trl import SFTConfig

from mr3.artifacts import metrics_of
from mr3.sft.config import SftConfig
from mr3.sft.data import Row, encode
from mr3.sft.estimate import GIB, Memory, Shape, flops, hours, memory
from mr3.sft.order import arranged, next_fit
from mr3.sft.source import count_rows, read_rows
from mr3.sft.train import pass_rows, replayed, trainer_options
from mr3.training import load_tokenizer, lora_config, trl_config, use_threads

log = logging.getLogger("mr3.sft")


def hub_reachable() -> bool:
    """Whether the hub's name resolves: asking it anyway takes a minute of retries where it does not."""
    if constants.HF_HUB_OFFLINE:
        return False
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


class Sized(Protocol):
    """What the numbers of a run are had from: any training stage's config."""

    model: str
    architecture: dict[str, Any] | None
    peft: dict[str, Any] | None


def tokenizer_of(config: Sized) -> tuple[PreTrainedTokenizerBase, str]:
    """The model's own, or the nano one, and which it is."""
    if Path(config.model).is_dir() or hub_reachable():
        return load_tokenizer(config.model), f"of {config.model}"
    try:
        return AutoTokenizer.from_pretrained(config.model, local_files_only=True), f"of {config.model} (cached)"
    except OSError:
        nano = str(resources.files("mr3") / "nano" / "base")
        return load_tokenizer(nano), (
            f"THE NANO TOKENIZER: that of {config.model} is not here and the hub can't be reached; token counts "
            "below are not those of the run"
        )


def meta_model(config: Sized) -> tuple[PreTrainedModel, str]:
    """The model without its weights, and where its numbers come from.

    Raises:
        ValueError: when its config is neither here, nor on a reachable hub, nor in the stage's config.
    """
    if config.architecture is not None:
        numbers, where = AutoConfig.for_model(**config.architecture), "the stage's config (architecture)"
    elif Path(config.model).is_dir() or hub_reachable():
        numbers, where = AutoConfig.from_pretrained(config.model), config.model
    else:
        raise ValueError(
            f"the config of {config.model} is not here and the hub can't be reached: put its numbers under architecture"
        )
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(numbers, dtype=torch.bfloat16)
    return model, where


def shape_of(model: PreTrainedModel) -> Shape:
    """The numbers that the estimate needs."""
    config = model.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        embedding=model.get_input_embeddings().weight.numel(),
        tied=bool(config.tie_word_embeddings),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        query=config.num_attention_heads * head,
        key_value=config.num_key_value_heads * head,
        mlp=config.intermediate_size,
    )


def trained_parameters(config: Sized, model: PreTrainedModel, shape: Shape) -> int:
    """How many of the parameters change."""
    lora = lora_config(config.peft)
    if lora is None:
        return shape.parameters
    from peft import get_peft_model

    wrapped = get_peft_model(model, lora)
    return sum(p.numel() for p in wrapped.parameters() if p.requires_grad)


def dry_run(config: SftConfig) -> str:
    """The report, for people. Writes nothing.

    Raises:
        ValueError: for data or a model that is not there, or when none of the first rows fits.
    """
    use_threads()
    tokenizer, which = tokenizer_of(config)
    arguments = trl_config(SFTConfig, trainer_options(config, tokenizer), config.output_dir / "trainer", config.seed)
    first, total = list(read_rows(config, config.estimate.rows)), count_rows(config)
    encoded = encode(tokenizer, first, config.max_tokens)
    if not encoded.rows:
        raise ValueError(f"none of the first {len(first)} rows fits into max_tokens={config.max_tokens}")
    rows = arranged(encoded.rows, replayed(config, tokenizer, encoded.rows), config.order, config.packing, config.seed)
    model, where = meta_model(config)
    shape = shape_of(model)
    trained = trained_parameters(config, model, shape)
    return "\n".join(
        [
            f"dry run of {config.output_dir} (nothing is trained or written)",
            *_data_lines(config, tokenizer, which, first, encoded.rows, total),
            f"  dropped whole   {dict(encoded.dropped) or 'none'}",
            *_run_lines(config, arguments, shape, trained, rows, total, len(first), where),
        ]
    )


def _data_lines(config: SftConfig, tokenizer: Any, which: str, first: list[Any], rows: list[Row], total: int) -> Any:
    row = rows[0]
    begin, end = tokenizer.decode(row.ids[: row.prompt]), tokenizer.decode(row.ids[row.prompt :])
    lengths = [len(r) for r in rows]
    return [
        f"  data            {config.data}: {total:,} rows, the first {len(first):,} rendered",
        f"  tokenizer       {which}",
        f"  prompt ends     ...{begin[-100:]!r}",
        f"  loss is on      {end[:60]!r} ... {end[-60:]!r}",
        f"  tokens per row  mean {sum(lengths) / len(rows):,.1f}, longest {max(lengths):,}; "
        f"with loss {sum(len(r) - r.prompt for r in rows) / sum(lengths):.0%}",
    ]


def _run_lines(
    config: SftConfig, arguments: Any, shape: Shape, trained: int, rows: list[Row], total: int, read: int, where: str
) -> list[str]:
    machine, processes, lengths = config.estimate, config.processes(), [len(r) for r in rows]
    scale = total / read
    batch = arguments.per_device_train_batch_size
    # As the run fills the last pass up: with a kept order, rows without loss (see `in_packs`).
    multiple = pass_rows(config, batch, processes)
    if config.packing:
        packs = next_fit(lengths, config.max_tokens)
        fill = sum(lengths) / (len(packs) * config.max_tokens)
        units, per_pass = _filled(len(packs) * scale, multiple), config.max_tokens * batch
        about = f"packs {units:,} of {config.max_tokens:,} tokens, {fill:.0%} full"
    else:
        units, per_pass = _filled(len(rows) * scale, multiple), max(lengths) * batch
        about = f"rows {units:,}, not packed"
    per_step = batch * arguments.gradient_accumulation_steps * processes
    steps_per_epoch = max(1, -(-units // per_step))
    epochs = _epochs(config, arguments, steps_per_epoch, sum(lengths) * scale)
    steps = arguments.max_steps if arguments.max_steps > 0 else math.ceil(epochs * steps_per_epoch)
    work = flops(shape, lengths) * scale * epochs
    need = memory(shape, trained, processes, per_pass, arguments.gradient_checkpointing)
    return [
        f"  order           {config.order or arguments.train_sampling_strategy}; {about}",
        f"  tokens          {sum(lengths) * scale:,.0f} per epoch, {sum(lengths) * scale * epochs:,.0f} in all",
        f"  steps           {steps_per_epoch:,} per epoch, {steps:,} in all "
        f"({per_step} {'packs' if config.packing else 'rows'} each: {batch} x "
        f"{arguments.gradient_accumulation_steps} accumulated x {processes} processes)",
        f"  model           {shape.parameters:,} parameters, {trained:,} trained; numbers from {where}",
        *_memory_lines(need, processes, machine.memory_gib, arguments.gradient_checkpointing),
        f"  time            {duration(hours(work, processes, machine.peak_tflops, machine.mfu))}: {work:.3g} FLOPs "
        f"on {processes} GPUs at {machine.mfu:.0%} of {machine.peak_tflops:g} TFLOP/s (assumed, not measured)",
        "  formulas        see mr3/sft/estimate.py",
    ]


def _filled(units: float, multiple: int) -> int:
    return -(-round(units) // multiple) * multiple


def _epochs(config: SftConfig, arguments: Any, steps_per_epoch: int, tokens: float) -> float:
    """Epochs of the run, which steps or another run's tokens may decide."""
    if arguments.max_steps > 0:
        return float(arguments.max_steps / steps_per_epoch)
    if config.same_tokens_as is not None and (config.same_tokens_as / "metrics.json").is_file():
        return float(metrics_of(config.same_tokens_as)["tokens"] / tokens)
    return float(arguments.num_train_epochs)


def duration(h: float) -> str:
    """Hours, for people."""
    return f"{h:.1f} h" if h >= 1 else f"{3600 * h:.3g} s"


def _memory_lines(need: Memory, gpus: int, limit: float, checkpointing: bool) -> list[str]:
    parts = ("weights", "gradients", "optimizer", "gathered", "activations")
    shown = ", ".join(f"{name} {getattr(need, name) / GIB:.1f}" for name in parts)
    fits = "fits" if need.total <= 0.9 * limit * GIB else "DOES NOT FIT (with a tenth left for the allocator)"
    return [
        f"  memory per GPU  {need.total / GIB:.1f} GiB of {limit:g}: {fits}; {shown} (GiB, states over {gpus} GPUs, "
        f"{'with' if checkpointing else 'without'} gradient checkpointing)",
    ]
