"""Blind sheets of reasoning traces: the same tasks judged in several runs, side by side in no order that tells which.

In: evaluations of the same tasks. Out: `sheets/LANGUAGE.csv` to hand out and `key.json`, which stays; then ratings per
run, and paired differences from the first run.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mr3.artifacts import read_json, write_atomic, write_json
from mr3.evaluation.tasks import EvalTask, read_tasks
from mr3.records import stable_hash
from mr3.stats import paired_bootstrap
from rewards.annotation.cells import read_sheet, write_sheet
from rewards.annotation.sample import slug

KEY = "key.json"
SCALES: dict[str, tuple[str, ...]] = {
    "in_language": ("yes", "no"),
    "fluency": ("1", "2", "3", "4", "5"),
    "soundness": ("1", "2", "3", "4", "5"),
}
QUESTIONS = {
    "in_language": "Is the reasoning in the language of the task (column language)? yes or no.",
    "fluency": "How good is its language, from 1 (broken) to 5 (as a careful native writer)?",
    "soundness": "Does the reasoning follow the rubric and support the score, from 1 (no) to 5 (wholly)?",
}
_COLUMNS = ("item", "language", "task", "rubric", "reasoning", "explanation", "score", *SCALES, "comment")


def traces_of(folder: Path) -> dict[str, dict[str, str]]:
    """Task id -> trace, explanation and score of the unswapped verdict, where there is one.

    Raises:
        ValueError: when the folder is no finished evaluation.
    """
    import pyarrow.parquet as pq

    file = folder / "verdicts.parquet"
    if not file.is_file():
        raise ValueError(f"{folder} is not a finished evaluation: run `mr3 eval` into it first")
    columns = ["task_id", "swapped", "sample", "trace", "explanation", "score"]
    return {
        row["task_id"]: {name: row[name] or "" for name in ("trace", "explanation", "score")}
        for row in pq.read_table(file, columns=columns).to_pylist()
        if not row["swapped"] and not row["sample"] and row["trace"]
    }


def choose(
    tasks: Sequence[EvalTask], runs: Mapping[str, Collection[str]], languages: Collection[str], count: int, seed: int
) -> dict[str, list[EvalTask]]:
    """Per language up to `count` tasks that every run has a trace of, the same in every process.

    Raises:
        ValueError: when a wanted language has no such task.
    """
    found: dict[str, list[EvalTask]] = defaultdict(list)
    for task in sorted(tasks, key=lambda t: stable_hash("trace-sheet", seed, t.id)):
        language = task.task.language
        wanted = (not languages or language in languages) and len(found[language]) < count
        if wanted and all(task.id in traced for traced in runs.values()):
            found[language].append(task)
    missing = [language for language in languages if not found[language]]
    if missing or not any(found.values()):
        raise ValueError(f"no task{' in ' + missing[0] if missing else ''} has a trace in every run: nothing to rate")
    return {language: given for language, given in sorted(found.items()) if given}


def _shown(task: EvalTask) -> str:
    given = task.task.input
    text = given if isinstance(given, str) else "\n".join(f"{m.role}: {m.content}" for m in given)
    names = ("Assistant A", "Assistant B") if len(task.task.responses) == 2 else ("Response",)
    parts = [f"{name}: {r}" for name, r in zip(names, task.task.responses, strict=False)]
    return "\n\n".join([text, *parts])


def _rubric(task: EvalTask) -> str:
    lines = [f"{i}. {c.description}" for i, c in enumerate(task.task.rubric.criteria, start=1)]
    return "\n".join([*lines, *(f"{label}: {text}" for label, text in task.task.rubric.levels.items())])


def write_trace_sheets(
    folder: Path, tasks: Path, runs: Mapping[str, Path], languages: Collection[str], count: int, seed: int
) -> dict[str, Any]:
    """Write the sheets and the key; what is in them.

    Raises:
        ValueError: for an unfinished evaluation, or nothing that all runs share.
    """
    traces = {name: traces_of(run) for name, run in runs.items()}
    chosen = choose(read_tasks(tasks), traces, languages, count, seed)
    key: dict[str, dict[str, str]] = {}
    for language, given in chosen.items():
        cells = []
        for task in given:
            for name, found in traces.items():
                item = stable_hash("trace", seed, task.id, name, length=12)
                key[item] = {"run": name, "task": task.id, "language": language}
                said = found[task.id]
                about = {"item": item, "language": language, "task": _shown(task), "rubric": _rubric(task)}
                said = {"reasoning": said["trace"], "explanation": said["explanation"], "score": said["score"]}
                cells.append({**dict.fromkeys(_COLUMNS, ""), **about, **said})
        random.Random(f"{seed}-{language}").shuffle(cells)
        write_sheet(folder / "sheets" / f"{slug(language)}.csv", _COLUMNS, cells)
    text = "\n".join([*(f"{name}: {asked}" for name, asked in QUESTIONS.items()), "Leave empty what you can't tell."])
    write_atomic(folder / "sheets" / "instructions.txt", f"{text}\n".encode())
    write_json(folder / KEY, {"runs": list(runs), "items": key})
    return {"items": len(key), "tasks": {language: len(given) for language, given in chosen.items()}}


def read_trace_ratings(files: Sequence[Path], key: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Item -> question -> what annotators said, as numbers (yes is 1).

    Raises:
        ValueError: for a row of other sheets, an illegal rating, or no rating at all.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        for number, row in enumerate(read_sheet(file, ("item", *SCALES)), start=1):
            item = row["item"].strip()
            if item not in key["items"]:
                raise ValueError(f"{file}, row {number}: item {item!r} is not of these sheets")
            for question, legal in SCALES.items():
                written = row[question].strip().casefold()
                if written and written not in legal:
                    raise ValueError(f"{file}, row {number}: {question} {written!r} is none of {', '.join(legal)}")
                if written:
                    found[item][question].append(
                        float(written == "yes") if written in ("yes", "no") else float(written)
                    )
    if not found:
        raise ValueError("no row of the filled sheets has a rating: fill the sheets, or give the right files")
    return found


def rated(key: Mapping[str, Any], said: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Per question and run the mean rating with its interval, and the paired difference from the first run."""
    means: dict[str, dict[str, dict[str, float]]] = {q: {name: {} for name in key["runs"]} for q in SCALES}
    for item, about in key["items"].items():
        for question, values in said.get(item, {}).items():
            means[question][about["run"]][about["task"]] = sum(values) / len(values)
    first = key["runs"][0]
    report: dict[str, Any] = {}
    for question, runs in means.items():
        report[question] = {}
        for name, tasks in runs.items():
            shared = sorted(tasks.keys() & runs[first].keys())
            row = {"mean": paired_bootstrap(list(tasks.values()), [0.0] * len(tasks))}
            if name != first:
                row["difference"] = paired_bootstrap([tasks[t] for t in shared], [runs[first][t] for t in shared])
            report[question][name] = row
    return report


def load_trace_key(folder: Path) -> dict[str, Any]:
    """The key of a folder of trace sheets.

    Raises:
        ValueError: when there is none.
    """
    file = folder / KEY
    if not file.is_file():
        raise ValueError(f"no {KEY} in {folder}: give the folder in which `mr3 trace-sheet` made the sheets")
    found: dict[str, Any] = read_json(file)
    return found
