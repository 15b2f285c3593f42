"""`mr3 rubric generate`: rubrics written by a teacher, one per task family or one per task.

In: families described in words, or tasks (Parquet as `mr3 eval` reads it, or JSON lines with `id` and `input`). Out:
`rubrics.parquet` (every answer with its outcome, reason, rubric, text and provenance), `library/` (the first valid
rubric of each family, as library files) and `metrics.json`. Answers are stored, so the same command goes on.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mr3.artifacts import stage_run, write_atomic
from mr3.config import StageConfig
from mr3.inference.engine import Completion
from mr3.records import Mode
from mr3.rubrics.asking import ask_for_family, ask_for_input, input_text
from mr3.rubrics.checks import mode_problems
from mr3.rubrics.entries import rubric_yaml
from mr3.rubrics.record import Criterion, Rubric
from mr3.rubrics.reply import Reply, ReplyOutcome, parse_reply
from mr3.rubrics.teacher import Question, Teacher, TeacherConfig
from mr3.stage import stage_main
from mr3.stats import wilson

log = logging.getLogger("mr3.rubrics")
_SLICE = 500


class RubricGenerateConfig(StageConfig):
    """Whose rubrics, for what, in which form."""

    teacher: TeacherConfig
    families: dict[str, str] = Field(default_factory=dict, description="name of a family -> what its tasks are like")
    tasks: Path | None = Field(None, description="one rubric per task: evaluation Parquet, or JSON lines (id, input)")
    mode: Mode = "pairwise"
    levels: list[str] = Field(default_factory=list, description="labels to describe, worst first; none: criteria only")
    language: str | None = Field("en", description="language of the rubrics; null: that of each task")
    sizes: tuple[int, int] = Field((3, 6), description="fewest and most criteria asked for")
    samples: int = Field(1, ge=1, description="answers per family or task; the first valid one is its rubric")
    store: Path | None = Field(None, description="store of the answers, may be shared; default: in output_dir")

    @model_validator(mode="after")
    def _one_kind(self) -> RubricGenerateConfig:
        if bool(self.families) == (self.tasks is not None):
            raise ValueError("give either `families` (one rubric each) or `tasks` (one rubric per task)")
        bad = [name for name in self.families if not re.fullmatch(r"[\w-]+", name)]
        if bad:
            raise ValueError(f"families: {bad[0]!r} can't be the name of a file: use letters, digits and dashes")
        if self.families and self.language is None:
            raise ValueError("families have no language of their own: set `language`")
        probe = Rubric(
            criteria=[Criterion(name="any", description="any")],
            levels={label: "described" for label in self.levels},
            worst_first=True,  # as `levels` asks for
        )
        problems = mode_problems(probe, self.mode)
        if problems:
            raise ValueError("; ".join(problems))
        return self


class _Input(BaseModel):
    """A line of a JSON lines file."""

    model_config = ConfigDict(extra="ignore")

    id: str
    input: str = Field(min_length=1)
    language: str = "en"
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What one rubric is for."""

    id: str
    language: str
    messages: tuple[dict[str, str], ...]


def _lines(path: Path) -> Iterator[_Input]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield _Input.model_validate_json(line)
                except ValidationError as error:
                    raise ValueError(f"{path}, line {number}: {error.errors()[0]['msg']}") from error


def _inputs(path: Path) -> Iterator[_Input]:
    if path.suffix == ".jsonl":
        if not path.is_file():
            raise ValueError(f"no tasks at {path}: give a .jsonl with id and input, or evaluation tasks as Parquet")
        yield from _lines(path)
        return
    from mr3.evaluation.tasks import read_tasks

    for row in read_tasks(path):
        task = row.task
        yield _Input(id=task.id, input=input_text(task), language=task.language, reference=task.reference)


def subjects(config: RubricGenerateConfig) -> Iterator[Subject]:
    """Everything that a rubric is asked for.

    Raises:
        ValueError: for a file or a line that can't be read, and for an id that comes twice.
    """
    labels, sizes = config.levels, config.sizes
    for name, about in config.families.items():
        language = config.language or "en"
        yield Subject(name, language, ask_for_family(about, config.mode, labels, language, sizes))
    seen: set[str] = set()
    for row in _inputs(config.tasks) if config.tasks else ():
        if row.id in seen:
            raise ValueError(f"{config.tasks}: the id {row.id!r} comes twice; ids must be unique")
        seen.add(row.id)
        language = config.language or row.language
        yield Subject(row.id, language, ask_for_input(row.input, row.reference, config.mode, labels, language, sizes))


