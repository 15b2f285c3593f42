"""Labelling against one raw `LLM.generate` over the same prompts (see benchmarks/throughput.py).

`direct`: the engine in the stream's own actor. `host`: the engine in a named actor that other stages share. `nano`: the
demo's judge, whose verdicts are short, so that what is around them weighs most.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.runs import DEMO
from benchmarks.throughput import Job, ours, raw, small_job
from benchmarks.workload import write_pool
from mr3.judging.config import JudgeConfig

ROUNDS, HOST_ROUNDS, PROMPTS, NANO_PROMPTS = 2, 1, 24, 150


def _nano(root: Path) -> float | None:
    """Ratio on the demo's judge; None where the demo has not been run."""
    model = DEMO / "judge" / "model"
    if not (model / "judge.json").is_file():
        return None
    judge = JudgeConfig(model=str(model.resolve()), engine={"kv_cache_memory_bytes": 128 << 20})
    job = Job(root, write_pool(root / "nano.jsonl", NANO_PROMPTS, 4), judge, long_tail=False)
    prepared = job.prepared()
    pairs = [(ours(job), raw(job, prepared)) for _ in range(2)]
    return mean(a for a, _ in pairs) / mean(b for _, b in pairs)


def run() -> Result:
    """All sides in turn; the ratio of the mean rates."""
    rates: dict[str, list[float]] = {"direct": [], "host": [], "raw": []}
    with tempfile.TemporaryDirectory() as folder:
        job = small_job(Path(folder), PROMPTS)
        prepared = job.prepared()
        for number in range(ROUNDS):
            rates["raw"].append(raw(job, prepared))
            rates["direct"].append(ours(job))
            if number < HOST_ROUNDS:
                rates["host"].append(ours(job, host=True))
        nano = _nano(Path(folder))
    floor = mean(rates["raw"])
    return Result(
        {"ratio": mean(rates["direct"]) / floor, "ratio_host": mean(rates["host"]) / floor, "ratio_nano": nano},
        n=len(prepared),
        baseline={"name": "one LLM.generate over the same prompts, verdicts/s", "value": floor},
        bars={"ratio": Bar("at_least", 0.95)},
        details={"verdicts_per_s": rates, "rounds": ROUNDS},
    )


BENCHMARK = Benchmark("label-vs-raw", "verdicts/s of labelling, by one raw LLM.generate of the same prompts", run)
