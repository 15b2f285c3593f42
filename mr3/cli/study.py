"""`mr3 study`: arms x seeds as ordinary stage configs, resumable, ending in a paired table and a plot.

    mr3 study --config configs/experiments/1-threshold-curriculum/nano.yaml
    mr3 study --config configs/experiments/1-threshold-curriculum/qwen3-4b.yaml --dry-run

Stages of `once` run once, those of `shared` once per seed, those of `each` once per arm and seed. A stage config may
use ${RUN} (the seed's folder, or that of `once`), ${ONCE}, ${ARM}, ${ARM_RUN} (the arm's folder) and ${SEED}. Finished
stages are not run again. An arm changes arguments of stages of `each`, or brings stages of its own, so that arms of
different kinds are compared by what they end in: one `compared` stage whose items they share.

--dry-run reads every config, prints the dry run of every stage that has one (tokens, steps, calls, memory, time), names
what the others read, and trains nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from mr3.artifacts import write_json
from mr3.cli.demo import Node, StageFailed
from mr3.cli.launch import command_of, launch_of
from mr3.cli.memory import PeakMemory
from mr3.cli.progress import Clock, PlainView, last_lines
from mr3.cli.schedule import Job, check_graph, run_jobs
from mr3.cli.session import Session, alone
from mr3.cli.stages import config_model_of
from mr3.cli.state import is_current
from mr3.cli.study_table import STUDY, StudyPlan, write_tables
from mr3.config import StageConfig, load_config
from mr3.items import READERS
from mr3.launch import Launch
from mr3.stage import stage_main

_TAIL = 25
_WRITTEN = frozenset({"output_dir", "store"})
"""Keys of a stage's config that name what it writes."""
ONCE = "once"
_OF_A_STEP = ("RUN", "ONCE", "ARM", "ARM_RUN", "SEED")
"""Variables that are set for each step, and stay as they are when the study's own file is read."""


class StudyConfig(StageConfig):
    """Arms and seeds of one question, and what is compared."""

    question: str = Field(description="what the study asks, for its table")
    seed_varies: str = Field(description="what differs from seed to seed: data, initialisation, order, sampling")
    configs: Path = Field(Path(), description="folder of the stages' configs (default: where this file is)")
    seeds: list[int] = Field([0, 1, 2, 3, 4], min_length=1)
    once: dict[str, Node] = Field(default_factory=dict, description="stages that run once for all, with `seed`")
    shared: dict[str, Node] = Field(default_factory=dict, description="stages that run once per seed")
    each: dict[str, Node] = Field(default_factory=dict, description="stages that run for every arm and seed")
    arms: dict[str, dict[str, list[str] | Node | None]] = Field(
        min_length=2,
        description="arm -> stage -> overrides of a stage of `each`, a stage of its own, or null: it has no such stage",
    )
    baseline: str = Field(description="the arm that the others are compared with")
    compared: str = Field(description="the stage of every arm whose items are compared (see mr3/items.py)")
    sets: list[str] = Field(default_factory=list, description="evaluation sets in the table; empty: all")
    languages: list[str] = Field(default_factory=list, description="only tasks in these are compared; empty: all")
    at_once: int = Field(2, ge=1, description="stages side by side, one core each")
    ray_cpus: int = Field(8, ge=1, description="logical CPUs of the Ray session")
    environment: dict[str, str] = Field(default_factory=dict, description="set for every stage")
    overlay: Path | None = Field(None, description="file that is laid over the config of every stage")
    dry_run: dict[str, list[str]] = Field(
        default_factory=dict, description="stage -> overrides of a dry run: rows that stand in for those not made yet"
    )
    notes: list[str] = Field(default_factory=list, description="what a reader of the table must know")

    @model_validator(mode="after")
    def _whole(self) -> StudyConfig:
        own = {name for arm in self.arms.values() for name in arm} - self.each.keys()
        counts = Counter([*self.once, *self.shared, *self.each, *own, *self.arms])
        twice = [name for name, n in counts.items() if n > 1]
        if twice:
            raise ValueError(
                f"{twice[0]!r} comes twice: stages of once, shared and each, and arms, need names of their own"
            )
        if self.baseline not in self.arms:
            raise ValueError(f"baseline {self.baseline!r} is no arm: {', '.join(self.arms)}")
        kinds = set()
        for arm in self.arms:
            stages = self.stages_of(arm)
            try:
                check_graph({name: node.needs for name, node in (self.once | self.shared | stages).items()})
            except ValueError as error:
                raise ValueError(f"arm {arm!r}: {error}") from error
            if self.compared not in stages or stages[self.compared].stage not in READERS:
                raise ValueError(
                    f"compared is {self.compared!r}: name a stage that every arm has (not {arm!r}?) and that leaves "
                    f"items to compare: {', '.join(READERS)}"
                )
            kinds.add(stages[self.compared].stage)
        if len(kinds) > 1:
            raise ValueError(f"{self.compared!r} is another stage in each arm ({', '.join(sorted(kinds))}): no pairs")
        of_arms = {name: None for arm in self.arms for name in self.stages_of(arm)}
        for group, later in ((self.once, self.shared | of_arms), (self.shared, of_arms)):
            for name, node in group.items():
                if set(node.needs) & later.keys():
                    raise ValueError(f"the stage {name!r} needs one that runs more often: move it there")
        return self

    def stages_of(self, arm: str) -> dict[str, Node]:
        """The stages of one arm: those of `each` as it changes them, and its own.

        Raises:
            ValueError: when it changes a stage that `each` does not have.
        """
        found = dict(self.each)
        for name, change in self.arms[arm].items():
            if isinstance(change, Node):
                found[name] = change
            elif name not in self.each:
                raise ValueError(f"arm {arm!r} changes {name!r}, which is no stage of `each`")
            elif change is None:
                del found[name]
            else:
                found[name] = found[name].model_copy(update={"args": [*found[name].args, *change]})
        return found


