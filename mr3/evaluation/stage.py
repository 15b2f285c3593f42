"""`mr3 eval`: judge labelled tasks and measure the judge, or several of them under several sampling seeds.

In: a Parquet file of tasks with gold labels, published benchmarks, labelled real sets; judges. Out, per judge and
seed: `metrics.json` (per set, mode and language), `verdicts.parquet` (every verdict), `examples.json` (a few in full).
Over all of them: `results.json`, `results.md` and `results.html`, a row per judge and set, with paired differences.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from mr3.artifacts import stage_run
from mr3.evaluation.config import EvalConfig
from mr3.evaluation.one_run import TaskLoader, check, evaluate
from mr3.evaluation.results import combined, write_results
from mr3.inference.session import ray_session
from mr3.stage import stage_main

log = logging.getLogger("mr3.evaluation")
__all__ = ["EvalConfig", "main", "run"]


def run(config: EvalConfig) -> None:
    """Judge the tasks and write everything into `output_dir`; finished runs of a config are not repeated."""
    loader = TaskLoader()
    if config.is_one_run:
        evaluate(config, loader)
        folder = config.output_dir
        if not (folder / "results.json").is_file():
            write_results(folder, combined([folder]))
        return
    runs = list(config.runs())
    for one in runs:  # all of them before the first is judged
        check(one, loader.load(one)[0])
    inputs: list[str | Path] = [*config.files(), *(path for one in runs for path in one.only_judge.inputs())]
    with stage_run("eval", config, inputs=inputs) as stage:
        if stage.finished:
            return
        with ray_session():
            for one in runs:
                log.info("judge %s, seeds %s", one.name, one.seeds or "as its card says")
                evaluate(one, loader)
        found = combined([one.output_dir for one in runs])
        write_results(stage.folder, found)
        stage.metrics |= {**found, "runs": [str(one.output_dir.relative_to(config.output_dir)) for one in runs]}


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 eval --config configs/nano/judge-eval.yaml`."""
    return stage_main("eval", EvalConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
