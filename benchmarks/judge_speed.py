"""Verdicts per second through Ray Data, the hosted engine, the parser and the store, over one raw `LLM.generate`.

Both sides judge the same prompts with the same engine settings, in turn, twice. The raw side starts with token ids
and keeps nothing; ours starts with tasks and ends with stored verdicts. Starting the engine is not timed on either.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.runs import DEMO, demo_judge
from mr3.evaluation.tasks import read_tasks
from mr3.inference.stream import StreamSettings
from mr3.judging.config import JudgeConfig
from mr3.judging.run import group_row, judge_groups

_ROUNDS = 2
_WARM = 32


def _groups() -> list[dict[str, str]]:
    tasks = [t.task for t in read_tasks(DEMO / "data" / "judge_test.parquet", None)]
    rows = []
    for task in sorted(tasks, key=lambda t: (t.mode, t.rubric.content_hash)):
        orders = (False, True) if task.mode == "pairwise" else (False,)
        rows.append(group_row(task.id, [{"task": task.model_dump(mode="json"), "swapped": s} for s in orders]))
    return rows


def _ours(groups: list[dict[str, str]], config: JudgeConfig, folder: str) -> dict[str, float]:
    list(judge_groups(groups[:_WARM], config, f"{folder}/warm-{time.monotonic_ns()}", StreamSettings()))
    begun, verdicts = time.monotonic(), 0
    for _, payload in judge_groups(groups, config, f"{folder}/store-{time.monotonic_ns()}", StreamSettings()):
        verdicts += len(json.loads(payload)["verdicts"])
    return {"seconds": time.monotonic() - begun, "verdicts": verdicts}


def _raw(groups: list[dict[str, str]], config: JudgeConfig, folder: str) -> dict[str, float]:
    from transformers import AutoTokenizer

    from mr3.inference.vllm_engine import engine_arguments
    from mr3.judging.judge import Judge, JudgeItem

    tokenizer = AutoTokenizer.from_pretrained(config.model)
    judge = Judge(config.card, tokenizer, None, "raw")  # type: ignore[arg-type]
    items = [JudgeItem.model_validate(i) for g in groups for i in json.loads(g["payload"])["items"]]
    prompts = tokenizer([judge.prepare(i).prompt for i in items], add_special_tokens=False).input_ids
    engine = engine_arguments(config.engine_config())
    job: dict[str, Any] = {"engine": engine, "prompts": prompts}
    job["sampling"] = {"temperature": 0.0, "max_tokens": config.card.sampling.max_tokens}
    file = Path(folder) / "job.json"
    file.write_text(json.dumps(job))
    command = [sys.executable, "-m", "benchmarks.raw_vllm", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "verdicts": len(prompts)}


def run() -> Result:
    """Both sides in turn; the ratio of their summed rates."""
    from mr3.inference.session import ray_session

    small = {"kv_cache_memory_bytes": 128 << 20}
    config = JudgeConfig(model=str(demo_judge()), host="speed", engine=small)
    groups = _groups()
    ours: list[dict[str, float]] = []
    raw: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(_ROUNDS):
            raw.append(_raw(groups, config, folder))
            with ray_session():
                ours.append(_ours(groups, config, folder))
    rates = [sum(r["verdicts"] for r in side) / sum(r["seconds"] for r in side) for side in (ours, raw)]
    return Result(
        {"ratio": rates[0] / rates[1], "verdicts_per_s": rates[0]},
        n=int(sum(r["verdicts"] for r in ours)),
        baseline={"name": "one LLM.generate over the same prompts", "verdicts_per_s": rates[1]},
        bars={"ratio": Bar("at_least", 0.8)},
        details={"ours": ours, "raw": raw},
    )


BENCHMARK = Benchmark("judge-speed", "verdicts/s through Ray, parser and store over one raw LLM.generate", run)
