"""`mr3 demo`: the whole loop of a profile as a graph of stages, a few at once, in one Ray session.

Each stage is the ordinary command (`python -m mr3.cli.main STAGE --config ...`) with its log in RUN/logs. Finished
stages are not run again; after Ctrl-C the same command goes on. Ends with RUN/summary.json and RUN/report.html.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.artifacts import read_json, write_json
from mr3.cli.launch import command_of, launch_of
from mr3.cli.memory import PeakMemory
from mr3.cli.progress import Clock, LiveView, PlainView, last_lines
from mr3.cli.schedule import Job, check_graph, run_jobs
from mr3.cli.session import Session, alone
from mr3.cli.stages import config_model_of
from mr3.cli.state import is_current
from mr3.cli.summary import DEMO, Figure, RunRecord, StageFolder
from mr3.config import StageConfig, load_config
from mr3.stage import quiet, stage_main

DEFAULT_CONFIG = Path("configs/nano/demo.yaml")
_TAIL = 25


class StageFailed(Exception):
    """A stage ended with an error; the message holds the end of its log."""


class Node(BaseModel):
    """One stage of the graph."""

    model_config = ConfigDict(extra="forbid")

    stage: str = Field(description="name of the command, see mr3 --help")
    config: str = Field(description="file in the folder of stage configs")
    needs: list[str] = Field(default_factory=list)
    args: list[str] = Field(default_factory=list, description="overrides, as on the command line")
    ray: bool = Field(False, description="the stage joins the demo's Ray session")


class DemoConfig(StageConfig):
    """A graph of stages, and the figures that its summary holds."""

    configs: Path = Field(Path("configs/nano"), description="folder of the stages' configs")
    stages: dict[str, Node]
    figures: dict[str, Figure]
    at_once: int = Field(2, ge=1, description="stages side by side, one core each")
    ray_cpus: int = Field(8, ge=1, description="logical CPUs of the Ray session")
    environment: dict[str, str] = Field(default_factory=dict, description="set for every stage")
    notes: list[str] = Field(default_factory=list, description="what a reader of the report must know")

    @model_validator(mode="after")
    def _whole(self) -> DemoConfig:
        check_graph({name: node.needs for name, node in self.stages.items()})
        if {"report", DEMO, "logs"} & self.stages.keys():
            raise ValueError("`report`, `demo` and `logs` can't be names of stages: choose others")
        for key, figure in self.figures.items():
            if figure.stage not in self.stages and figure.stage != DEMO:
                raise ValueError(f"figure {key} is taken from {figure.stage!r}, which is not a stage here")
        return self


def stage_configs(config: DemoConfig) -> dict[str, StageConfig]:
    """Every stage's own config, so that a mistake in the last one shows before the first one runs.

    Raises:
        ValueError: for a missing file, an unknown stage or key, or two stages with one folder.
    """
    found: dict[str, StageConfig] = {}
    for name, node in config.stages.items():
        own = load_config(
            config_model_of(node.stage, config.configs / node.config),
            config.configs / node.config,
            _overrides(config, name),
        )
        found[name] = own
    return found


def _overrides(config: DemoConfig, name: str) -> list[str]:
    return [*config.stages[name].args, "--output_dir", str(config.output_dir / name)]


def _environment(config: DemoConfig) -> dict[str, str]:
    """What stages see: where the run is, its seed, and one thread each."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**threads, **config.environment, "RUN": str(config.output_dir), "SEED": str(config.seed)}


def _jobs(config: DemoConfig, stages: dict[str, StageConfig], session: Session) -> list[Job]:
    logs = config.output_dir / "logs"
    jobs = []
    for name, node in config.stages.items():
        launch = launch_of(stages[name])
        command = command_of(node.stage, config.configs / node.config, _overrides(config, name), launch)
        done = _done(stages[name])
        jobs.append(Job(name, command, logs / f"{name}.log", node.needs, is_done=done, cores=launch.processes))
        if node.ray:
            jobs[-1].prepare = session.start
    report = [sys.executable, "-m", "mr3.cli.main", "report", str(config.output_dir)]
    jobs.append(Job("report", report, logs / "report.log", list(config.stages)))
    return jobs


