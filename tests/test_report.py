"""summary.json and report.html from made-up metrics: figures, bars, escaping, gaps."""

from __future__ import annotations

import math
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mr3.artifacts import read_json, write_json
from mr3.cli.report import write_report
from mr3.cli.summary import Bar, Figure, RunRecord, StageFolder, build_summary, look_up, rates
from mr3.stats import wilson

HOSTILE = "<script>alert(1)</script> & مرحبا"


def record(folder: Path, figures: dict[str, Any]) -> RunRecord:
    kinds = {"judge": "sft", "judge-eval": "eval", "label": "label", "dpo": "dpo", "policy-eval": "policy-eval"}
    stages = {name: {"stage": kind, "folder": str(folder / name)} for name, kind in kinds.items()}
    return RunRecord.model_validate({"seed": 0, "stages": stages, "figures": figures, "notes": ["Tiny & honest."]})


FIGURES: dict[str, Any] = {
    "judge.accuracy.pairwise": {
        "stage": "judge-eval",
        "at": "sets.pairwise.accuracy",
        "bar": {"at_least": 0.9, "low_above": 0.8},
    },
    "label.pair_accuracy_per_language": {
        "stage": "label",
        "at": "languages.*.pair_accuracy",
        "bar": {"above": 0.5},
    },
    "label.gone": {"stage": "label", "at": "no.such", "bar": {"at_most": 1}},
    "wall_s": {"stage": "demo", "at": "wall_s"},
    "wall_s.total": {"stage": "demo", "at": "wall_s.total", "bar": {"at_most": 600}},
}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    sets = {
        name: {"accuracy": wilson(95, 100), "by_language": {"en": wilson(48, 50), "sw": wilson(47, 50)}}
        for name in ("pairwise", "pointwise", "binary", "unseen", "rubric_hidden")
    }
    sets["pairwise"]["baselines"] = {"longer": wilson(50, 100)}
    curve = [{"step": float(i), "loss": 2.0 / (i + 1), "rewards/accuracies": 0.6} for i in range(5)]
    metrics: dict[str, Any] = {
        "judge": {"curve": curve},
        "dpo": {"curve": curve},
        "judge-eval": {"sets": sets},
        "label": {
            "outcomes": {"ok": 90, "truncated": 10},
            "comparisons": 50,
            "ties": 10,
            "flips": 4,
            "failed_comparisons": 5,
            "languages": {"en": {"pair_accuracy": wilson(9, 10)}, "sw": {"pair_accuracy": wilson(4, 10)}},
        },
        "policy-eval": {
            "win_rate": wilson(70, 100),
            "win_rate_per_language": {"en": wilson(36, 50), "sw": wilson(34, 50)},
            "pass_rate_before": {"polite": wilson(30, 100)},
            "pass_rate_after": {"polite": wilson(80, 100)},
        },
    }
    for name, found in metrics.items():
        write_json(tmp_path / name / "metrics.json", found)
    example = {
        "id": "x",
        "language": "ar",
        "mode": "pairwise",
        "input": HOSTILE,
        "responses": [HOSTILE, "b"],
        "rubric": {"criteria": [{"description": HOSTILE}]},
        "gold": "Tie",
        "score": "Tie",
        "right": True,
        "outcome": "ok",
        "reason": None,
        "trace": HOSTILE,
        "explanation": "fine",
    }
    write_json(tmp_path / "judge-eval" / "examples.json", [example])
    message = [{"role": "user", "content": HOSTILE}]
    pair = {"language": "en", "prompt": message, "chosen": message, "rejected": message}
    rows = [{**pair, "chosen_policy": "p", "rejected_policy": "q"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "label" / "preferences.parquet")
    write_json(tmp_path / "demo.json", record(tmp_path, FIGURES).model_dump(mode="json"))
    write_json(tmp_path / "timing.json", {"total": 100.0, "stages": {"judge": 60.0}, "peak_rss_gb": 2.0})
    return tmp_path


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_whole_self_contained_and_escaped(run_folder: Path) -> None:
    write_report(run_folder, time.monotonic())
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    names = [tag for tag, _ in tags.found]
    assert "script" not in names and "link" not in names
    images = [a["src"] or "" for tag, a in tags.found if tag == "img"]
    assert len(images) == 7 and all(src.startswith("data:image/svg+xml;base64,") for src in images)
    assert tags.text.count(HOSTILE) == 7
    assert any(a.get("dir") == "auto" for _, a in tags.found)
    assert "Tiny & honest." in tags.text
    assert "Missed: label.pair_accuracy_per_language.sw, label.gone." in tags.text


def test_the_summary_holds_rates_whole_and_gaps_as_null(run_folder: Path) -> None:
    rows = write_report(run_folder, time.monotonic())
    summary = read_json(run_folder / "summary.json")
    accuracy = summary["judge"]["accuracy"]["pairwise"]
    assert accuracy["value"] == 0.95 and accuracy["n"] == 100 and len(accuracy["interval"]) == 2
    assert summary["label"]["gone"] is None
    assert summary["wall_s"]["judge"] == 60.0 and summary["wall_s"]["total"] > 100.0
    met = {row.key: row.met for row in rows}
    assert met == {
        "judge.accuracy.pairwise": True,
        "label.pair_accuracy_per_language.en": True,
        "label.pair_accuracy_per_language.sw": False,
        "label.gone": False,
        "wall_s.total": met["wall_s.total"],
    }
    assert [bar["met"] for bar in summary["bars"]] == list(met.values())


def test_a_report_of_a_run_with_nothing_to_draw(tmp_path: Path) -> None:
    write_json(tmp_path / "demo.json", record(tmp_path, {}).model_dump(mode="json"))
    assert write_report(tmp_path, time.monotonic()) == []
    assert "<img" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_evaluation_of_several_judges_has_no_sets_of_its_own_to_draw(tmp_path: Path) -> None:
    told = record(tmp_path, {})
    told.stages["both"] = StageFolder(stage="eval", folder=tmp_path / "both")
    write_json(tmp_path / "both" / "metrics.json", {"rows": [], "runs": ["greedy/run", "sampled/run"]})
    write_json(tmp_path / "demo.json", told.model_dump(mode="json"))
    assert write_report(tmp_path, time.monotonic()) == []
    assert "<img" not in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("bar", "value", "interval", "met"),
    [
        ({"at_least": 0.7}, 0.7, None, True),
        ({"above": 0.5}, 0.5, None, False),
        ({"at_most": 10}, 10.1, None, False),
        ({"low_above": 0.6}, 0.7, (0.6, 0.8), False),
        ({"low_above": 0.6}, 0.7, None, False),
        ({"at_least": 0.7, "low_above": 0.6}, 0.75, (0.65, 0.8), True),
        ({"high_at_least": 0.0}, -0.01, (-0.03, 0.01), True),
        ({"high_at_least": 0.0}, -0.05, (-0.07, -0.03), False),
        ({"at_least": 0.0}, None, None, False),
    ],
)
def test_bars(bar: dict[str, float], value: float | None, interval: tuple[float, float] | None, met: bool) -> None:
    assert Bar.model_validate(bar).met_by(value, interval) is met


