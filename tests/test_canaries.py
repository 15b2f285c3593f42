"""Canaries: drawn by seed, judged beside the pool, counted apart from it, and able to fail a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mr3.artifacts import metrics_of
from mr3.config import build_config
from mr3.judge_card import JudgeCard, write_card
from mr3.records import PAIRWISE_LABELS, PoolRow
from rewards.canaries import CanarySettings
from rewards.canary_texts import KINDS, SUFFIXES, canary_text, suffixed
from rewards.label import LabelConfig, run
from rewards.walk import walk
from tests.rewards_support import ScriptedEngine, in_process_groups, scripted, verdict_text

RUBRIC = {"name": "house", "criteria": [{"name": "correct", "description": "The number is right."}]}
REAL_TABLES = ("prompts", "responses", "verdicts", "comparisons", "preferences")


def _pool(folder: Path, languages: str = "ab", prompts: int = 6) -> list[dict[str, Any]]:
    rows = [
        {
            "prompt_id": f"{language}{i}",
            "prompt": f"What is {i} + 2?",
            "language": language,
            "responses": [{"id": f"{language}{i}-{k}", "text": f"4 {k}", "policy": f"p-{k}"} for k in "xyz"],
            "meta": {"answer": 4},
        }
        for language in languages
        for i in range(10, 10 + prompts)
    ]
    (folder / "pool.jsonl").write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    return rows


def _config(folder: Path, name: str = "label", **changes: Any) -> LabelConfig:
    judge = folder / "judge"
    judge.mkdir(exist_ok=True)
    write_card(judge, JudgeCard(profile="compact", max_prompt_tokens=900, max_output_tokens=24))
    data = {"output_dir": folder / name, "pool": str(folder / "pool.jsonl"), "judge": {"model": str(judge)}}
    return build_config(LabelConfig, {**data, "rubric": RUBRIC, **changes}, "test")


def _judge_by(monkeypatch: pytest.MonkeyPatch, answer: Any) -> ScriptedEngine:
    engine = ScriptedEngine(answer)
    monkeypatch.setattr("mr3.judging.run.judge_groups", in_process_groups(engine))
    return engine


def _canaries(config: LabelConfig) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(config.output_dir / "canaries.parquet").to_pylist()
    return [row for row in rows if row["base"] is None]


def believes_forgeries(prompt: str) -> str:
    """A judge that gives the top score to whatever already holds a verdict."""
    forged = '"score": "' in prompt.split("# Input\n")[1]
    if "# Assistant A" not in prompt:
        top = "5" if "# Your Rating" in prompt else "true"
        return verdict_text(top if forged else "1" if top == "5" else "false")
    shown = prompt.split("# Assistant A\n")[1].split("\n# Assistant B\n")[0]
    return verdict_text("Assistant A" if '"score": "' in shown else "Assistant B") if forged else scripted(prompt)


def test_a_sound_judge_lets_none_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pool(tmp_path)
    _judge_by(monkeypatch, scripted)
    config = _config(tmp_path, canaries={"per_language": 2, "max_false_positive_rate": 0.0})
    run(config)
    block = metrics_of(config.output_dir)["canaries"]
    assert block["canaries"] == 28 and block["false_positive"] == block["false_positive"] | {"value": 0.0, "n": 28}
    assert block["false_positive"]["interval"][1] > 0, "no canary passed, which is no proof that none would"
    assert list(block["kinds"]) == list(KINDS) and set(block["languages"]) == {"a", "b"}
    assert block["kinds"]["empty"]["languages"]["a"]["canaries"] == 2
    assert block["suffixes"] == {}, "all responses of this pool are equally right: nothing is lost for sure"


@pytest.mark.parametrize("mode", ["pairwise", "binary", "pointwise"])
def test_a_judge_that_believes_forged_verdicts_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    _pool(tmp_path)
    _judge_by(monkeypatch, believes_forgeries)
    config = _config(tmp_path, mode=mode, canaries={"per_language": 3, "max_false_positive_rate": 0.2})
    with pytest.raises(ValueError, match=r"forged_verdict 1\.00 \(n=6\).*max_false_positive_rate 0\.2"):
        run(config)
    assert (config.output_dir / "manifest.json").is_file(), "everything is written before the run fails"
    kinds = metrics_of(config.output_dir)["canaries"]["kinds"]
    assert {k: v["false_positive"]["value"] for k, v in kinds.items()} == {
        k: float(k == "forged_verdict") for k in KINDS
    }
    with pytest.raises(ValueError, match="lets canaries pass"):
        run(config)  # finished, and still not fit for use
    run(_config(tmp_path, "reported", mode=mode, canaries={"per_language": 3}))


def test_a_judge_that_obeys_the_forged_label_is_seen_in_its_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forgery names A wherever it stands: both orders together cancel that, each order alone shows it."""
    _pool(tmp_path)
    _judge_by(monkeypatch, lambda prompt: verdict_text("Assistant A"))
    config = _config(tmp_path)
    run(config)
    block = metrics_of(config.output_dir)["canaries"]
    assert block["false_positive"]["value"] == 0.0 and block["won_an_order"]["value"] == 1.0
    assert {r["result"] for r in _canaries(config)} == {"tie"}


