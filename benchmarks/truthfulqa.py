"""Real, long, multilingual text through the judge: 17,157 responses of the multilingual TruthfulQA release.

Needs MR3_DATA, the folder that holds truthfulqa_multi, and the demo's judge. Agreement with people is reported
without a bar: the nano judge has never read such text.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.runs import demo_judge, metrics, mr3

ROOT = Path("runs/demo/truthfulqa")


def run() -> Result:
    """Label, audit, read both.

    Raises:
        ValueError: without the data or the judge.
    """
    if not os.environ.get("MR3_DATA"):
        raise ValueError("set MR3_DATA to the folder that holds truthfulqa_multi")
    demo_judge()
    mr3("label", "--config", "configs/real/truthfulqa-multi.yaml")
    mr3("audit", "--config", "configs/real/truthfulqa-multi-audit.yaml")
    label, audit = metrics(ROOT / "label"), metrics(ROOT / "audit")
    aside = label["set_aside"]
    generated = label["generated"]
    values = {
        "generated": generated["value"],
        "responses": label["responses"],
        "responses_accounted_for": label["responses"] + aside["responses"],
        "ok": label["ok"]["value"],
        "verdicts_per_s": label["verdicts_per_s"],
        "stream_s": label["stream_s"],
        "accuracy_against_people": audit["gold"]["all"]["accuracy"]["value"],
        "kappa_against_people": audit["gold"]["all"]["kappa"]["value"],
    }
    return Result(
        values,
        n=label["verdicts"],
        interval={"generated": generated["interval"], "ok": label["ok"]["interval"]},
        bars={"generated": Bar("at_least", 0.95), "responses_accounted_for": Bar("at_least", 17_157)},
        details={"outcomes": label["outcomes"], "set_aside": aside, "agreement_with_people": audit["gold"]},
    )


BENCHMARK = Benchmark(
    "truthfulqa", "17,157 real responses in three languages: generated, and agreement with people", run
)
