"""`mr3 audit` on small label runs whose right numbers are known, and how labelling resumes and orders its tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mr3.artifacts import metrics_of, read_json
from mr3.config import build_config
from mr3.judge_card import JudgeCard, write_card
from rewards.audit import AuditConfig, main
from rewards.audit import run as run_audit
from rewards.auditing.agreement import Agreement, judged_label
from rewards.label import LabelConfig
from rewards.label import run as run_label
from rewards.records import GoldLabel
from rewards.walk import walk
from tests.rewards_support import ScriptedEngine, in_process_groups, verdict_text
from tests.test_cli import mr3

RUBRIC = {"name": "house", "criteria": [{"name": "correct", "description": "The <b>number</b> is right."}]}
TABLES = ("responses", "verdicts", "comparisons", "preferences")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    made = ScriptedEngine()
    monkeypatch.setattr("mr3.judging.run.judge_groups", in_process_groups(made))
    return made


def _row(prompt_id: str, texts: dict[str, str], **changes: Any) -> dict[str, Any]:
    responses = [{"id": f"{prompt_id}-{k}", "text": t, "policy": f"p-{k}"} for k, t in texts.items()]
    return {
        "prompt_id": prompt_id,
        "prompt": "2+2?",
        "language": "en",
        "meta": {"answer": 4},
        **changes,
        "responses": responses,
    }


def _label(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> LabelConfig:
    judge = folder / "judge"
    judge.mkdir(exist_ok=True)
    write_card(judge, JudgeCard(profile="compact", max_prompt_tokens=900, max_output_tokens=24))
    pool = folder / "pool.jsonl"
    pool.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    data = {"output_dir": folder / "label", "pool": str(pool), "judge": {"model": str(judge)}, "rubric": RUBRIC}
    data["canaries"] = {"per_language": 0}
    return build_config(LabelConfig, {**data, **changes}, "test")


def _audit(folder: Path, **changes: Any) -> tuple[dict[str, Any], str]:
    config = build_config(AuditConfig, {"output_dir": folder / "audit", "label": folder / "label", **changes}, "test")
    run_audit(config)
    report: dict[str, Any] = read_json(config.output_dir / "audit.json")
    return report, (config.output_dir / "audit.html").read_text(encoding="utf-8")


def gold(labels: dict[str, str | None], second: dict[str, str] | None = None) -> Iterator[GoldLabel]:
    """Named by the audit's config: labels of people for these tests."""
    for name, label in labels.items():
        text = "as the person read it" if name == "a-x" else None
        yield GoldLabel(response_id=name, language=name[0], label=label, text=text, tidied=text is not None)
    for name, label in (second or {}).items():
        yield GoldLabel(response_id=name, language=name[0], label=label, annotator="second")


def test_agreement_with_people(tmp_path: Path, engine: ScriptedEngine) -> None:
    rows = [
        _row("a", {"x": "4", "y": "5", "z": "4 \n", "w": "BROKEN"}, language="a"),
        _row("b", {"x": "4", "y": "four"}, language="b"),
    ]
    run_label(_label(tmp_path, rows, mode="binary", pair_rule="none"))
    assert len(engine.prompts) == 5, "equal responses are judged once"
    labels = {"a-x": "true", "a-y": "true", "a-z": "true", "a-w": "false", "b-x": "true", "b-y": None, "b-q": "true"}
    options = {"labels": labels, "second": {"a-x": "true", "a-y": "false"}}
    report, html = _audit(tmp_path, gold={"source": "tests.test_audit:gold", "options": options}, note="Chance & less")
    verdicts, found = report["verdicts"], report["gold"]
    assert verdicts["all"]["n"] == verdicts["responses"] == 6 and verdicts["duplicate_responses"] == 1
    assert verdicts["all"]["outcomes"] == {"ok": 5, "parse_failed": 1}
    assert verdicts["languages"]["a"]["scores"] == {"false": 1, "true": 2}
    assert verdicts["policies"]["p-w"]["ok"]["value"] == 0.0
    a, b = found["languages"]["a"], found["languages"]["b"]
    assert (a["accuracy"]["value"], a["accuracy"]["n"]) == (pytest.approx(2 / 3), 3)
    assert a["accuracy_failures_wrong"]["value"] == 0.5 and a["failed"] == {"parse_failed": 1}
    assert a["judged_text_differs"] == 1 and a["tidied_before_review"] == 1
    assert a["kappa"]["value"] is None and "always says 'true'" in a["kappa"]["reason"]
    assert a["annotators"]["accuracy"]["value"] == 0.5
    assert (b["labelled"], b["blank"], b["not_in_pool"]) == (2, 1, 1)
    assert found["all"]["accuracy"]["n"] == 4 and found["all"]["baseline_constant"]["value"] == 1.0
    assert found["all"]["confusion"]["gold true"] == {"judge true": 3, "judge false": 1}
    assert "Chance &amp; less" in html and "The &lt;b&gt;number" in html and "<b>number" not in html
    image = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]{2000,})", html)
    assert image is not None and not re.search(r"(src|href)=\"(?!data:)", html), "the page needs no other file"


