"""`mr3 dpo`: train a policy on preference pairs with TRL's DPOTrainer.

In: pairs of `mr3 label` or `mr3 pairs`, optionally held-out ones. Out, in `output_dir`: `model/`, an ordinary folder
(with `peft:` the merged model, and the adapter beside it in `adapter/`), and metrics.json.
Reference log-probabilities are computed once and cached; label smoothing can be taken from the measured flips of
the labels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mr3.artifacts import metrics_of, stage_run
from mr3.config import StageConfig
from mr3.stage import stage_main

_COLUMNS = ("prompt", "chosen", "rejected")
_HELD_OUT = ("loss", "rewards/accuracies", "rewards/margins")
"""What TRL measures on held-out pairs, and metrics.json says."""


class DpoConfig(StageConfig):
    """One DPO run."""

    model: str = Field(description="the policy to start from")
    preferences: Path = Field(description="Parquet of preference pairs")
    max_pairs: int | None = None
    held_out: Path | None = Field(
        None, description="Parquet of pairs that are not trained on (preferences_heldout.parquet of `mr3 pairs`)"
    )
    label_smoothing: float | Literal["flips"] | None = Field(
        None, description="for loss `robust`; `flips`: from the label stage's flip rate"
    )
    peft: dict[str, Any] | None = Field(None, description="peft's LoraConfig by name")
    trl: dict[str, Any] = Field(default_factory=dict, description="TRL's DPOConfig by name")


def smoothing_from_flips(flip_rate: float) -> float:
    """Expected error of pairs kept by both orders, e^2 / (1 - f) with f = 2e(1 - e).

    Assumes that the two orders err independently: errors that both share are missed.

    Raises:
        ValueError: for a flip rate of one half or more, which is guessing.
    """
    if not 0 <= flip_rate < 0.5:
        raise ValueError(f"flip rate {flip_rate:.2f}: a judge that flips half of its verdicts is guessing")
    error = (1 - math.sqrt(1 - 2 * flip_rate)) / 2
    return error**2 / (1 - flip_rate)


def _smoothing(config: DpoConfig) -> float | None:
    if config.label_smoothing != "flips":
        return config.label_smoothing
    label = metrics_of(config.preferences.parent)
    if "flip_rate" not in label:
        raise ValueError(
            f"{config.preferences.parent} has no flip rate (single responses were scored, one order was judged, or "
            "several label runs were combined): give label_smoothing as a number"
        )
    return smoothing_from_flips(float(label["flip_rate"]["value"]))


def run(config: DpoConfig) -> None:
    """Train and save `output_dir/model`.

    Raises:
        ValueError: for a missing file or model, no pairs, or an unknown option.
    """
    if not config.preferences.is_file():
        raise ValueError(f"no preferences at {config.preferences}: make them with `mr3 label` or `mr3 pairs`")
    if config.held_out is not None and not config.held_out.is_file():
        raise ValueError(f"no held-out pairs at {config.held_out}: make them with `mr3 pairs --heldout_share 0.05`")
    inputs: list[str | Path] = [config.preferences, config.model, *([config.held_out] if config.held_out else [])]
    if config.label_smoothing == "flips":
        inputs.append(config.preferences.parent / "metrics.json")
    with stage_run("dpo", config, inputs) as stage:
        if stage.finished:
            return
        _train(config, stage.folder, stage.metrics)


def _read(file: Path) -> Any:
    from datasets import Dataset

    data = Dataset.from_parquet(str(file))
    if len(data) == 0:
        raise ValueError(f"{file} holds no pairs: every comparison was a tie or failed")
    return data.select_columns(list(_COLUMNS))


def _pairs(config: DpoConfig) -> Any:
    data = _read(config.preferences)
    if config.max_pairs is not None and len(data) > config.max_pairs:
        chosen = random.Random(config.seed).sample(range(len(data)), config.max_pairs)
        data = data.select(sorted(chosen))
    return data


def _train(config: DpoConfig, folder: Path, metrics: dict[str, Any]) -> None:
    from transformers import set_seed
    from trl import DPOConfig, DPOTrainer

    from mr3.compact_head import use_compact_head
    from mr3.judge_card import find_card
    from mr3.training import (
        PlainProgress,
        last_checkpoint,
        load_model,
        load_tokenizer,
        lora_config,
        quiet_trainer,
        save_trained,
        trl_config,
        use_threads,
    )

    use_threads()
    set_seed(config.seed)
    data = _pairs(config)
    smoothing = _smoothing(config)
    options: dict[str, Any] = {"precompute_ref_log_probs": True} | config.trl
    if smoothing is not None:
        options["label_smoothing"] = smoothing
    progress = PlainProgress("dpo", ("loss", "rewards/margins", "rewards/accuracies"))
    peft_config = lora_config(config.peft)
    tokenizer = load_tokenizer(config.model)
    model = load_model(config.model)
    trainer = DPOTrainer(
        model=model,
        args=trl_config(DPOConfig, options, folder / "trainer", config.seed),
        train_dataset=data,
        eval_dataset=None if config.held_out is None else _read(config.held_out),
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=[progress],
    )
    quiet_trainer(trainer)
    if peft_config is None:
        use_compact_head(model)
    result = trainer.train(resume_from_checkpoint=last_checkpoint(folder / "trainer"))
    if config.held_out is not None:
        found = trainer.evaluate()
        metrics["held_out"] = {name: found[f"eval_{name}"] for name in _HELD_OUT}
    card = find_card(config.model)  # a judge that is trained on pairs stays one
    save_trained(trainer, folder, base=config.model, lora=peft_config is not None, card=card)
    metrics.update(
        pairs=len(data),
        steps=result.global_step,
        train_loss=result.training_loss,
        label_smoothing=smoothing,
        curve=progress.curve,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 dpo --config FILE`."""
    return stage_main("dpo", DpoConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
