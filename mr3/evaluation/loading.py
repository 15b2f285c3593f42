"""Rows of benchmarks become evaluation tasks, prompted as the judge's card says; what is no row is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.evaluation.benchmarks import Benchmark, find_benchmark
from mr3.evaluation.tasks import EvalTask
from mr3.judge_card import JudgeCard
from mr3.records import stable_hash
from mr3.sources import AdapterSource, SetAside, SetSource, SourceSpec, Texts
from mr3.sources.opening import source_files
from mr3.sources.parts import rows_with_part
from mr3.sources.registry import known_set
from mr3.sources.spec import COMMIT


class BenchmarkSource(BaseModel):
    """One benchmark: from the hub by a pinned commit, or from local files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str = Field(description="name in mr3/evaluation/benchmarks.py")
    revision: str | None = Field(None, description="commit of the hub set, 40 hex digits")
    path: str | list[str] | None = Field(None, description="local files in place of the hub; the folder of a real set")
    split: str | None = Field(None, description="unset: the set's own")
    languages: list[str] | None = Field(None, description="only rows in these languages")
    sample: int | None = Field(None, ge=1, description="so many rows, drawn by a hash of their ids")

    @model_validator(mode="after")
    def _known(self) -> BenchmarkSource:
        self.spec()
        return self

    @property
    def about(self) -> Benchmark:
        """The benchmark."""
        return find_benchmark(self.benchmark)

    def spec(self) -> SourceSpec:
        """Where its rows are.

        Raises:
            ValueError: for an unknown benchmark, a hub set without a commit, or a real set without its folder.
        """
        about = self.about
        if about.set is not None:
            if self.path is not None:
                return SetSource(set=about.set, path=self.path, split=self.split)
            if self.revision is None or not COMMIT.fullmatch(self.revision):
                raise ValueError(
                    f"the benchmark {about.name} is read from the hub: set revision to a commit of 40 hex digits, so "
                    "that its rows stay the same, or path to local files"
                )
            return SetSource(set=about.set, revision=self.revision, split=self.split)
        assert about.adapter is not None, "a benchmark has a set or an adapter"
        if not isinstance(self.path, str):
            raise ValueError(f"the benchmark {about.name} is read from a folder: set path")
        if self.revision or self.split:
            raise ValueError(f"the benchmark {about.name} is local: leave revision and split out")
        return AdapterSource(adapter=about.adapter, options={"path": self.path, **about.options})

    def files(self) -> list[Path]:
        """Local files and folders that it reads, for hashing."""
        spec = self.spec()
        return [Path(str(self.path))] if isinstance(spec, AdapterSource) else source_files(spec)


@dataclass
class Loaded:
    """Tasks of one benchmark, and what its source held beside them."""

    tasks: list[EvalTask]
    rows: int
    set_aside: Counter[str] = field(default_factory=Counter)
    first_reason: str | None = None
    published_rows: int | None = None

    def report(self) -> dict[str, Any]:
        """For metrics.json: `judged` of the `rows` that count (the published set may hold more that do not); what was
        `set_aside`, by kind, is in no figure."""
        return {
            "judged": len(self.tasks),
            "rows": self.rows,
            "published_rows": self.published_rows,
            "set_aside": dict(self.set_aside),
            "first_reason": self.first_reason,
        }


def texts_of(card: JudgeCard, seed: int = 0) -> Texts:
    """The library that a judge's rubrics come from: that of its prompts (the project's own for profile compact)."""
    return Texts(
        name=card.texts or "own", templates_dir=card.templates_dir, unverified=card.unverified_texts, seed=seed
    )


def load_benchmark(source: BenchmarkSource, card: JudgeCard, rubric_seed: int = 0) -> Loaded:
    """The tasks of one benchmark for one judge: rubric and instruction in the language that its strategy says.

    Ids are `benchmark/language/id`; a second row of one id gets `#2`.

    Raises:
        ValueError: when the source can't be read, or no row of it can be judged.
    """
    about, own_language = source.about, card.strategy != "eng-eng"
    found = Loaded([], 0)
    if about.set is not None:
        found.published_rows = known_set(about.set).rows
    seen: Counter[str] = Counter()
    for row in rows_with_part(source.spec(), texts_of(card, rubric_seed), about.part, about.keep):
        if isinstance(row, SetAside):
            found.set_aside[row.kind] += 1
            found.first_reason = found.first_reason or f"{row.where}: {row.reason}"
            continue
        labelled, part = row
        if source.languages is not None and labelled.task.language not in source.languages:
            continue
        name = f"{about.name}/{labelled.task.language}/{labelled.task.id}"
        seen[name] += 1
        task = labelled.prompt_task(own_language).model_copy(
            update={"id": name if seen[name] == 1 else f"{name}#{seen[name]}"}
        )
        found.tasks.append(EvalTask(task, labelled.gold, (about.name,), part=part))
    found.rows = len(found.tasks)
    if not found.tasks:
        why = found.first_reason or "it holds no row of the wanted languages"
        raise ValueError(f"no row of the benchmark {about.name} can be judged: {why}")
    if source.sample is not None and source.sample < len(found.tasks):
        found.tasks.sort(key=lambda t: stable_hash("sample", t.id))
        found.tasks = found.tasks[: source.sample]
    return found


def load_all(
    sources: Sequence[BenchmarkSource], card: JudgeCard, rubric_seed: int = 0
) -> tuple[list[EvalTask], dict[str, Any]]:
    """Tasks of several benchmarks, and a report per benchmark.

    Raises:
        ValueError: as `load_benchmark`, or when a benchmark is named twice.
    """
    twice = [name for name, count in Counter(s.benchmark for s in sources).items() if count > 1]
    if twice:
        raise ValueError(f"the benchmark {twice[0]} is named twice: give its files in one `path` list")
    tasks: list[EvalTask] = []
    reports = {}
    for source in sources:
        loaded = load_benchmark(source, card, rubric_seed)
        tasks += loaded.tasks
        reports[source.benchmark] = loaded.report()
    return tasks, reports