def test_orders_and_combinations(tmp_path: Path, engine: ScriptedEngine) -> None:
    rows = [_row(f"good{i}", {"x": "4", "y": "five"}) for i in range(3)]
    rows += [_row("biased", {"x": "4", "y": "five"}, prompt="BIASED 2+2?")]
    rows += [_row("broken", {"x": "4 BROKEN", "y": "five"}, language="es")]
    run_label(_label(tmp_path, rows, checker="tests.rewards_support:check"))
    report, html = _audit(tmp_path)
    orders = report["orders"]["all"]
    assert (orders["comparisons"], orders["failed"]) == (5, 1)
    assert orders["flip_rate"]["value"] == 0.25 and orders["flip_rate"]["n"] == 4
    assert orders["kept_error_from_flips"] == pytest.approx(0.0286, abs=1e-3)
    # 3 of 6 where the judge looks, 2 of 2 where it is biased.
    assert orders["first_shown_wins"]["value"] == pytest.approx(5 / 8)
    assert orders["flips_to_first_shown"] == orders["flips_to_first_shown"] | {"value": 1.0, "n": 1}
    assert orders["tie_rate"]["value"] == 0.25
    length = report["length"]["all"]
    assert length["longer_wins"]["value"] == 0.0 and length["longer_wins"]["n"] == 3
    for how in ("agree", "mean"):
        assert orders["combine"][how]["yield"]["value"] == 3 / 5
        assert orders["combine"][how]["accuracy"]["value"] == 1.0
    assert report["orders"]["languages"]["es"]["failed"] == 1
    assert report["gold"] is None and "flip rate" in html
    with pytest.raises(ValueError, match="gold labels are of single responses"):
        single = {"source": "tests.test_audit:gold", "options": {"labels": {"good0-x": "true"}}}
        _audit(tmp_path, output_dir=tmp_path / "other", gold=single)


def test_tables_do_not_depend_on_the_order_of_results(tmp_path: Path, engine: ScriptedEngine) -> None:
    rows = [_row(f"p{i}", {"x": "4", "y": "5", "z": f"{i}"}) for i in range(20)]
    config = _label(tmp_path, rows, max_pairs_per_prompt=1)
    run_label(config)
    assert [p.prompt_id for p in walk(config.output_dir)] == [f"p{i}" for i in range(20)]
    assert [len(p.verdicts) for p in walk(config.output_dir)] == [2 if i in (4, 5) else 6 for i in range(20)]
    preferences = pq.read_table(config.output_dir / "preferences.parquet").to_pylist()
    assert [p["prompt_id"] for p in preferences] == [f"p{i}" for i in range(20)], "one pair per prompt, in order"


def test_an_interrupted_run_goes_on_to_the_same_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [_row(f"p{i}", {"x": "4", "y": "5"}) for i in range(6)]
    tables = []
    for name, fail_after in (("whole", None), ("broken", 3)):
        (tmp_path / name).mkdir()
        config = _label(tmp_path / name, rows)
        monkeypatch.setattr("mr3.judging.run.judge_groups", in_process_groups(ScriptedEngine(), fail_after=fail_after))
        if fail_after is not None:
            with pytest.raises(KeyboardInterrupt):
                run_label(config)
            assert not (config.output_dir / "metrics.json").exists()
            assert not list(config.output_dir.glob("*.parquet")), "no table before all of it is there"
            monkeypatch.setattr("mr3.judging.run.judge_groups", in_process_groups(ScriptedEngine()))
            run_label(config)
        else:
            run_label(config)
        tables.append([pq.read_table(config.output_dir / f"{t}.parquet").to_pylist() for t in TABLES])
    assert tables[0] == tables[1]


def test_gold_on_another_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="same scale"):
        Agreement([GoldLabel(response_id="a-x", language="a", label="5")], ("true", "false"))
    twice = [GoldLabel(response_id="a-x", language="a", label="true")] * 2
    with pytest.raises(ValueError, match="two gold labels"):
        Agreement(twice, ("true", "false"))


def test_a_label_needs_a_majority() -> None:
    def said(*scores: str | None) -> list[dict[str, Any]]:
        return [{"outcome": "ok" if s else "truncated", "score": s} for s in scores]

    assert judged_label(said("true", "true", "false")) == ("true", "ok")
    assert judged_label(said("true", "false")) == (None, "no_majority")
    assert judged_label(said("true", None)) == (None, "truncated")
    assert judged_label([]) == (None, "not_judged")


