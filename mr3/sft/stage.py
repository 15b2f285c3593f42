"""`mr3 sft`: supervised fine-tuning of a judge or a policy with TRL's SFTTrainer.

Rows are prompt-completion rows; a `judge:` block makes the result a judge (judge.json beside the model). Ctrl-C leaves
a checkpoint that the same command goes on from. `--dry-run` prints tokens, steps, memory and time and trains nothing.
On several GPUs: `accelerate launch --config_file FSDP.yaml -m mr3.sft.stage --config FILE`; `launch:` says how many
processes it is planned for, and `mr3 study` starts them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mr3.launch import is_main_process, training_stage
from mr3.sft.config import SftConfig
from mr3.sft.source import check_data
from mr3.stage import stage_main

log = logging.getLogger("mr3.sft")
__all__ = ["SftConfig", "main", "run"]


def run(config: SftConfig, callbacks: Sequence[Any] = ()) -> None:
    """Train and save `output_dir/model`. `callbacks`: transformers' TrainerCallbacks.

    Of several processes the first alone keeps the stage's records.

    Raises:
        ValueError: for a missing model or data file, no usable row, or an unknown option.
    """
    check_data(config.data)
    for path, what in ((config.replay, "replay"), (config.held_out, "held-out")):
        if path is not None and not path.is_file():
            raise ValueError(f"no {what} file at {path}: make it with `mr3 data`, or give another path")
    if config.dry_run:
        if is_main_process():
            from mr3.sft.dry_run import dry_run

            print(dry_run(config))
        return
    if config.launch is not None:
        config.launch.refuse_others("mr3.sft.stage")
    elif config.estimate.gpus not in (None, config.processes()):
        log.warning(
            "estimate.gpus is %d, this run has %d: its steps are not the dry run's",
            config.estimate.gpus,
            config.processes(),
        )
    inputs: list[str | Path] = [p for p in (config.data, config.replay, config.held_out, config.model) if p is not None]
    training_stage("sft", config, inputs, partial(_train, config, callbacks))


def _train(config: SftConfig, callbacks: Sequence[Any], folder: Path, metrics: dict[str, Any]) -> None:
    from mr3.sft.model_card import write_model_card
    from mr3.sft.train import train

    train(config, folder, metrics, callbacks)
    if is_main_process():
        write_model_card(config, folder, metrics)


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 sft --config FILE [--dry-run]`."""
    words = list(sys.argv[1:] if argv is None else argv)
    return stage_main(
        "sft", SftConfig, run, ["--dry_run=true" if word == "--dry-run" else word for word in words], __doc__
    )


if __name__ == "__main__":
    raise SystemExit(main())
