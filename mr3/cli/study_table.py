"""What a study found: every arm against the baseline, paired by item, decided on the interval of the difference.

In: the arms' evaluation folders, one per seed. Out: study.json with all numbers, study.md for people, study.svg.
Only reads artifacts.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pydantic import BaseModel, ConfigDict

from mr3.artifacts import write_atomic, write_json
from mr3.stats import hierarchical_bootstrap

STUDY = "plan.json"
ALL = "all"
SEEDS_FOR_A_CLAIM = 5
"""From fewer seeds an interval says little about what a seed varies: two draws can't show their spread."""
Right = dict[str, dict[str, bool]]
"""Evaluation set -> task id -> whether the answer was right; a failed verdict is not."""


class StudyPlan(BaseModel):
    """What is compared with what."""

    model_config = ConfigDict(extra="forbid")

    question: str
    seed_varies: str
    arms: list[str]
    baseline: str
    sets: list[str]
    languages: list[str] = []
    notes: list[str]
    folders: dict[str, list[Path]]


def right_answers(folder: Path, sets: Sequence[str], languages: Sequence[str] = ()) -> Right:
    """Of the unswapped verdicts of one finished evaluation.

    Raises:
        ValueError: when the folder holds none, or lacks a wanted set, or has no task in the wanted languages.
    """
    import pyarrow.parquet as pq

    file = folder / "verdicts.parquet"
    if not file.is_file():
        raise ValueError(f"{folder} is not a finished evaluation: run `mr3 eval` into it first")
    found: Right = defaultdict(dict)
    columns = ["task_id", "language", "sets", "gold", "score", "swapped", "sample"]
    for row in pq.read_table(file, columns=columns).to_pylist():
        if row["swapped"] or row["sample"] or (languages and row["language"] not in languages):
            continue
        for name in row["sets"]:
            found[name][row["task_id"]] = row["score"] == row["gold"]
    missing = [name for name in sets if name not in found]
    if missing or not found:
        among = f" in {', '.join(languages)}" if languages else ""
        raise ValueError(f"{folder} has no set {missing[:1] or ''}{among}; it has {', '.join(sorted(found)) or 'none'}")
    chosen = {name: found[name] for name in (sets or sorted(found))}
    return {ALL: {i: r for rows in chosen.values() for i, r in rows.items()}, **chosen}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"value": mean(values), "std": stdev(values) if len(values) > 1 else None, "seeds": list(values)}


def compare_arms(runs: Mapping[str, Sequence[Right]], baseline: str) -> dict[str, Any]:
    """Per set and arm the accuracy over seeds, and the difference from the baseline on the same items.

    Raises:
        ValueError: when two arms of one seed were evaluated on different items: then they are not pairs.
    """
    sets = list(runs[baseline][0])
    found: dict[str, Any] = {}
    for name in sets:
        found[name] = {}
        for arm, seeds in runs.items():
            accuracy = _spread([mean(run[name].values()) for run in seeds])
            row: dict[str, Any] = {"accuracy": accuracy, "items": len(seeds[0][name])}
            if arm != baseline:
                row["difference"] = hierarchical_bootstrap(
                    [_differences(own[name], base[name]) for own, base in zip(seeds, runs[baseline], strict=True)]
                )
            found[name][arm] = row
    return found


def _differences(own: Mapping[str, bool], base: Mapping[str, bool]) -> list[float]:
    if own.keys() != base.keys():
        raise ValueError("the arms were evaluated on different tasks: give every arm the same evaluation config")
    return [float(own[i]) - float(base[i]) for i in base]


def conclusion(difference: Mapping[str, Any], seeds: int) -> str:
    """In words, decided on the interval of the difference alone; from too few seeds nothing is concluded."""
    if seeds < SEEDS_FOR_A_CLAIM:
        return f"fewer than {SEEDS_FOR_A_CLAIM} seeds: no claim"
    low, high = difference["interval"]
    return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


def markdown(plan: StudyPlan, found: Mapping[str, Any]) -> str:
    """The table for people."""
    seeds = len(plan.folders[plan.baseline])
    lines = [
        f"# {plan.question}",
        "",
        f"{seeds} seed(s); a seed varies {plan.seed_varies}. Differences are from {plan.baseline}, paired by item, "
        "with 95% intervals of a bootstrap over seeds and items.",
        "",
        "| set | arm | items | accuracy (std over seeds) | difference | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, arms in found.items():
        for arm, row in arms.items():
            accuracy, difference = row["accuracy"], row.get("difference")
            std = "" if accuracy["std"] is None else f" ({accuracy['std']:.3f})"
            shown, said = "", ""
            if difference is not None:
                low, high = difference["interval"]
                shown, said = f"{difference['value']:+.3f} [{low:+.3f}, {high:+.3f}]", conclusion(difference, seeds)
            lines.append(f"| {name} | {arm} | {row['items']} | {accuracy['value']:.3f}{std} | {shown} | {said} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in plan.notes)]).rstrip() + "\n"


def write_tables(plan: StudyPlan, folder: Path) -> str:
    """Write study.json, study.md and study.svg; the text of study.md."""
    from mr3.cli.plots import differences

    runs = {
        arm: [right_answers(f, plan.sets, plan.languages) for f in folders] for arm, folders in plan.folders.items()
    }
    found = compare_arms(runs, plan.baseline)
    text = markdown(plan, found)
    write_json(folder / "study.json", {"plan": plan.model_dump(mode="json"), "sets": found})
    write_atomic(folder / "study.md", text.encode())
    drawn = differences(found, plan.baseline)
    if drawn is not None:
        write_atomic(folder / "study.svg", base64.b64decode(drawn.split(",", 1)[1]))
    return text