def answer_row(
    subject_id: str, sample: int, completion: Completion, reply: Reply, by: dict[str, Any]
) -> dict[str, Any]:
    """One answer as a row of rubrics.parquet."""
    rubric = reply.rubric
    return {
        "id": subject_id,
        "sample": sample,
        "outcome": reply.outcome.value,
        "reason": completion.error or reply.reason,
        "rubric": rubric.model_dump_json() if rubric else None,
        "hash": rubric.content_hash if rubric else None,
        "text": completion.text,
        "finish": completion.finish,
        "prompt_tokens": completion.prompt_tokens,
        "output_tokens": completion.output_tokens,
        "teacher": json.dumps(by, ensure_ascii=False),
    }


def _write(path: Path, rows: Iterable[dict[str, Any]], columns: dict[str, str]) -> int:
    """Rows into one Parquet file, a slice at a time; the file stands under its name when it is whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"str": pa.string(), "int": pa.int64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    temporary = path.with_name(f".{path.name}.tmp")
    count, kept = 0, []
    with pq.ParquetWriter(temporary, schema) as out:
        for row in rows:
            kept.append(row)
            count += 1
            if len(kept) == _SLICE:
                out.write_table(pa.Table.from_pylist(kept, schema))
                kept = []
        if kept:
            out.write_table(pa.Table.from_pylist(kept, schema))
    os.replace(temporary, path)
    return count


_ANSWER = {
    **dict.fromkeys(("id", "outcome", "reason", "rubric", "hash", "text", "finish", "teacher"), "str"),
    **dict.fromkeys(("sample", "prompt_tokens", "output_tokens"), "int"),
}


class _Tally:
    """What came of the answers, and the first valid rubric of each family."""

    def __init__(self, families: Iterable[str]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.subjects = self.covered = 0
        self.best: dict[str, Rubric | None] = dict.fromkeys(families)

    def add(self, subject_id: str, replies: Sequence[Reply]) -> None:
        """All answers to one question."""
        self.outcomes.update(r.outcome.value for r in replies)
        valid = [r.rubric for r in replies if r.outcome is ReplyOutcome.OK]
        self.subjects += 1
        self.covered += bool(valid)
        if subject_id in self.best and valid:
            self.best[subject_id] = valid[0]


def _answers(
    config: RubricGenerateConfig, teacher: Teacher, requests: Path, languages: dict[str, str], tally: _Tally
) -> Iterator[dict[str, Any]]:
    by = config.teacher.provenance()
    for subject_id, completions in teacher.stream(requests):
        language = languages.get(subject_id) or config.language or "en"
        replies = [
            parse_reply(c.text, c.finish, config.mode, tuple(config.levels), subject_id, language) for c in completions
        ]
        tally.add(subject_id, replies)
        for sample, (completion, reply) in enumerate(zip(completions, replies, strict=True)):
            yield answer_row(subject_id, sample, completion, reply, by)


def _library(folder: Path, config: RubricGenerateConfig, best: dict[str, Rubric | None]) -> None:
    for name, rubric in best.items():
        if rubric is not None:
            about = f"written by {config.teacher.model} (seed {config.seed}) for: {config.families[name]}"
            text = rubric_yaml(rubric, 1, about, modes=(config.mode,))
            write_atomic(folder / f"{name}.yaml", text.encode())


def run(config: RubricGenerateConfig) -> None:
    """Ask, parse, and write all answers into `output_dir`."""
    with stage_run("rubric-generate", config, inputs=[config.tasks] if config.tasks else []) as stage:
        if stage.finished:
            return
        teacher = Teacher(config.teacher, config.store or stage.folder / "store", config.seed)
        languages: dict[str, str] = {}  # only those that the config does not say

        def questions() -> Iterator[dict[str, str]]:
            for subject in subjects(config):
                if config.language is None:
                    languages[subject.id] = subject.language
                yield teacher.row(Question(subject.id, subject.messages, config.samples))

        requests = stage.folder / "requests.parquet"
        asked = _write(requests, questions(), {"group": "str", "payload": "str"})
        if not asked:
            raise ValueError(f"{config.tasks} holds no task to write a rubric for")
        tally = _Tally(config.families)
        rows = _answers(config, teacher, requests, languages, tally)
        answers = _write(stage.folder / "rubrics.parquet", rows, _ANSWER)
        assert answers == asked * config.samples, "every question comes back with all its answers"
        _library(stage.folder / "library", config, tally.best)
        stage.metrics |= {
            "asked": asked,
            "answers": answers,
            "outcomes": dict(sorted(tally.outcomes.items())),
            "ok": wilson(tally.outcomes[ReplyOutcome.OK.value], answers),
            "covered": wilson(tally.covered, tally.subjects),
        }
        log.info("%d of %d have a rubric; outcomes: %s", tally.covered, asked, dict(tally.outcomes))


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 rubric generate --config configs/qwen3/rubric-generate.yaml`."""
    return stage_main("rubric generate", RubricGenerateConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
