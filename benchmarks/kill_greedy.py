"""`kill-driver` with the demo's judge on vLLM, greedy in fp32: the text of every verdict must be equal too.

Batches differ between a killed and a calm run, so what is shown is also that a verdict does not depend on its batch.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from benchmarks.kill_driver import kill_once, same_tables
from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.runs import demo_judge
from benchmarks.workload import label, label_config, write_pool

KILLS, PROMPTS, RESPONSES = 4, 150, 4


def run() -> Result:
    """A run that is killed and started again, against a calm one."""
    from mr3.inference.session import ray_session

    rng = random.Random(0)
    engine = {"dtype": "float32", "kv_cache_memory_bytes": 256 << 20}
    judge = {"model": str(demo_judge().resolve()), "engine": engine, "sampling": {"temperature": 0.0}}
    stream = {"batch_groups": 4}
    with tempfile.TemporaryDirectory() as folder, ray_session() as address:
        root = Path(folder)
        pool = write_pool(root / "pool.jsonl", PROMPTS, RESPONSES)
        killed = label_config(root / "killed", pool, demo_judge(), judge=judge, stream=stream)
        hits = sum(kill_once(killed, root / "killed" / "store", rng, "between", address) for _ in range(KILLS))
        last = label(killed, address)
        calm = label(label_config(root / "calm", pool, demo_judge(), judge=judge, stream=stream), address)
        same = same_tables(root / "killed" / "label", root / "calm" / "label")
    return Result(
        {"unequal_tables": int(not same), "lost": calm["verdicts"] - last["verdicts"], "kills_that_hit": hits},
        n=calm["verdicts"],
        bars={"unequal_tables": Bar("at_most", 0), "lost": Bar("at_most", 0), "kills_that_hit": Bar("at_least", 3)},
        details={"outcomes": calm["outcomes"]},
    )


BENCHMARK = Benchmark("kill-greedy", "kills -9 of a label run with vLLM, greedy in fp32: verdicts lost or unequal", run)
