"""What an evaluation leaves behind beside its metrics: the table of verdicts, and a few whole examples to read."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.evaluation.tasks import EvalTask
from mr3.evaluation.traces.notes import TraceNotes
from mr3.records import Verdict

_BUFFER = 2_000
_TEXT, _INT, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
SCHEMA = pa.schema(
    [
        *((name, _TEXT) for name in ("id", "task_id", "language", "mode")),
        ("sets", pa.list_(_TEXT)),
        *((name, _TEXT) for name in ("content", "group", "part", "gold", "said", "outcome", "score")),
        ("expected", _REAL),
        ("distribution", _TEXT),
        ("outside_mass", _REAL),
        ("repaired", _FLAG),
        *((name, _TEXT) for name in ("explanation", "trace", "reason")),
        ("swapped", _FLAG),
        ("sample", _INT),
        ("attempts", _INT),
        ("judge", _TEXT),
        ("rubric_hash", _TEXT),
        ("prompt_tokens", _INT),
        ("output_tokens", _INT),
        ("concludes", _TEXT),
        ("degenerate", _FLAG),
        ("says_again", _FLAG),
        ("in_language", _REAL),
        ("repeated", _REAL),
    ]
)


class VerdictTable:
    """Writes verdicts.parquet row group by row group, so that traces never pile up in memory; whole or absent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._writer = pq.ParquetWriter(self._temporary, SCHEMA, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, given: EvalTask, verdict: Verdict, said: str | None, note: TraceNotes | None) -> None:
        """One row; `distribution` is JSON, as its keys differ from scale to scale.

        Args:
            said: the label that counts for the task (the same on the rows of both orders).
            note: on the verdict's trace; its fields are null where there is no trace.
        """
        row = verdict.model_dump(mode="json")
        if verdict.distribution is not None:
            row["distribution"] = json.dumps(verdict.distribution, ensure_ascii=False)
        task = given.task
        row |= {"language": task.language, "mode": task.mode, "sets": given.sets}
        row |= {"content": given.content, "group": given.group, "part": given.part, "gold": given.gold, "said": said}
        if note is not None:
            row |= {"concludes": note.concludes, "degenerate": note.degenerate, "says_again": note.says_again}
            row |= {"in_language": note.in_language.share, "repeated": note.repeated}
        self._rows.append(row)
        if len(self._rows) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA))
        self._rows.clear()

    def __enter__(self) -> VerdictTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._rows:
            self._flush()
        self._writer.close()
        if kind is None:
            os.replace(self._temporary, self._path)
        else:
            self._temporary.unlink(missing_ok=True)


def choose_examples(tasks: Sequence[EvalTask], count: int) -> set[str]:
    """Ids of tasks to show: languages in turn, and within a language the modes in turn."""
    shelves: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for given in tasks:
        shelves[given.task.language][given.task.mode].append(given.id)
    chosen: list[str] = []
    turn = 0
    while len(chosen) < min(count, len(tasks)):
        for k, language in enumerate(sorted(shelves)):
            modes = [ids for _, ids in sorted(shelves[language].items()) if ids]
            if modes and len(chosen) < count:
                chosen.append(modes[(turn + k) % len(modes)].pop(0))
        turn += 1
    return set(chosen)


def example(given: EvalTask, verdict: Verdict) -> dict[str, Any]:
    """One judgement in full, for reports."""
    task = given.task
    return {
        **task.model_dump(mode="json", exclude={"rubric"}),
        "rubric": task.rubric.model_dump(mode="json"),
        "sets": list(given.sets),
        "gold": given.gold,
        "score": verdict.score,
        "right": verdict.score == given.gold,
        "outcome": verdict.outcome.value,
        "reason": verdict.reason,
        "trace": verdict.trace,
        "explanation": verdict.explanation,
        "distribution": verdict.distribution,
        "verdict_id": verdict.id,
    }