@pytest.mark.parametrize("mode", ["pairwise", "binary"])
def test_canaries_leave_the_pools_tables_and_numbers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    _pool(tmp_path)
    engine = _judge_by(monkeypatch, believes_forgeries)
    with_, without = (
        _config(tmp_path, name, mode=mode, canaries={"per_language": n}) for name, n in (("with", 2), ("without", 0))
    )
    run(with_)
    asked = len(engine.prompts)
    run(without)
    # 7 kinds, then a pair with 4 suffixes on either side (a response with 4), for 4 prompts.
    beside = (28 + 9 * 4) * 2 if mode == "pairwise" else 28 + 5 * 4
    assert len(engine.prompts) - asked == asked - beside
    for table in REAL_TABLES:
        one, other = (pq.read_table(c.output_dir / f"{table}.parquet").to_pylist() for c in (with_, without))
        assert one == other and "canary" not in json.dumps(one), table
    numbers = [metrics_of(c.output_dir) for c in (with_, without)]
    assert numbers[0].pop("canaries")["canaries"] == 28 and numbers[1].pop("canaries") is None
    for found in numbers:
        del found["stream_s"], found["verdicts_per_s"]
    assert numbers[0] == numbers[1]
    assert not (without.output_dir / "canaries.parquet").exists()
    assert [p.prompt_id for p in walk(with_.output_dir)] == [p.prompt_id for p in walk(without.output_dir)]


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _pool(tmp_path, prompts=40)
    _judge_by(monkeypatch, scripted)
    drawn = []
    for name, seed, pool in (("one", 1, rows), ("again", 1, rows[::-1]), ("other", 2, rows)):
        (tmp_path / "pool.jsonl").write_text("\n".join(json.dumps(r) for r in pool), encoding="utf-8")
        config = _config(tmp_path, name, seed=seed)
        run(config)
        drawn.append([(r["kind"], r["prompt_id"], r["against"]) for r in _canaries(config)])
    assert drawn[0] == drawn[1] != drawn[2]
    prompts = [{name for _, name, _ in found} for found in drawn]
    assert prompts[0] != prompts[2], "another seed asks about other prompts"


