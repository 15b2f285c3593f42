"""What the order of requests is worth where the KV cache is small: the stream's order against a shuffled one.

Long prompts of their own (about 800 tokens), eight judgements each, so that a prompt's prefix is asked for eight times;
the cache holds less than a tenth of all prefixes. One raw engine serves both orders, so that nothing else differs.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.throughput import Job
from benchmarks.workload import base_judge
from mr3.judging.config import JudgeConfig

PROMPTS, RESPONSES, ROUNDS, OUTPUT_TOKENS, SHARE = 80, 4, 2, 16, 0.09
_BYTES_PER_TOKEN = 4 * 2 * 2 * 32 * 4  # layers, keys and values, heads, head size, float32: the base's


def _write_pool(file: Path) -> Path:
    rng = random.Random(0)
    with file.open("w", encoding="utf-8") as out:
        for i in range(PROMPTS):
            told = " ".join(f"cats: {rng.randint(1, 99)}, dogs: {rng.randint(1, 99)}." for _ in range(70))
            answers = [{"id": f"{i}-{k}", "text": f"The answer is {i + k}.", "policy": "p"} for k in range(RESPONSES)]
            row = {"prompt_id": str(i), "prompt": f"{i}: {told}", "language": "en", "responses": answers}
            out.write(json.dumps(row) + "\n")
    return file


def _measure(root: Path, engine: dict[str, Any], prompts: list[list[int]]) -> dict[str, float]:
    call = {
        "engine": engine,
        "prompts": prompts,
        "sampling": {"temperature": 0.0, "ignore_eos": True},
        "max_tokens": [OUTPUT_TOKENS] * len(prompts),
    }
    file = root / "raw.json"
    file.write_text(json.dumps(call))
    command = [sys.executable, "-m", "benchmarks.raw_vllm", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run() -> Result:
    """Both orders in turn."""
    from transformers import AutoTokenizer

    from mr3.inference.vllm_engine import engine_arguments

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        judge = JudgeConfig(model=str(base_judge(root / "model")))
        job = Job(root, _write_pool(root / "pool.jsonl"), judge, long_tail=False)
        tokenizer = AutoTokenizer.from_pretrained(judge.model)
        ordered = tokenizer([p.prompt for p in job.prepared()], add_special_tokens=False).input_ids
        shuffled = random.Random(1).sample(ordered, len(ordered))
        room = int(SHARE * sum(map(len, ordered)) / (2 * RESPONSES) * _BYTES_PER_TOKEN)
        engine = engine_arguments(judge.engine_config()) | {
            "kv_cache_memory_bytes": room,
            "enable_prefix_caching": True,
            "disable_log_stats": False,
            "max_num_seqs": 16,
        }
        runs: dict[str, list[dict[str, float]]] = {"ordered": [], "shuffled": []}
        for _ in range(ROUNDS):
            runs["ordered"].append(_measure(root, engine, ordered))
            runs["shuffled"].append(_measure(root, engine, shuffled))
    seconds = {name: mean(r["seconds"] for r in found) for name, found in runs.items()}
    hits = {f"hit_rate_{name}": found[-1]["prefix_hit_rate"] for name, found in runs.items()}
    return Result(
        {"ratio": seconds["shuffled"] / seconds["ordered"], **hits},
        n=len(ordered),
        baseline={"name": "the same requests shuffled, requests/s", "value": len(ordered) / seconds["shuffled"]},
        bars={"ratio": Bar("at_least", 1.1)},
        details={"runs": runs, "kv_cache_bytes": room, "cache_over_prefixes": SHARE},
    )


BENCHMARK = Benchmark("prefix-order", "requests/s in the stream's order, by shuffled ones, with a small KV cache", run)
