"""The estimate before a run: what it counts is what the run then does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mr3.artifacts import metrics_of
from mr3.config import build_config
from mr3.inference.session import ray_session
from rewards.estimate import count
from rewards.label import LabelConfig, main, run
from rewards.pool import read_pool
from rewards.tasks import TaskSettings
from tests.rewards_support import judge_server, make_judge

RUBRIC = {"name": "house", "criteria": [{"name": "correct", "description": "The number is right."}]}


def _pool(file: Path, prompts: int) -> Path:
    texts = ["4", "5", "14", " 4 ", "it is 4"]
    rows = [
        {
            "prompt_id": f"p{i}",
            "prompt": f"2+2? ({i})",
            "language": "en",
            "responses": [{"id": f"p{i}-{k}", "text": t, "policy": "p"} for k, t in enumerate(texts)],
        }
        for i in range(prompts)
    ]
    file.write_text("\n".join([*map(json.dumps, rows), "not json"]) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("changes", "each", "at_most"),
    [
        ({"plan": "all_pairs"}, 12, 12),
        ({"plan": "circular", "orders": "one"}, 4, 4),
        ({"plan": "knockout", "orders": "final"}, 6, 6),
        ({"mode": "pointwise", "samples": 3}, 12, 12),
        ({"plan": "chain", "samples": 5}, 18, 30),
    ],
)
def test_calls_are_counted_for_every_plan(tmp_path: Path, changes: dict[str, Any], each: int, at_most: int) -> None:
    settings = TaskSettings.model_validate({"rubric": RUBRIC, **changes})
    found = count(read_pool(str(_pool(tmp_path / "pool.jsonl", 10))), settings, 3, 0)
    assert (found.prompts, found.responses, found.set_aside, len(found.sample)) == (10, 50, 1, 3)
    assert (found.calls, found.calls_at_most) == (10 * each, 10 * at_most), "four of five responses differ"


def test_the_command_estimates_and_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with judge_server() as (url, prompts), ray_session():
        data = {
            "output_dir": str(tmp_path / "label"),
            "store": str(tmp_path / "store"),
            "pool": str(_pool(tmp_path / "pool.jsonl", 40)),
            "judge": {"model": str(make_judge(tmp_path / "judge")), "backend": "endpoint", "url": url, "revision": "1"},
            "rubric": RUBRIC,
            "estimate": {"sample_prompts": 20, "price_per_hour": 36.0},
        }
        file = tmp_path / "label.json"
        file.write_text(json.dumps(data))
        assert main(["--config", str(file), "--plan", "--plan", "circular", "--plan"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["calls"] == 40 * 8 and found["prompt_tokens"] > found["calls"] * 50
        assert found["price"] == pytest.approx(found["calls"] / found["verdicts_per_s"] / 100)
        assert not (tmp_path / "label").exists() and len(prompts) == 20 * 8
        run(build_config(LabelConfig, {**data, "plan": "circular"}, "test"))
    metrics = metrics_of(tmp_path / "label")
    assert metrics["verdicts"] == found["calls"]
    assert metrics["from_store"] == 20 * 8, "what the estimate judged is not judged again"
