"""`mr3 data` for the nano world: judge SFT rows, evaluation tasks, policy SFT rows and prompts, as Parquet.

All splits are by content, so nothing that a judge or policy is tested on was in its training rows.
"""

from __future__ import annotations

import itertools
import json
import logging
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from mr3.artifacts import stage_run
from mr3.config import StageConfig
from mr3.nano.facts import Question, contents, flip
from mr3.nano.labelled import strategy_rows
from mr3.nano.packs import TRAIN_FAMILIES, TRAIN_LANGUAGES
from mr3.nano.responses import Mix, write_response
from mr3.nano.tasks import JudgeTask, Recipe, TaskMaker
from mr3.nano.testsets import build_sets, gold_rows
from mr3.nano.text import TextWorld
from mr3.prompts import render
from mr3.stage import stage_main

log = logging.getLogger("mr3.nano")
MODE_SHARES = {"pairwise": 0.5, "pointwise": 0.28, "binary": 0.22}
PROFILE = "compact"
# Replayed text is like that of the last phase of pretraining; other letters, so that a judge asked about a criterion
# that it was not trained on does not fall back to calling responses x and y.
REPLAY: dict[str, Any] = {"listed": 0.9, "chat": 0.8, "any_letters": True}


class DataConfig(StageConfig):
    """How much to make."""

    judge_rows: int = 8_000
    junk_share: float = Field(0.25, ge=0, le=1, description="share of the judge's rows with junk in the responses")
    replay_documents: int = 3_000
    rl_rows: int = Field(1_600, description="tasks for GRPO, also as SFT rows: contents of their own")
    teacher_rows: int = Field(0, description="judge SFT rows under three strategies, for the data factory's teacher")
    test_rows: int = Field(300, description="tasks per evaluation set")
    policy_rows: int = Field(1_500, description="SFT rows per policy")
    pool_prompts: int = 600
    test_prompts_per_language: int = 100
    policies: dict[str, dict[str, float]] = Field(
        description="policy -> probability of each attribute in its SFT responses"
    )


def sft_row(made: JudgeTask) -> dict[str, Any]:
    """TRL's conversational prompt-completion format, with provenance."""
    rendered = render(made.task, PROFILE)
    return {
        "id": made.task.id,
        "language": made.task.language,
        "mode": made.task.mode,
        "prompt": rendered.messages,
        "completion": [{"role": "assistant", "content": made.completion}],
    }


def judge_tasks(split: str, rows: int, seed: int, junk: float = 0.0) -> list[JudgeTask]:
    """Training tasks in all modes; 30% of the rubrics in the task's language, 20% damaged responses.

    `junk`: the share of tasks with junk in their responses.
    """
    maker = TaskMaker(Recipe(split, own_rubric=0.3, garbled=0.2, junk=junk), seed)
    modes = random.Random(seed).choices(list(MODE_SHARES), list(MODE_SHARES.values()), k=rows)
    return [maker.task(mode) for mode in modes]  # type: ignore[arg-type]


def judge_rows(rows: int, seed: int, junk: float = 0.0) -> list[dict[str, Any]]:
    """Judge SFT rows."""
    return [sft_row(made) for made in judge_tasks("judge_sft", rows, seed, junk)]


def policy_rows(mix: Mix, rows: int, seed: int) -> list[dict[str, Any]]:
    """SFT rows of one policy: questions, and responses of its character."""
    rng = random.Random(seed)
    pool = contents("policy_sft")
    made = []
    for i in range(rows):
        question = Question(flip(rng.choice(pool), rng), rng.choice(TRAIN_FAMILIES), rng.choice(TRAIN_LANGUAGES))
        text = write_response(question, mix.sample(rng), rng, rng.choice(TRAIN_LANGUAGES))
        made.append(
            {
                "id": f"policy-{i}",
                "language": question.language,
                "mode": "policy",
                "prompt": [{"role": "user", "content": question.text}],
                "completion": [{"role": "assistant", "content": text}],
            }
        )
    return made


def prompts(split: str, per_language: int, seed: int) -> list[dict[str, Any]]:
    """Distinct questions of a split, the same number in every training language."""
    rng = random.Random(seed)
    pool = contents(split)
    rows = []
    for language in TRAIN_LANGUAGES:
        for content in rng.sample(pool, per_language):
            question = Question(flip(content, rng), rng.choice(TRAIN_FAMILIES), language)
            rows.append(
                {
                    "prompt_id": f"{split}-{language}-{content.key[:12]}",
                    "prompt": json.dumps([{"role": "user", "content": question.text}], ensure_ascii=False),
                    "language": language,
                    "meta": json.dumps(question.meta),
                }
            )
    return rows


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    table = pa.Table.from_pylist(list(rows))
    pq.write_table(table, path)
    log.info("%s: %d rows", path.name, table.num_rows)
    return int(table.num_rows)


def run(config: DataConfig) -> None:
    """Write all tables of the world into `output_dir`."""
    with stage_run("data", config) as stage:
        if stage.finished:
            return
        seed, out = config.seed * 1_000, stage.folder
        counts = {
            "judge_sft": _write(out / "judge_sft.parquet", judge_rows(config.judge_rows, seed + 1, config.junk_share))
        }
        if config.teacher_rows:
            told = strategy_rows(config.teacher_rows, seed + 7, PROFILE)
            counts["teacher_sft"] = _write(out / "teacher_sft.parquet", told)
        replay = itertools.islice(TextWorld(seed + 2, **REPLAY).documents(), config.replay_documents)
        counts["replay"] = _write(out / "replay.parquet", ({"text": text} for text in replay))
        for_rl = judge_tasks("judge_dev", config.rl_rows, seed + 6)
        counts["judge_rl"] = _write(out / "judge_rl.parquet", gold_rows(for_rl, "rl"))
        _write(out / "judge_rl_sft.parquet", map(sft_row, for_rl))
        sets = build_sets(config.test_rows, seed + 3)
        counts["judge_test"] = _write(out / "judge_test.parquet", sets)
        for i, (name, mix) in enumerate(sorted(config.policies.items())):
            rows = policy_rows(Mix(**mix), config.policy_rows, seed + 10 + i)
            counts[f"policy_{name}"] = _write(out / f"policy_sft_{name}.parquet", rows)
        per_language = config.pool_prompts // len(TRAIN_LANGUAGES)
        counts["pool"] = _write(out / "prompts_pool.parquet", prompts("pool", per_language, seed + 4))
        tests = prompts("policy_test", config.test_prompts_per_language, seed + 5)
        counts["policy_test"] = _write(out / "prompts_policy_test.parquet", tests)
        stage.metrics["rows"] = counts


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 data --config configs/nano/data.yaml`."""
    return stage_main("data", DataConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
