"""One judge under one sampling on all tasks: verdicts streamed to a table, metrics, a few examples."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mr3.artifacts import StageRun, stage_run, write_json
from mr3.evaluation.config import EvalConfig
from mr3.evaluation.loading import Loaded, load_all, texts_of
from mr3.evaluation.metrics import Judged, all_metrics, combine_orders
from mr3.evaluation.results import SET_ASIDE
from mr3.evaluation.scores import Answer
from mr3.evaluation.tasks import EvalTask, read_tasks
from mr3.evaluation.traces.notes import TraceReader
from mr3.judging.run import group_row, judge_groups
from mr3.judging.scale import mirrored
from mr3.records import Verdict, stable_hash
from mr3.stage import quiet

log = logging.getLogger("mr3.evaluation")
_FAILED_EXAMPLES = 5
_REPORT_SECONDS = 10.0


class TaskLoader:
    """Tasks of configs; what several runs share is read once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[list[EvalTask], dict[str, Loaded]]] = {}

    def load(self, config: EvalConfig) -> tuple[list[EvalTask], dict[str, Loaded]]:
        """All tasks of a run, and what was read of each benchmark.

        Raises:
            ValueError: as `read_tasks` and `load_all`, or when two tasks have one id.
        """
        card = config.only_judge.card
        texts = texts_of(card, config.rubric_seed)
        sources = [source.model_dump() for source in config.benchmarks]
        key = stable_hash(str(config.tasks), config.sets, sources, card.strategy, texts.model_dump(mode="json"))
        if key not in self._known:
            given = read_tasks(config.tasks, config.sets) if config.tasks is not None else []
            loaded, read = load_all(config.benchmarks, card, config.rubric_seed, config.allow_set_aside)
            both = {t.id for t in given} & {t.id for t in loaded}
            if both:
                raise ValueError(f"{config.tasks} and a benchmark both hold the id {min(both)!r}")
            self._known[key] = ([*given, *loaded], read)
        return self._known[key]


def check(config: EvalConfig, tasks: Sequence[EvalTask]) -> None:
    """What would otherwise fail in an actor after minutes, or in the metrics after hours."""
    flips = set(config.rubric_flip) - {name for t in tasks for name in t.sets}
    if flips:
        raise ValueError(f"rubric_flip names sets that are not evaluated: {', '.join(sorted(flips))}")
    if config.combine != "none" and config.orders == "one":
        raise ValueError(f"combine: {config.combine} needs both orders: set `orders: both`")
    modes = config.only_judge.card.modes
    wrong = [t for t in tasks if t.task.mode not in modes]
    if wrong:
        raise ValueError(
            f"{len(wrong)} tasks have modes this judge was not trained for (first: {wrong[0].id!r}, "
            f"{wrong[0].task.mode}; it knows {', '.join(modes)}): leave their sets out with `sets`"
        )
    for labels in {t.task.labels for t in tasks if t.task.mode == "pairwise"}:
        if config.orders == "both":
            mirrored(labels)
        if config.combine != "none":
            blank = Verdict(id="", task_id="", outcome="ok", score=labels[0])  # type: ignore[arg-type]
            combine_orders(blank, blank, labels, config.combine)


def _rows(config: EvalConfig, tasks: Sequence[EvalTask]) -> list[dict[str, str]]:
    """A group per task; tasks of one rubric follow each other, so that the engine's prefix cache serves them."""
    rows = []
    for given in sorted(tasks, key=lambda t: (t.task.mode, t.task.rubric.content_hash)):
        both = config.orders == "both" and given.task.mode == "pairwise"
        task = given.task.model_dump(mode="json")
        rows.append(group_row(given.id, [{"task": task, "swapped": s} for s in ((False, True) if both else (False,))]))
    return rows


