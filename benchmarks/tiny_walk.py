"""Every Qwen3 YAML from the sources to a judge, at tiny size: which of them end with a judge that judges.

`configs/qwen3/data-100k.yaml`, the nine SFT configs on its rows, an evaluation of each judge, and the three studies at
4B; the same files with `configs/tiny.yaml` laid over them, tiny models in vLLM, stand-ins for the public sets. A judge
judges when its evaluation ends with an outcome for every task, none of them for want of an engine or of room, and its
prompts are those of its card. Whether a verdict of a random model can be parsed is not asked.

Needs MR3_DATA, the folder that holds the published templates (mr3_rubrics).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.standins import write_models, write_sets
from mr3.artifacts import read_json
from mr3.judge_card import load_card

OVERLAY = "configs/tiny.yaml"
DATA = "configs/qwen3/data-100k.yaml"
STUDIES = sorted(str(f) for f in Path("configs/experiments").glob("*/qwen3-4b.yaml"))
_ONE_JUDGE = "configs/experiments/1-threshold-curriculum/qwen3-4b-eval.yaml"
_NO_VERDICT = {"engine_failed", "timed_out", "too_long"}
"""Outcomes that say something about the run, and not about what the judge wrote."""


def _trains_a_judge(file: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    return text.startswith("# mr3 sft ") and "judge" in yaml.safe_load(text)


SFT_CONFIGS = [file for file in sorted(Path("configs").rglob("*.yaml")) if _trains_a_judge(file)]
"""Every config of the repository whose command is `mr3 sft` and that has a judge block."""


def environment(root: Path, templates: Path) -> dict[str, str]:
    """The variables that the configs read; `root` as `benchmarks.standins` fills it."""
    return {
        "TINY": str(root / "models"),
        "SOURCES": str(root / "sources"),
        "BENCHMARKS": str(root / "benchmarks"),
        "MR3_TEMPLATES": str(templates),
        "RUN": str(root / "run"),
        "ROWS": str(root / "run" / "data-100k" / "sft" / "eng-eng" / "easy-hard.parquet"),
        "DATA": str(root / "run" / "data-100k" / "published.parquet"),
    }


def _mr3(variables: Mapping[str, str], *words: str) -> None:
    """One command of ours.

    Raises:
        RuntimeError: when it fails, with the end of what it said.
    """
    command = [sys.executable, "-m", "mr3.cli.main", *words, "--overlay", OVERLAY]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mr3 {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")


def walk_data(root: Path, templates: Path) -> dict[str, Any]:
    """Stand-ins, tiny models, and the data config: rows at its end, and whether each model was asked."""
    write_sets(root)
    write_models(root / "models", root, templates)
    variables = environment(root, templates)
    _mr3(variables, "data", "--config", DATA)
    made = Path(variables["RUN"]) / "data-100k"
    filters = {f["filter"]: f for f in read_json(made / "funnel.json")}
    asked = {"teacher": "correctness", "student": "difficulty", "translator": "translation"}
    return {
        "rows": pq.read_metadata(variables["DATA"]).num_rows,
        "models": [model for model, name in asked.items() if filters.get(name, {}).get("in")],
        "funnel": {name: [f["in"], f["out"]] for name, f in filters.items()},
    }


def judged(evaluation: Path) -> dict[str, int]:
    """Outcomes of a finished evaluation's verdicts, of all its runs."""
    outcomes: Counter[str] = Counter()
    for file in evaluation.rglob("verdicts.parquet"):
        outcomes.update(pq.read_table(file, columns=["outcome"]).column(0).to_pylist())
    return dict(outcomes)


def _counts(evaluation: Path) -> bool:
    found = judged(evaluation)
    return bool(found) and not found.keys() & _NO_VERDICT


def judge_of(
    config: Path, root: Path, templates: Path, evaluation: str = _ONE_JUDGE, more: Sequence[str] = ()
) -> dict[str, Any]:
    """Train by one SFT config on the rows of `walk_data`, and evaluate; `judges` says whether it is a judge."""
    variables = environment(root, templates)
    name = f"{config.parent.name}-{config.stem}"
    arm = root / "arms" / name
    _mr3(variables, "sft", "--config", str(config), "--output_dir", str(arm / "sft"))
    model = arm / "sft" / "model"
    own = {"JUDGE": str(model), "ARM_RUN": str(arm)}
    evaluated = arm / Path(evaluation).stem
    _mr3({**variables, **own}, "eval", "--config", evaluation, "--output_dir", str(evaluated), *more)
    card = load_card(str(model))
    trained = yaml.safe_load(config.read_text(encoding="utf-8"))["judge"]
    as_trained = (card.profile, card.strategy, card.texts, list(card.modes)) == tuple(
        trained[key] for key in ("profile", "strategy", "texts", "modes")
    )
    return {"model": str(model), "judges": as_trained and _counts(evaluated), "outcomes": judged(evaluated)}


def _study(config: str, root: Path, templates: Path) -> dict[str, Any]:
    """One study with one seed: it ends with a table, and every arm's judge judges."""
    out = root / "studies" / Path(config).parent.name
    _mr3(environment(root, templates), "study", "--config", config, "--output_dir", str(out), "--seeds", "[0]")
    evaluations = sorted(out.glob("seed-*/*/eval"))
    return {"judges": (out / "study.md").is_file() and all(map(_counts, evaluations)), "evaluations": len(evaluations)}


def _tried(work: Any, *arguments: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = work(*arguments)
        return found
    except RuntimeError as error:
        return {"judges": False, "error": str(error)}


def run() -> Result:
    """Walk all of them; one that fails does not end the walk."""
    if not os.environ.get("MR3_DATA"):
        raise ValueError("set MR3_DATA to the folder that holds the published templates (mr3_rubrics)")
    templates = (Path(os.environ["MR3_DATA"]) / "mr3_rubrics").resolve()
    nine = [file for file in SFT_CONFIGS if file.parent.name.startswith("qwen3-")]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = walk_data(root, templates)
        found = {str(config): _tried(judge_of, config, root, templates) for config in nine}
        own = ("configs/qwen3/eval-own.yaml", ["--seeds", "[0]"])
        found["configs/qwen3/eval-own.yaml"] = _tried(judge_of, nine[0], root, templates, *own)
        found |= {config: _tried(_study, config, root, templates) for config in STUDIES}
    details = {name: {k: v for k, v in about.items() if k != "model"} for name, about in found.items()}
    value = {
        "data_rows": data["rows"],
        "judges": sum(bool(about["judges"]) for about in found.values()),
        "without_a_judge": sum(not about["judges"] for about in found.values()),
    }
    return Result(value, n=len(found), details={"data": data, **details})


BENCHMARK = Benchmark(
    "tiny-walk",
    "Qwen3 YAMLs at tiny size (data, nine SFT, evaluation, three studies): those that end with a judge that judges",
    run,
    {"data_rows": Bar("at_least", 1), "without_a_judge": Bar("at_most", 0)},
)
