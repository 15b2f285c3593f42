"""Walk a label folder prompt by prompt: its tables are in the same order, so they merge without an index."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from mr3.artifacts import read_json, require_folder, verify_outputs
from mr3.config import expand
from mr3.records import DEFAULT_LABELS, Verdict
from mr3.rubrics import Rubric
from mr3.rubrics.checks import check_mode

Row = dict[str, Any]
_TABLES = tuple(f"{name}.parquet" for name in ("prompts", "responses", "verdicts", "comparisons", "canaries"))
_VERDICT_FIELDS = ("id", "task_id", "outcome", "score", "expected", "swapped", "sample", "reason")
_VERDICT_COLUMNS = ("prompt_id", "response_ids", *_VERDICT_FIELDS)


@dataclass
class Labelled:
    """One prompt of a label folder."""

    prompt_id: str
    language: str
    responses: list[Row]
    prompt: list[dict[str, str]] = field(default_factory=list)
    reference: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    verdicts: list[Row] = field(default_factory=list)
    comparisons: list[Row] = field(default_factory=list)

    @cached_property
    def authors(self) -> dict[str, tuple[str, ...]]:
        """Id of a judged response -> every policy that wrote its text; which of them the pool names first is chance."""
        found: dict[str, set[str]] = {}
        for response in self.responses:
            found.setdefault(response["judged_as"], set()).add(response["policy"])
        return {name: tuple(sorted(wrote)) for name, wrote in found.items()}

    def authors_of(self, response_ids: Iterable[str]) -> list[str]:
        """Every policy that wrote one of some judged responses, once."""
        return list(dict.fromkeys(policy for name in response_ids for policy in self.authors[name]))

    def verdicts_on(self, *response_ids: str) -> list[Row]:
        """The verdicts about one response, or about one pair (A first)."""
        return [v for v in self.verdicts if tuple(v["response_ids"]) == response_ids]


def as_verdict(row: Row) -> Verdict:
    """The verdict of a table row, without trace and explanation."""
    return Verdict.model_validate({name: row[name] for name in _VERDICT_FIELDS})


def label_settings(folder: Path) -> dict[str, Any]:
    """The config that a finished label folder was made with; its tables are as they were written.

    Raises:
        ValueError: when the folder is not a finished `mr3 label` folder, or a table of it was damaged or edited.
    """
    require_folder(folder, "label folder", "mr3 label --config CONFIG")
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise ValueError(f"{folder} is not finished (no manifest.json): run `mr3 label` to its end first")
    found = read_json(manifest)
    if found["stage"] != "label":
        raise ValueError(f"{folder} was made by `mr3 {found['stage']}`: give a folder that `mr3 label` made")
    verify_outputs(folder, [name for name in _TABLES if (folder / name).is_file()])
    settings: dict[str, Any] = expand(found["config"], str(manifest))
    return settings


def scale_of(settings: dict[str, Any]) -> tuple[str, ...]:
    """The legal scores of a label run.

    Raises:
        ValueError: for a folder of an earlier version whose rubric does not suit its mode: its labels may be read the
            wrong way round.
    """
    rubric, mode = Rubric.model_validate(settings["rubric"]), settings["mode"]
    try:
        check_mode(rubric, mode)
    except ValueError as error:
        raise ValueError(f"{error}; then run `mr3 label` into a new folder: verdicts are still in the store") from error
    return tuple(rubric.levels) or DEFAULT_LABELS[mode]


class _Groups:
    """Rows of one table, by prompt, in file order."""

    def __init__(self, path: Path, columns: tuple[str, ...] | None) -> None:
        self._groups = groupby(self._rows(path, columns), key=lambda row: row["prompt_id"])
        self._next = next(self._groups, None)

    @staticmethod
    def _rows(path: Path, columns: tuple[str, ...] | None) -> Iterator[Row]:
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path, page_checksum_verification=True)
        for batch in file.iter_batches(batch_size=2048, columns=columns):
            yield from batch.to_pylist()

    def take(self, prompt_id: str) -> list[Row]:
        """The rows of this prompt, if it is the next one in the table."""
        if self._next is None or self._next[0] != prompt_id:
            return []
        rows = list(self._next[1])
        self._next = next(self._groups, None)
        return rows

    @property
    def empty(self) -> bool:
        """Whether all rows were taken."""
        return self._next is None


def walk(folder: Path) -> Iterator[Labelled]:
    """Every prompt of a label folder with its responses, verdicts and comparisons; memory stays bounded."""
    prompts = _Groups(folder / "prompts.parquet", None)
    verdicts = _Groups(folder / "verdicts.parquet", _VERDICT_COLUMNS)
    comparisons = _Groups(folder / "comparisons.parquet", None)
    responses = groupby(_Groups._rows(folder / "responses.parquet", None), key=lambda row: row["prompt_id"])
    for prompt_id, rows in responses:
        own, [about] = list(rows), prompts.take(prompt_id)
        yield Labelled(
            prompt_id=prompt_id,
            language=about["language"],
            responses=own,
            prompt=about["prompt"],
            reference=about["reference"],
            meta=json.loads(about["meta"]),
            verdicts=verdicts.take(prompt_id),
            comparisons=comparisons.take(prompt_id),
        )
    assert verdicts.empty and comparisons.empty, "the tables of a label folder are out of step"
