"""Histories of two to four label runs on one store, killed at random, whose engines answer differently.

Every run is started again until it ends. Then: no judgement stands twice in a table, tables say what the store says,
and readers on other machines (with indices made at other times) find the same verdict for every id. Most histories run
the stage without Ray, half of the runs as on another machine (another index, processes that can't be seen, only heard);
in half of these no claim holds, as if every process was frozen for a while, so that rows are judged twice and the first
verdict must win. Some histories run the whole command.
"""

from __future__ import annotations

import os
import platform
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.instant import NAME
from benchmarks.plain_label import fork_label, prepare, read_tables, stored_verdicts
from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.workload import base_judge, environment, label_command, label_config, write_pool

PLAIN, WHOLE = 60, 6
PROMPTS, RESPONSES, WAIT_S = 16, 3, 0.05
_FIELDS = ("outcome", "score", "trace", "explanation", "reason", "swapped", "sample", "judge")
_PATIENCE = 12


def _as_machine(number: int, stale_s: float) -> None:
    """Call this process's machine by another name; its silence is noticed sooner than in earnest."""
    import mr3.inference.marks as marks

    platform.node = lambda: f"machine-{number}"
    marks.BEAT_S, marks.STALE_S, marks._NOW_S = 0.1, stale_s, 0.1


def _on_machine(number: int, store: Path) -> dict[str, dict[str, Any]]:
    """What a machine's index says."""
    real = platform.node
    platform.node = lambda: f"machine-{number}"
    try:
        return stored_verdicts(store)
    finally:
        platform.node = real


def compare(runs: list[Path], store: Path) -> Counter[str]:
    """Count what must not be."""
    from mr3.inference.store import Store

    found: Counter[str] = Counter()
    readers = [_on_machine(number, store) for number in (0, 1, 2)]  # the third has just come
    found["differing_readers"] = sum(reader != readers[2] for reader in readers[:2])
    for run in runs:
        rows = read_tables(run / "label")["verdicts"]
        found["verdicts"] += len(rows)
        found["doubled"] += len(rows) - len({(r["task_id"], r["swapped"], r["sample"]) for r in rows})
        found["doubled"] += len(rows) - len({r["id"] for r in rows})
        found["missing"] += PROMPTS * RESPONSES * 2 - len(rows)
        for row in rows:
            kept = readers[2].get(row["id"])
            found["differing_tables"] += kept is None or any(row[f] != kept.get(f) for f in _FIELDS)
    with Store(store) as opened:
        opened.catch_up()
        found["judged_twice"] = opened.kept_aside()
    return found


def plain_history(root: Path, seed: int, pool: Path, model: Path) -> Counter[str]:
    """Two to four runs without Ray."""
    rng = random.Random(seed)
    count = rng.randint(2, 4)
    judge = {"model": str(model), "backend": NAME, "engine": {"seconds": WAIT_S}}
    stream = {"batch_groups": 2, "concurrency": 2}
    store = root / "store"
    configs = [
        label_config(root / f"run{k}", pool, model, judge=judge, stream=stream, store=str(store)) for k in range(count)
    ]
    found: Counter[str] = Counter(runs=count)
    kills, stale_s = [rng.randint(0, 2) for _ in configs], rng.choice((1.0, 0.0))
    starts, running = [0] * count, dict[int, int]()
    todo = list(range(count))
    while todo or running:
        for k in todo:
            starts[k] += 1
            assert starts[k] <= _PATIENCE, f"seed {seed}: run {k} does not end"
            before, log = partial(_as_machine, k % 2, stale_s), root / f"log{k}-{starts[k]}"
            running[fork_label(configs[k], log, f"{k}.{starts[k]}", before)] = k
        todo = []
        time.sleep(rng.uniform(0.05, 0.6))
        for pid, k in list(running.items()):
            if kills[k] and rng.random() < 0.5:
                kills[k] -= 1
                os.kill(pid, signal.SIGKILL)
                found["kills"] += 1
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del running[pid]
            code = os.waitstatus_to_exitcode(status)
            if code == 0:
                continue
            assert code == -signal.SIGKILL, (root / f"log{k}-{starts[k]}").read_text()
            todo.append(k)
    return found + compare([root / f"run{k}" for k in range(count)], store)


def whole_history(root: Path, seed: int, pool: Path, model: Path, address: str) -> Counter[str]:
    """Two runs of the command at once, one of them killed once."""
    rng = random.Random(seed)
    judge = {"model": str(model), "backend": NAME, "engine": {"seconds": 1.0, "by_run": True}}
    stream = {"batch_groups": 1, "concurrency": 2}
    store = root / "store"
    shared = {"judge": judge, "stream": stream, "store": str(store)}
    configs = [label_config(root / f"run{k}", pool, model, **shared) for k in (0, 1)]

    def start(k: int, attempt: int) -> subprocess.Popen[bytes]:
        with (root / f"log{k}-{attempt}").open("wb") as log:
            return subprocess.Popen(label_command(configs[k]), env=environment(address), stdout=log, stderr=log)

    both = [start(k, 0) for k in (0, 1)]
    while both[1].poll() is None and not any((store / "parts").glob("*.parquet")):
        time.sleep(0.1)
    time.sleep(rng.uniform(0.0, 4.0))
    both[1].kill()
    killed = both[1].wait() == -signal.SIGKILL
    again = start(1, 1)
    codes = [both[0].wait(), again.wait()]
    assert codes == [0, 0], "\n".join(log.read_text() for log in root.glob("log*"))
    return Counter(runs=2, kills=int(killed)) + compare([root / "run0", root / "run1"], store)


def run() -> Result:
    """All histories; seeds 0 ... n-1."""
    from mr3.inference.session import ray_session

    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pool, model = write_pool(root / "pool.jsonl", PROMPTS, RESPONSES), base_judge(root / "judge")
        prepare(model)
        for seed in range(PLAIN):
            (root / f"plain{seed}").mkdir()
            total += plain_history(root / f"plain{seed}", seed, pool, model)
        with ray_session() as address:
            for seed in range(WHOLE):
                (root / f"whole{seed}").mkdir()
                total += whole_history(root / f"whole{seed}", seed, pool, model, address)
    bad = ("doubled", "missing", "differing_tables", "differing_readers")
    return Result(
        {"histories": PLAIN + WHOLE, **{name: total[name] for name in bad}},
        n=total["runs"],
        bars={"histories": Bar("at_least", 50), **{name: Bar("at_most", 0) for name in bad}},
        details={
            "whole_command": WHOLE,
            "kills": total["kills"],
            "verdicts": total["verdicts"],
            "judged_twice": total["judged_twice"],
            "seeds": f"0-{PLAIN - 1}, whole command 0-{WHOLE - 1}",
        },
    )


BENCHMARK = Benchmark(
    "two-writers",
    "histories of 2-4 label runs on one store, killed: doubled verdicts, differing tables and readers",
    run,
)
