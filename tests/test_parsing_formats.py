"""The answer formats of other judges: what each reads, what it repairs, and what it refuses."""

from __future__ import annotations

import pytest

from mr3.parsing import FORMATS, format_named
from mr3.records import Outcome

PAIR = ("Assistant A", "Assistant B")
SCALE = ("1", "2", "3", "4", "5")
SEVEN = (*SCALE, "6", "7")
R3_PAIR = "<think>\nwhy\n</think>\n\n" + '{"explanation": "x", "score": "Response 2"}'
RM_R1 = "<type>Chat</type>\n<rubric>clarity</rubric>\n<eval>B rambles</eval>\n<answer>[[A]]</answer>"
GENRM = """<think>hm</think>[The Begin of Analysis on Response 1]
fine
[The End of Analysis on Response 1]
[The Begin of Individual Scores]
\\boxed{2, 4}
[The End of Individual Scores]

[The Begin of Ranking Score]
\\boxed{5}
[The End of Ranking Score]"""
GENRM_ONE = "It is good.\n[The Begin of Individual Scores]\n\\boxed{4}\n[The End of Individual Scores]"


@pytest.mark.parametrize(
    ("name", "text", "labels", "score", "repaired"),
    [
        ("r3", R3_PAIR, PAIR, "Assistant B", False),
        ("r3", R3_PAIR, ("Response 1", "Response 2"), "Response 2", False),
        ("r3", 'so</think>{"explanation": "x", "score": 4}', SCALE, "4", False),
        ("r3", '{"explanation": "no tags, not even a </think>", "score": true}', ("true", "false"), "true", False),
        ("r3", '```json\n{"explanation": "x", "score": false}\n```', ("true", "false"), "false", True),
        ("rm-r1", RM_R1, PAIR, "Assistant A", False),
        ("rm-r1", f"<think>B? <answer>[[B]]</answer></think>{RM_R1}<|im_end|>", PAIR, "Assistant A", False),
        ("rm-r1", "<answer> B </answer>", (*PAIR, "Tie"), "Assistant B", True),
        ("prometheus", "Feedback: Clear. [RESULT] 4", SCALE, "4", False),
        ("prometheus", "Clear. [RESULT] 4.", SCALE, "4", True),
        ("prometheus", "Clear. **[RESULT]** **4**", SCALE, "4", True),
        ("prometheus", "피드백: 좋다. [결과] ４", SCALE, "4", True),
        ("prometheus", "良い。【結果】：4。", SCALE, "4", True),
        ("prometheus", "A is clearer. [RESULT] A", PAIR, "Assistant A", False),
        ("prometheus", "B is clearer. [Result]: Response B.", PAIR, "Assistant B", True),
        ("nemotron-genrm", GENRM, PAIR, "Assistant B", False),
        ("nemotron-genrm", GENRM, SEVEN, "6", False),
        ("nemotron-genrm", GENRM, SEVEN[:6], "5", False),
        ("nemotron-genrm", GENRM.replace("{5}", "{3}"), SEVEN, "3", False),
        ("nemotron-genrm", GENRM_ONE, SCALE, "4", False),
        ("nemotron-genrm", GENRM_ONE.replace("{4}", "{**4**}"), SCALE, "4", True),
    ],
)
def test_a_verdict_is_read(name: str, text: str, labels: tuple[str, ...], score: str, repaired: bool) -> None:
    parsed = FORMATS[name].parse(text, labels, "stop")
    assert (parsed.outcome, parsed.score, parsed.repaired) == (Outcome.OK, score, repaired)


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("r3", 'The score is {"explanation": "x", "score": 4}', SCALE),
        ("r3", '<think>never closed {"explanation": "x", "score": 4}', SCALE),
        ("rm-r1", "I prefer [[A]]", PAIR),
        ("rm-r1", "<answer>[[A]]</answer> or <answer>[[B]]</answer>", PAIR),
        ("rm-r1", "<answer>[[A]]</answer> Both are fine, though.", PAIR),
        ("rm-r1", "<answer>[[A]]", PAIR),
        ("rm-r1", f"<think>x</think>y</think>{RM_R1}", PAIR),
        ("prometheus", "A score of 3 would be fair.", SCALE),
        ("prometheus", "[RESULT] 4 as I said: [RESULT] 4", SCALE),
        ("prometheus", "Clear. [RESULT]", SCALE),
        ("prometheus", "Clear. [RESULT] 4\n\nFeedback: I take it back.", SCALE),
        ("nemotron-genrm", GENRM.removesuffix("]"), PAIR),
        ("nemotron-genrm", f"{GENRM}\n{GENRM}", PAIR),
        ("nemotron-genrm", GENRM.replace("\\boxed{5}", "\\boxed{5} or \\boxed{2}"), PAIR),
        ("nemotron-genrm", GENRM.replace("\\boxed{5}", "5"), PAIR),
        ("nemotron-genrm", f"{GENRM}\nResponse 1 is better.", PAIR),
    ],
)
def test_a_verdict_that_is_open_doubled_or_not_last_fails(name: str, text: str, labels: tuple[str, ...]) -> None:
    parsed = FORMATS[name].parse(text, labels, "stop")
    assert (parsed.outcome, parsed.score) == (Outcome.PARSE_FAILED, None)


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("r3", 'so</think>{"explanation": "x", "score": 8}', SCALE),
        ("rm-r1", "<answer>[[C]]</answer>", PAIR),
        ("rm-r1", RM_R1, SCALE),
        ("prometheus", "Clear. [RESULT] 8/10", SCALE),
        ("prometheus", "Clear. [RESULT] A", SCALE),
        ("prometheus", "Clear. [RESULT] А", PAIR),  # a Cyrillic letter
        ("nemotron-genrm", GENRM.replace("{5}", "{7}"), PAIR),
        ("nemotron-genrm", GENRM, SCALE),
        ("nemotron-genrm", GENRM_ONE.replace("{4}", "{4, 5}"), SCALE),
    ],
)
def test_a_readable_score_that_is_no_label_is_off_the_scale(name: str, text: str, labels: tuple[str, ...]) -> None:
    assert FORMATS[name].parse(text, labels, "stop").outcome is Outcome.OFF_SCALE


def test_reasons_are_kept_where_the_format_has_them() -> None:
    rm_r1 = FORMATS["rm-r1"].parse(f"<think>hm</think>{RM_R1}", PAIR, "stop")
    assert (rm_r1.trace, rm_r1.explanation) == ("hm", "B rambles")
    prometheus = FORMATS["prometheus"].parse("Feedback: Clear. [RESULT] 4", SCALE, "stop")
    assert (prometheus.trace, prometheus.explanation) == (None, "Clear.")
    r3 = FORMATS["r3"].parse(R3_PAIR, PAIR, "stop")
    assert (r3.trace, r3.explanation) == ("why", "x")
    genrm = FORMATS["nemotron-genrm"].parse(GENRM, PAIR, "stop")
    assert genrm.trace == "hm" and (genrm.explanation or "").startswith("[The Begin of Analysis")


def test_a_format_is_found_by_name_and_a_wrong_name_says_the_nearest() -> None:
    assert format_named("mr3") is FORMATS["mr3"]
    with pytest.raises(ValueError, match="did you mean 'rm-r1'"):
        format_named("RM_R1")
    with pytest.raises(ValueError, match="Known are mr3, r3, rm-r1, prometheus, nemotron-genrm"):
        format_named("xyz")


def test_only_formats_with_the_score_in_a_json_string_have_odds() -> None:
    assert [name for name, fmt in FORMATS.items() if fmt.has_odds] == ["mr3"]
