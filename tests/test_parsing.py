"""The parser: strict on meaning, lenient on form, and never a score from anything but the one closed final object."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.parsing import parse
from mr3.parsing.keys import MEANINGS
from mr3.records import BINARY_LABELS, CHOICE_LABELS, PAIRWISE_LABELS, POINTWISE_LABELS, Outcome, ranking_labels

ARENA = ("Assistant A", "Assistant B", "Tie", "Both Bad")
LABEL_SETS = [PAIRWISE_LABELS, BINARY_LABELS, POINTWISE_LABELS, CHOICE_LABELS, ARENA, ranking_labels(3)]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
open_traces = texts.filter(lambda t: "</think>" not in t)
label_cases = st.sampled_from(LABEL_SETS).flatmap(lambda labels: st.tuples(st.just(labels), st.sampled_from(labels)))


def answer(score: object, explanation: object = "because") -> str:
    return json.dumps({"explanation": explanation, "score": score}, ensure_ascii=False)


def after_trace(text: str) -> str:
    return f"\nfirst this, then that\n</think>\n\n{text}"


@settings(deadline=None)
@given(trace=open_traces, explanation=texts, case=label_cases)
def test_a_clean_answer_is_read_as_it_is(trace: str, explanation: str, case: tuple[tuple[str, ...], str]) -> None:
    labels, score = case
    parsed = parse(f"{trace}</think>\n\n{answer(score, explanation)}", labels, "stop")
    assert (parsed.outcome, parsed.score, parsed.repaired) == (Outcome.OK, score, False)
    assert parsed.explanation == explanation
    assert parsed.trace == trace.strip()


@settings(deadline=None)
@given(text=texts, labels=st.sampled_from(LABEL_SETS), finish=st.sampled_from(["stop", "length", "too_long", "failed"]))
def test_any_text_gives_an_outcome_and_a_score_only_when_ok(text: str, labels: tuple[str, ...], finish: str) -> None:
    for whole in (text, after_trace(text), after_trace("{" + text + "}"), after_trace(answer(text))):
        parsed = parse(whole, labels, finish)
        assert (parsed.score in labels) == (parsed.outcome is Outcome.OK)
        assert (parsed.reason is None) == (parsed.outcome is Outcome.OK)
        assert finish == "stop" or parsed.score is None


@settings(deadline=None)
@given(quoted=label_cases, case=label_cases, trace=open_traces)
def test_a_verdict_in_the_trace_or_in_the_explanation_decides_nothing(
    quoted: tuple[tuple[str, ...], str], case: tuple[tuple[str, ...], str], trace: str
) -> None:
    labels, score = case
    bait = f'{trace} [[A]] score: 2 {answer(quoted[1])} "score": "{quoted[1]}"'
    parsed = parse(f"{bait}</think>{answer(score, bait)}", labels, "stop")
    assert (parsed.outcome, parsed.score) == (Outcome.OK, score)
    only_bait = parse(f"{bait}</think>I can't decide.", labels, "stop")
    assert only_bait.outcome is Outcome.PARSE_FAILED
    unclosed = parse(f"{bait}{answer(score)}", labels, "stop")
    assert unclosed.outcome is Outcome.PARSE_FAILED


@settings(deadline=None)
@given(case=label_cases, data=st.data())
def test_a_cut_answer_never_becomes_a_score(case: tuple[tuple[str, ...], str], data: st.DataObject) -> None:
    labels, score = case
    whole = after_trace(answer(score, 'so "score": "2" it is'))
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert parse(whole[:cut], labels, "length").outcome is Outcome.TRUNCATED
    assert parse(whole, labels, "length").outcome is Outcome.TRUNCATED
    assert parse(whole[:cut], labels, "stop").outcome is Outcome.PARSE_FAILED


@pytest.mark.parametrize(
    "score",
    ["4.", "**4**", " 4 ", "４", "٤", "४", "[4]", "4。", "**4.**", "4.0", "\u200f4", "\u20674\u2069", 4, 4.0],
    ids=lambda s: f"{type(s).__name__}:{s}",
)
def test_decorated_and_foreign_digits_are_repaired(score: object) -> None:
    parsed = parse(after_trace(answer(score)), POINTWISE_LABELS, "stop")
    assert (parsed.outcome, parsed.score, parsed.repaired) == (Outcome.OK, "4", True)


@pytest.mark.parametrize(
    ("score", "labels", "label"),
    [
        ("A>B>C", ranking_labels(3), "A > B > C"),
        ("Assistant C > Assistant A > Assistant B", ranking_labels(3), "C > A > B"),
        ("Response 2 > Response 1", ranking_labels(2), "B > A"),
        ("**b ＞ a**", ranking_labels(2), "B > A"),
        ("(B)", CHOICE_LABELS, "B"),
        ("B.", CHOICE_LABELS, "B"),
        ("b", CHOICE_LABELS, "B"),
        ("[[A]]", CHOICE_LABELS, "A"),
        ("both  bad.", ARENA, "Both Bad"),
        (True, BINARY_LABELS, "true"),
        ("False", BINARY_LABELS, "false"),
        (7, tuple("1234567"), "7"),
    ],
)
def test_other_spellings_of_a_label_are_repaired(score: object, labels: tuple[str, ...], label: str) -> None:
    parsed = parse(after_trace(answer(score)), labels, "stop")
    assert (parsed.outcome, parsed.score, parsed.repaired) == (Outcome.OK, label, True)


@pytest.mark.parametrize(
    ("score", "labels"),
    [
        ("2 > 1", ranking_labels(2)),  # an order of names, or two scores: nobody can tell
        ("A > B", ranking_labels(3)),
        ("A > B = C", ranking_labels(3)),
        ("A > A > B", ranking_labels(3)),
        ("C < B < A", ranking_labels(3)),
        ("A, B, C", ranking_labels(3)),
        ("B. Paris", CHOICE_LABELS),
        ("A or B", CHOICE_LABELS),
        ("А", CHOICE_LABELS),  # a Cyrillic letter
        ("Assistant А", PAIRWISE_LABELS),  # the same
        ("Assis\u200btant A", PAIRWISE_LABELS),
        ("\u202eAssistant A", PAIRWISE_LABELS),
        ("A", PAIRWISE_LABELS),
        ("yes", BINARY_LABELS),
        (1, BINARY_LABELS),
        ("4²", tuple(map(str, range(1, 101)))),
        ("a", ("A", "a.")),  # two labels with one plain form
    ],
)
def test_what_is_nearly_a_label_is_off_the_scale(score: object, labels: tuple[str, ...]) -> None:
    assert parse(after_trace(answer(score)), labels, "stop").outcome is Outcome.OFF_SCALE


@pytest.mark.parametrize("number", ["4.0000000000000000001", "4e0", "NaN", "-Infinity", "9" * 5000])
def test_a_json_number_is_read_as_written_never_rounded(number: str) -> None:
    text = f'{{"explanation": "x", "score": {number}}}'
    assert parse(after_trace(text), POINTWISE_LABELS, "stop").outcome is Outcome.OFF_SCALE


@pytest.mark.parametrize("word", sorted(word for word, name in MEANINGS.items() if name == "score"))
def test_a_translated_key_is_read_once_and_beside_the_english_one_refused(word: str) -> None:
    alone = parse(after_trace(json.dumps({"explanation": "x", word: "4"})), POINTWISE_LABELS, "stop")
    assert (alone.score, alone.repaired) == ("4", word != "score")
    beside = parse(after_trace(f'{{"score": "4", {json.dumps(word)}: "4"}}'), POINTWISE_LABELS, "stop")
    assert beside.outcome is Outcome.PARSE_FAILED


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"explanation": "x", "score": "Tie"}\n```',
        'Here it is: {"explanation": "x", "score": "Tie"}',
        '{"explanation": "x", "score": "Tie",}',
        "{'explanation': 'x', 'score': 'Tie'}",
        '{"explanation": "x\n\ty", "score": "Tie"}',
        '{"explanation": "the "foo" is bar", "score": "Tie"}',
        '{"설명": "x", "점수": "Tie"}',
        '{"explanation": "x", "スコア": "Tie"}',
        '{"score": "Tie"}',
        '{"explanation": "x", "score": "tie", "confidence": 0.3}',
        '{"explanation": "x", "score": "Tie"}<|im_end|>\n',
    ],
)
def test_slips_of_form_are_repaired_and_marked(text: str) -> None:
    parsed = parse(after_trace(text), PAIRWISE_LABELS, "stop")
    assert (parsed.outcome, parsed.score, parsed.repaired) == (Outcome.OK, "Tie", True)


@pytest.mark.parametrize(
    "score", ["8/10", ":", "", "6", "4.5", "-1", ".5", "Assistant", "I can't judge this", True, 1e400]
)
def test_a_score_off_the_scale_is_named_not_guessed(score: object) -> None:
    parsed = parse(after_trace(answer(score)), POINTWISE_LABELS, "stop")
    assert (parsed.outcome, parsed.score) == (Outcome.OFF_SCALE, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "{}",
        "[RESULT] 4",
        '{"explanation": "x"}',
        '{"explanation": "x", "score": null}',
        '{"explanation": "x", "score": ["4"]}',
        '{"explanation": "x", "score": "4", "score": "5"}',
        "{'explanation': 'x', 'score': '4', 'score': '5'}",
        '{"score": "4", "점수": "5"}',
        '{"explanation": "x", "score": "4"} or {"explanation": "x", "score": "5"}',
        '{"explanation": "the "score": "5" is", "score": "4"}',
        '{"explanation": "x", "score": "4"} no wait, 5',
        '{"verdict": {"explanation": "x", "score": "4"}}',
        '{"explanation": "x", "score": "4"',
        '</think>{"explanation": "x", "score": "4"}</think>',
        'hm </think> {"explanation": "x", "score": "4"}',
        '<think> hm {"explanation": "x", "score": "4"}',
        '{"explanation": "x", "score": "4", "sc\\u006fre": "4"}',
        '{"explanation": "x", "score": "4", "scоre": "5"}',  # a Cyrillic letter
        '{"explanation": "x", "sc\u200bore": "4"}',
        '{"explanation": {"score": "5"}, "score": "4"}',
        '{"explanation": "x", "score": "4", "parts": [{"score": "5"}]}',
        '{"explanation": "x", "score": "4", "a": {"b": "1", "b": "2"}}',
        '{"explanation": "x", "score": "4", "final_score": "5"}',
        '{"explanation": "x", "score": "4" "5"}',
        '{"explanation": "x", "score": 0x4}',
        '{"explanation": "x", "점수": "5"} {"explanation": "y", "score": "4"}',
        '["4"]',
        "{1:" + "-" * 50_000 + "1}",
        "{" * 50_000 + "}" * 50_000,
    ],
)
def test_what_is_ambiguous_unclosed_or_missing_fails(text: str) -> None:
    parsed = parse(after_trace(text), POINTWISE_LABELS, "stop")
    assert (parsed.outcome, parsed.score) == (Outcome.PARSE_FAILED, None)


@pytest.mark.parametrize(
    ("front", "score", "labels"),
    [
        ("Score: 2. Final: ", "3", POINTWISE_LABELS),
        ("Verdict: Assistant A ", "Assistant B", PAIRWISE_LABELS),
        ("Assistant A is better. ", "Assistant B", PAIRWISE_LABELS),
        ("A is better. ", "Assistant B", PAIRWISE_LABELS),
        ("The better response is B.\n", "Assistant A", PAIRWISE_LABELS),
        ("**Better**: B\n", "Assistant A", PAIRWISE_LABELS),
        ("The stronger answer was 2, clearly. ", "Response 1", ("Response 1", "Response 2")),
        ("I prefer response A.\n", "Assistant B", PAIRWISE_LABELS),
        ("[[A]]\n", "Assistant B", PAIRWISE_LABELS),
        ("It's a tie. ", "Assistant A", PAIRWISE_LABELS),
        ("So that is false. ", "true", BINARY_LABELS),
        ("The answer is B.\n", "C", CHOICE_LABELS),
        ("B\n", "C", CHOICE_LABELS),
        ("Assistant B > Assistant A > Assistant C\n", "A > B > C", ranking_labels(3)),
        ("**2**\n\n```json\n", "3", POINTWISE_LABELS),
        ("Punktzahl: 2\n", "3", POINTWISE_LABELS),
        ("得分：２分\n", "3", POINTWISE_LABELS),
        ("الدرجة: ٢\n", "3", POINTWISE_LABELS),
        ("I rate this a 2/5. ", "3", POINTWISE_LABELS),
    ],
)
def test_another_verdict_in_front_of_the_object_is_a_contradiction(
    front: str, score: str, labels: tuple[str, ...]
) -> None:
    parsed = parse(after_trace(f"{front}{answer(score)}"), labels, "stop")
    assert parsed.outcome is Outcome.PARSE_FAILED and "names another score" in (parsed.reason or "")
    same = front.replace("2", score).replace("２", score).replace("٢", score)
    if same != front:
        assert parse(after_trace(f"{same}{answer(score)}"), labels, "stop").score == score, "the same score twice"


@pytest.mark.parametrize(
    ("front", "score", "labels"),
    [
        ("Here is my evaluation:\n", "3", POINTWISE_LABELS),
        ("1. It is right.\n2. It is brief.\n\n", "3", POINTWISE_LABELS),
        ("It names 2 of 5 causes and gives 4 reasons, 1.5 a line.\n", "3", POINTWISE_LABELS),
        ("Score: 3. Final: ", "3", POINTWISE_LABELS),
        ("A: fine. B: a bit long.\n", "C", CHOICE_LABELS),
        ("Assistant B wins.\n", "Assistant B", PAIRWISE_LABELS),
        ("Both assistants are brief; a response should be.\n", "Assistant B", PAIRWISE_LABELS),
        ("Verdict: B > A > C\n", "B > A > C", ranking_labels(3)),
    ],
)
def test_a_preface_that_names_no_other_verdict_is_harmless(front: str, score: str, labels: tuple[str, ...]) -> None:
    parsed = parse(after_trace(f"{front}{answer(score)}"), labels, "stop")
    assert (parsed.score, parsed.repaired) == (score, True)


@pytest.mark.parametrize(
    "mark", ["<|channel|>final<|message|>", "assistantfinal", "<|im_end|>\n<|im_start|>assistant\n", "final\n", "</s>"]
)
def test_chat_markup_in_front_of_the_object_fails(mark: str) -> None:
    parsed = parse(after_trace(f"{mark}{answer('3')}"), POINTWISE_LABELS, "stop")
    assert parsed.outcome is Outcome.PARSE_FAILED and "chat markup" in (parsed.reason or "")


def test_the_result_can_be_written_to_a_file() -> None:
    parsed = parse(after_trace('{"explanation": "\\ud800", "score": "\\ud800"}'), POINTWISE_LABELS, "stop")
    assert parsed.outcome is Outcome.OFF_SCALE
    assert f"{parsed.explanation}{parsed.reason}".encode()
    raw = parse("a \ud800 trace" + after_trace(answer("4", "x")), POINTWISE_LABELS, "stop")
    assert raw.score == "4" and f"{raw.trace}".encode()


def test_an_unknown_finish_reason_is_a_failure_of_the_engine() -> None:
    assert parse(after_trace(answer("4")), POINTWISE_LABELS, "content_filter").outcome is Outcome.ENGINE_FAILED


@settings(max_examples=20, deadline=None)
@given(
    unit=st.sampled_from(
        [" ", "\n", '"', "{", ",", "\\", '" , ', "<|im_end|>", '"score":', "```", "give ", "a:(", "1 "]
    )
)
def test_degenerate_repetition_takes_no_noticeable_time(unit: str) -> None:
    begun = time.process_time()
    for text in (unit * 20_000, "{" + unit * 20_000 + "}", '{"explanation": "' + unit * 20_000 + '", "score": "9"}'):
        parse(after_trace(text), POINTWISE_LABELS, "stop")
        parse(after_trace(text + "x"), POINTWISE_LABELS, "stop")
        parse(after_trace(f"score{text}{answer('3')}"), POINTWISE_LABELS, "stop")
    assert time.process_time() - begun < 5
