"""Label folders for the tests of pair selection: written by labelling's own tables, without an engine."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.artifacts import hash_path, outputs_of, read_json, stage_run, write_json
from mr3.config import build_config
from mr3.records import Outcome, PoolRow, Task, Verdict, stable_hash
from rewards.collect import Collector
from rewards.label import LabelConfig
from rewards.prompt_schedule import Judgement, judge_prompt, task_id
from rewards.selection.config import PairsConfig
from rewards.tasks import TaskMaker

Say = Callable[[PoolRow, Task], str | None]
"""What a judge says of a task: a legal score (of the order as given), or None for a failed verdict."""
TABLES = ("prompts", "responses", "verdicts", "comparisons")
RUBRIC = {"name": "house", "criteria": [{"name": "correct", "description": "The number is right | `so`."}]}


def pool_row(prompt_id: str, texts: dict[str, str], language: str = "en", prompt: Any = "2+2?", **meta: Any) -> PoolRow:
    """A prompt whose responses have the policies p-NAME."""
    responses = [{"id": f"{prompt_id}-{k}", "text": t, "policy": f"p-{k}"} for k, t in texts.items()]
    row = {"prompt_id": prompt_id, "prompt": prompt, "language": language, "meta": meta, "responses": responses}
    return PoolRow.model_validate(row)


def write_label(folder: Path, rows: Sequence[PoolRow], say: Say, **changes: Any) -> Path:
    """A finished label folder over these prompts."""
    settings = {"pool": "pool.jsonl", "judge": {"model": "org/judge"}, "rubric": RUBRIC, **changes}
    config = build_config(LabelConfig, {"output_dir": folder, **settings}, "test")
    with stage_run("label", config) as stage, Collector(folder, config.tasks, config.pairs, None) as collector:
        for row in rows:
            maker = TaskMaker(row, config.tasks)
            verdicts = []
            for judgement in next(judge_prompt(row, config.tasks), []):
                task = maker.task(task_id(row.prompt_id, judgement), judgement.response_ids)
                verdicts.append(_verdict(config, task, say(row, task), judgement))
            collector.prompt(row, verdicts)
        counts = Counter(row.language for row in rows for _ in row.responses)
        stage.metrics = {
            "flip_rate": {"value": 0.1, "n": 10, "interval": [0.0, 0.3]},
            "languages": {language: {"responses": n} for language, n in counts.items()},
            "responses": counts.total(),
            "set_aside": {"rows": 0, "responses": 0, "reasons": {}},
            **dict.fromkeys(("verdicts", "from_store"), 0),
            "verdicts_per_s": None,
        }
    return folder


def _verdict(config: LabelConfig, task: Task, score: str | None, judgement: Judgement) -> Verdict:
    rubric = config.rubric.content_hash
    asked = (task.model_dump(mode="json")["input"], task.responses, rubric, judgement.swapped, judgement.sample)
    return Verdict(
        id=stable_hash(*asked, length=16),
        task_id=task.id,
        outcome=Outcome.PARSE_FAILED if score is None else Outcome.OK,
        score=score,
        reason="no verdict" if score is None else None,
        swapped=judgement.swapped,
        sample=judgement.sample,
        judge=f"{config.judge.model}@1",
        rubric_hash=rubric,
    )


def by_lot(seed: int, labels: Sequence[str | None]) -> Say:
    """A judge that draws its answer by a hash of the texts, the same for A/B and B/A of two texts."""

    def say(row: PoolRow, task: Task) -> str | None:
        texts = sorted(task.responses)
        drawn = labels[int(stable_hash(seed, row.prompt_id, texts, length=8), 16) % len(labels)]
        if task.mode == "pairwise" and texts != list(task.responses):
            return {"Assistant A": "Assistant B", "Assistant B": "Assistant A"}.get(drawn or "", drawn)
        return drawn

    return say


def by_length(_: PoolRow, task: Task) -> str:
    """A pairwise judge for whom longer is better."""
    a, b = (len(text) for text in task.responses)
    return "Assistant A" if a > b else "Assistant B" if b > a else "Tie"


def reordered(label: Path, folder: Path, seed: int) -> Path:
    """The same finished label folder with its prompts, and the rows of each prompt, in another order."""
    draw = random.Random(seed)
    folder.mkdir()
    order: list[str] = []
    for name in TABLES:
        table = pq.read_table(label / f"{name}.parquet")
        rows = table.to_pylist()
        if not order:
            order = [row["prompt_id"] for row in rows]
            draw.shuffle(order)
        draw.shuffle(rows)
        rows.sort(key=lambda row: order.index(row["prompt_id"]))
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / f"{name}.parquet")
    (folder / "metrics.json").write_bytes((label / "metrics.json").read_bytes())
    outputs = {file.name: hash_path(file) for file in outputs_of(folder)}
    write_json(folder / "manifest.json", {**read_json(label / "manifest.json"), "outputs": outputs})
    return folder


def pairs_config(output: Path, labels: Sequence[Path | dict[str, Any]], **changes: Any) -> PairsConfig:
    """A config over label folders, named after them where they have no name."""
    sources = [label if isinstance(label, dict) else {"folder": label} for label in labels]
    data = {"output_dir": output, "labels": sources, **changes}
    return build_config(PairsConfig, data, "test")


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of one output."""
    rows: list[dict[str, Any]] = pq.read_table(folder / f"{name}.parquet").to_pylist()
    return rows
