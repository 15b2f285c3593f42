"""The profiles over a library of texts: their layouts, languages, and what data can not do to them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.prompt_cases import published_families, sample_row
from mr3.families import FAMILIES, FamilyError, TextsMissing, task_of_row
from mr3.prompts import STRATEGIES, Templates, languages_of, render
from mr3.records import Strategy, Task
from mr3.rubrics.entries import load_entries
from tests.prompts_support import made_up_language, own_texts, rendered, write_templates

PAIR = {"Assistant A": "a is better", "Assistant B": "b is better"}
ORDER = (r"A: \[qx strict_pair general 1 Assistant A\]", r"B: \[qx strict_pair general 1 Assistant B\]")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates.load(write_templates(tmp_path_factory.mktemp("templates")))


def test_a_strict_pair_is_laid_out_as_published(templates: Templates) -> None:
    found = rendered(templates, "reward-bench", sample_row(FAMILIES["strict-pair-general"]))
    assert found.system == (
        "[en identity]\n\n# [en Instruction]\n    [en strict_pair general description]\n\n"
        "    # en strict_pair evaluation_rubric_tag\n"
        "    Assistant A: [en strict_pair general 0 Assistant A]\nAssistant B: [en strict_pair general 0 Assistant B]"
        "\n\n\n    # en strict_pair response_format_tag\n\n"
        "    {'type': 'object', 'properties': {'explanation': {'type': 'string', 'description': "
        "'[en strict_pair explanation]'}, 'score': {'type': 'string', 'description': '[en strict_pair score]', "
        "'enum': ['Assistant A', 'Assistant B']}}, 'required': ['explanation', 'score']}"
    )
    assert found.user == (
        "# en strict_pair input_tag\n    IN\n\n    # Assistant A\n    ONE\n\n    # Assistant B\n    TWO\n\n"
        "    # en strict_pair your_response_tag\n    "
    )
    assert found.assistant_prefix == "<think>"


@pytest.mark.parametrize(
    ("family", "user"),
    [
        (
            "arena-single",
            "# qx lmarena input_tag\n        IN\n\n        # Assistant A\n        ONE\n\n        # Assistant B\n"
            "        TWO\n\n        # qx lmarena your_response_tag\n        ",
        ),
        (
            "arena-multi",
            "# Assistant A\n        <user>\nIN\n</user>\n<assistant>\nONE\n</assistant>\n\n        # Assistant B\n"
            "        <user>\nIN\n</user>\n<assistant>\nTWO\n</assistant>\n\n        # qx lmarena your_response_tag\n"
            "        ",
        ),
        (
            "helpsteer3",
            "# qx helpsteer3 input_tag\n    <user>\nIN\n</user>\n\n\n    # Response 1\n    ONE\n\n    # Response 2\n"
            "    TWO\n\n    # qx helpsteer3 your_response_tag\n    ",
        ),
        (
            "mcq",
            "# qx mcq input_tag\n    IN\n\n    # qx mcq part\n    A. ONE\nB. TWO\n\n"
            "    # qx mcq your_response_tag\n    ",
        ),
        (
            "math500",
            "# qx math500 input_tag\n    IN\n\n    # qx math500 part\n    ONE\n\n"
            "    # qx math500 your_response_tag\n    ",
        ),
        ("rtp-lx", "# qx rtp_lx input_tag\n    IN\n\n    # qx rtp_lx your_response_tag\n        "),
    ],
)
def test_every_shape_of_user_message(templates: Templates, family: str, user: str) -> None:
    assert rendered(templates, family, sample_row(FAMILIES[family], "qx"), "tgt-eng").user == user


@pytest.mark.parametrize(
    ("family", "before", "after"),
    [("math500", "\n        \n    # ", "\n\n\n    # "), ("polyguard-prompt", "\n\n    # ", "\n\n    # ")],
)
def test_the_gaps_around_the_rubric(templates: Templates, family: str, before: str, after: str) -> None:
    about = FAMILIES[family]
    system = rendered(templates, family, sample_row(about)).system
    assert f"description]{before}en {about.file} evaluation_rubric_tag\n" in system
    last = f"[en {about.file} {about.section} 0 false]"
    assert f"{last}{after}en {about.file} response_format_tag\n\n    {{" in system


def test_a_choice_has_no_rubric(templates: Templates) -> None:
    system = rendered(templates, "INCLUDE", sample_row(FAMILIES["mcq"])).system
    assert "[en mcq None description]\n\n    # en mcq response_format_tag\n\n    {" in system


@pytest.mark.parametrize("family", published_families(), ids=lambda f: f.name)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies_set_prompt_and_thinking_language(templates: Templates, family: Any, strategy: Strategy) -> None:
    found = rendered(templates, family.name, sample_row(family, "qx"), strategy)
    prompt = "qx" if strategy.startswith("tgt") and not family.english else "en"
    thinking = "qx" if strategy.startswith("tgt-tgt") and not family.english else "en"
    assert found.system.startswith(f"[{thinking} identity]\n\n# [{prompt} Instruction]\n")
    assert f"[{prompt} {family.file} {family.section} description]" in found.system
    assert f"{prompt} {family.file} your_response_tag" in found.user
    forced = f"[{thinking} forcing]" if strategy.startswith("tgt-tgt") else ""
    assert found.assistant_prefix == f"<think>{forced}"
    other = {"en": "qx", "qx": "en"}[prompt]
    assert f"[{other} {family.file}" not in found.system and f"{other} {family.file}" not in found.user


def test_language_resources_are_always_judged_in_english(templates: Templates) -> None:
    row = {**sample_row(FAMILIES["mm-eval-lang-res"], "qx"), "subset": "lang_res"}
    found = rendered(templates, "rubricreward/MM-Eval", row, "tgt-tgt")
    assert "[en strict_pair lang-consistency description]" in found.system
    assert found.assistant_prefix == "<think>[en forcing]"


def test_rubric_index_and_key_order(templates: Templates) -> None:
    row = sample_row(FAMILIES["strict-pair-general"], "qx")
    a, b = (re.search(p, rendered(templates, "strict-pair", row, "tgt-eng", rubric_index=4).system) for p in ORDER)
    assert a is not None and b is not None and a.start() < b.start()
    turned = rendered(templates, "strict-pair", row, "tgt-eng", rubric_index=1, key_order="reversed").system
    a, b = (re.search(p, turned) for p in ORDER)
    assert a is not None and b is not None and b.start() < a.start()
    scale = rendered(templates, "helpsteer3", sample_row(FAMILIES["helpsteer3"]), key_order="reversed").system
    assert scale.index("1: [en") < scale.index("7: [en")


def test_the_card_profile_is_flat_and_says_not_who_it_is(templates: Templates) -> None:
    task = task_of_row(sample_row(FAMILIES["helpsteer3"], "qx"), "helpsteer3", templates, "qx")
    found = render(task, "hf-card", "tgt-tgt", templates)
    assert "identity" not in found.system
    assert not re.search(r"^[ \t]", found.system + found.user, re.MULTILINE)
    assert found.system.startswith("# [qx Instruction]\n[qx helpsteer3 None description]\n\n# qx helpsteer3 evaluation")
    assert found.user == (
        "# qx helpsteer3 input_tag\n<user>\nIN\n</user>\n\n# Response 1\nONE\n\n# Response 2\nTWO\n\n"
        "# qx helpsteer3 your_response_tag\n"
    )
    assert found.assistant_prefix == "<think>[qx forcing]"


# --- own texts --------------------------------------------------------------------------------------------------------


def task_of(mode: str, **more: Any) -> Task:
    fields: dict[str, Any] = {
        "id": "t",
        "mode": mode,
        "input": "IN",
        "responses": ["ONE", "TWO", "THREE"][: {"pairwise": 2, "listwise": 3, "choice": 0}.get(mode, 1)],
        "rubric": {"criteria": [{"name": "right", "description": "It is right."}]},
        "language": "qx",
    }
    return Task.model_validate({**fields, **more})


@pytest.mark.parametrize("mode", ["pointwise", "pairwise", "binary"])
def test_own_texts_complete_a_rubric_of_criteria(mode: str) -> None:
    found = render(task_of(mode), "hf-card", "tgt-tgt", own_texts())
    levels = made_up_language("qx").templates.__dict__[mode].levels
    rubric = "\n".join(["1. It is right.", *(f"{label}: {text}" for label, text in levels.items())])
    assert f"# qx instruction\n[qx {mode} instruction]\n\n# qx rubric\n{rubric}\n\n# qx format\n" in found.system
    assert f"'enum': {list(levels)}" in found.system
    assert found.user.startswith("# qx input\nIN\n\n#") and found.user.endswith("\n\n# qx response\n")


def test_levels_conversation_and_reference_of_ones_own() -> None:
    levels = {"1": "bad", "2": "fair", "3": "good"}
    messages = [{"role": "user", "content": "IN"}, {"role": "assistant", "content": "so"}]
    task = task_of("pointwise", rubric={"levels": levels}, input=messages, reference="42")
    found = render(task, "hf-card", "tgt-eng", own_texts())
    assert "# qx rubric\n1: bad\n2: fair\n3: good\n" in found.system and "'enum': ['1', '2', '3']" in found.system
    assert found.user == (
        "# qx conversation\n<user>\nIN\n</user>\n<assistant>\nso\n</assistant>\n\n# qx reference\n42\n\n"
        "# Response\nONE\n\n# qx response\n"
    )


def test_a_list_is_ranked() -> None:
    found = render(task_of("listwise"), "mr3-train", "eng-eng", own_texts())
    assert "'enum': ['A > B > C', 'A > C > B'," in found.system
    assert "    # Assistant C\n    THREE\n" in found.user
    many = task_of("listwise", responses=["1", "2", "3", "4", "5"])
    (pattern,) = re.findall(r"'pattern': '(.+?)'", render(many, "mr3-train", "eng-eng", own_texts()).system)
    assert re.fullmatch(pattern, "E > A > C > B > D") and not re.fullmatch(pattern, "E > A")


def test_unverified_own_texts_instruct_in_english_unless_asked_for() -> None:
    found = render(task_of("pairwise"), "mr3-train", "tgt-tgt", own_texts(unverified=False))
    assert found.system.startswith("[qx identity]\n\n# en instruction\n    [en pairwise instruction]")
    assert found.assistant_prefix == "<think>[qx forcing]"
    asked = render(task_of("pairwise"), "mr3-train", "tgt-tgt", own_texts(unverified=True))
    assert asked.system.startswith("[qx identity]\n\n# qx instruction\n    [qx pairwise instruction]")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.name)
def test_own_texts_know_every_family(family: Any) -> None:
    texts = own_texts().family(family, "qx")
    assert texts.instruction and "  " not in texts.instruction
    if family.labels and family.mode != "choice":
        assert tuple(texts.rubrics[0]) == family.labels
    if family.file:
        task = task_of_row(sample_row(family, "qx"), family.name, own_texts(), "qx")
        assert render(task, "mr3-train", "tgt-eng", own_texts()).user


def test_own_strict_pairs_have_the_criteria_of_their_domain() -> None:
    task = task_of_row(sample_row(FAMILIES["strict-pair-safety"], "qx"), "strict-pair-safety", own_texts(), "qx")
    assert [c.name for c in task.rubric.criteria][:2] == ["safety", "helpfulness"]
    system = render(task, "hf-card", "tgt-eng", own_texts()).system
    assert system.index("1. A harmful request") < system.index("Assistant A: [qx pairwise Assistant A]")


def test_the_languages_own_texts_fill_in_for_no_one(templates: Templates) -> None:
    with pytest.raises(TextsMissing, match="no texts for language 'zz'") as caught:
        render(task_of("pairwise", language="zz"), "mr3-train", "tgt-eng", own_texts())
    assert (caught.value.family, caught.value.language) == ("pairwise", "zz")
    choice = task_of("choice", options="1. one", rubric={"levels": {"1": "one", "2": "two"}})
    with pytest.raises(TextsMissing, match="no published texts for mode choice with the scores 1, 2, only with A, B, "):
        render(choice, "mr3-train", "eng-eng", templates)


@pytest.mark.parametrize("profile", ["mr3-train", "hf-card"])
def test_every_library_rubric_renders_in_every_mode_over_published_texts(templates: Templates, profile: str) -> None:
    pairs = [(entry, mode) for entry in load_entries().values() for mode in entry.modes]
    assert len(pairs) >= 65
    for entry, mode in pairs:
        task = task_of(mode, rubric=entry.rubric, language="en")
        found = render(task, profile, "tgt-tgt", templates)
        assert found.system.startswith("[en identity]") == (profile == "mr3-train")
        assert "# [en Instruction]" in found.system and found.assistant_prefix == "<think>[en forcing]"
        wanted = [
            *(c.description for c in entry.rubric.criteria),
            *(f"{k}: {v}" for k, v in entry.rubric.levels.items()),
        ]
        assert all(text in found.system for text in wanted), (entry.id, mode)
        if mode != "listwise" or len(task.responses) <= 3:
            assert all(f"'{label}'" in found.system for label in task.labels), "the schema has the rubric's own scores"
        assert all(text in found.user for text in task.responses)


def test_the_general_layout_has_the_published_headings_of_its_instructions_language(tmp_path: Path) -> None:
    folder = write_templates(tmp_path)
    for verified, code in ((False, "qx"), (True, "en")):
        found = render(
            task_of("pointwise"), "hf-card", "tgt-eng", Templates(folder, own_texts(unverified=not verified))
        )
        assert f"# [{code} Instruction]\n[{code} pointwise instruction]" in found.system
        assert f"# {code} lmarena evaluation_rubric_tag\n1. It is right." in found.system
        assert found.user.startswith(f"# {code} lmarena input_tag\nIN") and "# Response\nONE" in found.user


def test_a_pair_on_helpsteers_scale_has_its_headings(templates: Templates) -> None:
    rubric = load_entries()["helpsteer"].rubric
    assert "# Response 1\n" in render(task_of("pairwise", rubric=rubric), "hf-card", "tgt-eng", templates).user


# --- errors -----------------------------------------------------------------------------------------------------------


def test_missing_templates_are_refused_with_the_way_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"git clone https://github\.com/rubricreward/mr3"):
        Templates.load(tmp_path)
    folder = write_templates(tmp_path / "t", zipped=True)
    (folder / "mcq_translated_templates.json.gz").unlink()
    texts = Templates.load(folder)
    assert texts.family(FAMILIES["mgsm"], "qx").language == "qx"
    with pytest.raises(ValueError, match=r"lacks mcq_translated_templates\.json"):
        texts.family(FAMILIES["mcq"], "en")
    (folder / "rtp_lx_translated_templates.json.gz").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"rtp_lx.*get the file again"):
        texts.family(FAMILIES["rtp-lx"], "en")


def test_a_damaged_template_is_named(tmp_path: Path) -> None:
    folder = write_templates(tmp_path)
    file = folder / "mgsm_translated_templates.json"
    data = json.loads(file.read_text())
    del data["qx"]["tags"]["math_solution"]
    file.write_text(json.dumps(data))
    with pytest.raises(TextsMissing, match=r"mgsm.*not whole for language 'qx'.*math_solution"):
        Templates.load(folder).family(FAMILIES["mgsm"], "qx")


def test_old_and_new_codes_of_a_language_find_each_other(tmp_path: Path) -> None:
    folder = write_templates(tmp_path)
    for file in folder.iterdir():
        data = json.loads(file.read_text())
        code = "iw" if file.name.startswith("lmarena") else "he"
        file.write_text(json.dumps({**data, code: data["qx"]}))
    found = rendered(Templates.load(folder), "arena", sample_row(FAMILIES["arena-single"], "he"), "tgt-tgt")
    assert "[qx lmarena singleturn_template description]" in found.system


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"mode": "pairwise", "family": "mcq"}, "is pairwise, but its family mcq is choice"),
        ({"mode": "pairwise", "family": "strict-pair-safty"}, "did you mean 'strict-pair-safety'"),
        ({"mode": "pairwise", "family": "strict-pair-safety"}, "needs a rubric with a description per score"),
        (
            {"mode": "pairwise", "family": "strict-pair-safety", "rubric": {"levels": {"1": "a", "2": "b"}}},
            "has the scores Assistant A, Assistant B, the task has 1, 2",
        ),
        ({"mode": "binary", "family": "rtp-lx", "rubric": {"levels": {"true": "a", "false": "b"}}}, "its input alone"),
        ({"mode": "choice", "rubric": {"absent": True}}, "no options"),
        (
            {"mode": "binary", "family": "mgsm"},
            r"needs a rubric .*: use one of the library that does \(.*math-solution.*\), or leave the family out",
        ),
        ({"mode": "pairwise", "reference": "42", "rubric": {"levels": PAIR}}, "know no reference answer"),
    ],
)
def test_a_task_that_does_not_fit_is_named(templates: Templates, task: dict[str, Any], message: str) -> None:
    with pytest.raises(FamilyError, match=message):
        render(task_of(**task), "mr3-train", "eng-eng", templates)


def test_profiles_and_strategies_are_named(templates: Templates) -> None:
    with pytest.raises(ValueError, match="unknown strategy 'eng-tgt'"):
        languages_of("eng-tgt", "de")
    with pytest.raises(ValueError, match="needs a library of texts"):
        render(task_of("pairwise"), "mr3-train")
    with pytest.raises(ValueError, match="knows only the strategy eng-eng"):
        render(task_of("pairwise"), "compact", "tgt-tgt")


def test_a_compact_prompt_does_not_depend_on_what_was_rendered_before() -> None:
    def shown(*sides: str) -> str:
        rubric = {"levels": {f"Assistant {side}": f"{side} is better" for side in sides}}
        row = {"id": "t", "mode": "pairwise", "input": "q", "responses": ["x", "y"], "language": "en", "rubric": rubric}
        return render(Task.model_validate(row), "compact").system

    down, up = shown("B", "A"), shown("A", "B")
    assert '"score": "Assistant B | Assistant A"' in down and '"score": "Assistant A | Assistant B"' in up
    assert up.index("A is better") < up.index("B is better")
