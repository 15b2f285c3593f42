"""Rows of the registered data sets become tasks of their family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.prompt_cases import published_families, sample_row
from mr3.families import FAMILIES, FamilyError, RowError, family_of_row, find_family, task_of_row
from mr3.judging.scale import label_values
from mr3.prompts import Templates
from mr3.records import Message
from tests.prompts_support import write_templates


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates.load(write_templates(tmp_path_factory.mktemp("templates")))


@pytest.mark.parametrize(
    ("source", "row", "family"),
    [
        ("rubricreward/arena-human-preference", {"conv_metadata": {"turns": 1}}, "arena-single"),
        ("rubricreward/arena-human-preference", {"conv_metadata": {"turns": 3}}, "arena-multi"),
        ("lmarena", {"conversation_a": [{"role": "user"}, {"role": "assistant"}]}, "arena-single"),
        ("rubricreward/m-reward-bench", {"source": "alpacaeval-length"}, "strict-pair-general"),
        ("rubricreward/m-reward-bench", {"source": "llmbar-adver-GPTOut"}, "strict-pair-general"),
        ("rubricreward/reward-bench", {"source": "donotanswer"}, "strict-pair-safety"),
        ("RewardBench", {"source": "refusals-offensive"}, "strict-pair-safety"),
        ("RewardBench", {"source": "xstest-should-refuse"}, "strict-pair-safety"),
        ("RewardBench", {"source": "hep-js"}, "strict-pair-code"),
        ("RewardBench", {"source": "math-prm"}, "strict-pair-math"),
        ("RewardBench", {"source": "never seen"}, "strict-pair-general"),
        ("rubricreward/MM-Eval", {"subset": "language mixing"}, "mm-eval-language-mixing"),
        ("rubricreward/MM-Eval", {"subset": "lang_res"}, "mm-eval-lang-res"),
        ("rubricreward/MM-Eval", {"subset": "linguistics"}, "mm-eval-linguistics"),
        ("davidanugraha/IndoPref", {"domain": "Creative Writing"}, "indopref-creative-writing"),
        ("rubricreward/PolyGuardMix", {"id": "7_prompt"}, "polyguard-prompt"),
        ("rubricreward/PolyGuardMix-filtered", {"id": "7_response"}, "polyguard-response"),
        ("rubricreward/MMMLU", {}, "mcq"),
        ("rubricreward/include-base-44", {}, "mcq"),
        ("rubricreward/MATH-500-Multilingual", {}, "math500"),
        ("rubricreward/HumanEval-XL-Python", {}, "humanevalxl"),
        ("rubricreward/HelpSteer3", {}, "helpsteer3"),
        ("rubricreward/mgsm", {}, "mgsm"),
        ("RTP_LX", {}, "rtp-lx"),
        ("strict-pair-open question", {"source": "hep-js"}, "strict-pair-open-question"),
    ],
)
def test_a_rows_family(source: str, row: dict[str, Any], family: str) -> None:
    assert family_of_row(source, {"id": "x", **row}) == family


def test_what_the_subsets_of_mm_eval_are_judged_by() -> None:
    assert FAMILIES["mm-eval-chat"].section == FAMILIES["mm-eval-language-mixing"].section == "general"
    assert FAMILIES["mm-eval-lang-res"].section == "lang-consistency" and FAMILIES["mm-eval-lang-res"].english
    assert not FAMILIES["strict-pair-lang-consistency"].english


@pytest.mark.parametrize("family", published_families(), ids=lambda f: f.name)
def test_every_published_family_takes_its_rows(templates: Templates, family: Any) -> None:
    task = task_of_row(sample_row(family, "qx"), family.name, templates, "qx")
    assert (task.mode, task.family, task.language) == (family.mode, family.name, "qx")
    assert set(task.labels) == set(family.labels)
    assert task.rubric.absent == (family.mode == "choice")
    assert task.rubric.language == ("en" if family.english else "qx")


def test_what_a_task_takes_from_its_row(templates: Templates) -> None:
    def made(name: str, **row: Any) -> Any:
        return task_of_row({**sample_row(FAMILIES[name]), **row}, name, templates, "en")

    assert made("helpsteer3").input == [Message(role="user", content="IN")]
    assert made("mcq").options == "A. ONE\nB. TWO" and made("mcq").responses == []
    assert made("mgsm", answer=18).responses == ["18"]
    assert made("polyguard-response").responses == []
    unanswered = {"conversation_b": [{"role": "user", "content": "IN"}, {"role": "assistant", "content": []}]}
    assert made("arena-single", **unanswered).responses == ["ONE", ""]
    assert made("arena-multi", **unanswered).responses[1] == "<user>\nIN\n</user>\n<assistant>\n\n</assistant>"


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("mcq", {"question": None}, "no text in column question"),
        ("mcq", {"id": None}, "no text in column id"),
        ("strict-pair", {"response_2": ["x"]}, "no text in column response_2"),
        ("helpsteer3", {"context": []}, "must be a list of messages"),
        ("helpsteer3", {"context": [{"content": "x"}]}, "has no role"),
        ("helpsteer3", {"context": [{"role": "tool", "content": "x"}]}, "role 'tool'"),
        ("arena-single", {"conversation_a": [{"role": "assistant", "content": "x"}]}, "begin with the user's prompt"),
        ("arena-single", {"conversation_a": [{"role": "user", "content": "other"}]}, "different prompts"),
        ("arena-single", {"conversation_a": [{"role": "user", "content": [{"image": 1}]}]}, "has no text"),
        ("arena-single", {"conv_metadata": {"turns": 2}}, "is of family arena-multi"),
        ("arena", {"conversation_a": None, "conv_metadata": None}, "neither conv_metadata.turns nor conversation_a"),
        ("mm-eval", {}, "has no subset"),
        ("pointwise", {}, "no data set of the registry"),
    ],
)
def test_a_bad_row_is_named(templates: Templates, family: str, change: dict[str, Any], message: str) -> None:
    known = {"arena": "arena-single", "strict-pair": "strict-pair-math", "mm-eval": "mm-eval-chat"}
    row = {**sample_row(FAMILIES[known.get(family, family)]), **change}
    with pytest.raises(RowError, match=message) as caught:
        task_of_row(row, family, templates, "en")
    assert caught.value.family


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(FamilyError, match="did you mean 'humanevalxl'"):
        find_family("humanevalx")
    with pytest.raises(FamilyError, match="unknown task family 'mm-eval-sport'"):
        family_of_row("rubricreward/MM-Eval", {"id": "1", "subset": "sport"})


def test_true_counts_for_true_in_either_order() -> None:
    assert dict(label_values(("false", "true"), "binary")) == {"false": 0.0, "true": 1.0}
    assert dict(label_values(("yes", "no"), "binary")) == {"yes": 1.0, "no": 0.0}


def test_tasks_survive_their_json(templates: Templates) -> None:
    """Evaluation sets keep tasks as JSON: the order of the rubric's keys is part of the prompt."""
    task = task_of_row(sample_row(FAMILIES["rtp-lx"]), "rtp-lx", templates, "en", key_order="reversed")
    assert list(task.rubric.levels) == ["false", "true"]
    again = type(task).model_validate_json(task.model_dump_json())
    assert list(again.rubric.levels) == ["false", "true"] and again == task


def test_templates_are_read_when_they_are_needed(tmp_path: Path) -> None:
    folder = write_templates(tmp_path)
    (folder / "lmarena_translated_templates.json").write_text("not JSON")
    task_of_row(sample_row(FAMILIES["mgsm"]), "mgsm", Templates.load(folder), "en")
