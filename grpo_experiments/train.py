"""`mr3 grpo`: train a judge with TRL's GRPOTrainer on rewards that read the rubric. docs/grpo.md explains the parts.

Ctrl-C leaves a checkpoint (trl.save_steps) that the same command goes on from, with the same rows, rewards and log.
`--dry-run` prints memory, tokens and time and trains nothing. On several GPUs: `accelerate launch --config_file
FSDP.yaml -m grpo_experiments.train --config FILE`; `launch:` says how many processes the run is planned for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from grpo_experiments.config import GrpoConfig
from mr3.launch import is_main_process, training_stage
from mr3.stage import stage_main

log = logging.getLogger("mr3.grpo")
__all__ = ["GrpoConfig", "main", "run"]


def run(config: GrpoConfig, callbacks: Sequence[Any] = ()) -> None:
    """Train and save `output_dir/model` with its judge card. Of several processes the first alone keeps the records.

    Raises:
        ValueError: for a missing model or file, no usable task, an unknown option, or a reward that is gone.
    """
    for path in (config.tasks, config.held_out):
        if path is not None and not path.is_file():
            raise ValueError(f"no tasks at {path}: make them with `mr3 data`")
    if config.dry_run:
        if is_main_process():
            from grpo_experiments.dry_run import dry_run

            print(dry_run(config))
        return
    if config.launch is not None:
        config.launch.refuse_others("grpo_experiments.train")
    inputs: list[str | Path] = [config.tasks, config.model, *([config.held_out] if config.held_out else [])]
    inputs += [config.reader] if config.reader else []
    training_stage("grpo", config, inputs, partial(_train, config, callbacks))


def _train(config: GrpoConfig, callbacks: Sequence[Any], folder: Path, metrics: dict[str, Any]) -> None:
    from grpo_experiments.judge import train

    train(config, folder, metrics, callbacks)


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 grpo --config FILE [--dry-run]`."""
    words = list(sys.argv[1:] if argv is None else argv)
    words = ["--dry_run=true" if word == "--dry-run" else word for word in words]
    return stage_main("grpo", GrpoConfig, run, words, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