def test_paths_and_stars() -> None:
    metrics = {"a": {"b": 1}, "per": {"en": {"x": 2}, "sw": {}}}
    assert look_up(metrics, "a.b") == 1
    assert look_up(metrics, "per.*.x") == {"en": 2}
    assert look_up(metrics, "a.c") is None and look_up(metrics, "a.b.c") is None and look_up(None, "a") is None


@given(st.dictionaries(st.sampled_from(["en", "de", "sw"]), st.floats(0, 1)), st.floats(0, 1))
def test_a_group_meets_its_bar_when_every_member_does(values: dict[str, float], limit: float) -> None:
    figures = {"f": Figure(stage="s", at="group", bar=Bar(at_least=limit))}
    run = RunRecord(seed=0, stages={}, figures=figures)
    _, rows = build_summary(run, {"s": {"group": {k: {"value": v} for k, v in values.items()}}})
    assert {row.key.removeprefix("f."): row.met for row in rows} == {k: v >= limit for k, v in values.items()}


def test_plain_numbers_are_rates_without_interval() -> None:
    assert list(rates(3, "a")) == [("a", 3.0, None, None)]
    assert not math.isnan(next(rates({"value": 0.5, "n": 2, "interval": [0.1, 0.9]}, "a"))[1] or 0.0)