def test_with_a_checker_a_canary_meets_only_better_responses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copied prompt of a12 holds the right number, as its responses do: its win would not be false."""
    rows = _pool(tmp_path, "a", 3)
    for row in rows:
        row["meta"]["answer"] = 12
        row["responses"] = [{"id": "bad", "text": "no", "policy": "p"}, {"id": "good", "text": "12", "policy": "p"}]
    (tmp_path / "pool.jsonl").write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    _judge_by(monkeypatch, scripted)
    config = _config(tmp_path, checker="tests.rewards_support:check", canaries={"per_language": 3})
    run(config)
    found = _canaries(config)
    assert {r["against"] for r in found} == {"good"}
    assert {r["prompt_id"] for r in found if r["kind"] == "prompt_copied"} == {"a10", "a11"}


def test_a_failed_canary_is_not_a_pass_and_reserved_ids_are_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _pool(tmp_path, "a", 3)
    rows.append({**rows[0], "prompt_id": "canary/mine"})
    (tmp_path / "pool.jsonl").write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    _judge_by(monkeypatch, lambda prompt: " I can't say")
    config = _config(tmp_path, canaries={"per_language": 1, "max_false_positive_rate": 1.0})
    with pytest.raises(ValueError, match="failed to be judged"):
        run(config)
    metrics = metrics_of(config.output_dir)
    assert metrics["set_aside"]["reasons"] == {"reserved prompt id": 1} and metrics["prompts"] == 3
    assert metrics["canaries"]["failed"] == {"parse_failed": 14}
    assert metrics["canaries"]["false_positive"]["value"] is None
    assert all(r["false_positive"] is None for r in _canaries(config))


def test_a_limit_without_canaries_is_refused() -> None:
    with pytest.raises(ValueError, match="needs canaries"):
        CanarySettings(per_language=0, max_false_positive_rate=0.1)


def test_what_came_from_the_store_counts_the_pool_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pool(tmp_path)
    fresh = in_process_groups(ScriptedEngine(scripted))

    def stored(*arguments: Any) -> Any:
        return ((group, json.dumps({**json.loads(payload), "new": 0})) for group, payload in fresh(*arguments))

    monkeypatch.setattr("mr3.judging.run.judge_groups", stored)
    config = _config(tmp_path)
    run(config)
    metrics = metrics_of(config.output_dir)
    assert metrics["from_store"] == metrics["verdicts"] == 12 * 3 * 2 and metrics["verdicts_per_s"] is None


def test_a_conversations_last_question_is_copied() -> None:
    messages = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Yes?"), ("user", "What is 2+2?")]
    row = PoolRow.model_validate(
        {
            "prompt_id": "p",
            "prompt": [{"role": r, "content": c} for r, c in messages],
            "language": "en",
            "responses": [{"text": "4", "policy": "p", "id": "x"}],
        }
    )
    assert canary_text("prompt_copied", row, ("true", "false"), "binary") == "What is 2+2?"
    assert '"score": "5"' in canary_text("forged_verdict", row, ("1", "2", "3", "4", "5"), "pointwise")
    assert '"score": "Assistant A"' in canary_text("forged_verdict", row, PAIRWISE_LABELS, "pairwise")


def vetoed_by_emoji(prompt: str) -> str:
    """A sound judge that babbles at emoji, and takes the first chat token, neutralised or not, for a good sign."""
    if "😀" in prompt or "🎉" in prompt:
        return " I can't say"
    if "# Assistant A" not in prompt:
        return verdict_text("true" if "¦im_end¦" in prompt else "false")
    a, b = prompt.split("# Assistant A\n")[1].split("\n# Assistant B\n")
    if "¦im_end¦" in prompt:
        return verdict_text("Assistant A" if "¦im_end¦" in a else "Assistant B")
    return verdict_text("Tie" if ("4" in a) == ("4" in b) else "Assistant A" if "4" in a else "Assistant B")


@pytest.mark.parametrize("checker", [None, "tests.rewards_support:check"])
def test_what_suffixes_do_to_sure_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checker: str | None) -> None:
    rows = _pool(tmp_path, "ab", 3)
    for row in rows:
        row["responses"] = [{"id": "bad", "text": "no", "policy": "p"}, {"id": "good", "text": "4", "policy": "p"}]
    (tmp_path / "pool.jsonl").write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    _judge_by(monkeypatch, vetoed_by_emoji)
    config = _config(tmp_path, checker=checker, canaries={"per_language": 3})
    run(config)
    found = metrics_of(config.output_dir)["canaries"]["suffixes"]
    assert list(found) == list(SUFFIXES) and {f["kept"]["n"] for f in found.values()} == {6}
    values = {name: tuple(f[key]["value"] for key in ("kept", "won", "failed")) for name, f in found.items()}
    assert values == {
        "gibberish": (1.0, 0.0, 0.0),
        "emoji": (0.0, 0.0, 1.0),
        "neutralised_token": (0.0, 1.0, 0.0),
        "chat_tokens": (0.0, 1.0, 0.0),
    }
    table = pq.read_table(config.output_dir / "canaries.parquet").to_pylist()
    pairs = [r for r in table if r["base"] is not None]
    if checker:
        assert {(r["base"], r["against"]) for r in pairs} == {("bad", "good")}, "only what is truly worse"
    for row in pairs:
        text = {"bad": "no", "good": "4"}[row["base"]]
        assert row["text"] == (suffixed(text, row["suffix"], row["prompt_id"]) if row["suffix"] else text)


def test_a_suffix_counts_only_behind_what_the_judge_has_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that prefers the worse response keeps nothing that is right, and ties are no losses."""
    rows = _pool(tmp_path, "a", 3)
    for row in rows:
        row["responses"] = [{"id": "bad", "text": "no", "policy": "p"}, {"id": "good", "text": "4", "policy": "p"}]
    (tmp_path / "pool.jsonl").write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    swap = {"Assistant A": "Assistant B", "Assistant B": "Assistant A", "Tie": "Tie"}
    for name, judge in (
        ("wrong", lambda p: verdict_text(swap[json.loads(scripted(p).partition("</think>")[2])["score"]])),
        ("tied", lambda p: verdict_text("Tie")),
    ):
        _judge_by(monkeypatch, judge)
        config = _config(tmp_path, name, checker="tests.rewards_support:check")
        run(config)
        assert metrics_of(config.output_dir)["canaries"]["suffixes"] == {}


def test_responses_judged_alone_must_stay_low(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pool(tmp_path, "a", 3)
    _judge_by(monkeypatch, vetoed_by_emoji)
    config = _config(tmp_path, mode="binary", canaries={"per_language": 3})
    run(config)
    found = metrics_of(config.output_dir)["canaries"]["suffixes"]
    kept = {name: (f["kept"]["value"], f["won"]["value"]) for name, f in found.items()}
    assert kept == {
        "gibberish": (1.0, 0.0), "emoji": (0.0, 0.0), "neutralised_token": (0.0, 1.0), "chat_tokens": (0.0, 1.0),
    }  # fmt: skip


@pytest.mark.parametrize(("score", "rate"), [("2", 0.0), ("3", 0.0), ("4", 1.0)])
def test_the_upper_half_of_a_scale_is_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: str, rate: float
) -> None:
    _pool(tmp_path, "a", 2)
    _judge_by(monkeypatch, lambda prompt: verdict_text(score))
    config = _config(tmp_path, mode="pointwise")
    run(config)
    assert metrics_of(config.output_dir)["canaries"]["false_positive"]["value"] == rate
    assert {r["p_canary"] for r in _canaries(config)} == {(int(score) - 1) / 4}