@dataclass(frozen=True)
class Step:
    """One stage of one seed, of one arm or shared by all."""

    name: str
    node: Node
    folder: Path
    needs: tuple[str, ...]
    environment: Mapping[str, str]
    overrides: tuple[str, ...]
    config: StageConfig


@contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def steps_of(config: StudyConfig) -> list[Step]:
    """Every stage that the study runs, its config read, so that a mistake in the last one shows before the first runs.

    Raises:
        ValueError: for a missing file, an unknown stage or key.
    """
    once = config.output_dir / ONCE
    always = {**config.environment, "ONCE": str(once)}
    first = {**always, "RUN": str(once), "SEED": str(config.seed)}
    found = [_step(config, name, node, once, first, None) for name, node in config.once.items()]
    for seed in config.seeds:
        run = config.output_dir / f"seed-{seed}"
        base = {**always, "RUN": str(run), "SEED": str(seed)}
        found += [_step(config, name, node, run, base, None) for name, node in config.shared.items()]
        for arm in config.arms:
            environment = {**base, "ARM": arm, "ARM_RUN": str(run / arm)}
            found += [_step(config, name, node, run, environment, arm) for name, node in config.stages_of(arm).items()]
    return found


def _step(
    config: StudyConfig, name: str, node: Node, run: Path, environment: Mapping[str, str], arm: str | None
) -> Step:
    folder = run / name if arm is None else run / arm / name

    def named(need: str) -> str:
        if need in config.once:
            return f"{ONCE}/{need}"
        return f"{run.name}/{need}" if need in config.shared else f"{run.name}/{arm}/{need}"

    overlay = [] if config.overlay is None else ["--overlay", str(config.overlay)]
    overrides = [*overlay, *node.args, "--output_dir", str(folder)]
    with _set(environment):
        file = config.configs / node.config
        read = load_config(config_model_of(node.stage, file), file, overrides)
    step = named(name)
    return Step(step, node, folder, tuple(map(named, node.needs)), environment, tuple(overrides), read)


