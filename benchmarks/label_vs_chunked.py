"""Labelling against `LLM.generate` in chunks of two queue lengths, as scripts do it (see benchmarks/throughput.py)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean

from benchmarks.registry import Bar, Benchmark, Result, accelerator
from benchmarks.throughput import CHUNK, ours, raw, small_job

ROUNDS, PROMPTS = 2, 53


def run() -> Result:
    """Both sides in turn; the ratio of the mean rates."""
    rates: dict[str, list[float]] = {"ours": [], "chunked": []}
    with tempfile.TemporaryDirectory() as folder:
        job = small_job(Path(folder), PROMPTS)
        prepared = job.prepared()
        for _ in range(ROUNDS):
            rates["chunked"].append(raw(job, prepared, CHUNK))
            rates["ours"].append(ours(job))
    floor = mean(rates["chunked"])
    return Result(
        {"ratio": mean(rates["ours"]) / floor},
        n=len(prepared),
        baseline={"name": f"LLM.generate in chunks of {CHUNK}, verdicts/s", "value": floor},
        bars={"ratio": Bar("at_least", 1.3 if accelerator() else 1.1)},
        details={"verdicts_per_s": rates, "rounds": ROUNDS},
    )


BENCHMARK = Benchmark(
    "label-vs-chunked", "verdicts/s of labelling, by LLM.generate in chunks of two queue lengths", run
)
