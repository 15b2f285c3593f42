"""`mr3 compare RUN RUN ...`: finished evaluations side by side, paired by task. Only reads."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mr3.artifacts import verify_outputs
from mr3.stats import paired_bootstrap, rate


def right_answers(folder: Path) -> dict[str, bool]:
    """Task id -> whether the unswapped verdict was right (a failed one is not).

    Raises:
        ValueError: when the folder is no finished evaluation.
    """
    path = folder / "verdicts.parquet"
    if not path.is_file() or not (folder / "manifest.json").is_file():
        raise ValueError(f"{folder} is not a finished evaluation: run `mr3 eval` into it first")
    verify_outputs(folder, [path.name])
    rows = pq.read_table(path, columns=["task_id", "gold", "score", "swapped"]).to_pylist()
    return {r["task_id"]: r["score"] == r["gold"] for r in rows if not r["swapped"]}


def table(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """One row per run: accuracy, and the paired difference from the first run on the tasks that all share.

    Raises:
        ValueError: when the runs share no task.
    """
    runs = [right_answers(f) for f in folders]
    shared = sorted(set.intersection(*(set(r) for r in runs)))
    if not shared:
        raise ValueError("these evaluations share no task: compare runs on the same tasks file")
    first = [float(runs[0][i]) for i in shared]
    return [
        {
            "run": str(folder),
            "accuracy": rate(run[i] for i in shared),
            "difference": paired_bootstrap([float(run[i]) for i in shared], first),
        }
        for folder, run in zip(folders, runs, strict=True)
    ]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table for people."""
    lines = ["| run | tasks | accuracy (95%) | difference from the first (95%) |", "| --- | --- | --- | --- |"]
    for row in rows:
        a, d = row["accuracy"], row["difference"]
        spans = ["{:.3f} [{:.3f}, {:.3f}]".format(x["value"], *x["interval"]) for x in (a, d)]
        lines.append(f"| {row['run']} | {a['n']} | {spans[0]} | {spans[1]} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 compare RUN [RUN ...] [--out FILE.json]`."""
    parser = argparse.ArgumentParser(prog="mr3 compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of `mr3 eval`; the first is the baseline")
    parser.add_argument("--out", type=Path, help="also write the table as JSON")
    arguments = parser.parse_args(argv)
    try:
        rows = table(arguments.runs)
    except ValueError as error:
        print(f"mr3 compare: error: {error}", file=sys.stderr)
        return 2
    print(markdown(rows))
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