def test_the_command_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--output_dir", str(tmp_path / "audit"), "--label"]
    assert main([*words, str(tmp_path / "absent")]) == 2
    assert "mr3 label" in capsys.readouterr().err
    (tmp_path / "half").mkdir()
    assert main([*words, str(tmp_path / "half")]) == 2
    assert "not finished" in capsys.readouterr().err


def test_the_whole_report_by_the_command(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Every section, per language and per policy, in the JSON and on the page; canaries beside them."""
    words = {
        "en": "I say it is four, as far as anybody knows.",
        "es": "Yo digo que son cinco, como todo el mundo sabe.",
    }
    rows = [
        _row(f"{c}{i}", {"x": f"4. {words[c]}", "y": words[c], "z": words["es"]}, language=c)
        for c in words
        for i in (1, 2)
    ]
    run_label(_label(tmp_path, rows, checker="tests.rewards_support:check", canaries={"per_language": 2}))
    done = mr3(
        "audit", "--label", str(tmp_path / "label"), "--output_dir", str(tmp_path / "audit"), "--title", "<Of> it"
    )
    assert done.returncode == 0, done.stderr
    report = read_json(tmp_path / "audit" / "audit.json")
    html = (tmp_path / "audit" / "audit.html").read_text(encoding="utf-8")
    for section in ("verdicts", "orders", "truth", "length", "language"):
        assert set(report[section]["languages"]) == {"en", "es"}, section
        assert set(report[section]["policies"]) == {"p-x", "p-y", "p-z"}, "no canary is a policy"
    assert report["wins"]["all"]["p-x"]["win_rate"]["value"] == 1.0
    assert report["wins"]["languages"]["en"]["p-y"]["against"]["p-x"]["value"] == 0.0
    assert report["truth"]["all"]["accuracy"]["value"] == 1.0 and report["truth"]["all"]["calibration"] is None
    consistent = report["language"]["languages"]["en"]["consistent"]
    assert consistent["value"] == pytest.approx(2 / 3) and consistent["n"] == 6
    assert report["language"]["all"]["other_language_wins"]["value"] == 0.0
    assert report["length"]["all"]["correlation"]["n"] == report["orders"]["all"]["comparisons"] == 8
    assert report["canaries"]["canaries"] == 28 and report["canaries"]["false_positive"]["value"] == 0.0
    for heading in ("Canaries", "Against the checker", "Length", "Language", "Policies against each other"):
        assert f"<h2>{heading}</h2>" in html
    assert "<title>&lt;Of&gt; it</title>" in html and html.count("data:image/png") == 2
    assert metrics_of(tmp_path / "audit")["canaries"] == report["canaries"]


def test_a_pointwise_run_without_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = ScriptedEngine(lambda prompt: verdict_text("5" if "4" in prompt.split("# Response\n")[1] else "2"))
    monkeypatch.setattr("mr3.judging.run.judge_groups", in_process_groups(judge))
    rows = [_row(f"p{i}", {"x": "it is 4", "y": "no"}) for i in range(3)]
    run_label(_label(tmp_path, rows, mode="pointwise", pair_rule="none", canaries={"per_language": 1}))
    labels = {f"p{i}-{k}": v for i in range(3) for k, v in (("x", "4"), ("y", "2"))}
    report, html = _audit(tmp_path, gold={"source": "tests.test_audit:gold", "options": {"labels": labels}})
    assert report["orders"] is None and report["truth"] is None and report["wins"]["all"] == {}
    assert report["verdicts"]["policies"]["p-x"]["mean_score"]["value"] == 5.0
    assert report["length"]["all"]["correlation"]["value"] == pytest.approx(1.0)
    found = report["gold"]["all"]
    assert found["accuracy"]["value"] == 0.5 and found["kappa_quadratic"]["value"] > found["kappa"]["value"]
    assert report["gold"]["policies"]["p-y"]["accuracy"]["value"] == 1.0
    assert "Against the checker" not in html and "Agreement with people" in html


def test_an_older_label_folder_has_no_canaries(tmp_path: Path, engine: ScriptedEngine) -> None:
    run_label(_label(tmp_path, [_row("p", {"x": "4", "y": "5"})]))
    metrics = read_json(tmp_path / "label" / "metrics.json")
    del metrics["canaries"]
    (tmp_path / "label" / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    manifest = read_json(tmp_path / "label" / "manifest.json")
    del manifest["outputs"]  # nor digests
    (tmp_path / "label" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    report, html = _audit(tmp_path, identify_per_language=0)
    assert report["canaries"] is None and report["language"] is None and "<h2>Language" not in html
