"""Memory of a label run against the number of its rows: all processes of the run, added up, at their peak.

Pointwise, one response a row, an engine that answers at once. Proportional shares (PSS) where the kernel tells them,
so that Ray's object store and shared libraries count once.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.workload import base_judge, environment, label_command, label_config, write_pool

SMALL, LARGE = 10_000, 1_000_000
POINTWISE: dict[str, Any] = {"mode": "pointwise", "pair_rule": "none", "stream": {"batch_groups": 128}}
_EVERY_S = 2.0


def _held(process: Any) -> int:
    """Bytes that one process holds."""
    import psutil

    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except psutil.Error:
        return 0  # it ended just now


@contextmanager
def peak_memory(pid: int) -> Iterator[dict[str, float]]:
    """The peak of a process and all that it started, in GB; `driver` is the process alone."""
    import psutil

    found = {"all": 0.0, "driver": 0.0}
    done = threading.Event()

    def watch() -> None:
        root = psutil.Process(pid)
        while not done.wait(_EVERY_S):
            try:
                family = [root, *root.children(recursive=True)]
            except psutil.Error:
                return
            sizes = [_held(p) / 1e9 for p in family]
            found["all"], found["driver"] = max(found["all"], sum(sizes)), max(found["driver"], sizes[0])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def run_and_watch(config: Path) -> dict[str, float]:
    """A label run to its end; its peaks in GB."""
    child = subprocess.Popen(label_command(config), env=environment())
    with peak_memory(child.pid) as found:
        assert child.wait() == 0
    return found


def measure(rows: int) -> dict[str, dict[str, float]]:
    """Peaks of a fresh run, and of one that finds every verdict in the store."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pool, model = write_pool(root / "pool.jsonl", rows, 1), base_judge(root / "judge")
        fresh = run_and_watch(label_config(root, pool, model, **POINTWISE))
        again = {**POINTWISE, "output_dir": str(root / "again"), "store": str(root / "store")}
        return {"fresh": fresh, "resumed": run_and_watch(label_config(root / "resumed", pool, model, **again))}


def run() -> Result:
    """Both sizes, both ways."""
    small, large = measure(SMALL), measure(LARGE)
    return Result(
        {
            f"{way}_{who}": large[way][who] / small[way][who]
            for way in ("fresh", "resumed")
            for who in ("all", "driver")
        },
        n=LARGE,
        baseline={"name": f"{SMALL} rows, GB", **{way: small[way]["all"] for way in small}},
        bars={f"{way}_{who}": Bar("at_most", 1.3) for way in ("fresh", "resumed") for who in ("all", "driver")},
        details={"small_gb": small, "large_gb": large},
    )


BENCHMARK = Benchmark("rows-memory", "peak memory of a label run over 1,000,000 rows, by that over 10,000", run)
