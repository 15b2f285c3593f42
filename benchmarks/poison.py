"""A row that kills its engine, among a thousand: it alone fails, and the run goes on."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.instant import NAME
from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.workload import base_judge, label, label_config, write_pool

ROWS = 1_000
_MARK = " POISON"


def run() -> Result:
    """Pointwise, one response a row; the row in the middle ends its process."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        root, parts = Path(folder), []
        for first, count, mark in ((0, ROWS // 2, ""), (ROWS // 2, 1, _MARK), (ROWS // 2 + 1, ROWS // 2 - 1, "")):
            parts.append(write_pool(root / f"pool-{first}.jsonl", count, 1, first, mark))
        log = root / "calls.log"
        engine = {"poison": _MARK, "log": str(log)}
        judge = {"model": str(base_judge(root / "judge")), "backend": NAME, "engine": engine}
        metrics = label(label_config(root, parts, root / "judge", judge=judge, mode="pointwise"))
        table = pq.read_table(root / "label" / "verdicts.parquet", columns=["prompt_id", "outcome", "attempts"])
        rows = table.to_pylist()
        processes = len({line.split()[0] for line in log.read_text().splitlines()})
    failed = [r for r in rows if r["outcome"] != "ok"]
    assert metrics["verdicts"] == len(rows) == ROWS
    assert [r["prompt_id"] for r in failed] == [f"p{ROWS // 2}"] and failed[0]["outcome"] == "engine_failed"
    return Result(
        {"failed": len(failed), "engines_lost": processes - 1},
        n=ROWS,
        bars={"failed": Bar("at_most", 1), "engines_lost": Bar("at_most", 5)},
        details={"attempts_of_the_poison": failed[0]["attempts"], "rows_retried": sum(r["attempts"] > 1 for r in rows)},
    )


BENCHMARK = Benchmark("poison", "rows that fail when one of 1,000 kills its engine, and engines lost to it", run)
