"""kill -9 of `mr3 label` at 30 random instants, started again each time: each id once, none lost, equal tables.

Most kills come between the first and the last verdict, some of them while a part of the store is being written, some
before and after. The engine waits a little per call, so that 30 kills find work left. Every call is logged, so that
judgements which were made twice are counted, not guessed. (With a real engine: kill-greedy.)
"""

from __future__ import annotations

import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.instant import NAME
from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.workload import base_judge, environment, label, label_command, label_config, write_pool

KILLS, PROMPTS, RESPONSES = 30, 6_000, 4
BATCH, CONCURRENCY, WAIT_S = 4, 4, 0.5
_TABLES = ("prompts", "responses", "verdicts", "comparisons", "preferences")
_PATIENCE_S = 180.0


def _parts(store: Path) -> int:
    return len(list((store / "parts").glob("*.parquet")))


def _wait(condition: Any, child: subprocess.Popen[bytes]) -> bool:
    """Until the condition holds (True) or the child has ended or patience has (False)."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end and child.poll() is None:
        if condition():
            return True
        time.sleep(0.001)
    return False


def kill_once(config: Path, store: Path, rng: random.Random, kind: str, address: str) -> bool:
    """Start the run and kill it at an instant of that kind; False when it had ended before."""
    before = _parts(store)
    child = subprocess.Popen(
        label_command(config), env=environment(address), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    hit = True
    if kind == "start":
        time.sleep(rng.uniform(0.5, 6.0))
    else:
        hit = _wait(lambda: _parts(store) > before, child)
        time.sleep(rng.uniform(0.0, 1.5))
        if kind == "write":
            hit = hit and _wait(lambda: any((store / "parts").glob(".*.tmp")), child)
    alive = child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    return hit and alive


def _judged(log: Path) -> int:
    return sum(int(line.split()[1]) for line in log.read_text().splitlines()) if log.is_file() else 0


def _stored_twice(store: Path) -> tuple[int, int]:
    """(distinct ids, ids in more than one part)."""
    import pyarrow.parquet as pq

    count: Counter[str] = Counter()
    for part in (store / "parts").glob("*.parquet"):
        count.update(pq.read_table(part, columns=["id"])["id"].to_pylist())
    return len(count), sum(n > 1 for n in count.values())


def same_tables(a: Path, b: Path) -> bool:
    import pyarrow.parquet as pq

    return all(pq.read_table(a / f"{t}.parquet").equals(pq.read_table(b / f"{t}.parquet")) for t in _TABLES)


def run() -> Result:
    """The killed run against one that nobody disturbed."""
    from mr3.inference.session import ray_session

    rng = random.Random(0)
    kinds = ["start"] * 5 + ["between"] * 17 + ["write"] * 8
    rng.shuffle(kinds)
    stream = {"batch_groups": BATCH, "concurrency": CONCURRENCY}
    with tempfile.TemporaryDirectory() as folder, ray_session() as address:
        root = Path(folder)
        pool, model, log = write_pool(root / "pool.jsonl", PROMPTS, RESPONSES), base_judge(root / "judge"), root / "log"
        slow = {"model": str(model), "backend": NAME, "engine": {"seconds": WAIT_S, "log": str(log)}}
        config = label_config(root / "killed", pool, model, judge=slow, stream=stream)
        store = root / "killed" / "store"
        hits: Counter[str] = Counter()
        for kind in kinds:
            hits[kind] += kill_once(config, store, rng, kind, address)
        last = label(config, address)
        calm = label(label_config(root / "calm", pool, model, stream=stream), address)
        ids, twice = _stored_twice(store)
        same = same_tables(root / "killed" / "label", root / "calm" / "label")
        again = _judged(log) - calm["verdicts"]
    # What a run may have given to its one engine and not stored: each task's batches, and a replica holds two tasks.
    flight = BATCH * RESPONSES * 2 * CONCURRENCY
    return Result(
        {
            "lost": calm["verdicts"] - last["verdicts"],
            "unequal_tables": int(not same),
            "ids_not_stored": calm["verdicts"] - ids,
            "judged_again_per_kill": again / KILLS,
            "kills_between_first_and_last": hits["between"] + hits["write"],
        },
        n=KILLS,
        bars={
            "lost": Bar("at_most", 0),
            "unequal_tables": Bar("at_most", 0),
            "ids_not_stored": Bar("at_most", 0),
            "judged_again_per_kill": Bar("at_most", flight),
            "kills_between_first_and_last": Bar("at_least", 20),
        },
        details={"kills": dict(hits), "in_flight_at_most": flight, "ids_in_two_parts": twice, "judged_again": again},
    )


BENCHMARK = Benchmark(
    "kill-driver", "30 kills -9 of a label run: verdicts lost, tables that differ, work done twice", run
)
