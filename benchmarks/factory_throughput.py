"""The data factory around its models: rows/s of one core, and memory against the number of rows.

Rows of the nano world from a JSONL file, through every step: reading, duplicates, decontamination, three teacher traces
a row, both filters, five student samples, balance, six orders. Teacher and student are engines that answer at once and
are told the label (wrong in 4% and in 40%), so that rows are left for the last steps. Each size is a process of its own
that may use one core; its time is CPU time without the engines' own. Memory is the peak of what it holds (PSS).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks import oracle_engine
from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.rows_memory import peak_memory
from benchmarks.workload import base_judge, environment

SMALL, LARGE = 10_000, 200_000
_BENCHMARK_TEXTS = 5_000


def _marked(count: int, seed: int) -> Iterator[str]:
    """Nano rows whose input ends with the label; numbered, so that no two are the same task."""
    from mr3.nano.labelled import rows

    for number, row in enumerate(rows(count, seed)):
        text = f"{row.task.input} ({number}) {oracle_engine.mark(row.gold)}"
        task = row.task.model_copy(update={"input": text})
        yield row.model_copy(update={"task": task}).model_dump_json(exclude_defaults=True) + "\n"


def write_sources(folder: Path, rows: int) -> None:
    """The rows, and a benchmark of other rows."""
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(_marked(rows, 1))
    with (folder / "benchmark.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(_marked(_BENCHMARK_TEXTS, 2))


def write_config(root: Path, rows: int, model: Path) -> Path:
    """The factory's config for the first rows of the file."""
    model_block = {"model": str(model), "backend": oracle_engine.NAME, "dialect": "plain"}
    config: dict[str, Any] = {
        "output_dir": str(root / f"factory-{rows}"),
        "profile": "compact",
        "ray": False,
        "sources": [{"path": str(root / "rows.jsonl"), "name": "nano", "limit": rows}],
        "teacher": {**model_block, "name": "told", "engine": {"wrong": 0.04}},
        "decontaminate": {"benchmarks": [{"path": str(root / "benchmark.jsonl"), "name": "other"}]},
        "difficulty": {"student": {**model_block, "name": "told", "engine": {"wrong": 0.4}}},
        "output": {"dialect": "plain"},
        "stream": {"batch_groups": 256, "concurrency": 2},
    }
    file = root / f"factory-{rows}.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def measure(root: Path, rows: int, model: Path) -> dict[str, Any]:
    """One run: CPU seconds, peak memory in GB, and its metrics."""
    config = write_config(root, rows, model)
    command = [sys.executable, "-m", "benchmarks.factory_run", str(config), str(root / f"{rows}.json")]
    child = subprocess.Popen(command, env=environment())
    with peak_memory(child.pid) as found:
        assert child.wait() == 0
    told: dict[str, Any] = json.loads((root / f"{rows}.json").read_text())
    return {**told, "peak_gb": found["all"]}


def run() -> Result:
    """Both sizes."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_sources(root, LARGE)
        model = base_judge(root / "judge")
        small, large = (measure(root, rows, model) for rows in (SMALL, LARGE))
    speed = LARGE / large["cpu_s"]
    return Result(
        {"rows_per_s": speed, "memory_ratio": large["peak_gb"] / small["peak_gb"]},
        n=LARGE,
        bars={"rows_per_s": Bar("at_least", 1_500), "memory_ratio": Bar("at_most", 1.1)},
        details={"small": small, "large": large, "answers_per_row": 3 + 5},
    )


BENCHMARK = Benchmark(
    "factory-throughput", "rows/s of the data factory outside its engines, one core; memory of 200k rows by 10k", run
)
