"""What the TRL stages share: TRL's own config from a `trl:` block, models from folders, plain progress, resume."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import datasets
import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils import logging as transformers_logging

from mr3.hub import open_tokenizer, told_what_to_do
from mr3.judge_card import JudgeCard, write_card
from mr3.launch import is_main_process
from mr3.stage import quiet

if TYPE_CHECKING:
    from peft import LoraConfig

log = logging.getLogger("mr3.training")
T = TypeVar("T")
_HUB_ID = re.compile(r"^[\w.\-]+/[\w.\-]+$")


def trl_config(kind: type[T], options: dict[str, Any], output_dir: Path, seed: int) -> T:
    """TRL's config dataclass from a YAML block, with CPU defaults where there is no GPU.

    Raises:
        ValueError: for a name that TRL's dataclass does not have, with the nearest one.
    """
    known = {f.name for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ValueError(f"trl.{name} is not an option of {kind.__name__}{hint}")
    defaults: dict[str, Any] = {
        "output_dir": str(output_dir),
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "warning",
        "logging_strategy": "steps",
        "save_only_model": False,
        "save_total_limit": 1,
    }
    if not torch.cuda.is_available():
        defaults |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    return kind(**{k: v for k, v in (defaults | options).items() if k in known})


def use_threads() -> None:
    """One torch thread on a CPU unless OMP_NUM_THREADS says otherwise (two spinning threads were slower)."""
    if not torch.cuda.is_available():
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    quiet_libraries()


def quiet_libraries() -> None:
    """No progress bars of other libraries where nobody watches a terminal."""
    if quiet():
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()


def check_model(model: str) -> str:
    """A folder with a config, or a hub id.

    Raises:
        ValueError: for a folder that is missing or holds no model.
    """
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"{model} holds no model (no config.json): give the folder that a training stage wrote")
    elif not _HUB_ID.match(model) or model.startswith(".") or folder.parts[0] in ("runs", "mr3"):
        raise ValueError(f"no model folder at {model}: train it first, or give a hub id such as Qwen/Qwen3-4B")
    return model


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a checked folder or hub id, padding on the right for training."""
    tokenizer: PreTrainedTokenizerBase = open_tokenizer(check_model(model))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(model: str, dtype: str = "auto", attention: str | None = None) -> PreTrainedModel:
    """A causal language model.

    Args:
        dtype: "float32" or "bfloat16" of the weights; "auto" is fp32 on a CPU, as stored on a GPU.
        attention: transformers' `attn_implementation`; None is the library's choice.
    """
    if dtype == "auto" and not torch.cuda.is_available():
        dtype = "float32"
    options = {} if attention is None else {"attn_implementation": attention}
    with told_what_to_do(model):
        loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(check_model(model), dtype=dtype, **options)
    return loaded


def lora_config(options: dict[str, Any] | None) -> LoraConfig | None:
    """peft's LoraConfig of a `peft:` block, for a causal language model; None where all weights are trained."""
    if options is None:
        return None
    from peft import LoraConfig

    return LoraConfig(**{"task_type": "CAUSAL_LM", **options})


def merge_adapter(model: str, adapter: Path, target: Path, dtype: str = "auto") -> None:
    """Save `model` with an adapter added to it as an ordinary folder, which is what engines and later stages take.

    Args:
        dtype: of the base while the adapter is added, as `load_model` takes it.
    """
    from peft import PeftModel

    base = load_model(model, dtype=dtype)
    PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().save_pretrained(str(target))


def save_trained(
    trainer: Trainer, folder: Path, *, base: str, lora: bool, dtype: str = "auto", card: JudgeCard | None = None
) -> None:
    """The whole model in `folder/model`; with LoRA also the adapter in `folder/adapter`. Every process calls it.

    Args:
        base: the model that an adapter is added to, read with `dtype` as `load_model` takes it.
        card: what makes a judge of the model.
    """
    target = folder / ("adapter" if lora else "model")
    trainer.save_model(str(target))
    if not is_main_process():
        return
    if lora:
        merge_adapter(base, target, folder / "model", dtype)
    trainer.processing_class.save_pretrained(str(folder / "model"))
    if card is not None:
        write_card(folder / "model", card)


def require_sharding() -> None:
    """Where FSDP was asked for it must be on: accelerate 1.15 leaves it out on a CPU without a word (state.py).

    Raises:
        ValueError: when every process would train the whole model after all.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and not torch.cuda.is_available():
        raise ValueError(
            "FSDP needs GPUs: on a CPU accelerate would train a whole model in every process instead. "
            "Launch with torchrun --nproc-per-node N, or on GPUs"
        )


def mean_loss(curve: list[dict[str, float]]) -> float:
    """Mean loss per step of a learning curve whose rows are means since the row before."""
    steps = [row["step"] for row in curve]
    widths = [b - a for a, b in zip([0.0, *steps], steps, strict=False)]
    return sum(w * row["loss"] for w, row in zip(widths, curve, strict=True)) / sum(widths)


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint of a trainer's folder, for `resume_from_checkpoint`."""
    found = [p for p in folder.glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return str(max(found, key=lambda p: int(p.name.rsplit("-", 1)[1]))) if found else None


def quiet_trainer(trainer: Trainer) -> None:
    """Our own lines replace the printed log dicts."""
    trainer.remove_callback(PrinterCallback)


class PlainProgress(TrainerCallback):
    """One plain line per logging step, and the learning curve for metrics.json."""

    def __init__(self, name: str, keys: tuple[str, ...] = ("loss",)) -> None:
        self.name, self.keys = name, keys
        self.curve: list[dict[str, float]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A resumed run's curve begins where the first one did."""
        self.curve = [row for logs in state.log_history if (row := self._row(logs, logs["step"]))]

    def _row(self, logs: dict[str, Any], step: float) -> dict[str, float] | None:
        if self.keys[0] not in logs:
            return None
        return {"step": float(step), **{k: float(v) for k, v in logs.items() if _is_number(v) and k != "step"}}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Called by the trainer."""
        row = self._row(logs or {}, state.global_step)
        if row is None:
            return
        self.curve.append(row)
        shown = ", ".join(f"{k} {row[k]:.4f}" for k in self.keys if k in row)
        log.info("%s: step %d/%d %s", self.name, state.global_step, state.max_steps, shown)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
