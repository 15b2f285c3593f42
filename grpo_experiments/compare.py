"""`mr3 compare RUN RUN ...`: finished evaluations side by side, paired by task. Only reads."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mr3.items import read_items
from mr3.stats import paired_bootstrap, rate


def table(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """One row per run: accuracy, and the paired difference from the first run on the tasks that all share.

    A task counts by the share of its samples that are right. Tasks of one content (twins among them: the same responses
    under other rubrics) are not independent: intervals are over contents.

    Raises:
        ValueError: when the runs share no task.
    """
    runs = [{item.id: item for item in read_items("eval", folder)} for folder in folders]
    shared = sorted(set.intersection(*(set(r) for r in runs)))
    if not shared:
        raise ValueError("these evaluations share no task: compare runs on the same tasks file")
    first, contents = [runs[0][i].score for i in shared], [runs[0][i].content for i in shared]
    return [
        {
            "run": str(folder),
            "accuracy": _accuracy([run[i].score for i in shared], contents),
            "difference": paired_bootstrap([run[i].score for i in shared], first, contents=contents),
        }
        for folder, run in zip(folders, runs, strict=True)
    ]


def _accuracy(scores: Sequence[float], contents: Sequence[str]) -> dict[str, Any]:
    """The mean: a rate where there is one sample a task, else with a bootstrap interval over contents."""
    if all(score in (0.0, 1.0) for score in scores):
        return rate((score == 1.0 for score in scores), contents)
    return paired_bootstrap(scores, [0.0] * len(scores), contents=contents)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table for people."""
    lines = ["| run | tasks | contents | accuracy (95%) | difference from the first (95%) |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for row in rows:
        a, d = row["accuracy"], row["difference"]
        spans = ["{:.3f} [{:.3f}, {:.3f}]".format(x["value"], *x["interval"]) for x in (a, d)]
        lines.append(f"| {row['run']} | {a['n']} | {a['contents']} | {spans[0]} | {spans[1]} |")
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
