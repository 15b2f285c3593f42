"""`mr3 results RUN...`: finished evaluations as one table: judges, spread over seeds, differences.

Only reads. A folder of `mr3 eval` counts as one run, or as the runs below it (several judges or seeds). Runs of one
name and other seeds are one judge.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mr3.artifacts import metrics_of, read_json, verify_outputs, write_atomic, write_json
from mr3.config import expand
from mr3.evaluation.benchmarks import BENCHMARKS
from mr3.evaluation.pages import html_page, markdown
from mr3.evaluation.scores import Answer, all_alike, indexed
from mr3.stats import crossed_bootstrap, over_seeds

SET_ASIDE = "set_aside.json"
"""In a run's folder: set -> name -> gold, language and part of each row that counts as wrong unjudged."""
_COLUMNS = ["task_id", "sets", "language", "part", "gold", "said", "swapped"]


@dataclass(frozen=True)
class Run:
    """One finished evaluation: a judge under one sampling."""

    folder: Path
    name: str
    seed: int | None

    @cached_property
    def sets(self) -> dict[str, Any]:
        """Its metrics per evaluation set."""
        found: dict[str, Any] = metrics_of(self.folder)["sets"]
        return found

    @cached_property
    def answers(self) -> dict[str, dict[str, Answer]]:
        """Set -> task id -> answer; rows that could not be judged are wrong ones.

        Raises:
            ValueError: when the verdicts were written by a version that kept no answers, or are not as written.
        """
        import pyarrow.parquet as pq

        verify_outputs(self.folder, ["verdicts.parquet"])
        file = pq.ParquetFile(self.folder / "verdicts.parquet")
        missing = sorted(set(_COLUMNS) - set(file.schema_arrow.names))
        if missing:
            raise ValueError(f"{self.folder} is of an older version (no column {missing[0]}): run `mr3 eval` anew")
        found: dict[str, dict[str, Answer]] = defaultdict(dict)
        for row in file.read(columns=_COLUMNS).to_pylist():
            if not row["swapped"]:
                answer = Answer(row["gold"], row["said"], row["language"], row["part"])
                for name in row["sets"]:
                    found[name][row["task_id"]] = answer
        aside = self.folder / SET_ASIDE
        for name, rows in (read_json(aside) if aside.is_file() else {}).items():
            found[name] |= {key: Answer(said=None, **about) for key, about in rows.items()}
        return found


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of some folders, in order.

    Raises:
        ValueError: for a folder that is no finished evaluation, or two runs of one judge and seed.
    """
    runs: list[Run] = []
    for folder in folders:
        manifest = folder / "manifest.json"
        if not manifest.is_file() or read_json(manifest)["stage"] != "eval":
            raise ValueError(f"{folder} is not a finished evaluation: run `mr3 eval` into it first")
        inside = metrics_of(folder).get("runs")
        if inside is not None:
            runs += find_runs([folder / name for name in inside])
            continue
        config = expand(read_json(manifest)["config"], str(manifest))
        seeds = config.get("seeds") or [config["judge"]["sampling"].get("seed")]
        runs.append(Run(folder, config.get("name") or _short(config["judge"]["model"]), seeds[0]))
    seen: dict[tuple[str, int | None], Path] = {}
    for run in runs:
        before = seen.setdefault((run.name, run.seed), run.folder)
        if before != run.folder:
            raise ValueError(
                f"{before} and {run.folder} are both the judge {run.name!r} under seed {run.seed}: give them a `name`"
            )
    return runs


def _short(model: str) -> str:
    """A judge's name from its model: a hub id, or the folder above `model`."""
    path = Path(model)
    return path.parent.name if path.name == "model" else path.name


