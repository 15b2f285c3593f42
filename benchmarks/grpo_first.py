"""GRPO with the paper's correctness reward against the same tokens of further SFT, from one half-trained judge.

The start must be neither too weak to be rewarded nor too good to gain: accuracy.start is at least 0.70, and
room_of_start, which is 1 - accuracy.start, at least 0.15.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.runs import metrics, mr3

ROOT = Path("runs/grpo")
_ARMS = ("eval-start", "eval-sft", "eval-grpo")


def run() -> Result:
    """The graph of configs/nano-grpo, then the paired comparison on all tasks and on the pairwise set alone."""
    from grpo_experiments.compare import table

    mr3("demo", "--config", "configs/nano-grpo/demo.yaml")
    rows = table([ROOT / arm for arm in _ARMS])
    versus = table([ROOT / "eval-sft", ROOT / "eval-grpo"])[1]
    values: dict[str, float | None] = {
        f"accuracy.{arm.removeprefix('eval-')}": row["accuracy"]["value"] for arm, row in zip(_ARMS, rows, strict=True)
    }
    intervals = {
        f"accuracy.{arm.removeprefix('eval-')}": row["accuracy"]["interval"]
        for arm, row in zip(_ARMS, rows, strict=True)
    }
    grpo = metrics(ROOT / "grpo")
    values |= {
        "room_of_start": 1 - rows[0]["accuracy"]["value"],
        "grpo_minus_sft": versus["difference"]["value"],
        "groups_without_variance": grpo["groups_without_variance"],
    }
    intervals["grpo_minus_sft"] = versus["difference"]["interval"]
    for arm in _ARMS:
        found = metrics(ROOT / arm)["sets"]
        values[f"rubric_flip.{arm.removeprefix('eval-')}"] = found["rubric_flip"]["rubric_flip"]["value"]
    return Result(
        values,
        n=rows[0]["accuracy"]["n"],
        interval=intervals,
        details={
            "tokens": {"grpo": grpo["tokens"], "sft": metrics(ROOT / "more-sft")["tokens"]},
            "sets": {arm: {s: v["accuracy"] for s, v in metrics(ROOT / arm)["sets"].items()} for arm in _ARMS},
            "seeds": 1,
            "what": "one seed of data, order and sampling; the interval is over test tasks",
        },
    )


BENCHMARK = Benchmark(
    "grpo-first",
    "GRPO (correctness) against the same tokens of further SFT, from a judge of 0.70 to 0.85, one seed",
    run,
    bars={"accuracy.start": Bar("at_least", 0.70), "room_of_start": Bar("at_least", 0.15)},
)
