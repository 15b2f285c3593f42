"""`mr3 eval`: judge labelled tasks and measure the judge.

In: a Parquet file of tasks with gold labels, a judge. Out: `metrics.json` (per set, mode and language),
`verdicts.parquet` (every verdict), `examples.json` (a few in full).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mr3.artifacts import StageRun, stage_run, write_json
from mr3.config import StageConfig
from mr3.evaluation.metrics import Combine, Judged, all_metrics, combine_orders
from mr3.evaluation.tasks import EvalTask, read_tasks
from mr3.inference.stream import StreamSettings
from mr3.judging.config import JudgeConfig
from mr3.judging.run import group_row, judge_groups
from mr3.judging.scale import mirrored
from mr3.records import Verdict
from mr3.stage import quiet, stage_main

log = logging.getLogger("mr3.evaluation")
_FAILED_EXAMPLES = 5
_REPORT_SECONDS = 10.0


class EvalConfig(StageConfig):
    """Which judge, on which tasks."""

    tasks: Path = Field(description="Parquet file of tasks with gold labels")
    judge: JudgeConfig
    sets: list[str] | None = Field(None, description="names of evaluation sets; all in the file by default")
    orders: Literal["one", "both"] = Field("both", description="orders in which pairwise tasks are judged")
    combine: Combine = Field("none", description="label from both orders: agree or mean; none takes the given order")
    rubric_flip: list[str] = Field(default_factory=list, description="sets whose rows of one group must all be right")
    examples: int = Field(15, description="verdicts in examples.json")
    store: Path | None = Field(None, description="verdict store, may be shared; default: in output_dir")
    stream: StreamSettings = Field(default_factory=StreamSettings)


def _check(config: EvalConfig, tasks: Sequence[EvalTask]) -> None:
    """What would otherwise fail in an actor after minutes, or in the metrics after hours."""
    flips = set(config.rubric_flip) - {name for t in tasks for name in t.sets}
    if flips:
        raise ValueError(f"rubric_flip names sets that are not evaluated: {', '.join(sorted(flips))}")
    if config.combine != "none" and config.orders == "one":
        raise ValueError(f"combine: {config.combine} needs both orders: set `orders: both`")
    modes = config.judge.card.modes
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
    with VerdictTable(stage.folder / "verdicts.parquet") as table:
        for name, text in judge_groups(_rows(config, tasks), config.judge, store, config.stream):
            given, payload = by_id.pop(name), json.loads(text)
            verdicts = [Verdict.model_validate(v) for v in payload["verdicts"]]
            for verdict in verdicts:
                table.add(given, verdict)
            if name in chosen:
                shown.append(example(given, verdicts[0]))
            elif verdicts[0].score is None and len(failed) < _FAILED_EXAMPLES:
                failed.append(example(given, verdicts[0]))
            slim = [v.model_copy(update={"trace": None, "explanation": None}) for v in verdicts]
            judged.append(Judged(given, slim[0], slim[1] if len(slim) > 1 else None, config.combine))
            progress.add(payload["new"])
    assert not by_id, f"{len(by_id)} tasks came back without a verdict"
    shown.sort(key=lambda e: (e["language"], e["id"]))
    write_json(stage.folder / "examples.json", shown + failed)
    return judged, progress.close()


def run(config: EvalConfig) -> None:
    """Judge the tasks and write metrics, verdicts and examples into `output_dir`."""
    tasks = read_tasks(config.tasks, config.sets)
    _check(config, tasks)  # before the folder is opened: a config that can't work should not claim it
    with stage_run("eval", config, inputs=[config.tasks, config.judge.model]) as stage:
        if stage.finished:
            log.info("%s is finished: nothing to do", stage.folder)
            return
        judged, speed = _judge(config, tasks, stage)
        stage.metrics |= all_metrics(judged, config.rubric_flip)
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


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 eval --config configs/nano/eval.yaml`."""
    return stage_main("eval", EvalConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
