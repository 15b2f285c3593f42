"""Stages run by benchmarks: the ordinary commands, in folders of their own, finished ones not repeated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from mr3.artifacts import read_json

DEMO = Path("runs/demo")


def mr3(*words: str) -> None:
    """Run one command of ours; its progress is shown, its failure ends the benchmark."""
    subprocess.run([sys.executable, "-m", "mr3.cli.main", *words], check=True)


def metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a finished stage."""
    found: dict[str, Any] = read_json(folder / "metrics.json")
    return found


def demo_judge() -> Path:
    """The judge of the demo.

    Raises:
        ValueError: when the demo has not been run.
    """
    folder = DEMO / "judge" / "model"
    if not (folder / "judge.json").is_file():
        raise ValueError(f"no judge at {folder}: run `make demo` first")
    return folder
