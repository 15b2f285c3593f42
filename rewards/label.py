"""`mr3 label`: judge a pool of off-policy responses by one rubric, and make preferences of the verdicts.

In: a pool (Parquet, JSONL or an adapter). Out, in `output_dir`: prompts.parquet, responses.parquet,
verdicts.parquet, comparisons.parquet (together they hold all that later stages need), preferences.parquet (TRL's
explicit conversational form), canaries.parquet, rejected.jsonl and metrics.json.
Judgements stream through Ray Data over a pool of actors and are kept in a store shared between runs:
killed at any instant and started again, a run ends with each judgement once. `--plan` (without a value) prints what
the run will cost: calls, tokens, hours at a rate that it measures on a sample, and money at `estimate.price_per_hour`.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from mr3.artifacts import StageRun, stage_run
from mr3.config import StageConfig
from mr3.gc_tuning import tune_gc
from mr3.ground_truth import compare, load_checker
from mr3.inference.stream import StreamSettings
from mr3.judging.config import JudgeConfig
from mr3.records import PoolMode, PoolRow
from mr3.rubrics import Rubric
from mr3.rubrics.checks import check_mode
from mr3.stage import RateLimit, stage_main
from rewards.canaries import CanaryDraw, CanarySettings, check_limit
from rewards.collect import Collector, PairSettings, Truth
from rewards.estimate import EstimateSettings
from rewards.ingest import EMPTY, Ingested, ingest_pool, read_part
from rewards.label_metrics import label_metrics
from rewards.model import Combine, Orders, margins_vary
from rewards.pool import PoolSpec, pool_files, pool_is_empty, read_pool
from rewards.reorder_buffer import ReorderBuffer
from rewards.tasks import TaskSettings, check_plan

log = logging.getLogger(__name__)


class LabelConfig(StageConfig):
    """Config of `mr3 label`."""

    incidental: ClassVar[frozenset[str]] = frozenset({"stream", "estimate"})

    pool: PoolSpec = Field(
        description="file or folder, or what rewards/pools/spec.py lists: hub sets, columns, merging"
    )
    judge: JudgeConfig
    rubric: Rubric = Field(description="the one house rubric, by which every response is judged")
    mode: PoolMode = "pairwise"
    instruction: str | None = Field(None, description="replaces the prompt profile's own instruction")
    plan: str = Field("all_pairs", description="what is compared: all_pairs, circular, chain or knockout")
    comparisons_per_prompt: int | None = Field(None, ge=1, description="at most so many comparisons per prompt")
    orders: Orders = Field("both", description="A/B and B/A (both), one by lot (one), or both where it decides (final)")
    samples: int = Field(1, ge=1, description="judgements per order; a vote stops when it is decided")
    reference: Literal["include", "omit"] = Field("include", description="show the pool's reference answer")
    response_chars: int | None = Field(
        None, ge=1, description="cut longer responses here, visibly; unset: a prompt over the judge's limit is too_long"
    )
    combine: Combine = Field("agree", description="agree: both orders must say the same; mean: mean P(A better)")
    tie_margin: float = Field(0.0, ge=0.0, description="with mean or scores: differences up to this are ties")
    pair_rule: Literal["all", "best_worst", "none"] = "all"
    max_pairs_per_prompt: int | None = Field(None, ge=1)
    min_margin: float = Field(0.0, ge=0.0, description="leave out decisions closer than this")
    checker: str | None = Field(None, description="package.module:function, for the true accuracy of the pairs")
    canaries: CanarySettings = Field(CanarySettings(), description="responses that must never win, judged in every run")
    store: Path | None = Field(None, description="verdict store, shared between runs; default: OUTPUT_DIR/store")
    stream: StreamSettings = StreamSettings()
    estimate: EstimateSettings = Field(EstimateSettings(), description="for `mr3 label --plan`, which only estimates")

    @model_validator(mode="after")
    def _known_plan(self) -> LabelConfig:
        check_plan(self.plan, self.comparisons_per_prompt)
        check_mode(self.rubric, self.mode)
        return self

    @property
    def tasks(self) -> TaskSettings:
        """What decides the judge's work."""
        return TaskSettings.model_validate({name: getattr(self, name) for name in TaskSettings.model_fields})

    @property
    def verdicts(self) -> Path:
        """The folder of the verdict store."""
        return self.store or self.output_dir / "store"

    @property
    def pairs(self) -> PairSettings:
        """What decides the preferences."""
        return PairSettings(rule=self.pair_rule, max_per_prompt=self.max_pairs_per_prompt, min_margin=self.min_margin)


def _check_judge(config: LabelConfig) -> None:
    card = config.judge.card
    if config.mode not in card.modes:
        known = ", ".join(card.modes)
        raise ValueError(f"{config.judge.model} judges {known} only: set mode to one of these, not {config.mode}")
    if config.samples > 1 and card.sampling.temperature == 0:
        raise ValueError(f"samples is {config.samples}, but the judge decodes greedily: set judge.sampling.temperature")
    odds = bool(card.sampling.logprobs)
    if config.min_margin and not margins_vary(config.mode, config.samples, config.combine, config.orders, odds):
        raise ValueError(
            f"min_margin is {config.min_margin}, but every decided comparison of this run has the margin 1: set "
            "judge.sampling.logprobs (20), or leave min_margin out"
        )


