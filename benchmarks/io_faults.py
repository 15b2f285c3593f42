"""Each file operation of a label run fails once, for want of space or by an I/O error; then the same command again.

Every operation of the C library below the run's folder counts: opening, writing, syncing, truncating, renaming,
linking, removing, making folders; of Python, SQLite and Arrow alike. Every one fails in a run without Ray; a few in the
whole command. A run that is hit ends well or with one message, and the run after it has all verdicts and equal tables.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.faulting_disk import FaultingDisk
from benchmarks.plain_label import fork_label, prepare, read_tables, stored_verdicts, wait_for
from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.workload import base_judge, environment, label_command, label_config, write_pool
from mr3.artifacts import read_json, write_json

PROMPTS, RESPONSES, WHOLE = 4, 2, 4
CODES = (errno.ENOSPC, errno.EIO)
_SETTINGS: dict[str, Any] = {"stream": {"batch_groups": 2, "concurrency": 1}, "canaries": {"per_language": 1}}
_CALM = 100


class _Trial:
    """A run that is hit, and the same again."""

    def __init__(self, disk: FaultingDisk, folder: Path, expected: dict[str, Any]) -> None:
        self._disk, self._folder, self._expected = disk, folder, expected
        self.found: Counter[str] = Counter()
        self.hit: Counter[str] = Counter()
        self.wrong: list[str] = []

    def config(self, name: str, pool: Path, model: Path) -> Path:
        return label_config(self._folder / name, pool, model, **_SETTINGS)

    def one(self, start: Any, config: Path, name: str, nth: int, code: int) -> bool:
        """Fail operation `nth`; False when the run had fewer."""
        log = self._folder.parent / f"{name}.log"
        self._disk.arm(nth, code)
        status = start(config, log)
        _, what = self._disk.disarm()
        text = log.read_text()
        if not what:
            return False
        self.hit[what] += 1
        traceback = "Traceback" in text or status not in (0, 2)
        messages = sum(": error: " in line for line in text.splitlines())
        self.found["tracebacks"] += traceback
        self.found["not_one_message"] += status == 2 and messages != 1
        self.found["stopped"] += status == 2
        again = start(config, log)
        store, tables = self._folder / name / "store", self._folder / name / "label"
        exact = again == 0 and read_tables(tables) == self._expected["tables"]
        self.found["not_exact"] += not exact
        lost = self._expected["ids"] - stored_verdicts(store).keys() if again == 0 else self._expected["ids"]
        self.found["lost"] += len(lost)
        if traceback or not exact or lost or (status == 2 and messages != 1):
            self.wrong.append(
                f"{name} {what} {os.strerror(code)}: status {status}, then {again}\n{text}\n{log.read_text()}"
            )
        return True


def _plain(config: Path, log: Path) -> int:
    return wait_for(fork_label(config, log))


def _child(root: Path, report: Path) -> None:
    """In a process with the library: all operations of the run without Ray, then some of the whole command."""
    disk = FaultingDisk(root)
    pool, model, folder = root / "pool.jsonl", root / "judge", root / "disk"
    prepare(model)
    calm = label_config(folder / "calm", pool, model, **_SETTINGS)
    disk.arm(0, 0)
    assert _plain(calm, root / "calm.log") == 0, (root / "calm.log").read_text()
    operations, _ = disk.disarm()
    expected = {
        "tables": read_tables(folder / "calm" / "label"),
        "ids": set(stored_verdicts(folder / "calm" / "store")),
    }
    trial = _Trial(disk, folder, expected)
    tried = 0
    while trial.one(_plain, trial.config(str(tried), pool, model), str(tried), tried + 1, CODES[tried % 2]):
        tried += 1

    def whole(config: Path, log: Path) -> int:
        with log.open("wb") as out:
            env = {**environment(), **disk.environment()}
            return subprocess.run(label_command(config), stdout=out, stderr=out, env=env, check=False).returncode

    whole_tried = 0
    for k in range(WHOLE):
        name, nth = f"whole{k}", 1 + k * operations // WHOLE
        whole_tried += trial.one(whole, trial.config(name, pool, model), name, nth, CODES[k % 2])
    write_json(
        report,
        {
            "found": trial.found,
            "hit": trial.hit,
            "tried": tried,
            "whole": whole_tried,
            "operations": operations,
            "wrong": trial.wrong[:20],
        },
    )


def run() -> Result:
    """The trials, in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        (root / "disk").mkdir()
        write_pool(root / "pool.jsonl", PROMPTS, RESPONSES)
        base_judge(root / "judge")
        disk = FaultingDisk.make(root, root / "disk")
        command = [sys.executable, "-m", "benchmarks.io_faults", str(root), str(root / "report.json")]
        subprocess.run(command, check=True, env={**environment(), **disk.environment()})
        report = read_json(root / "report.json")
    for text in report["wrong"]:
        print(text, file=sys.stderr)
    names = ("lost", "tracebacks", "not_one_message", "not_exact")
    return Result(
        {"faults": report["tried"] + report["whole"], **{name: report["found"].get(name, 0) for name in names}},
        n=report["tried"] + report["whole"],
        bars={"faults": Bar("at_least", _CALM), **{name: Bar("at_most", 0) for name in names}},
        details={
            **{k: report[k] for k in ("operations", "hit", "whole")},
            "stopped": report["found"].get("stopped", 0),
        },
    )


BENCHMARK = Benchmark(
    "io-faults", "each file operation of a label run fails once: lost, tracebacks, reruns not exact", run
)

if __name__ == "__main__":
    _child(Path(sys.argv[1]), Path(sys.argv[2]))