class _Progress:
    """A bar on a terminal, a line now and then elsewhere; and how fast verdicts came once they came."""

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, unit="task", disable=quiet())
        self._total, self.tasks, self.new = total, 0, 0
        self._begun = self._said = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._last = self._begun

    def add(self, new: int) -> None:
        """One task is done, with `new` fresh verdicts."""
        self._last = time.monotonic()
        self.tasks, self.new = self.tasks + 1, self.new + new
        if self._first is None:
            self._first = (self._last, self.new)
        self._bar.update()
        if quiet() and self._last - self._said > _REPORT_SECONDS:
            self._said = self._last
            log.info("%d of %d tasks judged", self.tasks, self._total)

    def close(self) -> dict[str, Any]:
        """Counts, seconds in all (start-up included), and new verdicts per second from first to last arrival."""
        self._bar.close()
        speed = None
        if self._first is not None and self._last > self._first[0] and self.new > self._first[1]:
            speed = (self.new - self._first[1]) / (self._last - self._first[0])
        return {
            "new_verdicts": self.new,
            "judging_s": time.monotonic() - self._begun,
            "verdicts_per_s": speed,
        }


def _judge(config: EvalConfig, tasks: Sequence[EvalTask], stage: StageRun) -> tuple[list[Judged], dict[str, Any]]:
    """Stream all tasks; write the table and the examples on the way, keep only what metrics need."""
    from mr3.evaluation.output import VerdictTable, choose_examples, example

    by_id = {t.id: t for t in tasks}
    chosen = choose_examples(tasks, config.examples)
    shown: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    judged: list[Judged] = []
    progress = _Progress(len(tasks))
    store = config.store or stage.folder / "store"
    judge = config.sampled_judge()
    reader = TraceReader(judge.card)
    with VerdictTable(stage.folder / "verdicts.parquet") as table:
        for name, text in judge_groups(_rows(config, tasks), judge, store, config.stream):
            given, payload = by_id.pop(name), json.loads(text)
            verdicts = [Verdict.model_validate(v) for v in payload["verdicts"]]
            notes = tuple(reader.read(given.task, v) for v in verdicts)
            slim = [v.model_copy(update={"trace": None, "explanation": None}) for v in verdicts]
            one = Judged(given, slim[0], slim[1] if len(slim) > 1 else None, config.combine, notes)
            for verdict, note in zip(verdicts, notes, strict=True):
                table.add(given, verdict, one.label, note)
            if name in chosen:
                shown.append(example(given, verdicts[0]))
            elif verdicts[0].score is None and len(failed) < _FAILED_EXAMPLES:
                failed.append(example(given, verdicts[0]))
            judged.append(one)
            progress.add(payload["new"])
    assert not by_id, f"{len(by_id)} tasks came back without a verdict"
    shown.sort(key=lambda e: (e["language"], e["id"]))
    write_json(stage.folder / "examples.json", shown + failed)
    return judged, progress.close()


def _written(rows: Mapping[str, Answer]) -> dict[str, dict[str, Any]]:
    return {name: {"gold": a.gold, "language": a.language, "part": a.part} for name, a in rows.items()}


def evaluate(config: EvalConfig, loader: TaskLoader) -> None:
    """Judge the tasks of a config of one judge and one sampling; metrics, verdicts and examples into `output_dir`."""
    tasks, read = loader.load(config)
    check(config, tasks)  # before the folder is opened: a config that can't work should not claim it
    with stage_run("eval", config, inputs=[*config.files(), *config.only_judge.inputs()]) as stage:
        if stage.finished:
            return
        judged, speed = _judge(config, tasks, stage)
        wrong = {name: loaded.wrong for name, loaded in read.items()}
        write_json(stage.folder / SET_ASIDE, {name: _written(rows) for name, rows in wrong.items()})
        answers = {name: list(rows.values()) for name, rows in wrong.items()}
        stage.metrics |= all_metrics(judged, config.rubric_flip, answers)
        if read:
            stage.metrics["benchmarks"] = {name: loaded.report() for name, loaded in read.items()}
        stage.metrics |= {
            "judge": judged[0].verdict.judge,
            "verdicts": sum(len(j.verdicts) for j in judged),
            "orders": config.orders,
            "combine": config.combine,
            **speed,
        }
        for name, found in stage.metrics["sets"].items():
            accuracy = found["accuracy"]
            log.info("%s: accuracy %.3f of %d", name, accuracy["value"], accuracy["n"])
        log.info("%d verdicts, %d of them new", stage.metrics["verdicts"], speed["new_verdicts"])
