"""`mr3 grpo` as a command: on nano, resumed after a kill, and in two processes that come to the same run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from grpo_experiments.compare import table
from grpo_experiments.guards import GuardSettings
from grpo_experiments.reward_log import read_log
from mr3.artifacts import read_json, write_json
from mr3.judge_card import JudgeCard, write_card
from tests.grpo_support import twin_rows, write_tasks

ROOT = Path(__file__).parents[1]
TRL = {
    "num_generations": 2, "per_device_train_batch_size": 8, "max_completion_length": 12, "max_steps": 3,
    "logging_steps": 1, "save_steps": 1, "learning_rate": 1e-4, "eval_strategy": "steps", "eval_steps": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nano base as a judge (it writes no verdict yet), and tasks with twins."""
    root = tmp_path_factory.mktemp("stage")
    shutil.copytree(ROOT / "mr3/nano/base", root / "judge")
    write_card(root / "judge", JudgeCard(profile="compact", max_prompt_tokens=1024, max_output_tokens=128))
    write_tasks(root / "tasks.parquet", twin_rows(20, singles=4))
    return root


def config(home: Path, name: str, **more: Any) -> Path:
    options = {
        "output_dir": str(home / name), "model": str(home / "judge"), "tasks": str(home / "tasks.parquet"),
        "held_out_tasks": 6, "held_out_samples": 2, "baseline": "bundle",
        "rewards": {"expected_correctness": 1.0, "counterfactual": 1.0, "repetition": 0.1}, "trl": TRL,
    } | more  # fmt: skip
    file = home / f"{name}.yaml"
    file.write_text(yaml.safe_dump(options))
    return file


def command(file: Path, *launcher: str) -> list[str]:
    return [sys.executable, "-m", *launcher, "grpo_experiments.train", "--config", str(file)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def done(file: Path, *launcher: str) -> None:
    told = subprocess.run(
        command(file, *launcher), env=environment(), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_goes_on_and_its_log_is_whole(home: Path) -> None:
    """By SIGKILL, after the first checkpoint (test_grpo_trainer has that the weights are those of an unbroken run)."""
    file, out = config(home, "cut"), home / "cut"
    process = subprocess.Popen(command(file), env=environment(), cwd=ROOT, stderr=subprocess.DEVNULL)
    checkpoint = out / "trainer" / "checkpoint-1" / "grpo_history.json"
    end = time.monotonic() + 600
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.is_file() and not (out / "manifest.json").exists()
    done(file)
    found = read_json(out / "metrics.json")
    assert found["steps"] == 3 and [s["step"] for s in found["steps_seen"]] == [0, 1, 2]
    rows = list(read_log(out / "rewards"))
    assert len(rows) == found["completions"] == 3 * 8 and [r["step"] for r in rows] == [
        s for s in range(3) for _ in range(8)
    ]
    assert [e["step"] for e in found["evaluations"]] == [2, 3]
    assert all(set(e["probes"]) == set(GuardSettings().probes) and e["kl"] >= 0 for e in found["evaluations"])
    assert (out / "model" / "judge.json").is_file() and 0 <= found["failed"] <= 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_score_every_bundle_once_and_agree(home: Path) -> None:
    """Six completions in each process: a bundle of two prompts x 2 samples is split between them."""
    trl = {**TRL, "per_device_train_batch_size": 6, "max_steps": 2, "per_device_eval_batch_size": 4}
    file = config(home, "two", trl=trl)
    done(file, "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    found = read_json(home / "two" / "metrics.json")
    assert found["completions"] == 2 * 12 and found["steps"] == 2
    parts = sorted(p.name for p in (home / "two" / "rewards").glob("train-*"))
    assert parts == [f"train-00000{s}.0.p{p}.parquet" for s in (0, 1) for p in (0, 1)]
    rows = list(read_log(home / "two" / "rewards"))
    assert len(rows) == 24
    for step in (0, 1):
        of = [r["row"] for r in rows if r["step"] == step]
        twins = {r["twin"] for r in rows if r["step"] == step and r["twin"] is not None}
        for twin in twins:
            members = {r["task"] for r in rows if r["step"] == step and r["twin"] == twin}
            assert len(members) == 2, "twins are in one generation"
        assert all(of.count(row) == 2 for row in of)


def verdicts(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A finished evaluation with these verdicts."""
    from mr3.artifacts import content_hash

    file = write_tasks(folder / "verdicts.parquet", rows)
    outputs = {"verdicts.parquet": content_hash(file)}
    write_json(folder / "manifest.json", {"stage": "eval", "outputs": outputs})
    return folder


def verdict(task: str, score: str, sample: int = 0, content: str = "c") -> dict[str, Any]:
    return {
        "task_id": task, "content": content, "language": "en", "sets": ["s"], "gold": "1", "said": score,
        "swapped": False, "sample": sample,
    }  # fmt: skip


def test_a_comparison_takes_all_samples_and_draws_contents(tmp_path: Path) -> None:
    one = verdicts(tmp_path / "a", [verdict("t", "1", k) for k in range(2)] + [verdict("u", "0", content="d")])
    two = verdicts(tmp_path / "b", [verdict("t", "1"), verdict("t", "0", 1), verdict("u", "1", content="d")])
    first, second = table([one, two])
    assert first["accuracy"]["value"] == 0.5 and second["accuracy"]["value"] == 0.75
    assert second["difference"]["value"] == 0.25 and second["difference"]["contents"] == 2
