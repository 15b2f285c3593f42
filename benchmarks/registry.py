"""What a benchmark is, how a module offers one, and where its result is kept.

A benchmark is a module of this package with `BENCHMARK = Benchmark(...)`. Its `run` measures anew and returns a
`Result`; `record` adds what every result must say (bar, command, versions, machine, commit).
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import benchmarks
from mr3.artifacts import git_commit, package_versions, read_json, write_json

RESULTS = Path(__file__).parent / "results"
_FRAMEWORK = {
    "__main__", "faulting_disk", "fuzzing", "hostile", "instant", "plain_label", "prober", "raw_vllm", "registry",
    "report", "runs", "served", "throughput", "workload",
}  # fmt: skip
_SIGNS = {"at_least": "≥", "above": ">", "at_most": "≤"}
Value = float | int | None | Mapping[str, float | int | None]


@dataclass(frozen=True)
class Bar:
    """What a value must reach, or with `above` be more than."""

    sense: Literal["at_least", "above", "at_most"]
    limit: float

    def met_by(self, value: float | None) -> bool:
        """A missing value reaches nothing."""
        if value is None:
            return False
        if self.sense == "above":
            return value > self.limit
        return value >= self.limit if self.sense == "at_least" else value <= self.limit

    def __str__(self) -> str:
        whole = float(self.limit).is_integer()
        return f"{_SIGNS[self.sense]} {self.limit:{',.0f' if whole else 'g'}}"


@dataclass
class Result:
    """What a benchmark measured: a number, or named numbers; `bars` may add to those of the benchmark."""

    value: Value
    n: int | None = None
    interval: Any = None
    baseline: Mapping[str, Any] | None = None
    bars: Mapping[str, Bar] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """A figure with a name. `bars`: by the name of the number, "" where there is only one."""

    name: str
    about: str
    run: Callable[[], Result]
    bars: Mapping[str, Bar] = field(default_factory=dict)


def all_benchmarks() -> dict[str, Benchmark]:
    """Every benchmark of this package by name."""
    found: dict[str, Benchmark] = {}
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name in _FRAMEWORK:
            continue
        loaded = importlib.import_module(f"benchmarks.{module.name}")
        benchmark = getattr(loaded, "BENCHMARK", None)
        if benchmark is not None:
            assert benchmark.name not in found, f"two benchmarks are named {benchmark.name}"
            found[benchmark.name] = benchmark
    return dict(sorted(found.items()))


def accelerator() -> str | None:
    """The name of the first NVIDIA GPU, or None."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    asked = [tool, "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None


def machine() -> dict[str, Any]:
    """Cores that this process may use, memory in GB, accelerator."""
    import psutil

    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "accelerator": accelerator(),
    }


def result_file(name: str) -> Path:
    """Where a result measured on this machine is kept; those of GPU machines stand beside the CPU's."""
    return RESULTS / f"{name}{'.gpu' if accelerator() else ''}.json"


def numbers(value: Value) -> dict[str, float | int | None]:
    """Named numbers; a single one has the name ""."""
    return dict(value) if isinstance(value, Mapping) else {"": value}


def measure(benchmark: Benchmark) -> dict[str, Any]:
    """Run it and write its result file.

    Raises:
        ValueError: when a bar is for a number that was not measured.
    """
    clock = time.monotonic()
    result = benchmark.run()
    bars = {**benchmark.bars, **result.bars}
    values = numbers(result.value)
    unknown = bars.keys() - values.keys()
    if unknown:
        raise ValueError(f"{benchmark.name} has a bar for {sorted(unknown)}, which it did not measure")
    record = {
        "name": benchmark.name,
        "about": benchmark.about,
        "value": result.value,
        "bar": {name: {bar.sense: bar.limit} for name, bar in bars.items()},
        "met": all(bar.met_by(values[name]) for name, bar in bars.items()),
        "n": result.n,
        "interval": result.interval,
        "baseline": result.baseline,
        "details": result.details,
        "seconds": round(time.monotonic() - clock, 1),
        "command": f"python -m benchmarks {benchmark.name}",
        "versions": {"python": sys.version.split()[0], **package_versions()},
        "machine": machine(),
        "commit": git_commit(),
    }
    write_json(result_file(benchmark.name), record)
    return record


def stored() -> list[dict[str, Any]]:
    """All stored results, by file name."""
    return [read_json(file) for file in sorted(RESULTS.glob("*.json"))]


def bar_of(record: Mapping[str, Any], name: str) -> Bar | None:
    """The bar of one number of a stored result."""
    bar = record["bar"].get(name)
    if bar is None:
        return None
    ((sense, limit),) = bar.items()
    return Bar(sense, limit)


def below_bar(record: Mapping[str, Any]) -> list[str]:
    """Lines about the numbers of a stored result that miss their bar."""
    lines = []
    for name, value in numbers(record["value"]).items():
        bar = bar_of(record, name)
        if bar is not None and not bar.met_by(value):
            lines.append(f"{record['name']}{'.' + name if name else ''}: {value} is not {bar}")
    return lines
