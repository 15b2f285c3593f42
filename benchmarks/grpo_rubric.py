"""Does a reward that checks the rubric help a judge that ignores it?

Reads the study of configs/nano-grpo/rubric-study.yaml. Differences between arms are paired by item; intervals (95%) are
of a bootstrap over seeds and contents. H2 is the primary question: counterfactual less correctness, both on twins. H1
is that reward on twins less correctness on shortcut rows; it stands beside H2, with the effect of the data alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.registry import Bar, Benchmark, Result
from mr3.artifacts import metrics_of, read_json
from mr3.items import Item, read_items
from mr3.stats import hierarchical_bootstrap

STUDY = Path("runs/experiments/rubric-grpo")
SETS = {
    "both_right": "greedy/twins/both_right",
    "shortcut_wrong": "greedy/twins/shortcut_wrong",
    "agreeing": "greedy/twins/shortcut_right",
    "natural": "greedy/natural/accuracy",
    "unseen": "greedy/unseen/accuracy",
}
QUESTIONS = {
    "H2": ("counterfactual-twins", "correctness-twins"),
    "H1": ("counterfactual-twins", "correctness-shortcut"),
    "data": ("correctness-twins", "correctness-shortcut"),
    "reward_on_shortcut": ("counterfactual-shortcut", "correctness-shortcut"),
}
Seeds = list[dict[str, dict[str, Item]]]
"""Per seed: set -> item id -> item."""


def read_study(folder: Path) -> tuple[dict[str, Any], dict[str, Seeds]]:
    """The plan, and the items of every arm.

    Raises:
        ValueError: when the study has not been run.
    """
    file = folder / "study.json"
    if not file.is_file():
        raise ValueError(f"no study at {folder}: run `mr3 study --config configs/nano-grpo/rubric-study.yaml` first")
    plan = read_json(file)["plan"]
    found: dict[str, Seeds] = {}
    for arm, folders in plan["folders"].items():
        found[arm] = []
        for one in folders:
            sets: dict[str, dict[str, Item]] = {}
            for item in read_items(plan["stage"], Path(one) / plan["compared"]):
                sets.setdefault(item.set, {})[item.id] = item
            found[arm].append(sets)
    return plan, found


def difference(a: Seeds, b: Seeds, name: str) -> dict[str, Any]:
    """Mean of a less b on shared items of a set, with its interval over seeds and contents."""
    values, contents = [], []
    for own, other in zip(a, b, strict=True):
        shared = sorted(own[name].keys() & other[name].keys())
        values.append([own[name][i].score - other[name][i].score for i in shared])
        contents.append([own[name][i].content for i in shared])
    return hierarchical_bootstrap(values, contents=contents)


def score(seeds: Seeds, name: str) -> float:
    """Mean over seeds."""
    return mean(mean(item.score for item in one[name].values()) for one in seeds)


def cost_of(folders: Sequence[str], stages: Sequence[str]) -> dict[str, float]:
    """What the trained stages of an arm took, on average over seeds: tokens, labels, CPU and wall seconds."""
    totals: dict[str, list[float]] = {}
    for folder in folders:
        for stage in stages:
            if stage in ("eval", "measures"):
                continue
            metrics, manifest = metrics_of(Path(folder) / stage), read_json(Path(folder) / stage / "manifest.json")
            told = {**metrics.get("token_counts", {}), "labels": metrics.get("labels"), "wall_s": manifest["wall_s"]}
            told |= {f"cpu_s.{part}": seconds for part, seconds in metrics.get("cpu_s", {}).items()}
            for name, value in told.items():
                if value is not None:
                    totals.setdefault(f"{stage}.{name}", []).append(float(value))
    return {name: mean(values) for name, values in totals.items()}


def run() -> Result:
    """Read the study."""
    plan, arms = read_study(STUDY)
    values: dict[str, float | None] = {}
    intervals: dict[str, Any] = {}
    for arm, seeds in arms.items():
        values |= {f"{arm}.{short}": score(seeds, name) for short, name in SETS.items()}
    for question, (own, other) in QUESTIONS.items():
        for short, name in SETS.items():
            found = difference(arms[own], arms[other], name)
            values[f"{question}.{short}"], intervals[f"{question}.{short}"] = found["value"], found["interval"]
    lows = {f"H2.{short}.low": intervals[f"H2.{short}"][0] for short in ("both_right", "shortcut_wrong", "agreeing")}
    values |= lows
    values["seeds"] = len(plan["seeds"])
    return Result(
        values,
        n=sum(len(seed[SETS["both_right"]]) for seed in arms["correctness-twins"]),
        interval=intervals,
        bars={
            "H2.both_right.low": Bar("above", 0.0),
            "H2.shortcut_wrong.low": Bar("above", 0.0),
            "H2.agreeing.low": Bar("at_least", 0.0),
            "seeds": Bar("at_least", 5),
        },
        details={arm: cost_of(plan["folders"][arm], plan["stages"][arm]) for arm in arms},
    )


BENCHMARK = Benchmark("grpo-rubric", "a judge that ignores its rubrics: two rewards on two kinds of data", run)