def _job(config: StudyConfig, step: Step, session: Session, planned: Sequence[str] = ()) -> Job:
    """`planned`: what makes it a dry run, which one process does whatever the stage is launched in."""
    launch = Launch() if planned else launch_of(step.config)
    file, overrides = config.configs / step.node.config, [*step.overrides, *planned]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    job = Job(
        step.name,
        command_of(step.node.stage, file, overrides, launch),
        config.output_dir / "logs" / f"{step.name.replace('/', '.')}.log",
        step.needs,
        {**threads, **step.environment},
        cores=launch.processes,
    )
    if step.node.ray:
        job.prepare = session.start
    return job


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _stop(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _run_jobs(config: StudyConfig, jobs: Sequence[Job]) -> None:
    signal.signal(signal.SIGTERM, _stop)
    with PeakMemory() as peak:
        clock = Clock(config.output_dir / "timing.json")
        try:
            failed = run_jobs(jobs, config.at_once, PlainView(clock, lambda: peak.gb, _say))
        finally:
            clock.save(peak.gb)
    if failed is not None:
        tail = "\n".join(f"  | {line}" for line in last_lines(failed.log, _TAIL))
        raise StageFailed(f"stage {failed.name!r} failed; the end of {failed.log}:\n{tail}")


def _reads(config: StudyConfig, step: Step) -> list[str]:
    """Files and folders that a stage's config names, and which of them other stages have to make first."""

    def leaves(node: Any) -> Iterator[Path]:
        if isinstance(node, Mapping):
            for name, value in node.items():
                if name not in _WRITTEN:
                    yield from leaves(value)
        elif isinstance(node, list | tuple):
            for value in node:
                yield from leaves(value)
        elif isinstance(node, Path) or (isinstance(node, str) and "/" in node and "\n" not in node):
            yield Path(node)

    found = dict.fromkeys(leaves(step.config.model_dump()))
    made = {path: path.exists() for path in found if len(path.name) < 256}
    ours = [path for path, exists in made.items() if exists or path.is_relative_to(config.output_dir)]
    return [str(path) if made[path] else f"{path} (not made yet)" for path in ours]


def _plan_step(config: StudyConfig, step: Step, session: Session) -> bool:
    """Print what one stage will cost; False where its dry run failed."""
    if "dry_run" not in type(step.config).model_fields:
        _say(
            f"--- {step.name}: mr3 {step.node.stage} has no dry run; reads {', '.join(_reads(config, step)) or 'none'}"
        )
        return True
    job = _job(config, step, session, [*config.dry_run.get(step.name.rsplit("/", 1)[1], []), "--dry_run", "true"])
    job.needs = ()
    job.log.unlink(missing_ok=True)
    try:
        _run_jobs(config, [job])
    except StageFailed:
        _say(f"--- {step.name}: NOT PLANNED\n" + "\n".join(last_lines(job.log, _TAIL)))
        return False
    _say(f"--- {step.name}\n" + "\n".join(last_lines(job.log, 60)))
    return True


def _plan(config: StudyConfig, steps: Sequence[Step]) -> None:
    """What every stage that runs once, and every stage of the first seed, will cost or read.

    Raises:
        StageFailed: when a dry run failed whose data is there, or should be: not that of an unfinished stage.
    """
    first = (f"seed-{config.seeds[0]}/", f"{ONCE}/")
    by_name = {step.name: step for step in steps}
    failed, waiting = [], 0
    shown = [step for step in steps if step.name.startswith(first)]
    with ExitStack() as stack:
        session = Session(stack, config.ray_cpus)
        for step in shown:
            if _plan_step(config, step, session):
                continue
            stands_in = step.name.rsplit("/", 1)[1] in config.dry_run
            if not stands_in and not all(is_current(by_name[need].config) for need in step.needs):
                waiting += 1
            else:
                failed.append(step.name)
    _say(
        f"{len(steps)} stages; those of one seed of {len(config.seeds)} are above. {waiting} can't be planned before "
        "others have run (`dry_run:` names rows that stand in)"
    )
    if failed:
        raise StageFailed(f"no plan for {', '.join(failed)}: see above")


def _in_order(config: StudyConfig, arm: str) -> list[str]:
    """An arm's own stages, later ones behind those that they need."""
    stages = config.stages_of(arm)
    needs = {name: [need for need in node.needs if need in stages] for name, node in stages.items()}
    return list(TopologicalSorter(needs).static_order())


def run(config: StudyConfig, dry_run: bool = False) -> None:
    """Run what is not finished, then write study.json, study.md and study.svg.

    Raises:
        ValueError: for a mistake in a config.
        StageFailed: when a stage did; the same command goes on.
    """
    steps = steps_of(config)
    with alone(config.output_dir, "study"):
        if dry_run:
            _plan(config, steps)
            return
        with ExitStack() as stack:
            session = Session(stack, config.ray_cpus)
            jobs = [_job(config, step, session) for step in steps]
            for job, step in zip(jobs, steps, strict=True):
                job.is_done = lambda own=step.config: is_current(own)  # type: ignore[misc]
            _run_jobs(config, jobs)
        plan = StudyPlan(
            question=config.question,
            seed_varies=config.seed_varies,
            arms=list(config.arms),
            baseline=config.baseline,
            sets=config.sets,
            languages=config.languages,
            notes=config.notes,
            compared=config.compared,
            stage=config.stages_of(config.baseline)[config.compared].stage,
            seeds=config.seeds,
            stages={arm: _in_order(config, arm) for arm in config.arms},
            folders={arm: [config.output_dir / f"seed-{seed}" / arm for seed in config.seeds] for arm in config.arms},
        )
        write_json(config.output_dir / STUDY, plan.model_dump(mode="json"))
        _say(write_tables(plan, config.output_dir))


@contextmanager
def variables_of_steps() -> Iterator[None]:
    """While a study's own file is read, variables that are set for each step stand for themselves."""
    with _set({name: f"${{{name}}}" for name in _OF_A_STEP}):
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 study --config FILE [--dry-run]`; 1 when a stage failed."""
    words = list(sys.argv[1:] if argv is None else argv)
    dry_run = "--dry-run" in words
    words = [word for word in words if word != "--dry-run"]
    if "--config" in words and "--configs" not in words and words.index("--config") + 1 < len(words):
        words += ["--configs", str(Path(words[words.index("--config") + 1]).parent)]

    def go(config: StudyConfig) -> None:
        for name in _OF_A_STEP:
            del os.environ[name]
        run(config, dry_run)

    try:
        with variables_of_steps():
            return stage_main("study", StudyConfig, go, words, __doc__)
    except StageFailed as error:
        print(f"mr3 study: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
