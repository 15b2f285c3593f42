"""kill -9 of a reward actor in the middle of training, five times: training goes on, and no reward is invented.

A policy (the nano base) under GRPO with two reward actors, whose engine answers after a moment, so that kills come
while judgements are under way. Every reward of the run is made again afterwards from its completions and from the
verdicts in the store alone: one that differs, or that no stored verdict bears out, was invented. None is allowed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.instant import NAME
from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.workload import BASE, RUBRIC, base_judge

KILLS, STEPS, GROUP, COMPLETIONS = 5, 20, 4, 16
_WAIT_S = 0.4
_PATIENCE_S = 240.0


def write_prompts(file: Path, count: int) -> Path:
    """Prompts of the world's kind, each of its own text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "prompt_id": f"p{i}",
            "prompt": json.dumps([{"role": "user", "content": f"cats: {i}, dogs: 5. How many in total?"}]),
            "language": "en",
            "meta": "{}",
        }
        for i in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def write_config(root: Path, model: Path, log: Path) -> Path:
    """The config of the run."""
    config = {
        "trains": "policy",
        "output_dir": str(root / "grpo"),
        "model": str(BASE),
        "prompts": str(write_prompts(root / "prompts.parquet", 200)),
        "reward": {
            "kind": "judge",
            "mode": "pairwise",
            "plan": "circular",
            "rubric": RUBRIC,
            "judge": {
                "model": str(model),
                "backend": NAME,
                "engine": {"seconds": _WAIT_S, "log": str(log)},
            },
            "actors": {"replicas": 2, "batch_size": 8},
            "store": str(root / "store"),
        },
        "log": {"samples": COMPLETIONS, "sample_steps": STEPS},
        "trl": {
            "num_generations": GROUP,
            "per_device_train_batch_size": COMPLETIONS,
            "gradient_accumulation_steps": 1,
            "max_completion_length": 16,
            "learning_rate": 1e-4,
            "max_steps": STEPS,
            "logging_steps": 5,
            "save_strategy": "no",
        },
    }
    file = root / "grpo.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def kill_once(log: Path, rng: random.Random, killed: set[int], child: subprocess.Popen[bytes]) -> bool:
    """Wait until an actor that has not been killed yet calls its engine, and kill it a little later."""
    seen = len(log.read_text().splitlines()) if log.is_file() else 0
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end and child.poll() is None:
        calls = log.read_text().splitlines()[seen:] if log.is_file() else []
        pids = {int(line.split()[0]) for line in calls} - killed
        if pids:
            time.sleep(rng.uniform(0.0, _WAIT_S))
            pid = max(pids)
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
            return True
        time.sleep(0.02)
    return False


class _FromStore:
    """What a reward is made of again: the actor's own class, in this process, over the store of the run."""

    def __init__(self, judge: dict[str, Any], store: Path) -> None:
        from mr3.judging.config import JudgeConfig
        from rewards.actor import RewardActor

        given = JudgeConfig.model_validate(judge)
        self._actor = RewardActor(given.absolute().model_dump(mode="json"), str(store), given.identity())
        self.new = 0

    async def judge_batch(self, tasks: Any, strategy: Any = None, *, batch_size: int = 16) -> Any:
        from rewards.serving.schema import JudgeResult

        found, new, _ = await self._actor.judge(
            [t.model_dump(mode="json") for t in tasks], strategy.model_dump(mode="json")
        )
        self.new += new
        return [JudgeResult.model_validate(row) for row in found]


def verify(root: Path, config: dict[str, Any]) -> dict[str, int]:
    """Make every reward again from the store."""
    import pyarrow.parquet as pq

    from mr3.rubrics import Rubric
    from rewards.serving.trl_reward import TrlReward

    prompts = {row["prompt_id"]: json.loads(row["prompt"]) for row in pq.read_table(config["prompts"]).to_pylist()}
    stored = _FromStore(config["reward"]["judge"], root / "store")
    reward = TrlReward(
        stored, Rubric.model_validate(RUBRIC), mode="pairwise", plan="circular", group_size=GROUP, silent_calls=None
    )
    steps: dict[int, list[dict[str, Any]]] = {}
    for line in (root / "grpo" / "samples.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        steps.setdefault(row["step"], []).append(row)
    counts = {"steps": len(steps), "rewards": 0, "none": 0, "differ": 0}
    for rows in steps.values():
        names = [row["prompt_id"] for row in rows]
        again = asyncio.run(
            reward([prompts[n] for n in names], [r["text"] for r in rows], prompt_id=names, language=["en"] * len(rows))
        )
        for row, value in zip(rows, again, strict=True):
            counts["none"] += row["reward"] is None
            counts["rewards"] += row["reward"] is not None
            counts["differ"] += row["reward"] is not None and row["reward"] != value
    counts["without_verdict"] = stored.new
    return counts


def run() -> Result:
    """One run whose reward actors are killed five times."""
    from mr3.artifacts import read_json

    rng, killed = random.Random(0), set[int]()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        log = root / "calls.log"
        file = write_config(root, base_judge(root / "judge"), log)
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        child = subprocess.Popen([sys.executable, "-m", "mr3.cli.main", "grpo", "--config", str(file)])
        kills = 0
        for _ in range(KILLS):
            kills += kill_once(log, rng, killed, child)
            time.sleep(rng.uniform(0.5, 3.0))
        ended = child.wait()
        found = verify(root, config) if ended == 0 else {"steps": 0, "rewards": 0, "none": 0, "differ": 0}
        steps = read_json(root / "grpo" / "metrics.json")["steps"] if ended == 0 else 0
    return Result(
        {
            "invented": found["differ"] + found.get("without_verdict", 0),
            "kills": kills,
            "steps_not_done": STEPS - steps,
            "steps_not_verified": STEPS - found["steps"],
            "none": found["none"],
        },
        n=found["rewards"],
        bars={
            "invented": Bar("at_most", 0),
            "kills": Bar("at_least", KILLS),
            "steps_not_done": Bar("at_most", 0),
            "steps_not_verified": Bar("at_most", 0),
        },
        details={"verified": found, "exit": ended},
    )


BENCHMARK = Benchmark(
    "grpo-kill", "5 kills -9 of a reward actor in one GRPO run: rewards that no verdict bears out", run
)
