"""What freezes or vanishes under a labelling run: how soon the run names it or goes on, and what the same command then
makes.

Each case is a real `mr3 label` in a Ray session of its own. A worker or an engine's host that is stopped (SIGSTOP) must
be replaced, and the run must end well. Without Ray's own parts, or with an engine that never answers, the run must end
by itself with one message. Either way the same command, given again, must end with the tables of an undisturbed run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.instant import NAME
from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.workload import base_judge, environment, label_command, label_config, write_pool

PROMPTS, RESPONSES = 240, 3
SILENCE_S = 8.0
BOUND_S = 600.0
_PATIENCE_S = 1_200.0
_AT_ONCE = 2
"""Cases beside each other: most of their time is waiting."""
_ERROR = re.compile(r"^mr3 label: error: .*", re.M)


def _children(parent: int) -> dict[int, str]:
    """Process ids of the processes that one has started, with their names."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text()
        except OSError:  # it has ended
            continue
        name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        if int(rest[1]) == parent:
            found[int(folder.name)] = name
    return found


def _descendants(parent: int) -> list[int]:
    own = list(_children(parent))
    return [*own, *(grandchild for child in own for grandchild in _descendants(child))]


def _engine(log: Path, driver: int) -> int:
    """The process that called its engine last."""
    return int(log.read_text().splitlines()[-1].split()[0])


def _part(name: str) -> Callable[[Path, int], int]:
    def find(log: Path, driver: int) -> int:
        return next(pid for pid, found in _children(driver).items() if found == name)

    return find


@dataclass(frozen=True)
class Case:
    """What is hit, how, and whether the run must go on (exit 0) or stop with a message (exit 2).

    Without a process to hit, the engine is broken from the start, by the switch (of `benchmarks.instant`) of that name.
    """

    ends: int
    find: Callable[[Path, int], int] | None = None
    signal: int = signal.SIGSTOP
    host: bool = False
    broken: str = ""


CASES = {
    "engine_silent": Case(2, broken="silent_while"),
    "engines_die": Case(2, broken="dies_while"),
    "worker_stopped": Case(0, _engine),
    "host_stopped": Case(0, _engine, host=True),
    "raylet_stopped": Case(2, _part("raylet")),
    "raylet_killed": Case(2, _part("raylet"), signal.SIGKILL),
    "gcs_stopped": Case(2, _part("gcs_server")),
    "gcs_killed": Case(2, _part("gcs_server"), signal.SIGKILL),
}


_DIFFER = {"attempts", "id", "verdict_ids", "judge"}


def _tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of all tables, without what differs: how often a row was tried, and ids.

    Ids hold the engine's arguments, and those name the files of a case. That no id stands twice is looked at here.
    """
    import pyarrow.parquet as pq

    tables = {file.name: pq.read_table(file).to_pylist() for file in sorted((folder / "label").glob("*.parquet"))}
    ids = [row["id"] for row in tables["verdicts.parquet"]]
    assert len(set(ids)) == len(ids), "a verdict stands twice in the table"
    return {name: [{k: v for k, v in row.items() if k not in _DIFFER} for row in rows] for name, rows in tables.items()}


def _config(root: Path, case: Case | None) -> Path:
    root.mkdir()
    broken = root / "broken"
    engine = {"seconds": 0.2, "log": str(root / "calls.log"), (case and case.broken) or "silent_while": str(broken)}
    judge = {
        "model": str(base_judge(root / "judge")),
        "backend": NAME,
        "engine": engine,
        "silence_s": SILENCE_S,
        "seconds_per_token": 0.001,
        **({"host": root.name} if case and case.host else {}),
    }
    if case and case.broken:
        broken.touch()
    pool = write_pool(root / "pool.jsonl", PROMPTS, RESPONSES)
    return label_config(root, pool, root, judge=judge, stream={"silence_s": SILENCE_S, "batch_groups": 4})


def _hit(case: Case, log: Path, child: subprocess.Popen[str]) -> None:
    """Wait until the engine is at work, and strike."""
    end = time.monotonic() + _PATIENCE_S
    while (
        not log.is_file() or len(log.read_text().splitlines()) < (1 if case.broken else 5)
    ) and time.monotonic() < end:
        assert child.poll() is None, child.communicate()
        time.sleep(0.1)
    if case.find is not None:
        os.kill(case.find(log, child.pid), case.signal)


def _run_case(root: Path, case: Case) -> dict[str, Any]:
    """One disturbed run, then the same command again."""
    config = _config(root, case)
    child = subprocess.Popen(label_command(config), env=environment(), stderr=subprocess.PIPE, text=True)
    _hit(case, root / "calls.log", child)
    begun = time.monotonic()
    family = _descendants(child.pid)
    try:
        _, said = child.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        _, said = child.communicate()
        said += "\n(did not end)"
    seconds = time.monotonic() - begun
    time.sleep(5)
    left = [pid for pid in family if Path(f"/proc/{pid}").exists()]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    (root / "broken").unlink(missing_ok=True)
    subprocess.run(label_command(config), check=True, env=environment())
    errors = _ERROR.findall(said)
    return {
        "seconds": seconds,
        "exit": child.returncode,
        "log": "" if child.returncode == case.ends and "Traceback" not in said else said[-4_000:],
        "as_wanted": child.returncode == case.ends and len(errors) == (case.ends != 0) and "Traceback" not in said,
        "said": errors or said.splitlines()[-3:],
        "processes_left": len(left),
    }


def run() -> Result:
    """Each case once."""
    details = {}
    with tempfile.TemporaryDirectory() as folder:
        calm = Path(folder) / "calm"
        subprocess.run(label_command(_config(calm, None)), check=True, env=environment())
        expected = _tables(calm)
        with ThreadPoolExecutor(_AT_ONCE) as together:
            found = together.map(lambda name: _run_case(Path(folder) / name, CASES[name]), CASES)
            for name, detail in zip(CASES, found, strict=True):
                exact = _tables(Path(folder) / name) == expected
                details[name] = {**detail, "exact": exact}
                print(name, details[name], flush=True)
    verdicts = len(expected["verdicts.parquet"])
    return Result(
        {
            "not_as_wanted": sum(not d["as_wanted"] for d in details.values()),
            "reruns_not_exact": sum(not d["exact"] for d in details.values()),
            "longest_s": max(d["seconds"] for d in details.values()),
        },
        n=len(CASES),
        bars={
            "not_as_wanted": Bar("at_most", 0),
            "reruns_not_exact": Bar("at_most", 0),
            "longest_s": Bar("at_most", BOUND_S),
        },
        details={"verdicts": verdicts, "silence_s": SILENCE_S, "cases": details},
    )


BENCHMARK = Benchmark("frozen", "cases of a stopped, killed or silent part in which a run was not named or exact", run)