def _truth(config: LabelConfig) -> Truth | None:
    """The checker as a function of row and response ids: 1, 0, -1, or None where the row has no facts."""
    if config.checker is None:
        return None
    check = load_checker(config.checker)
    criteria = [criterion.name for criterion in config.rubric.criteria]

    def truth(row: PoolRow, a: str, b: str) -> int | None:
        if not row.meta:
            return None
        texts = {r.id: r.text for r in row.responses}
        return compare(criteria, check(row.meta, texts[a]), check(row.meta, texts[b]))

    return truth


@dataclass
class Pace:
    """How fast new verdicts came. The rate counts from a worker's being ready: starting one is no judging."""

    new: int = 0
    superseded: int = 0
    seconds: float = 0.0
    per_s: float | None = None


def _judge(config: LabelConfig, pool: Ingested, buffer: ReorderBuffer) -> Pace:
    """Stream all judgements into the buffer."""
    from mr3.judging.run import Work, judge_groups
    from rewards.worker import LabelWorker, new_verdicts, ready_at, superseded_verdicts

    pace = Pace()
    begun, due = time.monotonic(), RateLimit()
    ready: float | None = None
    work = Work(LabelWorker, {"tasks": config.tasks.model_dump(mode="json")})
    results = judge_groups(pool.folder, config.judge, config.verdicts, config.stream, work)
    for prompts, (group, payload) in enumerate(results, start=1):
        buffer.add(int(group), payload)
        if int(group) < pool.prompts:  # canaries come behind the pool's own
            pace.new += new_verdicts(payload)
            pace.superseded += superseded_verdicts(payload)
        now = time.monotonic()
        if ready is None:
            # A result comes when its whole task is done: from the first one on, most of a short run would be over.
            told = ready_at(payload)
            ready = begun if told is None else max(begun, now - (time.time() - told))
        pace.per_s = pace.new / (now - ready) if now > ready else None
        if due():
            log.info("%d of %d prompts, %d new verdicts (%.1f/s)", prompts, pool.prompts, pace.new, pace.per_s or 0.0)
    pace.seconds = time.monotonic() - begun
    return pace


def _collect(config: LabelConfig, pool: Ingested, buffer: ReorderBuffer) -> Collector:
    """Write the tables, part by part in the pool's order."""
    from mr3.inference.store import Store
    from rewards.worker import Judged

    due = RateLimit()
    with (
        Store(config.verdicts) as store,
        Collector(config.output_dir, config.tasks, config.pairs, _truth(config)) as collector,
    ):
        for number, part in enumerate(pool.parts):
            found = {index: Judged.model_validate_json(p).verdicts for index, p in buffer.take(number).items()}
            collector.settle(found.values(), store)
            for index, row in read_part(part):
                collector.prompt(row, found.pop(index))
            assert not found, "the stream returned prompts that are not in the pool"
            if due():
                log.info("tables: part %d of %d", number + 1, len(pool.parts))
    return collector


def _run(config: LabelConfig, stage: StageRun) -> None:
    tune_gc()
    work = stage.folder / "work"
    draw = CanaryDraw(config.canaries, config.tasks, _truth(config))
    pool = ingest_pool(config.pool, work / "pool", stage.folder / "rejected.jsonl", watch=draw.watch)
    log.info("pool: %d prompts, %d responses, %d rows set aside", pool.prompts, pool.responses, pool.rows_set_aside)
    canaries = draw.place(pool)
    buffer = ReorderBuffer(work / "buffer", pool.part_rows)
    pace = _judge(config, pool, buffer)
    collector = _collect(config, pool, buffer)
    stage.metrics = label_metrics(
        collector.counts,
        pool,
        new=pace.new,
        superseded=pace.superseded,
        settled=collector.settled,
        seconds=pace.seconds,
        per_s=pace.per_s,
        both_orders=config.mode == "pairwise" and config.orders != "one",
        checked=config.checker is not None,
    )
    stage.metrics["canaries"] = canaries.collect(buffer, stage.folder)
    shutil.rmtree(work)


def run(config: LabelConfig) -> None:
    """Label the pool.

    Raises:
        ValueError: for an empty pool, a judge that can't do the mode, a folder of another config, or (after all is
            written) too many canaries that pass.
    """
    _check_judge(config)
    _truth(config)
    if pool_is_empty(config.pool):
        raise ValueError(EMPTY)  # before the folder is taken, so that the mended pool can have it
    inputs: list[str | Path] = [*pool_files(config.pool), *config.judge.inputs()]
    with stage_run("label", config, inputs) as stage:
        if not stage.finished:
            _run(config, stage)
            _say(stage.metrics)
    check_limit(stage.metrics.get("canaries"), config.canaries, stage.folder)


def run_estimate(config: LabelConfig) -> None:
    """Print what the run will cost, as JSON, and start nothing."""
    from rewards.estimate import estimate

    _check_judge(config)
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(estimate(config, read_pool(config.pool, Path(scratch) / "merge.sqlite")), indent=2))


def _say(metrics: dict[str, Any]) -> None:
    log.info(
        "%d responses of %d prompts: %d verdicts %s, %d pairs, %d ties, %d flips",
        *(metrics[k] for k in ("responses", "prompts", "verdicts", "outcomes", "pairs", "ties", "flips")),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the stage; `--plan` without a value estimates, and labels nothing."""
    words = list(sys.argv[1:] if argv is None else argv)
    bare = [i for i, w in enumerate(words) if w == "--plan" and (i + 1 == len(words) or words[i + 1].startswith("--"))]
    for i in reversed(bare):
        del words[i]
    return stage_main("label", LabelConfig, run_estimate if bare else run, words, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
