"""The profiles over a library of texts: their layouts, languages, and what data can not do to them."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.prompt_cases import published_families, sample_row
from mr3.families import FAMILIES, FamilyError, TextsMissing, family_of_row, task_of_row
from mr3.prompts import STRATEGIES, OwnTexts, Rendered, Templates, languages_of, neutralise, render
from mr3.records import Message, Strategy, Task
from mr3.rubrics import Rubric
from mr3.rubrics.entries import load_entries
from tests.prompts_support import made_up_language, write_templates

PAIR = {"Assistant A": "a is better", "Assistant B": "b is better"}
ORDER = (r"A: \[qx strict_pair general 1 Assistant A\]", r"B: \[qx strict_pair general 1 Assistant B\]")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates.load(write_templates(tmp_path_factory.mktemp("templates")))


def own_texts(unverified: bool = True) -> OwnTexts:
    """Own texts where `qx` is the language that no machine verified."""
    return OwnTexts(
        unverified,
        lambda code, verified: made_up_language("en" if verified and code == "qx" else code),
        made_up_language,
    )


def rendered(
    templates: Templates, family: str, row: dict[str, Any], strategy: Strategy = "eng-eng", **more: Any
) -> Rendered:
    said = languages_of(strategy, row["language"], FAMILIES[family_of_row(family, row)])
    return render(task_of_row(row, family, templates, said.prompt, **more), "mr3-train", strategy, templates)


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


# --- what data can not do ---------------------------------------------------------------------------------------------

TOKENS = (
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|channel|>", "<|{input}|>", "<｜begin▁of▁sentence｜>", "<think>",
    "</think>", "<tool_call>", "</tool_response>", "<s>", "</s>", "<pad>", "<start_of_turn>", "<end_of_turn>", "[INST]",
    "[/INST]", "<<SYS>>", "<</SYS>>", "[TOOL_CALLS]", "[gMASK]",
)  # fmt: skip
TURNS = ("<user>", "</user>", "<assistant>", "</assistant>", "<system>")
PIECES = ["<|", "|>", "im_end", "<", ">", "|", "¦", "think", "\n", "\u200b", "＜", "｜", "[", "]", "INST", "s"]
TRICKS = ["{input}", "{language}", "{0}", "{", "}", "%s", "$row", "# Assistant B", "    ", "\\1", "{response_1}"]
HIDDEN = ["\u200b", "\u00ad", "\u2060", "\ufeff", "\u200e", "\ufe0f", "\U000e0061"]


def wide(text: str) -> str:
    """In full-width forms."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def bare(text: str) -> str:
    """As a reader may take it: compatibility forms folded, and what shows nothing left out."""
    shown = "".join(c for c in text if unicodedata.category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f")
    return unicodedata.normalize("NFKC", shown)


@st.composite
def disguised(draw: st.DrawFn) -> str:
    """A token, plain, in full-width forms, or split by characters that show nothing."""
    token = draw(st.sampled_from(TOKENS))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(token)))
        token = token[:at] + wide(token[at:])
    for at in draw(st.lists(st.integers(1, len(token) - 1), max_size=3)):
        token = token[:at] + draw(st.sampled_from(HIDDEN)) + token[at:]
    return token


TEXT = st.lists(st.sampled_from(PIECES + TRICKS) | disguised() | st.text(max_size=6), max_size=12).map("".join)


def holds_a_token(text: str) -> bool:
    """By another way than the code under test: literal tokens in what a reader may take the text for."""
    return any(bare(token) in bare(text) for token in TOKENS) or bool(re.search(r"<\|[^\s<>|]{1,40}\|>", bare(text)))


@given(
    data=st.tuples(TEXT, TEXT, TEXT), turns=st.booleans(), profile=st.sampled_from(["mr3-train", "hf-card", "compact"])
)
def test_no_chat_token_comes_from_data(data: tuple[str, str, str], turns: bool, profile: str) -> None:
    task = Task(
        id="t",
        mode="pairwise",
        input=[Message(role="user", content=data[0])] if turns else data[0],
        responses=list(data[1:]),
        language="en",
        rubric=Rubric(
            levels={"Assistant A": data[0] or "a", "Assistant B": data[1] or "b"},
            criteria=[{"name": "c", "description": data[2] or "c"}],
        ),
        instruction=data[2],
        reference=data[1],
    )
    found = render(task, profile, "eng-eng", None if profile == "compact" else own_texts())
    assert not holds_a_token(found.system + "\n" + found.user)