def _headline(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """A set's figure: that of its benchmark, else accuracy."""
    return found["benchmark"] if "benchmark" in found else {"metric": "accuracy", **found["accuracy"]}


def _matrix(
    name: str, answers: Sequence[Mapping[str, Answer]], ids: Sequence[str]
) -> tuple[Any, list[int], list[float]]:
    rows = [answers[0][i] for i in ids]
    stratify = BENCHMARKS[name].stratify if name in BENCHMARKS else all_alike
    places, weights = indexed(rows, stratify(rows))
    return [[float(one[i].right) for i in ids] for one in answers], places, weights


def _row(judge: str, runs: Sequence[Run], name: str) -> dict[str, Any]:
    """One judge on one set: figure over seeds, an interval over seeds and items, what goes with it."""
    held = [run for run in runs if name in run.sets]
    figure = _headline(held[0].sets[name])
    answers = [run.answers[name] for run in held]
    ids = sorted(set.intersection(*(set(a) for a in answers)))
    figures = over_seeds([value for run in held if (value := _headline(run.sets[name])["value"]) is not None])
    spread = crossed_bootstrap(*_matrix(name, answers, ids))
    failed = [run.sets[name]["failed"]["before_repair"]["value"] for run in held]
    return {
        "judge": judge,
        "set": name,
        "metric": figure["metric"],
        **figures,
        "seed_values": {str(run.seed): _headline(run.sets[name])["value"] for run in held},
        "interval": figure["interval"] if len(held) == 1 else spread["interval"],
        "n": spread["n"],
        "failed_before_repair": sum(failed) / len(failed),
        **{key: _mean(held, name, key) for key in ("flip_rate", "rubric_flip")},
    }


def _mean(runs: Sequence[Run], name: str, key: str) -> float | None:
    found = [run.sets[name][key]["value"] for run in runs if key in run.sets[name]]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def _difference(name: str, first: Sequence[Run], second: Sequence[Run]) -> dict[str, Any] | None:
    """Second minus first on the items that all runs share; None where there are none.

    Right or wrong, weighted as the benchmark weighs. Runs are paired by seed in their order; where the judges have not
    the same number of seeds, each item's mean over seeds is compared, and the interval is over items alone.
    """
    sides = [[run.answers[name] for run in runs if name in run.answers] for runs in (first, second)]
    if not all(sides):
        return None
    ids = sorted(set.intersection(*(set(answers) for side in sides for answers in side)))
    if not ids:
        return None
    import numpy as np

    (a, places, weights), (b, _, _) = (_matrix(name, side, ids) for side in sides)
    a, b = np.asarray(a), np.asarray(b)
    paired = len(a) == len(b)
    gaps = b - a if paired else (b.mean(axis=0) - a.mean(axis=0))[None]
    return {**crossed_bootstrap(gaps, places, weights), "over": "seeds and items" if paired else "items"}


def combined(folders: Sequence[Path]) -> dict[str, Any]:
    """`table`: a row per judge and set. `averages`: per judge, over the sets that every judge has. `differences`: from
    the first judge, per set.

    Raises:
        ValueError: as `find_runs`.
    """
    by_judge: dict[str, list[Run]] = defaultdict(list)
    for run in find_runs(folders):
        by_judge[run.name].append(run)
    for name, runs in by_judge.items():
        by_judge[name] = sorted(runs, key=lambda run: (run.seed is not None, run.seed))
    names = sorted({name for runs in by_judge.values() for run in runs for name in run.sets})
    table = [
        _row(judge, runs, name)
        for name in names
        for judge, runs in by_judge.items()
        if any(name in run.sets for run in runs)
    ]
    shared = [name for name in names if sum(row["set"] == name for row in table) == len(by_judge)]
    first, *others = by_judge
    differences = [
        {"judge": judge, "from": first, "set": name, **found}
        for name in names
        for judge in others
        if (found := _difference(name, by_judge[first], by_judge[judge])) is not None
    ]
    averages = {}
    for judge in by_judge:
        values = [row["value"] for row in table if row["judge"] == judge and row["set"] in shared]
        averages[judge] = {"value": sum(values) / len(values) if values else None, "sets": shared}
    return {"table": table, "averages": averages, "differences": differences}


def write_results(folder: Path, found: Mapping[str, Any]) -> None:
    """`results.json`, `results.md` and `results.html` of a table."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", found)
    write_atomic(folder / "results.md", markdown(found).encode())
    write_atomic(folder / "results.html", html_page(found).encode())


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 results RUN [RUN ...] [--out DIR]`."""
    parser = argparse.ArgumentParser(
        prog="mr3 results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of `mr3 eval`; the first judge is the baseline")
    parser.add_argument("--out", type=Path, help="folder for results.json, results.md and results.html")
    arguments = parser.parse_args(argv)
    try:
        found = combined(arguments.runs)
    except ValueError as error:
        print(f"mr3 results: error: {error}", file=sys.stderr)
        return 2
    print(markdown(found))
    if arguments.out:
        write_results(arguments.out, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
