"""What each judging plan costs, and how good the pair is that it picks: nano, eight responses a prompt.

The policies of the demo answer twice each; the judge of the demo judges them under every plan; the best-worst pair of
each prompt is checked by the world's checkers. Tokens are prompt and output tokens of all verdicts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.runs import DEMO, demo_judge, metrics, mr3

ROOT, PROMPTS = Path("runs/plans"), 120
PLANS: dict[str, dict[str, Any]] = {
    "all_pairs": {"plan": "all_pairs", "orders": "both"},
    "circular": {"plan": "circular", "orders": "both"},
    "knockout": {"plan": "knockout", "orders": "final"},
    "knockout_both": {"plan": "knockout", "orders": "both"},
    "pointwise": {"mode": "pointwise", "plan": "knockout"},
}
REFERENCE = "all_pairs"


def _config(name: str, stage: str, **changes: Any) -> None:
    """Run a stage of the nano demo with changes, in a folder of its own."""
    data = yaml.safe_load(Path(f"configs/nano/{stage}.yaml").read_text())
    file = ROOT / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**data, "output_dir": str(ROOT / name), **changes}))
    mr3(stage, "--config", str(file))


def _pool() -> Path:
    """Eight responses to some prompts of the pool."""
    import pyarrow.parquet as pq

    ROOT.mkdir(parents=True, exist_ok=True)
    prompts = pq.read_table(DEMO / "data" / "prompts_pool.parquet")
    step = max(1, prompts.num_rows // PROMPTS)
    pq.write_table(prompts.take(list(range(0, prompts.num_rows, step))[:PROMPTS]), ROOT / "prompts.parquet")
    policies = yaml.safe_load(Path("configs/nano/pool.yaml").read_text())["policies"]
    twice = [{**policy, "samples": 2} for policy in policies]
    _config("pool", "pool", prompts=str(ROOT / "prompts.parquet"), policies=twice)
    return ROOT / "pool" / "pool.parquet"


def _tokens(folder: Path) -> int:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "verdicts.parquet", columns=["prompt_tokens", "output_tokens"])
    return int(pc.sum(table["prompt_tokens"]).as_py()) + int(pc.sum(table["output_tokens"]).as_py())


def run() -> Result:
    """Every plan over one pool; each has a store of its own, so that all pay for what they ask."""
    demo_judge()
    pool = _pool()
    found: dict[str, dict[str, float]] = {}
    for name, how in PLANS.items():
        _config(
            name,
            "label",
            pool=str(pool),
            store=str(ROOT / name / "store"),
            pair_rule="best_worst",
            canaries={"per_language": 0},
            **how,
        )
        label = metrics(ROOT / name)
        accuracy = label["pair_accuracy"]
        found[name] = {
            "verdicts": label["verdicts"],
            "tokens": _tokens(ROOT / name),
            "pairs": label["pairs"],
            "pair_accuracy": accuracy["value"],
            "accuracy_low": accuracy["interval"][0],
            "accuracy_high": accuracy["interval"][1],
        }
    base = found[REFERENCE]
    best = found["knockout"]
    return Result(
        {
            "tokens_saved": base["tokens"] / best["tokens"],
            "accuracy_lost": base["pair_accuracy"] - best["pair_accuracy"],
        },
        n=PROMPTS,
        baseline={"name": "all pairs in both orders, tokens", "value": base["tokens"]},
        bars={"tokens_saved": Bar("at_least", 3.0), "accuracy_lost": Bar("at_most", 0.02)},
        details={"plans": found},
    )


BENCHMARK = Benchmark(
    "plans", "tokens that a knockout saves over all pairs in both orders, and the accuracy it loses", run
)
