"""`mr3 rubric refine`: a better rubric for a judge, from labelled tasks, with the gain on tasks that chose nothing.

In: labelled tasks (a file, three files, or a function), a rubric to start from, a judge, a proposer. Out: `rubric.yaml`
(the refined rubric), `history.jsonl` (every round), `sets.json`, `test.parquet` (per item) and `metrics.json`.
The same command goes on after an interrupt; the verdict store keeps anything from being judged twice.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mr3.artifacts import stage_run, write_atomic, write_json
from mr3.config import StageConfig
from mr3.inference.stream import StreamSettings
from mr3.judging.config import JudgeConfig
from mr3.judging.scale import mirrored
from mr3.refinement.asked import TeacherProposals, TeacherProposer
from mr3.refinement.edits import EditProposer, EditsConfig
from mr3.refinement.history import History, Round
from mr3.refinement.loop import Rule, refine
from mr3.refinement.records import Panel, Proposer, Scores, Sets, difference, level
from mr3.refinement.scoring import Orders, open_panel
from mr3.refinement.sets import Split, Tasks, describe, open_sets
from mr3.rubrics import Rubric
from mr3.rubrics.checks import check_mode
from mr3.rubrics.entries import Entry, Header, find_entry, rubric_yaml
from mr3.rubrics.teacher import Teacher
from mr3.stage import stage_main

log = logging.getLogger("mr3.refinement")


class RefineConfig(StageConfig):
    """What is refined, on which tasks, for which judge, and by whom."""

    tasks: Tasks = Field(description="labelled Parquet; {develop, accept, test} files; or {source, options}")
    split: Split = Field(default_factory=Split, description="shares of the contents; unused for three files")
    rubric: Rubric | str = Field(description="where to start: a rubric, its id in the library, or a YAML file")
    libraries: list[Path] = Field(default_factory=list, description="folders of further library rubrics")
    judge: JudgeConfig
    orders: Orders = Field("both", description="orders in which pairwise tasks are judged; an item counts by half each")
    proposer: Annotated[EditsConfig | TeacherProposals, Field(discriminator="kind")]
    rule: Rule = Field(default_factory=Rule)
    compare_with: Rubric | str | None = Field(None, description="a rubric to measure beside them on the test set")
    store: Path | None = Field(None, description="verdict store, may be shared; default: in output_dir")
    stream: StreamSettings = Field(default_factory=StreamSettings)


def _entry(given: Rubric | str, folders: Sequence[Path]) -> Entry:
    if isinstance(given, Rubric):
        return Entry(id=given.name, path=Path(), rubric=given, header=Header())
    return find_entry(given, folders)


def _check(config: RefineConfig, rubrics: Sequence[Rubric], sets: Sets) -> None:
    """What would otherwise fail after minutes, in an actor."""
    items = [item for part in sets.values() for item in part]
    modes = sorted({item.task.mode for item in items})
    wrong = [m for m in modes if m not in config.judge.card.modes]
    if wrong:
        raise ValueError(
            f"the judge knows {', '.join(config.judge.card.modes)}, and there are {', '.join(wrong)} tasks"
        )
    for rubric in rubrics:
        for mode in modes:
            check_mode(rubric, mode)
        for item in items:
            labels = item.under(rubric).labels
            if item.gold not in labels:
                allowed = f"rubric {rubric.name!r} allows {', '.join(labels)}"
                raise ValueError(f"task {item.task.id!r} has gold {item.gold!r}, but {allowed}")
            if config.orders == "both" and item.task.mode == "pairwise":
                mirrored(labels)


def _proposer(config: RefineConfig, start: Rubric, store: Path) -> Proposer:
    given = config.proposer
    if isinstance(given, TeacherProposals):
        return TeacherProposer(given, Teacher(given.teacher, store.parent / "generation", config.seed), config.seed)
    pool = list(given.criteria)
    for name in given.library:
        pool += find_entry(name, config.libraries).rubric.criteria
    if not pool and not start.criteria:
        raise ValueError("proposer: there are no criteria to edit; give `criteria`, or the ids of rubrics in `library`")
    return EditProposer(given, pool, config.seed)


def _gains(after: Scores, before: Scores, sets: Sets) -> dict[str, Any]:
    languages: dict[str, set[str]] = {}
    for item in sets["test"]:
        languages.setdefault(item.task.language, set()).add(item.task.id)

    def part(scores: Scores, ids: set[str]) -> Scores:
        return Scores({i: p for i, p in scores.points.items() if i in ids}, scores.contents)

    return {
        "gain": difference(after, before),
        "by_language": {c: difference(part(after, i), part(before, i)) for c, i in sorted(languages.items())},
    }


def _side(scores: Scores) -> dict[str, Any]:
    return {"accuracy": level(scores), "failed": scores.failed, "verdicts": scores.verdicts}


def measure(rows: Sequence[Round], start: Entry, compared: Rubric | None, sets: Sets, panel: Panel) -> dict[str, Any]:
    """The report: the third set is judged here for the first time."""
    final = rows[-1].rubric
    others = [compared] if compared is not None else []
    before, after, *rest = panel.scores([start.rubric, final, *others], sets["test"])
    outcomes = Counter(judged.proposal.outcome.value for row in rows for judged in row.proposals)
    found: dict[str, Any] = {
        **_gains(after, before, sets),
        "before": _side(before),
        "after": _side(after),
        "start": {"id": start.id, "hash": start.rubric.content_hash},
        "final": {"hash": final.content_hash, "criteria": [c.name for c in final.criteria]},
        "rounds": len(rows),
        "accepted": sum(row.accepted for row in rows),
        "refused": sum(row.chosen is not None and not row.accepted for row in rows),
        "proposals": dict(sorted(outcomes.items())),
        "sets": describe(sets),
    }
    if rest:
        found["compared"] = {"hash": others[0].content_hash, **_side(rest[0]), "gain_left": difference(rest[0], after)}
    return found


def _test_table(path: Path, sets: Sets, panel: Panel, start: Rubric, final: Rubric) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    before, after = panel.scores([start, final], sets["test"])
    rows = [
        {
            "id": i.task.id,
            "content": i.content,
            "language": i.task.language,
            "before": before.points[i.task.id],
            "after": after.points[i.task.id],
        }
        for i in sets["test"]
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


@contextmanager
def _judging(config: RefineConfig, store: Path) -> Iterator[Panel]:
    """The judge, in a Ray session; one replica that is an endpoint needs none."""
    from mr3.inference.session import ray_session

    with ray_session() if config.judge.has_process or config.stream.replicas_max > 1 else nullcontext():
        panel = open_panel(config.judge, store, config.stream, config.orders)
        try:
            yield panel
        finally:
            panel.close()


def run(config: RefineConfig) -> None:
    """Refine the rubric and report the gain into `output_dir`."""
    sets = open_sets(config.tasks, config.split, config.seed)
    start = _entry(config.rubric, config.libraries)
    compared = None if config.compare_with is None else _entry(config.compare_with, config.libraries).rubric
    _check(config, [start.rubric, *([compared] if compared else [])], sets)
    files = [*([config.tasks] if isinstance(config.tasks, Path) else []), *config.judge.inputs()]
    with stage_run("rubric-refine", config, inputs=files) as stage:
        if stage.finished:
            return
        store = config.store or stage.folder / "store"
        write_json(stage.folder / "sets.json", {p: sorted(i.task.id for i in items) for p, items in sets.items()})
        proposer = _proposer(config, start.rubric, store)
        history = History(stage.folder / "history.jsonl")
        with _judging(config, store) as panel:
            rows = refine(start.rubric, sets, panel, proposer, config.rule, history)
            stage.metrics |= measure(rows, start, compared, sets, panel)
            _test_table(stage.folder / "test.parquet", sets, panel, start.rubric, rows[-1].rubric)
        changed = rows[-1].rubric.content_hash != start.rubric.content_hash
        about = (
            f"refined from {start.id} ({start.rubric.content_hash}) in {len(rows)} rounds" if changed else "unchanged"
        )
        text = rubric_yaml(rows[-1].rubric, start.header.version + changed, about)
        write_atomic(stage.folder / "rubric.yaml", text.encode())
        gain = stage.metrics["gain"]
        low, high = gain["interval"]
        log.info("gain on %d untouched contents: %+.3f [%+.3f, %+.3f]", gain["n"], gain["value"], low, high)


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 rubric refine --config configs/nano/rubric-refine.yaml`."""
    return stage_main("rubric refine", RefineConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
