"""The study of rubric-aware rewards from its first stage to its table, small: committed configs, real commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from mr3.artifacts import metrics_of, read_json

STUDY = Path("configs/nano-grpo/rubric-study.yaml")
SMALL = {
    "rubric-data": {
        "tables": {
            "judge": {"rows": 320},
            **{name: {"rows": 64} for name in ("rl_natural", "rl_shortcut", "rl_shortcut_twins", "rl_twins")},
        },
        "ignoring": {"rows": 32},
        "evaluations": {"dev": {"natural": 8, "twins": 8}},
        "replay_documents": 40,
    },
    "sft": {"trl": {"max_steps": 12}},
    "grpo": {
        "held_out_tasks": 8,
        "trl": {"max_steps": 2, "per_device_train_batch_size": 32, "num_generations": 4, "max_completion_length": 48,
                "eval_steps": 2, "save_steps": 2},
    },
}  # fmt: skip
TEST_SETS = "{natural: 8, blank: 4, twins: 8, twins_wording: 4, twins_order: 4, twins_criterion: 4, twins_unseen: 4}"


@pytest.mark.slow
def test_the_study_runs_from_data_to_table_and_goes_on_where_it_was(tmp_path: Path) -> None:
    told = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    told |= {"output_dir": str(tmp_path / "out"), "seeds": [1], "overlay": str(tmp_path / "small.yaml")}
    told["shared"]["data"]["args"] = ["--evaluations.test", TEST_SETS]
    for name, content in (("study.yaml", told), ("small.yaml", SMALL)):
        (tmp_path / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [sys.executable, "-m", "mr3.cli.main", "study", "--config", str(tmp_path / "study.yaml")]
    command += ["--configs", str(STUDY.parent.resolve())]
    subprocess.run(command, check=True, timeout=1_500)
    arms = read_json(tmp_path / "out" / "study.json")["sets"]["greedy/twins/both_right"]
    assert set(arms) == set(told["arms"]) and all(
        "difference" in row for arm, row in arms.items() if arm != told["baseline"]
    )
    text = (tmp_path / "out" / "study.md").read_text(encoding="utf-8")
    assert "fewer than 5 seeds: no claim" in text, "one seed decides nothing"
    seed = tmp_path / "out" / "seed-1"
    found = metrics_of(seed / "counterfactual-shortcut" / "grpo")
    assert found["steps"] == 2 and found["terms"]["counterfactual"]["none"] < 1.0
    rows = pq.read_table(seed / "data" / "rl_shortcut_twins.parquet").column("reward_only").to_pylist()
    assert 0 < sum(rows) < len(rows) / 2
    before = {path: path.stat().st_mtime_ns for path in seed.rglob("manifest.json")}
    subprocess.run(command, check=True, timeout=300)
    assert before == {path: path.stat().st_mtime_ns for path in seed.rglob("manifest.json")}, "nothing is done twice"
