"""All work around the engine: an engine that answers at once, through the real `mr3 label`.

Counted: reading the pool, rendering, the length check, ids, parsing, the store's synced writes, and the hand-over to
the driver, from a worker's being ready to the last result. `whole_per_s` is over the command's whole wall time, with
its start and the tables.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.workload import base_judge, label, label_config, write_pool

PROMPTS, RESPONSES = 20_000, 4


def run() -> Result:
    """Pairwise, four responses in a ring, both orders: eight verdicts a prompt."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pool, judge = write_pool(root / "pool.jsonl", PROMPTS, RESPONSES), base_judge(root / "judge")
        begun = time.monotonic()
        metrics = label(label_config(root, pool, judge))
        seconds = time.monotonic() - begun
    verdicts = metrics["verdicts"]
    assert verdicts == PROMPTS * RESPONSES * 2 and metrics["outcomes"] == {"ok": verdicts}
    return Result(
        {"verdicts_per_s": metrics["verdicts_per_s"], "whole_per_s": verdicts / seconds},
        n=verdicts,
        bars={"verdicts_per_s": Bar("at_least", 3_000)},
        details={"stream_s": metrics["stream_s"], "whole_s": seconds},
    )


BENCHMARK = Benchmark(
    "instant-engine", "verdicts/s of all work around the engine (an engine that answers at once)", run
)
