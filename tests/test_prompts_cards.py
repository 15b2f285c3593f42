"""A judge's card opens the texts that it names; the published texts give the golden cases, byte for byte."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.prompt_cases import render_row, sample_row
from mr3.families import FAMILIES, task_of_row
from mr3.judge_card import JudgeCard, published_card
from mr3.judging.config import JudgeConfig
from mr3.prompts import Templates
from tests.prompts_support import write_templates


def test_a_published_judge_refuses_to_run_without_the_published_texts(tmp_path: Path) -> None:
    model = "rubricreward/mR3-Qwen3-4B-tgt-prompt-tgt-thinking"
    with pytest.raises(ValueError, match="templates_dir"):
        JudgeConfig(model=model).engine_config()
    config = JudgeConfig(model=model, templates_dir=write_templates(tmp_path))
    assert config.engine_config().max_model_len == 32_768
    card = config.absolute().card
    row = sample_row(FAMILIES["math500"], "qx")
    found = card.renderer()(task_of_row(row, "math500", Templates.load(tmp_path), "qx"))
    assert found.assistant_prefix == "<think>[qx forcing]"
    with pytest.raises(ValueError, match="says 'published'"):
        JudgeConfig(model=model, texts="own").engine_config()


def test_a_card_says_which_texts() -> None:
    with pytest.raises(ValueError, match="say `texts: own` or `texts: published`"):
        JudgeCard(profile="mr3-train", max_prompt_tokens=9, max_output_tokens=9)
    known = published_card("rubricreward/mR3-Qwen3-14B-en-prompt-en-thinking")
    assert known is not None and (known.texts, known.strategy, known.profile) == ("published", "eng-eng", "mr3-train")


def test_a_card_without_texts_on_disk_is_named_and_not_taken_for_no_card(tmp_path: Path) -> None:
    (tmp_path / "judge.json").write_text('{"profile": "mr3-train", "max_prompt_tokens": 9, "max_output_tokens": 9}')
    given = {"profile": "mr3-train", "texts": "own", "max_prompt_tokens": 9, "max_output_tokens": 9}
    for more in ({}, given):
        config = JudgeConfig.model_validate({"model": str(tmp_path), **more})
        with pytest.raises(ValueError, match=r"judge.json is no card .* say `texts: own`"):
            _ = config.card


def golden_cases() -> list[dict[str, Any]]:
    named = os.environ.get("MR3_GOLDEN")
    if not named or not os.environ.get("MR3_DATA"):
        pytest.skip("MR3_GOLDEN and MR3_DATA must name the golden cases and the published data")
    path = Path(named)
    cases: list[dict[str, Any]] = json.loads((path / "mr3-train.json" if path.is_dir() else path).read_text())
    return cases


def test_the_golden_cases_are_equal_byte_for_byte() -> None:
    cases = golden_cases()
    texts = Templates.load(Path(os.environ["MR3_DATA"]) / "mr3_rubrics")
    for case in cases:
        more = {"rubric_index": case["rubric_index"], "key_order": case["key_order"]}
        found = render_row(case["row"], case["family"], texts, case["strategy"], **more).model_dump()
        assert found == {key: case[key] for key in found}, (case["family"], case["language"], case["strategy"])
    assert len(cases) >= 159
