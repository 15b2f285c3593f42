"""Training stages in one or several processes: what a config says of them, and who keeps the stage's records.

Free of torch: a config is read, and a dry run or a refusal printed, before it is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mr3.artifacts import stage_run
from mr3.config import StageConfig


class Launch(BaseModel):
    """In how many processes a stage runs, and what starts them: torchrun, or accelerate with a config file."""

    model_config = ConfigDict(extra="forbid")

    processes: int = Field(1, ge=1)
    accelerate: Path | None = Field(None, description="accelerate's config file; its num_processes gives way")

    def refuse_others(self, module: str) -> None:
        """A step's rows are those that the config and its dry run speak of.

        Args:
            module: what the launcher is to start, for the message.

        Raises:
            ValueError: when a launcher has started another number of processes than planned.
        """
        started = started_processes() or 1
        if started == self.processes:
            return
        file = self.accelerate
        how = "torchrun --nproc-per-node" if file is None else f"accelerate launch --config_file {file} --num_processes"
        raise ValueError(
            f"launch.processes is {self.processes}, and this run has {started}: a step would hold other rows than "
            f"planned. Start it with `{how} {self.processes} -m {module} ...`, or set --launch.processes {started}"
        )


def started_processes() -> int | None:
    """How many processes a launcher has started; None without a launcher."""
    started = os.environ.get("WORLD_SIZE")
    return None if started is None else int(started)


def planned_processes(launch: Launch | None, otherwise: int | None = None) -> int:
    """Processes of a run: those that a launcher has started, else what the config says, else `otherwise` or 1."""
    started = started_processes()
    if started is not None:
        return started
    return launch.processes if launch is not None else otherwise or 1


def is_main_process() -> bool:
    """Whether this is the only or the first of the processes that a launcher started."""
    return int(os.environ.get("RANK", "0")) == 0


def training_stage(
    name: str,
    config: StageConfig,
    inputs: Sequence[str | Path],
    train: Callable[[Path, dict[str, Any]], None],
) -> None:
    """Run `train(folder, metrics)` as a stage in every process; the first alone keeps the records.

    Args:
        inputs: files and models whose digests the manifest keeps.
    """
    if not is_main_process():
        if not (config.output_dir / "manifest.json").is_file():
            train(config.output_dir, {})
        return
    with stage_run(name, config, inputs) as stage:
        if not stage.finished:
            train(stage.folder, stage.metrics)
