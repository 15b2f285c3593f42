"""What GRPO with the correctness reward gains over a half-trained judge that reads its rubrics, on natural rows.

Reads the study of configs/nano-grpo/correctness-study.yaml. Paired by task; the interval is over seeds and contents.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.grpo_rubric import cost_of, difference, read_study, score
from benchmarks.registry import Bar, Benchmark, Result

STUDY = Path("runs/experiments/correctness-grpo")


def run() -> Result:
    """Read the study."""
    plan, arms = read_study(STUDY)
    gain = difference(arms["correctness"], arms["start"], "natural")
    return Result(
        {
            "gain": gain["value"],
            "gain.low": gain["interval"][0],
            "start": score(arms["start"], "natural"),
            "correctness": score(arms["correctness"], "natural"),
            "seeds": len(plan["seeds"]),
            "tasks_per_seed": min(len(seed["natural"]) for seed in arms["start"]),
        },
        n=sum(len(seed["natural"]) for seed in arms["start"]),
        interval={"gain": gain["interval"]},
        bars={
            "gain": Bar("at_least", 0.05),
            "gain.low": Bar("above", 0.0),
            "seeds": Bar("at_least", 5),
            "tasks_per_seed": Bar("at_least", 1_000),
        },
        details={arm: cost_of(plan["folders"][arm], plan["stages"][arm]) for arm in arms},
    )


BENCHMARK = Benchmark("grpo-correctness", "gain of GRPO (correctness) over a half-trained judge, natural rows", run)
