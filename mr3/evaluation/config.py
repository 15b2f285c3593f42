"""The config of `mr3 eval`: which judges, on which tasks, under which sampling seeds. Free of torch, vllm and ray."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mr3.config import StageConfig
from mr3.evaluation.loading import BenchmarkSource
from mr3.evaluation.metrics import Combine
from mr3.inference.stream import StreamSettings
from mr3.judging.config import JudgeConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class EvalConfig(StageConfig):
    """One judge, or several; tasks of a file, benchmarks, or both; one run, or one per sampling seed."""

    tasks: Path | None = Field(None, description="Parquet file of tasks with gold labels")
    benchmarks: list[BenchmarkSource] = Field(default_factory=list, description="published benchmarks, real sets")
    judge: JudgeConfig | None = None
    judges: dict[str, JudgeConfig] = Field(default_factory=dict, description="several judges by name")
    name: str | None = Field(None, description="the judge's name in tables; its model by default")
    seeds: list[int] = Field(default_factory=list, description="sampling seeds; unset: the judge's own sampling, once")
    rubric_seed: int = Field(0, description="of the choice among a family's rubrics and of the order of their keys")
    allow_set_aside: bool = Field(False, description="go on when over 5% of a benchmark can't be judged")
    sets: list[str] | None = Field(None, description="names of evaluation sets; all in the file by default")
    orders: Literal["one", "both"] = Field("both", description="orders in which pairwise tasks are judged")
    combine: Combine = Field("none", description="label from both orders: agree or mean; none takes the given order")
    rubric_flip: list[str] = Field(default_factory=list, description="sets whose rows of one group must all be right")
    examples: int = Field(15, description="verdicts in examples.json")
    store: Path | None = Field(None, description="verdict store, may be shared; default: in output_dir")
    stream: StreamSettings = Field(default_factory=StreamSettings)

    @model_validator(mode="after")
    def _one_of_each(self) -> EvalConfig:
        if (self.judge is None) == (not self.judges):
            raise ValueError("give either `judge`, or `judges` with a name for each")
        if self.tasks is None and not self.benchmarks:
            raise ValueError("nothing to judge: set `tasks` to a Parquet file, or name `benchmarks`")
        if self.sets is not None and self.tasks is None:
            raise ValueError("`sets` chooses among the sets of a `tasks` file; leave it out, or give the file")
        if self.name is not None and self.judges:
            raise ValueError("`name` is for one judge; several are named by the keys of `judges`")
        odd = [name for name in self.judges if not _NAME.fullmatch(name)]
        if odd:
            raise ValueError(f"the judge's name {odd[0]!r} names a folder: use letters, digits, '.', '_' and '-'")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a seed comes twice in seeds: {self.seeds}")
        return self

    @property
    def only_judge(self) -> JudgeConfig:
        """The judge of a config of one judge."""
        assert self.judge is not None, "several judges are split into configs of one"
        return self.judge

    @property
    def is_one_run(self) -> bool:
        """Whether this is one judge under one sampling: its files then lie in output_dir itself."""
        return self.judge is not None and len(self.seeds) < 2

    def runs(self) -> Iterator[EvalConfig]:
        """One config per judge and seed, each for a folder of its own below output_dir, with one store for all.

        Raises:
            ValueError: for several seeds at temperature 0, where they can't differ, or a judge without a card.
        """
        judges = self.judges or {self.name or "judge": self.only_judge}
        for name, judge in judges.items():
            if len(self.seeds) > 1 and judge.card.sampling.temperature == 0:
                raise ValueError(
                    f"seeds vary the sampling, and judge {name} samples at temperature 0: set its "
                    "sampling.temperature, or one seed"
                )
            sampled: list[int | None] = [*self.seeds] or [None]
            for seed in sampled:
                folder = self.output_dir / name / ("run" if seed is None else f"seed-{seed}")
                changes = {
                    "output_dir": folder,
                    "name": name,
                    "judges": {},
                    "judge": judge,
                    "seeds": [] if seed is None else [seed],
                    "store": self.store or self.output_dir / "store",
                }
                yield self.model_copy(update=changes)

    def files(self) -> list[Path]:
        """What it reads besides models, for hashing."""
        found = [file for source in self.benchmarks for file in source.files()]
        return found if self.tasks is None else [*found, self.tasks]

    def sampled_judge(self) -> JudgeConfig:
        """The judge of one run, with the run's seed in its sampling: each judgement draws its own from it."""
        judge = self.only_judge
        if not self.seeds:
            return judge
        return judge.model_copy(update={"sampling": {**judge.sampling, "seed": self.seeds[0]}})