@pytest.mark.parametrize("profile", ["mr3-train", "compact"])
@pytest.mark.parametrize("token", [*TOKENS, wide("<|im_end|>"), "<|im_\u200bend|>", "</th\u00adink>"])
def test_labels_and_levels_hold_no_token_either(profile: str, token: str) -> None:
    rubric = Rubric(levels={f"good{token}": f"It is{token}.", "bad": "It is not."})
    task = Task(id="t", mode="binary", input="IN", responses=["ONE"], language="en", rubric=rubric)
    found = render(task, profile, "eng-eng", None if profile == "compact" else own_texts())
    assert not holds_a_token(found.system) and "good" in found.system


@pytest.mark.parametrize("profile", ["mr3-train", "hf-card", "compact"])
@pytest.mark.parametrize("turn", [*TURNS, wide("</user>"), "</us\u200ber>", "</USER>"])
def test_a_turn_can_not_close_itself_or_open_another(profile: str, turn: str) -> None:
    task = Task(
        id="t",
        mode="pointwise",
        input=[Message(role="user", content=f"so\n{turn}\nno")],
        responses=[turn],
        language="en",
        rubric=Rubric(criteria=[{"name": "c", "description": "It is right."}]),
    )
    found = render(task, profile, "eng-eng", None if profile == "compact" else own_texts()).user
    assert bare(found).lower().count(bare(turn).lower()) == (1 + (bare(turn).lower() in ("<user>", "</user>")))
    assert turn in found, "what is no turn of a conversation keeps such tags"


@given(data=st.tuples(TEXT, TEXT, TEXT))
def test_data_go_in_once_and_otherwise_unchanged(data: tuple[str, str, str], templates: Templates) -> None:
    row = {"id": "r", "language": "en", "input": data[0], "response_1": data[1], "response_2": data[2]}
    found = rendered(templates, "strict-pair-general", row)
    shown = [neutralise(text) for text in data]
    assert found.user == (
        f"# en strict_pair input_tag\n    {shown[0]}\n\n    # Assistant A\n    {shown[1]}\n\n"
        f"    # Assistant B\n    {shown[2]}\n\n    # en strict_pair your_response_tag\n    "
    )
    assert found.system == rendered(templates, "strict-pair-general", {**row, "input": "x"}).system


@given(text=TEXT)
@example(text="<|{input}|>")
def test_neutralising_changes_tokens_only(text: str) -> None:
    again = neutralise(text)
    assert neutralise(again) == again and not holds_a_token(again)
    if not holds_a_token(text) and not re.search(r"[<\[].*[>\]]", bare(text), re.DOTALL):
        assert again == text
    letters = [[c for c in bare(x) if c not in "<>[]¦|"] for x in (text, again)]
    assert letters[0] == letters[1], "brackets apart, all that is shown of the data stays, in its order"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a <|im_end|> b", "a <¦im_end¦> b"),
        ("＜｜im_start｜＞user", "<¦im_start¦>user"),
        ("<|im_\u200bstart|>", "<¦im_\u200bstart¦>"),
        ("[INST]x[/INST]", "[¦INST¦]x[¦/INST¦]"),
        ("<<SYS>>", "<<¦SYS¦>>"),
        ("<|<|im_end|>|>", "<|<¦im_end¦>|>"),
        # Ordinary text, and what was typed to look like a neutralised token.
        *(
            (same, same)
            for same in ("<b>s</b>", "a[1] < b | c > d", "[Inst]", "<¦im_end¦>", "List<s1>", "<user>", "＜＞")
        ),
    ],
)
def test_what_the_judge_sees_of_a_token(text: str, shown: str) -> None:
    assert neutralise(text) == shown == neutralise(shown)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\v", "\f", "\x85", "\u2028", "\u2029", "\x1e"])
@pytest.mark.parametrize("lead", ["", "  ", "\u200b", "\u3000\u2060 ", "\ufeff"])
@pytest.mark.parametrize("mark", ["# ", "#\u200b", "＃ ", "#\u00a0"])
def test_compact_data_make_no_heading(end: str, lead: str, mark: str) -> None:
    text = f"one{end}{lead}{mark}Assistant B{end}two"
    task = Task(
        id="t",
        mode="pairwise",
        input=f"{lead}{mark}Input",
        responses=[text, "#hash ## sub a # b"],
        language="en",
        rubric=Rubric(criteria=[{"name": "c", "description": text}]),
        instruction=text,
    )
    found = render(task, "compact", "eng-eng")
    escaped = f"one{end}{lead}\\{mark}Assistant B{end}two"
    assert found.user.count(escaped) == 1 and found.system.count(escaped) == 2 and text not in found.user + found.system
    assert f"# Input\n{lead}\\{mark}Input\n# Assistant A\n" in found.user
    assert found.user.endswith("# Assistant B\n#hash ## sub a # b\n# Your Comparison by 1 criterion")


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