def _done(config: StageConfig) -> Callable[[], bool]:
    return lambda: is_current(config)


def _record(config: DemoConfig) -> RunRecord:
    return RunRecord(
        seed=config.seed,
        stages={name: StageFolder(stage=n.stage, folder=config.output_dir / name) for name, n in config.stages.items()},
        figures=config.figures,
        notes=config.notes,
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _stop(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def run(config: DemoConfig) -> None:
    """Run what is not finished, then the report.

    Raises:
        ValueError: for a mistake in a config.
        StageFailed: when a stage did; the others are stopped, and the same command goes on.
    """
    os.environ.update(_environment(config))
    stages = stage_configs(config)
    with alone(config.output_dir, "demo"):
        record = json_of(_record(config))
        file = config.output_dir / "demo.json"
        known = file.is_file() and read_json(file) == record and (config.output_dir / "summary.json").is_file()
        if not (known and all(is_current(own) for own in stages.values())):
            write_json(file, record)
            _run_stages(config, stages)
        else:
            _say("every stage is finished: nothing to run")
    _say((config.output_dir / "bars.txt").read_text(encoding="utf-8"))
    _say(f"summary: {config.output_dir / 'summary.json'}\nreport:  {config.output_dir / 'report.html'}")


def json_of(record: RunRecord) -> Any:
    """As demo.json holds it."""
    return record.model_dump(mode="json")


def _run_stages(config: DemoConfig, stages: dict[str, StageConfig]) -> None:
    signal.signal(signal.SIGTERM, _stop)
    with ExitStack() as stack, PeakMemory() as peak:
        clock = Clock(config.output_dir / "timing.json")
        jobs = _jobs(config, stages, Session(stack, config.ray_cpus))
        view = PlainView(clock, lambda: peak.gb, _say)
        if not quiet():
            view = live = LiveView(clock, lambda: peak.gb, [job.name for job in jobs])
            stack.callback(live.close)
        try:
            failed = run_jobs(jobs, config.at_once, view)
        finally:
            clock.save(peak.gb)
    if failed is not None:
        tail = "\n".join(f"  | {line}" for line in last_lines(failed.log, _TAIL))
        raise StageFailed(f"stage {failed.name!r} failed; the end of {failed.log}:\n{tail}")


def arguments(argv: Sequence[str]) -> list[str]:
    """`--run NAME` is `--output_dir runs/NAME`; without --config the nano demo; stage configs lie beside the demo's."""
    words = [w for word in argv for w in (word.split("=", 1) if word.startswith("--") else [word])]
    if "-h" in words or "--help" in words:
        return words
    if "--run" in words:
        place = words.index("--run")
        if place + 1 == len(words):
            raise ValueError("--run needs a name: --run NAME")
        words[place : place + 2] = ["--output_dir", f"runs/{words[place + 1]}"]
    if "--config" not in words:
        if not DEFAULT_CONFIG.is_file():
            raise ValueError(
                f"no {DEFAULT_CONFIG} here: run in the project's folder, or first "
                f"`mr3 config copy nano {DEFAULT_CONFIG.parent}`"
            )
        words = ["--config", str(DEFAULT_CONFIG), *words]
    place = words.index("--config")
    if "--configs" not in words and place + 1 < len(words):
        words += ["--configs", str(Path(words[place + 1]).parent)]
    return words


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 demo [--config FILE] [--run NAME] [--seed N]`; 1 when a stage failed."""
    try:
        words = arguments(sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        print(f"mr3 demo: error: {error}", file=sys.stderr)
        return 2
    logging.getLogger("ray").setLevel(logging.WARNING)
    try:
        return stage_main("demo", DemoConfig, run, words, __doc__)
    except StageFailed as error:
        print(f"mr3 demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
