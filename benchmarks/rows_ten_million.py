"""Ten million rows through one label run: that it ends with each row judged once, how long it takes, what it holds.

The rows, the engine and the counting of memory are those of `rows-memory`; a run of its own, since it takes most of an
hour on two cores and 20 GB of disk.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.rows_memory import POINTWISE, SMALL, run_and_watch
from benchmarks.runs import metrics
from benchmarks.workload import base_judge, label_config, write_pool

ROWS = 10_000_000


def _ids(verdicts: Path) -> tuple[int, int]:
    """Rows of the verdict table, and distinct ids among them: counted in numbers, not in texts."""
    import numpy as np
    import pyarrow.parquet as pq

    found = []
    with pq.ParquetFile(verdicts) as file:
        for batch in file.iter_batches(columns=["id"]):
            found += [int(key[:16], 16) for key in batch["id"].to_pylist()]
    return len(found), int(np.unique(np.array(found, dtype=np.uint64)).size)


def run() -> Result:
    """A run over few rows for comparison, then the long one."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = base_judge(root / "judge")
        few = run_and_watch(label_config(root / "few", write_pool(root / "few.jsonl", SMALL, 1), model, **POINTWISE))
        config = label_config(root / "all", write_pool(root / "all.jsonl", ROWS, 1), model, **POINTWISE)
        begun = time.monotonic()
        peak = run_and_watch(config)
        seconds = time.monotonic() - begun
        found = metrics(root / "all" / "label")
        rows, distinct = _ids(root / "all" / "label" / "verdicts.parquet")
        parts = len(list((root / "all" / "store" / "parts").iterdir()))
    return Result(
        {
            "rows_ok": found["outcomes"].get("ok", 0),
            "rows_in_table": rows,
            "distinct_ids": distinct,
            "peak_gb": peak["all"],
            "peak_by_10k_rows": peak["all"] / few["all"],
            "driver_by_10k_rows": peak["driver"] / few["driver"],
            "verdicts_per_s": found["verdicts_per_s"],
            "whole_per_s": ROWS / seconds,
        },
        n=ROWS,
        bars={name: Bar("at_least", ROWS) for name in ("rows_ok", "rows_in_table", "distinct_ids")},
        baseline={"name": f"{SMALL} rows, GB", "value": few},
        details={"whole_s": seconds, "stream_s": found["stream_s"], "driver_gb": peak["driver"], "store_parts": parts},
    )


BENCHMARK = Benchmark("rows-10m", "one label run over ten million rows: each judged once, memory, time", run)
