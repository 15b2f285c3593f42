"""What GRPO under the judge's reward makes of a policy: reads `mr3 study` of configs/nano-policy-grpo/study.yaml.

Win rates over the SFT start by checkers on held-out prompts (ties are a half), hierarchical intervals over seeds and
contents; the share of the checkers' gain (win rate - 1/2) that the judge's reward gets; agreement of the judge's
comparisons with the checkers' in the first and last 20 steps; verdicts and wall time of each arm.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.registry import Bar, Benchmark, Result
from mr3.artifacts import read_json
from mr3.items import Item, read_items
from mr3.stats import hierarchical_bootstrap

STUDY = Path("runs/experiments/policy-grpo")
JUDGE, GOLD = "grpo-judge", "grpo-gold"
_SET, _WINDOW = "wins", 20


def wins(folder: Path) -> list[Item]:
    """The items of one finished arm and seed."""
    return [item for item in read_items("policy-eval", folder / "eval") if item.set == _SET]


def win_rate(seeds: Sequence[Sequence[Item]]) -> dict[str, Any]:
    """Mean and interval over seeds and contents."""
    return hierarchical_bootstrap(
        [[item.score for item in seed] for seed in seeds], contents=[[item.content for item in seed] for seed in seeds]
    )


def curve_of(folder: Path) -> dict[str, Any]:
    """First and last steps of an arm's log: reward, truth, agreement, KL."""
    file = folder / "policy" / "steps.jsonl"
    if not file.is_file():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    def means(part: Sequence[dict[str, Any]]) -> dict[str, float | None]:
        found = {}
        for name in ("reward", "truth", "agreement", "kl"):
            values = [line[name] for line in part if line[name] is not None]
            found[name] = mean(values) if values else None
        return found

    return {"first": means(lines[:_WINDOW]), "last": means(lines[-_WINDOW:]), "total": lines[-1]["total"]}


def seconds_of(folder: Path, stages: Sequence[str]) -> float:
    """Wall time of an arm's own stages, without its evaluation."""
    return sum(float(read_json(folder / stage / "manifest.json")["wall_s"]) for stage in stages if stage != "eval")


def run() -> Result:
    """Read the study.

    Raises:
        ValueError: when it has not been run.
    """
    file = STUDY / "study.json"
    if not file.is_file():
        raise ValueError(f"no study at {STUDY}: run `mr3 study --config configs/nano-policy-grpo/study.yaml` first")
    plan = read_json(file)["plan"]
    folders = {arm: [Path(folder) for folder in found] for arm, found in plan["folders"].items()}
    items = {arm: [wins(folder) for folder in found] for arm, found in folders.items()}
    rates = {arm: win_rate(seeds) for arm, seeds in items.items()}
    values: dict[str, float | None] = {f"win_rate.{arm}": rate["value"] for arm, rate in rates.items()}
    gain, gold = (rates[arm]["value"] - 0.5 for arm in (JUDGE, GOLD))
    values["share_of_gold_gain"] = gain / gold if gold > 0 else None
    values["seeds"] = len(plan["seeds"])
    values["contents"] = min(len({item.content for item in seed}) for seed in items[JUDGE])
    return Result(
        values,
        n=sum(len(seed) for seed in items[JUDGE]),
        interval={f"win_rate.{arm}": rate["interval"] for arm, rate in rates.items()},
        bars={
            f"win_rate.{JUDGE}": Bar("at_least", 0.70),
            "seeds": Bar("at_least", 5),
            "contents": Bar("at_least", 600),
        },
        details={
            "curves": {arm: [curve_of(folder) for folder in found] for arm, found in folders.items()},
            "seconds": {
                arm: [seconds_of(folder, plan["stages"][arm]) for folder in found] for arm, found in folders.items()
            },
        },
    )


BENCHMARK = Benchmark(
    "grpo-policy", "win rate over the SFT start by checkers: GRPO under the judge's reward, and its comparators", run
)
