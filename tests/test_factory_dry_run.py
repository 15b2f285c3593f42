"""`mr3 data --dry-run`: calls, tokens, hours and money before a model is asked, from rows that are counted or known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mr3.config import build_config
from mr3.factory.config import FactoryConfig
from mr3.factory.dry_run import calls_of, count_source, dry_run
from mr3.factory.prompting import Prompter
from mr3.factory.stage import main
from mr3.nano.labelled import rows as nano_rows

LIMITS = {"max_prompt_tokens": 900, "max_output_tokens": 100}
COST = {"output_tokens": 100, "tokens_per_s": 1000}


def config(folder: Path, **changes: Any) -> FactoryConfig:
    lines = [json.dumps({"gold": r.gold, "task": json.loads(r.task.model_dump_json())}) for r in nano_rows(50, 1)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    teacher = {"name": "t", "model": "org/t", **LIMITS, "cost": {**COST, "gpu_hour": 3.6}, "stream": {"num_gpus": 2}}
    student = {"name": "s", "model": "org/s", **LIMITS, "cost": {**COST, "million_in": 2.0, "million_out": 5.0}}
    given: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "profile": "compact",
        "sources": [{"path": str(folder / "rows.jsonl")}, {"set": "math500", "path": "nowhere"}],
        "teacher": teacher,
        "difficulty": {"student": student, "samples": 4},
        "translator": {"model": "org/x"},
        "estimate": {"right": 0.5, "prompt_tokens": 1000, "chars_per_token": 4, "pieces": 3},
    }
    return build_config(FactoryConfig, {**given, **changes}, "test")


def test_calls_tokens_hours_and_money_are_what_the_config_says(tmp_path: Path) -> None:
    given = config(tmp_path)
    prompter = Prompter(given.profile, given.texts)
    counted = {str(i): count_source(given, spec, prompter) for i, spec in enumerate(given.sources)}
    rows, published = counted.values()
    assert rows.rows == 50 and published.rows == 5000 and "rows as published" in published.how
    shown = [prompter.prompts(row, ["eng-eng"])["eng-eng"] for row in nano_rows(50, 1)]
    letters = sum(len(s["system"]) + len(s["user"]) + len(s["prefix"]) for s in shown)
    assert rows.tokens["eng-eng"] == pytest.approx(letters / 50 / 4)
    teacher, student, translator = calls_of(given, counted)
    assert teacher.calls == 5050 * 3 and student.calls == 5050 * 0.5 * 4
    assert teacher.prompt_tokens == pytest.approx(3 * (5000 * 1000 + letters / 4))
    assert teacher.hours == pytest.approx(15_150 * 100 / 1000 / 3600)
    assert teacher.money == pytest.approx(15_150 * 0.1 / 3600 * 2 * 3.6)
    assert student.money == pytest.approx((student.prompt_tokens * 2 + 10_100 * 100 * 5) / 1e6)
    assert translator.calls == 5050 * 0.5 * 3 and translator.hours is None and translator.money is None
    drawn = config(tmp_path, presample={"rows": 100}, select={"rows": 10})
    assert [c.calls for c in calls_of(drawn, counted)] == [300, 200, 30]


def test_the_report_names_every_model_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MR3_TEMPLATES", str(tmp_path / "none"))
    monkeypatch.setenv("RUN", str(tmp_path / "run"))
    assert main(["--config", "configs/qwen3/data-100k.yaml", "--dry-run", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "| gpt-oss-120b | 1,200,000 |" in said and "Qwen3-235B" in said and "their length is assumed" in said
    assert not (tmp_path / "run").exists()
    assert "| all, one after the other | 32,825 | | | - | | - |" in dry_run(config(tmp_path))
