"""`mr3 measures`: what a judge makes of its rubrics, read from finished evaluations. Judges nothing itself.

In: a table of tasks (the columns of an evaluation; `twin`, `hidden`, `edit`, `decided_by`, `blank_of` where it has
them) and folders of `mr3 eval` on it. Out: `metrics.json` with, per run and set, accuracy by mode, language, and where
a shortcut is right and wrong; both twins right; what the trace is worth to checkers; failures, tokens, calibration; the
rubric-blank gap; gates; `items.parquet`, so that studies pair runs by task and by pair of twins.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mr3.artifacts import finished_files, stage_run, verify_outputs
from mr3.config import StageConfig
from mr3.evaluation.bias import expected_score_calibration
from mr3.evaluation.tasks import EvalTask, read_tasks
from mr3.importing import load_named
from mr3.items import Item, write_items
from mr3.records import Outcome, Task
from mr3.stage import stage_main
from mr3.stats import Rate, paired_bootstrap, rate

log = logging.getLogger("mr3.evaluation")
Checker = Callable[[Task, str, Mapping[str, Any]], float | None]
"""(task, completion or its trace, row of the table) -> 0 to 1, or None where there is nothing to check."""
VERDICTS = "verdicts.parquet"
_RESAMPLES = 2_000


class Gate(BaseModel):
    """Bounds of one measure."""

    model_config = ConfigDict(extra="forbid")

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _a_bound(self) -> Gate:
        if self.min is None and self.max is None:
            raise ValueError("a gate needs min, max or both")
        return self


class MeasuresConfig(StageConfig):
    """Which evaluations, which checkers, which gates."""

    tasks: Path = Field(description="the table of tasks that the evaluations judged")
    runs: dict[str, Path] = Field(min_length=1, description="name -> folder of one finished run of `mr3 eval`")
    checkers: dict[str, str] = Field(
        default_factory=dict, description="name -> package.module:function of (task, completion, row)"
    )
    split_by: str | None = Field(None, description="a checker of 0 or 1: accuracy where it says 1, and where 0")
    gates: dict[str, Gate] = Field(
        default_factory=dict, description="path of a number in the metrics (greedy.sets.twins.both_right) -> bounds"
    )

    @field_validator("gates")
    @classmethod
    def _paths(cls, gates: dict[str, Gate]) -> dict[str, Gate]:
        if any(not path.strip(".") for path in gates):
            raise ValueError("a gate is named by the path of its measure")
        return gates

    @model_validator(mode="after")
    def _known(self) -> MeasuresConfig:
        if self.split_by is not None and self.split_by not in self.checkers:
            raise ValueError(f"split_by is {self.split_by!r}: name one of checkers ({', '.join(self.checkers)})")
        astray = [path for path in self.gates if path.split(".")[0] not in self.runs]
        if astray:
            raise ValueError(f"the gate {astray[0]!r} is of no run: begin it with one of {', '.join(self.runs)}")
        return self


@dataclass(frozen=True)
class Seen:
    """One task with the verdict of a run, in the order that was given."""

    given: EvalTask
    row: Mapping[str, Any]
    verdict: Mapping[str, Any]
    swapped: Mapping[str, Any] | None = None
    checks: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """A failed verdict is wrong."""
        return bool(self.verdict["score"] == self.given.gold)

    @property
    def shortcut_right(self) -> bool | None:
        """Whether the shortcut gives the gold label; None where the table knows no shortcut."""
        hidden = self.row.get("hidden")
        return None if hidden is None else hidden == self.given.gold


def read_run(folder: Path, tasks: Sequence[EvalTask], rows: Mapping[str, Mapping[str, Any]]) -> list[Seen]:
    """The first verdicts of a finished evaluation beside their tasks, in the order of the tasks.

    Raises:
        ValueError: for a folder that is no finished evaluation, or one of other tasks.
    """
    import pyarrow.parquet as pq

    verify_outputs(folder, [VERDICTS])
    first: dict[str, dict[str, Any]] = {}
    other: dict[str, dict[str, Any]] = {}
    for verdict in pq.read_table(folder / VERDICTS).to_pylist():
        if not verdict["sample"]:
            (other if verdict["swapped"] else first)[verdict["task_id"]] = verdict
    strange = first.keys() - rows.keys()
    if strange or not first:
        raise ValueError(
            f"{folder} judged {min(strange, default='nothing')!r}, which is not in `tasks`: give its table"
        )
    seen = [t for t in tasks if t.id in first]
    wrong = next((t for t in seen if first[t.id]["gold"] != t.gold), None)
    if wrong is not None:
        raise ValueError(f"{folder}: the gold of {wrong.id!r} is not as in `tasks`: it judged another table")
    return [Seen(t, rows[t.id], first[t.id], other.get(t.id)) for t in seen]


def _share(seen: Sequence[Seen], is_so: Callable[[Seen], bool]) -> Rate:
    return rate((is_so(s) for s in seen), [s.given.content for s in seen])


def _mean(values: Sequence[float], contents: Sequence[str]) -> Rate:
    """A mean whose interval comes from resampled contents."""
    return paired_bootstrap(values, [0.0] * len(values), resamples=_RESAMPLES, contents=contents)


def _by(seen: Iterable[Seen], key: Callable[[Seen], Any]) -> dict[str, list[Seen]]:
    found: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        value = key(one)
        if value is not None:
            found[str(value)].append(one)
    return dict(sorted(found.items()))


def pairs_of(seen: Sequence[Seen]) -> list[tuple[Seen, Seen]]:
    """Twins whose both rows were judged."""
    groups = _by(seen, lambda s: s.row.get("twin"))
    return [(twins[0], twins[1]) for twins in groups.values() if len(twins) == 2]


def _of_twins(pairs: Sequence[tuple[Seen, Seen]]) -> dict[str, Any]:
    """How often both, exactly one, or neither of a pair is right, and how often both got the same label."""

    def share(is_so: Callable[[Seen, Seen], bool], chosen: Sequence[tuple[Seen, Seen]] = pairs) -> Rate:
        return rate((is_so(a, b) for a, b in chosen), [a.given.content for a, _ in chosen])

    edits: dict[str, list[tuple[Seen, Seen]]] = defaultdict(list)
    for pair in pairs:
        edits[str(pair[0].row.get("edit"))].append(pair)
    return {
        "pairs": len(pairs),
        "both_right": share(lambda a, b: a.right and b.right),
        "one_right": share(lambda a, b: a.right != b.right),
        "same_label": share(lambda a, b: a.verdict["score"] == b.verdict["score"] is not None),
        "both_right_by_mode": {
            mode: share(lambda a, b: a.right and b.right, [p for p in pairs if p[0].given.task.mode == mode])
            for mode in sorted({a.given.task.mode for a, _ in pairs})
        },
        "both_right_by_edit": {
            edit: share(lambda a, b: a.right and b.right, chosen) for edit, chosen in sorted(edits.items())
        },
    }


def _of_shortcut(seen: Sequence[Seen]) -> dict[str, Any]:
    """Accuracy where the shortcut is right and where it is wrong, and how often its verdict is given there."""
    known = [s for s in seen if s.shortcut_right is not None]
    if not known:
        return {}
    right, wrong = [s for s in known if s.shortcut_right], [s for s in known if not s.shortcut_right]
    return {
        "shortcut": _share(known, lambda s: bool(s.shortcut_right)),
        "shortcut_right": _share(right, lambda s: s.right),
        "shortcut_wrong": _share(wrong, lambda s: s.right),
        "shortcut_taken": _share(wrong, lambda s: s.verdict["score"] == s.row["hidden"]),
    }


def _of_orders(seen: Sequence[Seen]) -> dict[str, Any]:
    """Over the pairs that were judged in both orders."""
    both = [(s, s.swapped) for s in seen if s.swapped is not None]
    if not both:
        return {}
    answered = [(s, v) for s, v in both if s.verdict["score"] is not None and v["score"] is not None]
    return {
        "order_consistency": rate(
            (s.verdict["score"] == v["score"] for s, v in answered), [s.given.content for s, _ in answered]
        ),
        "right_in_both_orders": rate(
            (s.right and v["score"] == s.given.gold for s, v in both), [s.given.content for s, _ in both]
        ),
    }


def _of_checks(seen: Sequence[Seen], name: str) -> Rate:
    known = [(s, value) for s in seen if (value := s.checks[name]) is not None]
    found = _mean([value for _, value in known], [s.given.content for s, _ in known])
    return {**found, "not_checked": len(seen) - len(known)}


def _split(seen: Sequence[Seen], name: str) -> dict[str, Any]:
    """Accuracy of the samples that a checker says 1 of, and 0 of."""
    yes, no = ([s for s in seen if s.checks[name] == value] for value in (1.0, 0.0))
    with_it, without = (_share(rows, lambda s: s.right) for rows in (yes, no))
    known = with_it["value"] is not None and without["value"] is not None
    return {
        "share": rate((s.checks[name] == 1.0 for s in [*yes, *no]), [s.given.content for s in [*yes, *no]]),
        "accuracy_with": with_it,
        "accuracy_without": without,
        "difference": with_it["value"] - without["value"] if known else None,
    }


def set_measures(seen: Sequence[Seen], checkers: Iterable[str] = (), split_by: str | None = None) -> dict[str, Any]:
    """All measures of the rows of one set."""
    verdicts = [v for s in seen for v in (s.verdict, s.swapped) if v is not None]
    contents = [s.given.content for s in seen for v in (s.verdict, s.swapped) if v is not None]
    found: dict[str, Any] = {
        "tasks": len(seen),
        "accuracy": _share(seen, lambda s: s.right),
        "by_mode": {k: _share(rows, lambda s: s.right) for k, rows in _by(seen, lambda s: s.given.task.mode).items()},
        "by_language": {
            k: _share(rows, lambda s: s.right) for k, rows in _by(seen, lambda s: s.given.task.language).items()
        },
        "by_decider": {
            k: _share(rows, lambda s: s.right) for k, rows in _by(seen, lambda s: s.row.get("decided_by")).items()
        },
        **_of_shortcut(seen),
        **_of_orders(seen),
        "failed": rate((v["outcome"] != Outcome.OK.value for v in verdicts), contents),
        "failed_before_repair": rate((v["outcome"] != Outcome.OK.value or v["repaired"] for v in verdicts), contents),
        "tokens_per_verdict": _mean([float(v["output_tokens"]) for v in verdicts], contents),
        "ece": {
            mode: expected_score_calibration([(s.given, s.verdict["expected"]) for s in rows if s.verdict["score"]])[
                "ece"
            ]
            for mode, rows in _by(seen, lambda s: s.given.task.mode).items()
        },
        "checks": {name: _of_checks(seen, name) for name in checkers},
    }
    pairs = pairs_of(seen)
    if pairs:
        found["twins"] = _of_twins(pairs)
        found["both_right"] = found["twins"]["both_right"]
    if split_by is not None:
        found["split"] = _split(seen, split_by)
    return found


def blank_gap(seen: Sequence[Seen]) -> dict[str, Any] | None:
    """Accuracy less that on the same tasks with the rubric blanked: what the rubric is worth to the judge."""
    by_id = {s.given.id: s for s in seen}
    couples = [(by_id[of], s) for s in seen if (of := s.row.get("blank_of")) in by_id]
    if not couples:
        return None
    contents = [s.given.content for s, _ in couples]
    return {
        "accuracy": _share([s for s, _ in couples], lambda s: s.right),
        "blank": _share([b for _, b in couples], lambda s: s.right),
        "gap": paired_bootstrap(
            [float(s.right) for s, _ in couples],
            [float(b.right) for _, b in couples],
            resamples=_RESAMPLES,
            contents=contents,
        ),
        "same_label": rate((s.verdict["score"] == b.verdict["score"] is not None for s, b in couples), contents),
    }


def measure(seen: Sequence[Seen], checkers: Iterable[str] = (), split_by: str | None = None) -> dict[str, Any]:
    """`sets`: measures per set; `blank`: the rubric-blank gap, where the tasks allow one.

    Args:
        checkers: names of what `with_checks` has added.
    """
    by_set: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        for name in one.given.sets:
            by_set[name].append(one)
    found: dict[str, Any] = {
        "sets": {name: set_measures(rows, list(checkers), split_by) for name, rows in sorted(by_set.items())}
    }
    gap = blank_gap(seen)
    return found if gap is None else {**found, "blank": gap}


def with_checks(seen: Sequence[Seen], checkers: Mapping[str, Checker]) -> list[Seen]:
    """The same with what every checker says of each trace (of an empty one where the verdict has none)."""
    return [
        Seen(
            s.given,
            s.row,
            s.verdict,
            s.swapped,
            {name: check(s.given.task, s.verdict["trace"] or "", s.row) for name, check in checkers.items()},
        )
        for s in seen
    ]


def items_of(seen: Sequence[Seen], run: str) -> Iterator[Item]:
    """Items for paired tables, an item per task or pair of twins.

    Sets: `RUN/SET/accuracy`, `.../shortcut_right`, `.../shortcut_wrong`, `.../both_right` (pairs), `.../CHECKER`.
    """

    def item(one: Seen, identity: str, name: str, kind: str, score: float) -> Item:
        return Item(identity, one.given.content, f"{run}/{name}/{kind}", one.given.task.language, score)

    for one in seen:
        for name in one.given.sets:
            yield item(one, one.given.id, name, "accuracy", float(one.right))
            if one.shortcut_right is not None:
                kind = "shortcut_right" if one.shortcut_right else "shortcut_wrong"
                yield item(one, one.given.id, name, kind, float(one.right))
            for kind, value in one.checks.items():
                if value is not None:
                    yield item(one, one.given.id, name, kind, value)
    for a, b in pairs_of(seen):
        for name in a.given.sets:
            yield item(a, a.row["twin"], name, "both_right", float(a.right and b.right))


def number_at(metrics: Mapping[str, Any], path: str) -> float | None:
    """The number at a dotted path; of a rate its value. None where a measure has none (no such rows).

    Raises:
        ValueError: for a path that leads nowhere.
    """
    found: Any = metrics
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            known = ", ".join(map(str, found)) if isinstance(found, Mapping) else "nothing"
            raise ValueError(f"no measure at {path}: {name!r} is none of {known}")
        found = found[name]
    if isinstance(found, Mapping):
        found = found.get("value")
    if found is not None and not isinstance(found, int | float):
        raise ValueError(f"{path} is no number")
    return None if found is None else float(found)


def check_gates(metrics: Mapping[str, Any], gates: Mapping[str, Gate]) -> dict[str, Any]:
    """Path -> value, bounds, and whether it keeps them; what could not be measured does not."""
    found = {}
    for path, gate in gates.items():
        value = number_at(metrics, path)
        low, high = gate.min, gate.max
        kept = value is not None and (low is None or value >= low) and (high is None or value <= high)
        found[path] = {"value": value, "min": low, "max": high, "met": kept}
        log.info("%s %s: %s", "ok  " if kept else "MISSED", path, "not measured" if value is None else f"{value:.3f}")
    return found


def run(config: MeasuresConfig) -> None:
    """Read the evaluations, write measures and items into `output_dir`."""
    import pyarrow.parquet as pq

    checkers: dict[str, Checker] = {n: load_named(path, f"checkers.{n}") for n, path in config.checkers.items()}
    inputs: list[str | Path] = [config.tasks]
    for folder in config.runs.values():
        verify_outputs(folder, [VERDICTS])
        inputs += finished_files(folder)
    with stage_run("measures", config, inputs) as stage:
        if stage.finished:
            return
        tasks = read_tasks(config.tasks)
        rows = {row["id"]: row for row in pq.read_table(config.tasks).to_pylist()}
        items: list[Item] = []
        for name, folder in config.runs.items():
            seen = with_checks(read_run(folder, tasks, rows), checkers)
            stage.metrics[name] = measure(seen, checkers, config.split_by)
            items += items_of(seen, name)
        write_items(stage.folder, items)
        gates = check_gates(stage.metrics, config.gates)
        stage.metrics["gates"] = gates
        stage.metrics["gates_met"] = all(gate["met"] for gate in gates.values())


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 measures --config configs/nano-grpo/rubric-gates-ignoring.yaml`."""
    return stage_main("measures", MeasuresConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
