"""Rubrics that a config names for a source: library files, as `mr3 rubric generate` writes them, or one per task.

A row's rubric is that of its id where a `rubrics.parquet` has one, else one of the library files, drawn by a hash of
the row. It is the same under every strategy: a generated rubric is in one language.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mr3.families import find_family
from mr3.records import stable_hash
from mr3.rubrics import Rubric, load_rubric
from mr3.rubrics.checks import mode_problems
from mr3.rubrics.entries import rubric_files
from mr3.sources.labelled import Labelled, SetAside, legal_label


def rubric_paths(given: str | Sequence[str]) -> list[Path]:
    """The files behind `rubrics:`, those of a folder by name.

    Raises:
        ValueError: for a path that is not there, or a folder without YAML files.
    """
    found: list[Path] = []
    for path in map(Path, [given] if isinstance(given, str) else given):
        if path.is_dir():
            found += rubric_files(path)
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(
                f"no rubrics at {path}: give YAML files, their folder, or the rubrics.parquet of `mr3 rubric generate`"
            )
    return found


def _by_task(file: Path) -> dict[str, Rubric]:
    """The first valid rubric of each task."""
    import pyarrow.parquet as pq

    names = pq.read_schema(file).names
    if not {"id", "sample", "rubric"} <= set(names):
        raise ValueError(f"{file} is no rubrics.parquet of `mr3 rubric generate`: it has {', '.join(names)}")
    rows = [r for r in pq.read_table(file, columns=["id", "sample", "rubric"]).to_pylist() if r["rubric"] is not None]
    rows.sort(key=lambda r: -r["sample"])
    return {r["id"]: Rubric.model_validate_json(r["rubric"]) for r in rows}


class GivenRubrics:
    """The rubrics of one source.

    Args:
        given: what the config says.
        seed: of the draw among several.

    Raises:
        ValueError: for a file that is not there or no rubric.
    """

    def __init__(self, given: str | Sequence[str], seed: int) -> None:
        self._seed = seed
        self._by_task: dict[str, Rubric] = {}
        self._shared: list[Rubric] = []
        for path in rubric_paths(given):
            if path.suffix == ".parquet":
                self._by_task |= _by_task(path)
            else:
                self._shared.append(load_rubric(path))

    def pick(self, source: str, identity: str) -> Rubric | None:
        """The rubric of one row; None where only other rows have one."""
        for name in (identity, f"{source}/{identity}"):
            if name in self._by_task:
                return self._by_task[name]
        if not self._shared:
            return None
        return self._shared[int(stable_hash("rubric", self._seed, source, identity)[:8], 16) % len(self._shared)]

    def apply(self, row: Labelled | SetAside) -> Labelled | SetAside:
        """The row under its rubric; set aside where it has none, or one that its mode or its label does not fit."""
        if isinstance(row, SetAside):
            return row
        task, rubric = row.task, self.pick(row.source, row.task.id)
        if rubric is None:
            return SetAside(row.key, "no valid rubric was generated for it", "no_rubric", language=task.language)
        problems = mode_problems(rubric, task.mode)
        family = task.family if task.family is not None and _shows(rubric, task.family) else None
        changed = task.model_copy(update={"rubric": rubric, "family": family})
        gold = legal_label(row.gold, changed.labels)
        if gold not in changed.labels:
            problems.append(f"the label {row.gold!r} is none of its scores ({', '.join(changed.labels[:8])})")
        if problems:
            reason = f"rubric {rubric.name!r}: {'; '.join(problems)}"
            return SetAside(row.key, reason, "unfit_rubric", language=task.language)
        own = None if row.own is None else row.own.model_copy(update={"rubric": None})
        return row.model_copy(update={"task": changed, "gold": gold, "own": own})


def _shows(rubric: Rubric, family: str) -> bool:
    """Whether a family's layout can show the rubric: published ones describe their own scores, and no others."""
    return set(rubric.levels) == set(find_family(family).labels or ())
