"""Rows of benchmarks become evaluation tasks, prompted as the judge's card says; what is no row is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.evaluation.benchmarks import Benchmark, find_benchmark
from mr3.evaluation.scores import Answer
from mr3.evaluation.tasks import EvalTask
from mr3.judge_card import JudgeCard
from mr3.records import stable_hash
from mr3.sources import AdapterSource, SetAside, SetSource, SourceSpec, Texts
from mr3.sources.labelled import LEFT_OUT, Labelled, SetAsideShare
from mr3.sources.opening import source_files
from mr3.sources.parts import rows_with_part
from mr3.sources.registry import known_set
from mr3.sources.spec import COMMIT, GoldScale


class BenchmarkSource(BaseModel):
    """One benchmark: from the hub by a pinned commit, or from local files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str = Field(description="name in mr3/evaluation/benchmarks.py")
    revision: str | None = Field(None, description="commit of the hub set, 40 hex digits")
    path: str | list[str] | None = Field(None, description="local files in place of the hub; the folder of a real set")
    split: str | None = Field(None, description="unset: the set's own")
    gold_scale: GoldScale = "set"
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
                return SetSource(set=about.set, path=self.path, split=self.split, gold_scale=self.gold_scale)
            if self.revision is None or not COMMIT.fullmatch(self.revision):
                raise ValueError(
                    f"the benchmark {about.name} is read from the hub: set revision to a commit of 40 hex digits, so "
                    "that its rows stay the same, or path to local files"
                )
            return SetSource(set=about.set, revision=self.revision, split=self.split, gold_scale=self.gold_scale)
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
    share: SetAsideShare
    published_rows: int | None = None
    wrong: dict[str, Answer] = field(default_factory=dict)
    """Name -> answer of each row that was set aside and counts as wrong, as in the public evaluation."""
    not_counted: int = 0
    """Rows that were set aside and are in no figure: the benchmark needs a subset or domain that they don't show, or
    is a real set, whose rows without a clear label are nobody's mistake."""

    def report(self) -> dict[str, Any]:
        """For metrics.json: `judged` of the `rows` that count (the published set may hold more that do not); what was
        `set_aside`, by kind with the first reason of each, and how many of it are `counted_wrong` in the figure."""
        return {
            "judged": len(self.tasks),
            "rows": self.share.rows,
            "published_rows": self.published_rows,
            "set_aside": dict(self.share.kinds),
            "first_reasons": self.share.first,
            "counted_wrong": len(self.wrong),
            "not_counted": self.not_counted,
        }


def texts_of(card: JudgeCard, seed: int = 0) -> Texts:
    """The library that a judge's rubrics come from: that of its prompts (the project's own for profile compact)."""
    return Texts(
        name=card.texts or "own", templates_dir=card.templates_dir, unverified=card.unverified_texts, seed=seed
    )


class _Loader:
    """Sorts the rows of one benchmark into tasks and what is none."""

    def __init__(self, source: BenchmarkSource, own_language: bool) -> None:
        self._source, self._about, self._own_language = source, source.about, own_language
        self._names: Counter[str] = Counter()
        self.found = Loaded([], SetAsideShare(f"the benchmark {source.about.name}"))

    def add(self, row: tuple[Labelled, str | None] | SetAside) -> None:
        """One row of the benchmark's source."""
        if isinstance(row, SetAside):
            if self._wanted(row.language):
                self._aside(row)
            return
        labelled, part = row
        if not self._wanted(labelled.task.language):
            return
        reason = self._misplaced(Answer(labelled.gold, None, labelled.task.language, part))
        if reason is not None:
            self._aside(SetAside(labelled.key, reason, "no_stratum"))
            return
        self.found.share.rows += 1
        name = self._name(labelled.task.language, labelled.task.id)
        task = labelled.prompt_task(self._own_language).model_copy(update={"id": name})
        self.found.tasks.append(EvalTask(task, labelled.gold, (self._about.name,), part=part))

    def _wanted(self, language: str | None) -> bool:
        return self._source.languages is None or language is None or language in self._source.languages

    def _name(self, language: str | None, identity: str) -> str:
        name = f"{self._about.name}/{language}/{identity}"
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}#{self._names[name]}"

    def _misplaced(self, answer: Answer) -> str | None:
        """Why the benchmark's figure has no place for a row: known now, and not when all has been judged."""
        try:
            self._about.strata([answer])
        except ValueError as error:
            return str(error)
        return None

    def _aside(self, row: SetAside) -> None:
        self.found.share.aside(row)
        if row.kind in LEFT_OUT:
            return
        answer = Answer(row.gold or "", None, row.language or "", row.part)
        unplaced = row.kind == "no_stratum" or (self._about.part is not None and row.language is None)
        # A real set's row without a label of people is no wrong answer; the published sets have labels for all rows.
        if self._about.set is None or unplaced or self._misplaced(answer):
            self.found.not_counted += 1
        else:
            self.found.wrong[self._name(row.language, row.id or row.where)] = answer


def load_benchmark(
    source: BenchmarkSource, card: JudgeCard, rubric_seed: int = 0, allow_set_aside: bool = False
) -> Loaded:
    """The tasks of one benchmark for one judge: rubric and instruction in the language that its strategy says.

    Ids are `benchmark/language/id`; a second row of one id gets `#2`.

    Args:
        allow_set_aside: go on when more than 5% of the rows can't be judged.

    Raises:
        ValueError: when the source can't be read, too many of its rows are set aside, or none can be judged.
    """
    about, own_language = source.about, card.strategy != "eng-eng"
    loader = _Loader(source, own_language)
    for row in rows_with_part(source.spec(), texts_of(card, rubric_seed), about.part, about.keep, own_language):
        loader.add(row)
    found = loader.found
    found.share.check(allow_set_aside)
    if about.set is not None:
        found.published_rows = known_set(about.set).rows
    if not found.tasks:
        why = next(iter(found.share.first.values()), "it holds no row of the wanted languages")
        raise ValueError(f"no row of the benchmark {about.name} can be judged: {why}")
    names = [*(t.id for t in found.tasks), *found.wrong]
    if source.sample is not None and source.sample < len(names):
        drawn = sorted(names, key=lambda name: stable_hash("sample", name))[: source.sample]
        by_name = {t.id: t for t in found.tasks}
        found.tasks = [by_name[name] for name in drawn if name in by_name]
        found.wrong = {name: found.wrong[name] for name in drawn if name in found.wrong}
    return found


def load_all(
    sources: Sequence[BenchmarkSource], card: JudgeCard, rubric_seed: int = 0, allow_set_aside: bool = False
) -> tuple[list[EvalTask], dict[str, Loaded]]:
    """Tasks of several benchmarks, and what was read of each.

    Raises:
        ValueError: as `load_benchmark`, or when a benchmark is named twice.
    """
    twice = [name for name, count in Counter(s.benchmark for s in sources).items() if count > 1]
    if twice:
        raise ValueError(f"the benchmark {twice[0]} is named twice: give its files in one `path` list")
    found = {s.benchmark: load_benchmark(s, card, rubric_seed, allow_set_aside) for s in sources}
    return [task for loaded in found.values() for task in loaded.tasks], found
