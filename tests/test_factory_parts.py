"""The factory's small parts: what a verdict says of a row, the funnel, dialects, and translation by pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.prompt_cases import sample_row
from mr3.factory.config import TraceRules
from mr3.factory.dialects import SPEECH, PromptWriter
from mr3.factory.filters import TraceChecks, alignment, correctness, finding, right_of
from mr3.factory.funnel import Filter, check_funnel, table
from mr3.factory.prompting import Prompter
from mr3.factory.rows import Head, make_row, read_row, rendered
from mr3.factory.translate import assemble, chunks, language_name, lost_words, piece_reason
from mr3.families import FAMILIES, task_of_row
from mr3.inference.engine import Completion
from mr3.languages.registry import language as language_of
from mr3.parsing import parse
from mr3.prompts import OwnTexts as OwnLibrary
from mr3.prompts import Templates
from mr3.records import PAIRWISE_LABELS
from mr3.sources import Labelled, Texts
from mr3.sources.labelled import OwnTexts
from tests.prompts_support import write_templates

OK: dict[str, Any] = {"outcome": "ok", "score": "true", "explanation": "It is.", "trace": "1 + 1 = 2"}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, "right"),
        ({"score": "false"}, "wrong"),
        ({"outcome": "truncated", "score": None}, "truncated"),
        ({"outcome": "parse_failed", "score": None}, "parse_failed"),
        ({"explanation": None}, "no_explanation"),
        ({"trace": ""}, "no_explanation"),
    ],
)
def test_a_row_is_right_only_by_its_verdict(changes: dict[str, Any], found: str) -> None:
    assert finding({**OK, **changes}, "true") == found


def test_aligned_means_right_under_every_required_strategy() -> None:
    told = {"eng-eng": "right", "tgt-eng": "wrong", "tgt-tgt": "truncated"}
    assert correctness(told, ["tgt-eng", "eng-eng"]) is None and alignment(told, ["eng-eng"]) is None
    assert alignment(told, list(told)) == "tgt-eng: wrong"
    assert correctness(told, ["tgt-tgt", "tgt-eng"]) == "truncated"


def test_difficulty_counts_right_answers_and_knows_what_it_can_not_know() -> None:
    wrong, cut = {**OK, "score": "false"}, {"outcome": "truncated", "score": None}
    assert right_of([OK, wrong, cut, OK, wrong], "true") == 2
    assert right_of([OK, {"outcome": "engine_failed", "score": None}], "true") is None


def prose(code: str) -> str:
    return " ".join(language_of(code).long_texts().values())


def row_in(code: str, family: str | None = None) -> Head:
    return {
        "id": "r", "source": "s", "language": code, "mode": "binary", "family": family, "gold": "true",
        "labels": ["true", "false"],
    }  # fmt: skip


def answered(**traces: str) -> dict[str, list[dict[str, Any]]]:
    return {name.replace("_", "-"): [{**OK, "trace": trace}] for name, trace in traces.items()}


def test_traces_are_in_the_language_that_their_strategy_names() -> None:
    german, english = prose("de"), prose("en")
    checks = TraceChecks(TraceRules(), ["eng-eng", "tgt-tgt"])
    assert checks.fit(row_in("de"), answered(eng_eng=english, tgt_tgt=german), ["eng-eng", "tgt-tgt"])
    assert not checks.fit(row_in("de"), answered(eng_eng=english, tgt_tgt=english), ["eng-eng", "tgt-tgt"])
    assert not checks.fit(row_in("de"), answered(eng_eng=german, tgt_tgt=german), ["eng-eng", "tgt-tgt"])
    assert checks.fit(row_in("en", "mm-eval-lang-res"), answered(tgt_tgt=english), ["tgt-tgt"])
    language_filter, repetition = checks.filters()
    assert language_filter["dropped"] == [
        ["eng-eng: in another language", "de", "s", 1],
        ["tgt-tgt: in another language", "de", "s", 1],
    ]
    assert language_filter["details"]["dropped_share"] == 0.5 and repetition["details"]["dropped_share"] == 0.0
    counts = language_filter["details"]["traces"]["tgt-tgt"]
    assert (counts["in the language"], counts["in another language"]) == (3, 1)


def test_what_no_identifier_recognises_passes_and_is_counted_as_not_checked() -> None:
    checks = TraceChecks(TraceRules(), ["tgt-tgt"])
    for code, trace in (("tlh", prose("en")), ("de", "Kurz.")):
        assert checks.fit(row_in(code), answered(tgt_tgt=trace), ["tgt-tgt"])
    counts = checks.filters()[0]["details"]["traces"]["tgt-tgt"]
    assert {k: n for k, n in counts.items() if "checked" in k} == {
        "not checked: unknown_language": 1,
        "not checked: too_short": 1,
    }


def test_a_trace_that_runs_in_a_loop_goes_under_its_own_filter() -> None:
    loop = prose("en") + " I must check it again." * 200
    checks = TraceChecks(TraceRules(), ["eng-eng"])
    assert not checks.fit(row_in("de"), answered(eng_eng=loop), ["eng-eng"])
    language_filter, repetition = checks.filters()
    assert language_filter["dropped"] == [] and repetition["dropped"] == [["eng-eng: repeats itself", "de", "s", 1]]
    lax = TraceChecks(TraceRules(repeated=None), ["eng-eng"])
    assert lax.fit(row_in("de"), answered(eng_eng=loop), ["eng-eng"])
    assert TraceChecks(TraceRules(in_language=None), []).fit(row_in("de"), answered(tgt_tgt=prose("en")), ["tgt-tgt"])


def test_an_unfit_trace_of_a_strategy_that_is_not_required_is_not_taught() -> None:
    checks = TraceChecks(TraceRules(), ["eng-eng"])
    answers = answered(eng_eng=prose("en"), tgt_tgt=prose("en"), tgt_eng=prose("en") + " And again." * 400)
    assert checks.fit(row_in("de"), answers, ["eng-eng", "tgt-tgt", "tgt-eng"])
    assert {s: finding(v[0], "true") for s, v in answers.items()} == {
        "eng-eng": "right", "tgt-tgt": "no_explanation", "tgt-eng": "no_explanation",
    }  # fmt: skip


rows = st.lists(
    st.tuples(st.sampled_from(["en", "de"]), st.sampled_from(["a", "b"]), st.sampled_from(["", "wrong", "cut"]))
)


@given(rows)
def test_the_funnel_counts_every_row_once(given_rows: list[tuple[str, str, str]]) -> None:
    one, two = Filter("one"), Filter("two")
    for language, source, reason in given_rows:
        if reason:
            one.drop(reason, language, source)
        else:
            one.keep(language, source)
            two.keep(language, source)
    report = one.report()
    assert report["in"] == len(given_rows) == report["out"] + sum(report["dropped"].values())
    for by in ("languages", "sources"):
        assert sum(c["in"] for c in report[by].values()) == report["in"]
        assert sum(c["out"] for c in report[by].values()) == report["out"]
    assert Filter.read(one.as_json()) == one
    check_funnel([one, two])
    assert table([one, two]).count("\n") == 4


def test_a_row_that_is_lost_between_filters_is_noticed() -> None:
    one, two = Filter("one"), Filter("two")
    one.keep("en", "a", 3)
    two.keep("en", "a", 2)
    two.drop("wrong", "de", "a")
    with pytest.raises(AssertionError, match="between one and two"):
        check_funnel([one, two])


ANSWER = '{"explanation": "A is better.", "score": "Assistant A"}'
TRACE = "A is right. Is B?\nNo."


@pytest.mark.parametrize("dialect", ["qwen3", "plain"])
def test_targets_in_tags_are_what_the_parser_reads(dialect: Any) -> None:
    whole = SPEECH[dialect].target("", TRACE, ANSWER)
    assert whole.startswith("<think>\n")
    for text in (whole.removeprefix("<think>"), SPEECH[dialect].target("Ich denke auf Deutsch.", TRACE, ANSWER)):
        parsed = parse(text, PAIRWISE_LABELS, "stop")
        assert (parsed.score, parsed.trace, parsed.repaired) == ("Assistant A", TRACE, False)
        assert "<think>" not in text


@pytest.mark.parametrize("special", [True, False])
def test_harmony_is_read_with_and_without_its_special_tokens(special: bool) -> None:
    text = SPEECH["gpt-oss"].target("", TRACE, ANSWER)
    if not special:
        for token in ("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|return|>"):
            text = text.replace(token, "")
    parsed = parse(SPEECH["gpt-oss"].parser_text(text), PAIRWISE_LABELS, "stop")
    assert (parsed.score, parsed.trace) == ("Assistant A", TRACE)


def test_harmony_that_never_answers_has_no_score() -> None:
    text = SPEECH["gpt-oss"].parser_text(f"analysis{TRACE} {ANSWER}")
    assert parse(text, PAIRWISE_LABELS, "stop").score is None


def test_gpt_oss_is_chatgpt_and_reads_the_task_as_the_developers(tmp_path: Path) -> None:
    folder = write_templates(tmp_path)
    row = sample_row(FAMILIES["math500"], "qx")
    task = task_of_row(row, "math500", Templates.load(folder), "en")
    own = OwnTexts(rubric=task_of_row(row, "math500", Templates.load(folder), "qx").rubric)
    labelled = Labelled(source="s", gold="true", task=task, own=own)
    prompter = Prompter("mr3-train", Texts(name="published", templates_dir=folder), harmony=True)
    made = read_row(make_row(labelled, prompter, ["eng-eng", "tgt-eng", "tgt-tgt"]))
    write = PromptWriter(None, "gpt-oss", {"reasoning_effort": "high"}, "2025-08-28")
    texts = {s: write(rendered(made, s)) for s in ("eng-eng", "tgt-eng", "tgt-tgt")}
    for strategy, code in (("eng-eng", "en"), ("tgt-eng", "qx")):
        text = texts[strategy]
        assert text.startswith(
            "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: "
            "2024-06\nCurrent date: 2025-08-28\n\nReasoning: high\n\n# Valid channels: analysis, commentary, final. "
            f"Channel must be included for every message.<|end|><|start|>developer<|message|># [{code} Instruction]"
        )
        assert text.endswith("<|end|><|start|>assistant")
    forced = texts["tgt-tgt"]
    assert forced.startswith("<|start|>system<|message|>[qx teacher]<|end|><|start|>developer<|message|># [qx Inst")
    assert forced.endswith("<|start|>assistant<|channel|>analysis<|message|>[qx forcing]")
    assert all("identity" not in text for text in texts.values()), "that line is of the models that are trained"
    assert rendered(made, "tgt-tgt").system.startswith("[qx identity]\n\n# [qx Instruction]")


def test_own_texts_leave_gpt_oss_its_own_system_message() -> None:
    row = sample_row(FAMILIES["math500"], "de")
    task = task_of_row(row, "math500", OwnLibrary(), "en")
    prompter = Prompter("mr3-train", Texts(name="own"), harmony=True)
    made = read_row(make_row(Labelled(source="s", gold="true", task=task), prompter, ["tgt-tgt"]))
    text = PromptWriter(None, "gpt-oss", {}, "2025-08-28")(rendered(made, "tgt-tgt"))
    assert "You are ChatGPT" in text and "Reasoning: medium" in text and "mR3" not in text


def test_translators_get_names_of_languages() -> None:
    assert [language_name(c) for c in ("sw", "iw", "zh-Hant", "qq")] == [
        "Swahili", "Hebrew", "Chinese (Traditional)", "qq",
    ]  # fmt: skip


@given(st.text(alphabet="ab. \n!?。", max_size=200), st.integers(1, 60))
def test_pieces_joined_are_the_text_and_none_is_too_long(text: str, most: int) -> None:
    pieces = chunks(text, most)
    assert "".join(body + behind for body, behind in pieces) == text
    assert all(len(body) <= most for body, _ in pieces)


KEEP = ["Assistant", "Tie", "Both Bad", "true"]


def test_words_to_keep_are_missed_where_they_are_gone() -> None:
    assert lost_words("Assistant A ties.", "Assistant A 平局。", KEEP) == []
    assert lost_words("Assistant A or Tie", "助手 A 或平局", KEEP) == ["Assistant", "Tie"]
    assert lost_words("It is true", "这是true。", KEEP) == [], "letters of another script may stand beside it"


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ({"text": "Assistant A 更好"}, None),
        ({"text": "助手 A 更好"}, "lost_word"),
        ({"text": "  "}, "empty"),
        ({"text": "Assistant", "finish": "length"}, "truncated"),
        ({"finish": "timed_out"}, "timed_out"),
    ],
)
def test_why_a_piece_is_no_translation(completion: dict[str, Any], reason: str | None) -> None:
    assert piece_reason("Assistant A wins", Completion(id="1", **{"finish": "stop", **completion}), KEEP) == reason


def test_one_bad_piece_fails_the_row_and_nothing_is_patched() -> None:
    pieces = [("Assistant A", "\n"), ("good", ""), ("because", "")]
    good = [Completion(id=str(i), text=t, finish="stop") for i, t in enumerate(["Assistant A!", " bon ", "car"])]
    assert assemble(pieces, good, KEEP) == {"trace": "Assistant A!\nbon", "explanation": "car", "reason": None}
    bad = [good[0], Completion(id="1", finish="failed"), good[2]]
    assert assemble(pieces, bad, KEEP) == {"trace": None, "explanation": None, "reason": "failed"}
    assert assemble(pieces, None, KEEP)["trace"] == "Assistant A\ngood", "English stays as it is"
