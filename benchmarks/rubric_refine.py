"""Gain of refined rubrics on the untouched set, over seeds; and how often a right rubric is left alone.

A seed varies the house rubric (which criteria, in which order), the wrong rubric at the start, the tasks,
their split, and the edits that are drawn. The judge and its base are the same for all. The control starts from the
house rubric itself, so nothing is left to gain, and whatever is accepted there is a false acceptance.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from benchmarks.registry import Benchmark, Result
from benchmarks.runs import demo_judge, metrics
from mr3.config import load_config
from mr3.rubrics import Criterion, Rubric

CONFIG = Path("configs/nano/rubric-refine.yaml")
ROOT = Path("runs/rubric-refine")
SEEDS = (0, 1, 2, 3, 4)
ROWS = 520
CONTROLS = (0, 1)


def worlds(seed: int) -> tuple[list[str], list[str]]:
    """The house rubric of a seed (three criteria in order), and a start: one criterion that the house asks for, not at
    the top, and one that it doesn't ask for."""
    from mr3.nano.packs import TRAIN_CRITERIA

    rng = random.Random(f"rubric-refine {seed}")
    names = rng.sample(TRAIN_CRITERIA, len(TRAIN_CRITERIA))
    house, others = names[:3], names[3:]
    return house, [others[0], rng.choice(house[1:])]


def _rubric(names: list[str], texts: dict[str, str], name: str) -> dict[str, Any]:
    criteria = [Criterion(name=n, description=texts[n]) for n in names]
    return Rubric(name=name, criteria=criteria).model_dump(mode="json")


def run_seed(seed: int, control: bool) -> Path:
    """One refinement; returns its folder."""
    from mr3.nano.packs import english_wordings
    from mr3.refinement.stage import RefineConfig, run

    house, start = worlds(seed)
    base = load_config(RefineConfig, CONFIG, ["--seed", str(seed)])
    pool = {c.name: c.description for c in getattr(base.proposer, "criteria", [])}
    # The truth is written in words that no proposal can use, and that the judge was not trained on.
    words = {name: found["held_out"][0] for name, found in english_wordings().items()}
    folder = ROOT / f"{'control' if control else 'seed'}-{seed}"
    config = base.model_dump(mode="json") | {
        "output_dir": str(folder),
        "store": str(ROOT / "store"),
        "tasks": {"source": "mr3.nano.house:house_tasks", "options": {"house": house, "rows": ROWS, "seed": seed}},
        "rubric": _rubric(house if control else start, pool, "house"),
        "compare_with": _rubric(house, words, "truth"),
    }
    if control:
        config["rule"]["patience"] = 1
    run(RefineConfig.model_validate(config))
    return folder


def _differences(folder: Path) -> list[float]:
    """Per content of the untouched set, after - before."""
    import pyarrow.parquet as pq

    groups: dict[str, list[float]] = {}
    for row in pq.read_table(folder / "test.parquet").to_pylist():
        groups.setdefault(row["content"], []).append(row["after"] - row["before"])
    return [sum(found) / len(found) for found in groups.values()]


def run() -> Result:
    """All seeds and the controls, in one Ray session, so that the judge's engine is built once.

    Raises:
        ValueError: when the demo has not been run.
    """
    from mr3.inference.session import ray_session
    from mr3.stats import hierarchical_bootstrap, wilson

    demo_judge()
    with ray_session():
        folders = [run_seed(seed, control=False) for seed in SEEDS]
        controls = [run_seed(seed, control=True) for seed in CONTROLS]
    found = [metrics(f) for f in folders]
    gain = hierarchical_bootstrap([_differences(f) for f in folders])
    left = [m["compared"]["gain_left"]["value"] for m in found]
    checked = [metrics(f) for f in controls]
    tried = sum(m["accepted"] + m["refused"] for m in checked)
    false = wilson(sum(m["accepted"] for m in checked), tried)

    def mean(side: str) -> float:
        values: list[float] = [m[side]["accuracy"]["value"] for m in found]
        return sum(values) / len(values)

    return Result(
        value={
            "gain": gain["value"],
            "before": mean("before"),
            "after": mean("after"),
            "left_to_the_true_rubric": sum(left) / len(left),
            "seeds_with_a_gain": sum(m["gain"]["interval"][0] > 0 for m in found),
            "control_gain": sum(m["gain"]["value"] for m in checked) / len(checked),
            "control_accepted": false["value"],
        },
        n=gain["items"],
        interval={"gain": gain["interval"], "control_accepted": false["interval"]},
        details={
            "seeds": list(SEEDS),
            "what_a_seed_varies": "house rubric, start, tasks, split, edits drawn; not the judge",
            "per_seed": [
                {
                    "house": worlds(seed)[0],
                    "start": worlds(seed)[1],
                    "final": m["final"]["criteria"],
                    "gain": m["gain"],
                    "before": m["before"]["accuracy"]["value"],
                    "after": m["after"]["accuracy"]["value"],
                    "true_rubric": m["compared"]["accuracy"]["value"],
                    "rounds": m["rounds"],
                    "accepted": m["accepted"],
                    "refused": m["refused"],
                }
                for seed, m in zip(SEEDS, found, strict=True)
            ],
            "controls": [
                {k: m[k] for k in ("gain", "rounds", "accepted", "refused")} | {"final": m["final"]["criteria"]}
                for m in checked
            ],
        },
    )


BENCHMARK = Benchmark("rubric-refine", "gain of refined rubrics on the untouched set, 5 seeds", run)
