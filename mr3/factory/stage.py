"""`mr3 data` for training data: sources -> teacher traces under three strategies -> filters -> curriculum orders.

Out: `sft/STRATEGY/ORDER.parquet` (TRL's prompt-completion rows), `published.parquet` (the published columns),
`funnel.json` and `funnel.md`, `set_aside.json`. Every step is a folder under `work/`; Ctrl-C and the same command
go on after the last whole step, and answers of models are in the store. `--dry-run` prints what the models would be
asked and what it would cost.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mr3.artifacts import StageRun, stage_run, write_atomic, write_json
from mr3.factory.config import FactoryConfig
from mr3.factory.funnel import Filter, check_funnel, table
from mr3.factory.parts import Step
from mr3.gc_tuning import tune_gc
from mr3.hub import open_tokenizer
from mr3.sources import source_files
from mr3.stage import stage_main

log = logging.getLogger("mr3.factory")


class _Line:
    """The steps in their order: each is made once, from the one before it."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self.filters: list[Filter] = []
        self.about: dict[str, dict[str, Any]] = {}

    def step(self, name: str, make: Callable[[Step], dict[str, Any]]) -> Step:
        """The finished step of that name."""
        step = Step(self._work, name)
        about = step.about
        if about is None:
            about = make(step)
            step.finish(about)
        self.about[name] = about
        self.filters += [Filter.read(f) for f in about["filters"]]
        log.info("%s: %d rows", name, self.rows)
        return step

    @property
    def rows(self) -> int:
        """Rows that are left."""
        return self.filters[-1].rows_out


def _make(config: FactoryConfig, run: StageRun) -> None:
    from mr3.factory.distil import distil, grade, ungraded
    from mr3.factory.finish import presample, select, translate, write_orders, write_rows
    from mr3.factory.gather import gather
    from mr3.factory.output import RowWriter

    tune_gc()
    out = run.folder
    line = _Line(out / "work")
    store = config.store or out / "store"
    tasks = line.step("1-tasks", lambda s: gather(config, s))
    if (drawn := config.presample) is not None:
        everything = tasks
        tasks = line.step("2-drawn", lambda s: presample(config, drawn, everything, s))
    traces = line.step("3-traces", lambda s: distil(config, tasks, s, store / "teacher", line.rows))
    difficulty, translator = config.difficulty, config.translator
    if difficulty is not None:
        graded = line.step("4-graded", lambda s: grade(config, difficulty, traces, s, store / "student", line.rows))
    else:
        graded = line.step("4-graded", lambda s: ungraded(traces, s))
    chosen = line.step("5-chosen", lambda s: select(config, graded, s))
    if translator is not None:
        folder = store / "translations"
        before = chosen
        chosen = line.step("6-translated", lambda s: translate(config, translator, before, s, folder, line.rows))
    own = config.output.tokenizer
    places = {place for place in (own, *config.output.prompts.values()) if place is not None}
    tokenizers = {place: open_tokenizer(place) for place in sorted(places)}
    rows = line.step("7-rows", lambda s: write_rows(config, chosen, s, tokenizers))
    files = write_orders(config, rows, out, RowWriter(config, tokenizers).published_columns)
    check_funnel(line.filters)
    write_json(out / "funnel.json", [f.report() for f in line.filters])
    write_atomic(out / "funnel.md", table(line.filters).encode())
    write_json(out / "set_aside.json", line.about["1-tasks"]["set_aside"])
    log.info("%s", table(line.filters))
    told = {k: v for k, v in line.about["7-rows"].items() if k != "filters"}
    counts = [{"filter": f.name, "in": f.rows_in, "out": f.rows_out} for f in line.filters]
    run.metrics.update(told, funnel=counts, files=files)


def _inputs(config: FactoryConfig) -> list[str | Path]:
    """What decides the rows beside the config: local files and models."""
    specs = [*config.sources, *config.decontaminate.benchmarks]
    asked = [config.teacher, *([config.difficulty.student] if config.difficulty else [])]
    models = [path for model in asked for path in config.asked(model).inputs()]
    if config.translator is not None:
        models.append(config.translator.model)
    return [*(file for spec in specs for file in source_files(spec)), *models]


def run(config: FactoryConfig) -> None:
    """Make all files in `output_dir`.

    Raises:
        ValueError: when a source, model or text is not there, or no row is left.
    """
    if config.dry_run:
        from mr3.factory.dry_run import dry_run

        print(dry_run(config))
        return
    for model in (config.teacher, *([config.difficulty.student] if config.difficulty else [])):
        config.asked(model)  # a card that does not fit is an error now, not after an hour
    with stage_run("factory", config, _inputs(config)) as stage:
        if stage.finished:
            return
        _make(config, stage)


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 data --config FILE [--dry-run]`."""
    words = list(sys.argv[1:] if argv is None else argv)
    words = ["--dry_run=true" if word == "--dry-run" else word for word in words]
    return stage_main("data", FactoryConfig, run, words, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
