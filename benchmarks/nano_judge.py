"""The nano judge after a full SFT budget (configs/nano-full), on larger test sets than the demo's.

Everything is made anew from the committed base in runs/nano-full; finished stages are not repeated. Intervals are over
the test items of one seed (`loop-seeds` varies the seed).
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.runs import metrics, mr3

ROOT = Path("runs/nano-full")
SEEN = ("pairwise", "pointwise", "binary")
BARS = {"seen": 0.97, "unseen_languages": 0.90, "rubric_flip": 0.95, "unseen_rubric": 0.93}


def run() -> Result:
    """Data, SFT, evaluation; the rates with their intervals."""
    for stage, config in (("data", "data"), ("sft", "judge-sft"), ("eval", "judge-eval")):
        mr3(stage, "--config", f"configs/nano-full/{config}.yaml")
    sets = metrics(ROOT / "judge-eval")["sets"]
    rates = {
        "unseen_languages": sets["unseen"]["accuracy"],
        "rubric_flip": sets["rubric_flip"]["rubric_flip"],
        "unseen_rubric": sets["unseen_rubric"]["accuracy"],
    }
    # The bar of what was seen is for the worst mode: a mean would hide it.
    rates["seen"] = min((sets[mode]["accuracy"] for mode in SEEN), key=lambda found: found["value"])
    reported = {name: sets[name]["accuracy"]["value"] for name in ("unseen_criterion", "unseen_family", "damaged")}
    return Result(
        {**{name: rate["value"] for name, rate in rates.items()}, **reported},
        n=rates["seen"]["n"],
        bars={name: Bar("at_least", bar) for name, bar in BARS.items()},
        details={
            "rates": rates,
            "by_mode": {mode: sets[mode]["accuracy"] for mode in SEEN},
            "unseen_own_rubric": sets["unseen_own_rubric"]["accuracy"],
            "sft": {k: v for k, v in metrics(ROOT / "judge").items() if k != "curve"},
        },
    )


BENCHMARK = Benchmark(
    "nano-judge", "accuracy of the nano judge after a full SFT budget: seen, unseen languages, flips, new rubrics", run
)
