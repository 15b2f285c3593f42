"""kill -9 of the process that holds the engine, at 10 random instants: all rows end, and attempts are recorded."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.instant import NAME
from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.workload import base_judge, environment, label_command, label_config, write_pool
from mr3.artifacts import read_json

KILLS, PROMPTS, RESPONSES = 10, 3_000, 4
_PATIENCE_S = 120.0


def _calls(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.is_file() else []


def _kill_once(log: Path, rng: random.Random, killed: set[int], child: subprocess.Popen[bytes]) -> bool:
    """Wait for a process that has not been killed yet to call its engine, then kill it a little later."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end and child.poll() is None:
        calls = _calls(log)
        pid = int(calls[-1].split()[0]) if calls else 0
        if pid and pid not in killed:
            time.sleep(rng.uniform(0.0, 1.0))
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
            return True
        time.sleep(0.02)
    return False


def run() -> Result:
    """One run whose engine is killed ten times."""
    import pyarrow.parquet as pq

    rng, killed = random.Random(0), set[int]()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pool, model, log = write_pool(root / "pool.jsonl", PROMPTS, RESPONSES), base_judge(root / "judge"), root / "log"
        judge = {"model": str(model), "backend": NAME, "engine": {"seconds": 0.5, "log": str(log)}}
        stream = {"batch_groups": 4, "concurrency": 4}
        child = subprocess.Popen(
            label_command(label_config(root, pool, model, judge=judge, stream=stream)), env=environment()
        )
        kills = sum(_kill_once(log, rng, killed, child) for _ in range(KILLS))
        assert child.wait() == 0, "the run itself must not fail"
        metrics = read_json(root / "label" / "metrics.json")
        attempts = pq.read_table(root / "label" / "verdicts.parquet", columns=["attempts"])["attempts"].to_pylist()
        judged = sum(int(line.split()[1]) for line in _calls(log))
    planned = PROMPTS * RESPONSES * 2
    return Result(
        {
            "rows_without_ok": planned - metrics["outcomes"].get("ok", 0),
            "kills": kills,
            "with_more_attempts": sum(n > 1 for n in attempts),
        },
        n=planned,
        bars={
            "rows_without_ok": Bar("at_most", 0),
            "kills": Bar("at_least", KILLS),
            "with_more_attempts": Bar("at_least", 1),
        },
        details={"judged": judged, "most_attempts": max(attempts)},
    )


BENCHMARK = Benchmark("kill-actor", "10 kills -9 of the engine's process in one run: rows that did not end ok", run)
