"""`mr3 label`: judge a pool of off-policy responses by one rubric, and make preferences of the verdicts.

In: a pool (Parquet, JSONL or an adapter). Out, in `output_dir`: prompts.parquet, responses.parquet,
verdicts.parquet, comparisons.parquet (together they hold all that later stages need), preferences.parquet (TRL's
explicit conversational form), rejected.jsonl and metrics.json.
Judgements stream through Ray Data over a pool of actors and are kept in a store shared between runs:
killed at any instant and started again, a run ends with each judgement once.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from mr3.artifacts import StageRun, stage_run
from mr3.checking import compare, load_checker
from mr3.config import StageConfig
from mr3.inference.stream import StreamSettings
from mr3.judging.config import JudgeConfig
from mr3.records import Mode, PoolRow, Verdict
from mr3.rubrics import Rubric
from mr3.stage import stage_main
from rewards.collect import Collector, PairSettings, Truth
from rewards.expand import ExpandPool
from rewards.ingest import EMPTY, Ingested, ingest_pool, read_part
from rewards.label_metrics import label_metrics
from rewards.model import Combine, Orders
from rewards.plans import PLANS
from rewards.pool import PoolSpec, pool_files, pool_is_empty
from rewards.spool import Spool
from rewards.tasks import TaskSettings

log = logging.getLogger(__name__)
_PROGRESS_S = 10.0


class LabelConfig(StageConfig):
    """Config of `mr3 label`."""

    pool: PoolSpec = Field(
        description="file or folder, or what rewards/pools/spec.py lists: hub sets, columns, merging"
    )
    judge: JudgeConfig
    rubric: Rubric = Field(description="the one house rubric, by which every response is judged")
    mode: Mode = "pairwise"
    instruction: str | None = Field(None, description="replaces the prompt profile's own instruction")
    plan: str = Field("all_pairs", description="which pairs of a prompt are compared: all_pairs, circular or chain")
    comparisons_per_prompt: int | None = Field(None, ge=1, description="at most so many comparisons per prompt")
    orders: Orders = Field("both", description="judge A/B and B/A (both), or one of them by lot (one)")
    samples: int = Field(1, ge=1, description="judgements per order, combined by majority")
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
    store: Path | None = Field(None, description="verdict store, shared between runs; default: OUTPUT_DIR/store")
    stream: StreamSettings = StreamSettings()

    @model_validator(mode="after")
    def _known_plan(self) -> LabelConfig:
        if self.plan not in PLANS:
            raise ValueError(f"unknown plan {self.plan!r}: choose one of {', '.join(PLANS)}")
        return self

    @property
    def tasks(self) -> TaskSettings:
        """What decides the judge's work."""
        return TaskSettings.model_validate({name: getattr(self, name) for name in TaskSettings.model_fields})

    @property
    def pairs(self) -> PairSettings:
        """What decides the preferences."""
        return PairSettings(
            combine=self.combine,
            rule=self.pair_rule,
            max_per_prompt=self.max_pairs_per_prompt,
            min_margin=self.min_margin,
            tie_margin=self.tie_margin,
        )


def _check_judge(config: LabelConfig) -> None:
    card = config.judge.card
    if config.mode not in card.modes:
        known = ", ".join(card.modes)
        raise ValueError(f"{config.judge.model} judges {known} only: set mode to one of these, not {config.mode}")
    if config.samples > 1 and card.sampling.temperature == 0:
        raise ValueError(f"samples is {config.samples}, but the judge decodes greedily: set judge.sampling.temperature")


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


def _judge(config: LabelConfig, pool: Ingested, spool: Spool) -> tuple[int, float]:
    """Stream all judgements into the spool; returns (verdicts taken from the store, seconds)."""
    from mr3.judging.run import judge_groups

    begun = said = time.monotonic()
    verdicts = from_store = 0
    store = config.store or config.output_dir / "store"
    results = judge_groups(pool.folder, config.judge, store, config.stream, ExpandPool(config.tasks))
    for prompts, (group, payload) in enumerate(results, start=1):
        spool.add(int(group), payload["verdicts"])
        verdicts += len(payload["verdicts"])
        from_store += len(payload["verdicts"]) - payload["new"]
        if time.monotonic() - said > _PROGRESS_S:
            said = time.monotonic()
            rate = (verdicts - from_store) / (said - begun)
            log.info("%d of %d prompts, %d verdicts (%.1f/s new)", prompts, pool.prompts, verdicts, rate)
    return from_store, time.monotonic() - begun


def _collect(config: LabelConfig, pool: Ingested, spool: Spool) -> Collector:
    """Write the tables, part by part in the pool's order."""
    with Collector(config.output_dir, config.tasks, config.pairs, _truth(config)) as collector:
        for number, part in enumerate(pool.parts):
            found = spool.take(number)
            for index, row in read_part(part):
                collector.prompt(row, [Verdict.model_validate(v) for v in found.pop(index, [])])
            assert not found, "the stream returned prompts that are not in the pool"
    return collector


def _run(config: LabelConfig, stage: StageRun) -> None:
    work = stage.folder / "work"
    pool = ingest_pool(config.pool, work / "pool", stage.folder / "rejected.jsonl")
    log.info("pool: %d prompts, %d responses, %d rows set aside", pool.prompts, pool.responses, pool.rows_set_aside)
    spool = Spool(work / "spool", pool.part_rows)
    from_store, seconds = _judge(config, pool, spool)
    collector = _collect(config, pool, spool)
    stage.metrics = label_metrics(
        collector.counts,
        pool,
        from_store=from_store,
        seconds=seconds,
        both_orders=config.mode == "pairwise" and config.orders == "both",
        checked=config.checker is not None,
    )
    shutil.rmtree(work)


def run(config: LabelConfig) -> None:
    """Label the pool.

    Raises:
        ValueError: for an empty pool, a judge that can't do the mode, or a folder of another config.
    """
    _check_judge(config)
    _truth(config)
    if pool_is_empty(config.pool):
        raise ValueError(EMPTY)  # before the folder is taken, so that the mended pool can have it
    inputs: list[str | Path] = [*pool_files(config.pool), config.judge.model]
    with stage_run("label", config, inputs) as stage:
        if stage.finished:
            log.info("%s is finished: nothing to do", stage.folder)
            return
        _run(config, stage)
    _say(stage.metrics)


def _say(metrics: dict[str, Any]) -> None:
    log.info(
        "%d responses of %d prompts: %d verdicts %s, %d pairs, %d ties, %d flips",
        *(metrics[k] for k in ("responses", "prompts", "verdicts", "outcomes", "pairs", "ties", "flips")),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the stage."""
    return stage_main("label", LabelConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
