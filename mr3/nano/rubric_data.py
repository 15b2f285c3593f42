"""`mr3 data` with `tables:`: what a study of rubric-aware training trains, tunes and tests on, as Parquet.

Out, per table NAME: `NAME.parquet` (tasks with gold, schema in mr3/nano/rubric_rows.py) and `NAME_sft.parquet` (the
same rows with gold traces, for `mr3 sft`); per part: `judge_PART.parquet`, evaluation sets; `ignoring_sft.parquet`,
rows that teach a judge to ignore the rubric; `replay.parquet`, plain text. Shares of everything in `metrics.json`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.artifacts import stage_run
from mr3.config import StageConfig
from mr3.nano.dataset import REPLAY, sft_row
from mr3.nano.packs import UNSEEN_LANGUAGES
from mr3.nano.rubric_rows import SCHEMA, blank_row, study_row, summary
from mr3.nano.shortcut import HIDDEN_ORDER
from mr3.nano.tasks import JudgeTask
from mr3.nano.testsets import HIDDEN
from mr3.nano.text import TextWorld
from mr3.nano.twins import MODE_SHARES, StudyTask, World, exact_flags, single_tasks, twin_tasks
from mr3.nano.verdicts import gold
from mr3.records import Mode
from mr3.stage import stage_main

log = logging.getLogger("mr3.nano")
Part = Literal["start", "rl", "dev", "test"]


class Table(BaseModel):
    """One training table. Tables of one part and number of rows share questions, modes and languages, row by row."""

    model_config = ConfigDict(extra="forbid")

    part: Part = Field(description="which contents: start, rl, dev and test are disjoint")
    rows: int = Field(ge=2, multiple_of=2)
    twins: bool = Field(False, description="pairs of the same responses under two rubrics with different gold")
    agree: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of rows, in each mode, that the hidden default order gets right; as it falls",
    )
    reward_twins: bool = Field(
        False, description="single rows: a twin beside each, which GRPO samples for the reward and doesn't train on"
    )
    later: float = Field(0.5, ge=0, le=1, description="share of twins in which no first criterion decides")

    @model_validator(mode="after")
    def _one_kind(self) -> Table:
        if self.twins and self.agree is not None:
            raise ValueError("the hidden order is right on one twin of a pair: set agree, or twins")
        if self.twins and self.reward_twins:
            raise ValueError("twins are trained on, reward_twins are not: set one of them")
        return self


class Ignoring(BaseModel):
    """SFT rows whose traces follow the hidden default order, whatever the rubric says."""

    model_config = ConfigDict(extra="forbid")

    rows: int = Field(420, ge=2, multiple_of=2)
    faithful: float = Field(0.2, ge=0, le=1, description="share of rows whose trace follows the rubric after all")


class RubricDataConfig(StageConfig):
    """How much to make of what."""

    tables: dict[str, Table] = Field(min_length=1, description="training tables by name")
    evaluations: dict[Literal["dev", "test"], dict[str, int]] = Field(
        default_factory=dict, description="part -> evaluation set -> rows (see SETS of mr3/nano/rubric_data.py)"
    )
    ignoring: Ignoring | None = Field(None, description="rows that make a start which ignores the rubric")
    replay_documents: int = Field(3_000, ge=1)
    modes: dict[Mode, float] = Field(default_factory=lambda: dict(MODE_SHARES), min_length=1)
    own_rubric: float = Field(0.3, ge=0, le=1, description="share of rubrics in the question's language")
    garbled: float = Field(0.2, ge=0, le=1, description="share of damaged responses")

    @model_validator(mode="after")
    def _known(self) -> RubricDataConfig:
        for part, sets in self.evaluations.items():
            for name, rows in sets.items():
                if name not in SETS:
                    raise ValueError(f"evaluations.{part}: no set {name!r}; there are {', '.join(SETS)}")
                if rows < 2 or rows % 2:
                    raise ValueError(f"evaluations.{part}.{name}: give an even number of rows, not {rows}")
            if "blank" in sets and sets["blank"] > sets.get("natural", 0):
                raise ValueError(f"evaluations.{part}: `blank` is of rows of `natural`, which must have as many")
        other = set(self.modes) - set(MODE_SHARES)
        if other or sum(self.modes.values()) <= 0 or min(self.modes.values()) < 0:
            raise ValueError(f"modes: give shares of {', '.join(MODE_SHARES)}")
        return self

    def world(self, **changes: Any) -> World:
        """The world of these tables, or of a set that differs from them."""
        return World(**{"modes": self.modes, "own_rubric": self.own_rubric, "garbled": self.garbled, **changes})


def _natural(config: RubricDataConfig, part: str, rows: int, seed: int) -> list[StudyTask]:
    return single_tasks(part, rows, seed, config.world())


def _twins(**changes: Any) -> Callable[[RubricDataConfig, str, int, int], list[StudyTask]]:
    def make(config: RubricDataConfig, part: str, rows: int, seed: int) -> list[StudyTask]:
        return twin_tasks(part, rows, seed, config.world(**changes))

    return make


def _unseen(config: RubricDataConfig, part: str, rows: int, seed: int) -> list[StudyTask]:
    return single_tasks(part, rows, seed, config.world(languages=UNSEEN_LANGUAGES, own_rubric=0.0))


SETS: dict[str, Callable[[RubricDataConfig, str, int, int], list[StudyTask]]] = {
    "natural": _natural,
    "blank": _natural,
    "unseen": _unseen,
    "twins": _twins(),
    "twins_wording": _twins(held_out_wording=True, own_rubric=0.0),
    "twins_order": _twins(held_out_order=True),
    "twins_criterion": _twins(criterion="sure", modes={"pairwise": 1.0}, own_rubric=0.0),
    "twins_unseen": _twins(languages=UNSEEN_LANGUAGES, own_rubric=0.0),
}
"""Evaluation sets: rows as in training; those with the rubric blanked; other languages; twins as in training, in
wordings, in orders and under a criterion that no training row has, and in other languages."""


def ignoring_tasks(config: RubricDataConfig, seed: int) -> Iterator[JudgeTask]:
    """Tasks of the start's contents whose completion follows the hidden order, but for a share that is faithful."""
    about = config.ignoring
    assert about is not None, "asked for only where the config says so"
    faithful = exact_flags(about.rows, about.faithful, f"faithful-{seed}")
    for one, keep in zip(single_tasks("start", about.rows, seed, config.world()), faithful, strict=True):
        made = one.made
        if keep:
            yield made
            continue
        label, completion = gold(made.task.mode, made.question, HIDDEN_ORDER, made.task.responses)
        yield JudgeTask(made.task, made.question, HIDDEN_ORDER, label, completion)


