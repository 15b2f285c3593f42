"""The demo's figures over three seeds, the worst of each.

Runs stay in runs/seeds/N, and finished ones are not repeated; seed 0 is the demo's own run where it is finished.

A seed varies everything that is drawn: judge rows, policy rows, prompts, training order and initialisation of what
is new, and sampling. The committed base and its pretraining are the same.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.runs import DEMO
from mr3.artifacts import read_json

SEEDS = (0, 1, 2)
ROOT = Path("runs/seeds")
_SENSES = ("at_least", "above", "at_most")


def run_seed(seed: int) -> dict[str, Any]:
    """The summary of one seed's demo."""
    folder = DEMO if seed == 0 and (DEMO / "summary.json").is_file() else ROOT / str(seed)
    command = [sys.executable, "-m", "mr3.cli.main", "demo", "--output_dir", str(folder), "--seed", str(seed)]
    subprocess.run(command, check=True)
    summary: dict[str, Any] = read_json(folder / "summary.json")
    return summary


def worst(summaries: Sequence[dict[str, Any]]) -> Result:
    """Per figure with a plain bar the worst value of all seeds; a figure that is missing in one is None."""
    values: dict[str, float | None] = {}
    bars: dict[str, Bar] = {}
    seeds: dict[str, list[float | None]] = {}
    for row in summaries[0]["bars"]:
        plain = [(k, limit) for k, limit in row["bar"].items() if k in _SENSES]
        if not plain:
            continue
        sense, limit = plain[0]
        key = row["key"]
        found = [{r["key"]: r["value"] for r in s["bars"]}.get(key) for s in summaries]
        numbers = [v for v in found if v is not None]
        choose = max if sense == "at_most" else min
        values[key] = choose(numbers) if len(numbers) == len(found) else None
        bars[key] = Bar(sense, limit)  # type: ignore[arg-type]
        seeds[key] = found
    return Result(value=values, n=len(summaries), bars=bars, details={"per_seed": seeds, "seeds": list(SEEDS)})


def run() -> Result:
    """All seeds, one after the other."""
    return worst([run_seed(seed) for seed in SEEDS])


BENCHMARK = Benchmark("loop-seeds", "the demo's figures over 3 seeds, the worst of each", run)
