"""How a stage of a graph is started: alone, or in several processes under torchrun or accelerate, as its config says.

`python -m mr3.cli.launch MODULE ARGS` runs a launcher that ends with the command that started it, and its processes
with it (see `mr3.cli.orphan`).
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from mr3.cli.orphan import PARENT, end_with_parent
from mr3.config import StageConfig
from mr3.launch import Launch


def launch_of(config: StageConfig) -> Launch:
    """What a stage's config says of its processes; one where it says nothing."""
    found = getattr(config, "launch", None)
    return found if isinstance(found, Launch) else Launch()


def command_of(stage: str, file: Path, overrides: Sequence[str], launch: Launch) -> list[str]:
    """The command line of one stage.

    Raises:
        ValueError: for an accelerate config that is not there.
    """
    words = ["mr3.cli.main", stage, "--config", str(file), *overrides]
    if launch.accelerate is not None:
        if not launch.accelerate.is_file():
            raise ValueError(f"no accelerate config at {launch.accelerate}: give an existing file in launch.accelerate")
        launcher = ["accelerate.commands.launch", "--num_processes", str(launch.processes)]
        launcher += ["--config_file", str(launch.accelerate), "-m"]
    elif launch.processes > 1:
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={launch.processes}", "-m"]
    else:
        return [sys.executable, "-m", *words]
    return [sys.executable, "-m", "mr3.cli.launch", *launcher, *words]


def main() -> None:
    """Become the launcher: it runs in this process, so that its processes have this one as their parent."""
    end_with_parent()
    os.environ[PARENT] = str(os.getpid())
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