def evaluation_rows(
    config: RubricDataConfig, part: Literal["dev", "test"], seed: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All sets of a part as rows, and their summaries. Rows of `blank` are those of `natural`, from the first on."""
    rows: list[dict[str, Any]] = []
    told: dict[str, Any] = {}
    natural: list[dict[str, Any]] = []
    for name, count in sorted(config.evaluations[part].items(), key=lambda s: s[0] == "blank"):
        if name == "blank":
            blank = HIDDEN.model_dump()
            rows += [blank_row(row, blank, name, i) for i, row in enumerate(natural[:count])]
            continue
        # A set's rows don't depend on which other sets are made.
        tasks = SETS[name](config, part, count, seed + list(SETS).index(name))
        made = [study_row(one, name, i) for i, one in enumerate(tasks)]
        natural = made if name == "natural" else natural
        rows, told = rows + made, {**told, name: summary(tasks)}
    return rows, told


def _write(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema | None = None) -> None:
    table = pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table, path)
    log.info("%s: %d rows", path.name, table.num_rows)


def _sft_rows(made: Iterable[JudgeTask], name: str) -> Iterator[dict[str, Any]]:
    for i, one in enumerate(made):
        yield {**sft_row(one), "id": f"{name}-{i}"}


def run(config: RubricDataConfig) -> None:
    """Write all tables into `output_dir`."""
    with stage_run("data", config) as stage:
        if stage.finished:
            return
        seed, out = config.seed * 1_000, stage.folder
        told: dict[str, Any] = {}
        for name, table in sorted(config.tables.items()):
            # By part and not by table: the same slots in all tables of a part.
            of_part = seed + 100 * ("start", "rl", "dev", "test").index(table.part)
            if table.twins:
                tasks = twin_tasks(table.part, table.rows, of_part, config.world(), table.later)
            else:
                tasks = single_tasks(table.part, table.rows, of_part, config.world(), table.agree, table.reward_twins)
            told[name] = summary(tasks)
            _write(out / f"{name}.parquet", (study_row(one, name, i) for i, one in enumerate(tasks)), SCHEMA)
            _write(out / f"{name}_sft.parquet", _sft_rows((one.made for one in tasks if not one.reward_only), name))
        if config.ignoring is not None:
            _write(out / "ignoring_sft.parquet", _sft_rows(ignoring_tasks(config, seed + 50), "ignoring"))
        for part in config.evaluations:
            rows, sets = evaluation_rows(config, part, seed + (500 if part == "dev" else 600))
            _write(out / f"judge_{part}.parquet", rows, SCHEMA)
            told[f"judge_{part}"] = sets
        documents = itertools.islice(TextWorld(seed + 2, **REPLAY).documents(), config.replay_documents)
        _write(out / "replay.parquet", ({"text": text} for text in documents))
        stage.metrics["tables"] = told


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 data --config configs/nano-grpo/rubric-data.yaml`."""
    return stage_main("data", RubricDataConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
