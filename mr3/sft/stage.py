"""`mr3 sft`: supervised fine-tuning of a judge or a policy with TRL's SFTTrainer.

Rows are prompt-completion rows; a `judge:` block makes the result a judge (judge.json beside the model). Ctrl-C leaves
a checkpoint that the same command goes on from. `--dry-run` prints tokens, steps, memory and time and trains nothing.
On several GPUs: `accelerate launch --config_file FSDP.yaml -m mr3.sft.stage --config FILE`; `launch:` says how many
processes it is planned for, and `mr3 study` starts them.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mr3.artifacts import stage_run
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
        if int(os.environ.get("RANK", "0")) == 0:
            from mr3.sft.dry_run import dry_run

            print(dry_run(config))
        return
    _check_processes(config)
    if int(os.environ.get("RANK", "0")) != 0:
        if not (config.output_dir / "manifest.json").is_file():
            _train(config, config.output_dir, {}, callbacks)
        return
    inputs: list[str | Path] = [p for p in (config.data, config.replay, config.held_out, config.model) if p is not None]
    with stage_run("sft", config, inputs) as stage:
        if stage.finished:
            return
        _train(config, stage.folder, stage.metrics, callbacks)
        from mr3.sft.model_card import write_model_card

        write_model_card(config, stage.folder, stage.metrics)


def _check_processes(config: SftConfig) -> None:
    """A step's rows are those that the config and its dry run speak of.

    Raises:
        ValueError: when a launcher has started another number of processes than `launch` says.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if config.launch is not None and started != config.launch.processes:
        file = config.launch.accelerate
        how = "torchrun --nproc-per-node" if file is None else f"accelerate launch --config_file {file} --num_processes"
        raise ValueError(
            f"launch.processes is {config.launch.processes}, and this run has {started}: a step would hold other rows "
            f"than planned. Start it with `{how} {config.launch.processes} -m mr3.sft.stage ...`, or set "
            f"--launch.processes {started}"
        )
    if config.launch is None and config.estimate.gpus not in (None, started):
        log.warning(
            "estimate.gpus is %d, this run has %d: its steps are not the dry run's", config.estimate.gpus, started
        )


def _train(config: SftConfig, folder: Path, metrics: dict[str, Any], callbacks: Sequence[Any]) -> None:
    from mr3.sft.train import train

    train(config, folder, metrics, callbacks)


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 sft --config FILE [--dry-run]`."""
    words = list(sys.argv[1:] if argv is None else argv)
    return stage_main(
        "sft", SftConfig, run, ["--dry_run=true" if word == "--dry-run" else word for word in words], __doc__
    )


if __name__ == "__main__":
    raise SystemExit(main())
