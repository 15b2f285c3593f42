"""What is read off traces: conclusions only where they are plain, loops, the forcing sentence, criteria named."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mr3.evaluation.traces.conclusion import conclusion, phrases
from mr3.evaluation.traces.mentions import mentioned
from mr3.evaluation.traces.notes import TraceNotes, TraceReader, trace_metrics
from mr3.evaluation.traces.repetition import degenerate, loop_share, repeated_share, says_again
from mr3.judge_card import JudgeCard
from mr3.languages.identify import LanguageShare
from mr3.records import PAIRWISE_LABELS, Outcome, Verdict, ranking_labels
from mr3.rubrics import Criterion, Rubric
from tests.judging_support import CARD, pair, single

A, B, TIE = PAIRWISE_LABELS
FIVE = tuple("12345")
BOTH = ("true", "false")
PROSE = (
    "The first answer names the river and gives its length, which is what was asked. The second one talks about "
    "mountains for two sentences before it comes to the point, and then its number is off by a factor of ten. "
    "Neither is rude, and both are written in the language of the question, so what remains is correctness."
)


@pytest.mark.parametrize(
    ("language", "text", "labels", "wanted"),
    [
        ("en", "Both are brief. So Assistant A is better than Assistant B.", PAIRWISE_LABELS, A),
        ("en", "Final verdict: **Assistant B**", PAIRWISE_LABELS, B),
        ("en", "Final verdict: Tie.", PAIRWISE_LABELS, TIE),
        ("en", "Thus the score is 4.", FIVE, "4"),
        ("en", "I would give it a score of 4/5.", FIVE, "4"),
        ("en", "The answer is false.", BOTH, "false"),
        ("en", "2 polite: A yes, B no: A", PAIRWISE_LABELS, A),
        ("en", "2 digits: 11 yes: 5 - 1 = 4", FIVE, "4"),
        ("en", "So the final answer is C.", tuple("ABCD"), "C"),
        ("de", "Daher ist Assistant B klar besser als Assistant A.", PAIRWISE_LABELS, B),
        ("fr", "Assistant A est donc meilleur.", PAIRWISE_LABELS, A),
        ("es", "Por tanto, Assistant A es mejor que Assistant B.", PAIRWISE_LABELS, A),
        ("pt", "A nota é 3.", FIVE, "3"),
        ("it", "Assistant B è migliore.", PAIRWISE_LABELS, B),
        ("nl", "Assistant A is beter dan Assistant B.", PAIRWISE_LABELS, A),
        ("ru", "Поэтому Ассистент В лучше, чем Ассистент А.", PAIRWISE_LABELS, B),
        ("pl", "Assistant A jest lepszy niż Assistant B.", PAIRWISE_LABELS, A),
        ("tr", "Assistant B daha iyidir.", PAIRWISE_LABELS, B),
        ("id", "Jadi, Assistant A lebih baik daripada Assistant B.", PAIRWISE_LABELS, A),
        ("vi", "Vì vậy Assistant A tốt hơn.", PAIRWISE_LABELS, A),
        ("zh", "总体上，助手A更好。", PAIRWISE_LABELS, A),
        ("zh-Hant", "最终答案：Assistant B", PAIRWISE_LABELS, B),
        ("ja", "したがって、Assistant Bの方が優れています。", PAIRWISE_LABELS, B),
        ("ja", "最終的な評価は４です。", FIVE, "4"),
        ("ko", "따라서 Assistant A가 더 낫습니다.", PAIRWISE_LABELS, A),
        ("ar", "النتيجة هي ٤.", FIVE, "4"),
        ("hi", "इसलिए Assistant A बेहतर है।", PAIRWISE_LABELS, A),
        ("th", "ดังนั้น Assistant B ดีกว่า Assistant A", PAIRWISE_LABELS, B),
        ("sw", "Kwa hiyo Assistant A ni bora kuliko Assistant B.", PAIRWISE_LABELS, A),
        ("en", "Final answer: B > A > C", ranking_labels(3), "B > A > C"),
        ("xx", 'so "score": "2"', FIVE, "2"),
    ],
)
def test_plain_conclusions_are_read(language: str, text: str, labels: tuple[str, ...], wanted: str) -> None:
    assert conclusion(f"{PROSE}\n{text}", labels, language) == wanted


@pytest.mark.parametrize(
    ("language", "text", "labels"),
    [
        ("en", "Assistant A is not better.", PAIRWISE_LABELS),
        ("en", "Assistant A is better if brevity counts.", PAIRWISE_LABELS),
        ("en", "Assistant A is better in style, but Assistant B is better in content.", PAIRWISE_LABELS),
        ("en", "Assistant A is better than Assistant B in style and Assistant B wins.", PAIRWISE_LABELS),
        ("en", "Is the score 4?", FIVE),
        ("en", "The score is 4 or 5.", FIVE),
        ("en", "The score would be 4.5.", FIVE),
        ("en", "The score is 7.", FIVE),
        ("en", "The answer isn't false.", BOTH),
        ("en", "Assistant A gave 4 examples.", FIVE),
        ("en", "The answer is a number.", tuple("ABCD")),
        ("en", "The answer of Assistant B is long.", PAIRWISE_LABELS),
        ("de", "Assistant A ist nicht besser als Assistant B.", PAIRWISE_LABELS),
        ("ru", "Ассистент А не лучше.", PAIRWISE_LABELS),
        ("zh", "助手A没有更好。", PAIRWISE_LABELS),
        ("ja", "Assistant Aの方が優れているかもしれません。", PAIRWISE_LABELS),
        ("xx", "Assistant A is better.", PAIRWISE_LABELS),
        ("en", "", FIVE),
    ],
)
def test_what_is_not_plain_is_none(language: str, text: str, labels: tuple[str, ...]) -> None:
    assert conclusion(text, labels, language) is None


def test_only_the_end_counts() -> None:
    early = "Assistant A is better than Assistant B. "
    assert conclusion(early + "One more. And two. And three. And four.", PAIRWISE_LABELS, "en") is None
    assert conclusion(early + "On reflection, Assistant B is better.", PAIRWISE_LABELS, "en") == B


@given(st.text(max_size=300), st.sampled_from([PAIRWISE_LABELS, FIVE, BOTH]), st.sampled_from([*phrases(), "xx"]))
def test_any_text_gives_a_legal_label_or_none(text: str, labels: tuple[str, ...], language: str) -> None:
    assert conclusion(text, labels, language) in {*labels, None}


def test_loops_at_the_end_are_seen_and_prose_is_none() -> None:
    loop = "I must look at the answer again. "
    assert loop_share(PROSE) == 0.0 and not degenerate(PROSE) and not degenerate(PROSE * 1)
    assert loop_share(loop * 40) > 0.95
    assert degenerate(PROSE + loop * 40)
    assert degenerate(PROSE + " " + loop * 40 + "I must look at")  # cut off in the middle of a block
    assert degenerate(PROSE + "ก็ดี" * 200) and degenerate("好" * 300)
    assert not degenerate(PROSE + " " + loop * 3)
    assert repeated_share("short") is None
    # A text said twice: the second half of its stretches stood there before, but for those across the seam.
    assert repeated_share(PROSE + PROSE) == pytest.approx(0.5, abs=0.03)


@given(st.text(string.ascii_lowercase + " ", min_size=20, max_size=40), st.integers(30, 60))
def test_any_block_said_often_is_degenerate(block: str, times: int) -> None:
    text = block * times
    if len(" ".join(text.split())) > 300:
        assert degenerate(text)


def test_the_forcing_sentence_said_again() -> None:
    sentence = "Gut, ich muss auf Deutsch denken und antworten, alles prüfen und nach den Kriterien urteilen."
    assert says_again(f"Zuerst die Frage. {sentence.upper()}  Dann", sentence)
    assert says_again("x " + sentence.replace("alles prüfen und", "alles genau prüfen und"), sentence)
    assert not says_again("Ich muss auf Deutsch antworten.", sentence)
    assert not says_again("anything", "")


def test_criteria_count_as_named_in_any_form() -> None:
    rubric = Rubric(
        criteria=[
            Criterion(name="politeness", description="thanks"),
            Criterion(name="number of words", description="few"),
            Criterion(name="accuracy", description="right"),
        ]
    )
    assert mentioned(rubric, "It is polite; the NUMBER is fine.") == (2, 3)
    assert mentioned(rubric, "") == (0, 3)
    hindi = Rubric(criteria=[Criterion(name=n, description=n) for n in ("विनम्रता", "संक्षिप्तता", "शुद्धता")])
    assert mentioned(hindi, "आज दिल्ली में मौसम बहुत अच्छा है और शाम को हल्की वर्षा होगी।") == (0, 3), "of the weather"
    assert mentioned(hindi, "पहले शुद्धता, फिर विनम्रता।") == (2, 3)
    assert mentioned(Rubric(criteria=[Criterion(name="正確さ", description="x")]), "正確さは問題ない") == (1, 1)


def answered(trace: str, score: str | None, **more: object) -> Verdict:
    outcome = Outcome.OK if score else Outcome.TRUNCATED
    return Verdict.model_validate(
        {"id": "v", "task_id": "t", "outcome": outcome, "score": score, "trace": trace, **more}
    )


def test_a_swapped_verdict_concludes_in_the_order_that_it_was_shown() -> None:
    reader = TraceReader(CARD)
    kept = reader.read(pair(), answered("correct: A yes, B no: A", A))
    turned = reader.read(pair(), answered("correct: A yes, B no: A", B, swapped=True))
    assert kept is not None and (kept.concludes, kept.agrees) == (A, True)
    assert turned is not None and (turned.concludes, turned.agrees) == (B, True)
    assert (kept.named, kept.criteria) == (1, 2), "of `correct` and `brief`"
    assert reader.read(pair(), answered("", A)) is None


def test_forced_traces_are_held_against_their_own_sentence() -> None:
    card = JudgeCard(profile="hf-card", strategy="tgt-tgt", texts="own", max_prompt_tokens=1, max_output_tokens=1)
    task = single("pointwise", language="ja", rubric=Rubric(language="ja", levels=dict.fromkeys(FIVE, "x")))
    sentence = card.renderer()(task).assistant_prefix.removeprefix("<think>")
    reader = TraceReader(card)
    said = reader.read(task, answered(f"{sentence} 評価は4です。", "4"))
    quiet = reader.read(task, answered("評価は4です。", "3"))
    assert said is not None and (said.forced, said.says_again, said.language, said.agrees) == (True, True, "ja", True)
    assert quiet is not None and (quiet.says_again, quiet.agrees, quiet.criteria) == (False, False, None)


def test_rates_of_traces_by_hand() -> None:
    def note(language: str, agrees: bool | None, **more: object) -> TraceNotes:
        fields = {"forced": False, "degenerate": False, "says_again": None, "named": None, "criteria": None}
        fields |= {"in_language": LanguageShare(None, "too_short"), "repeated": None}
        found = None if agrees is None else A
        return TraceNotes(**{"language": language, "concludes": found, "agrees": agrees, **fields, **more})  # type: ignore[arg-type]

    notes = [
        note("en", True, named=2, criteria=2),
        note("en", False, named=0, criteria=2),
        note("en", None, degenerate=True),
        note("yo", None, forced=True, says_again=True),
        None,
    ]
    found = trace_metrics(notes)
    assert found["traces"] == 4
    assert (found["conclusion"]["coverage"]["value"], found["conclusion"]["agrees"]["value"]) == (0.5, 0.5)
    assert found["conclusion"]["by_language"]["en"]["coverage"]["value"] == pytest.approx(2 / 3)
    assert found["conclusion"]["languages_without_phrases"] == ["yo"]
    assert found["degenerate"]["value"] == 0.25
    assert found["forced"]["says_forcing_sentence_again"]["n"] == 1
    assert (found["criteria"]["not_mentioned"]["value"], found["criteria"]["all_mentioned"]["value"]) == (0.5, 0.5)
    assert trace_metrics([None]) == {}


def test_the_language_of_traces_is_identified_and_not_that_which_was_asked_for() -> None:
    card = CARD.model_copy(update={"profile": "hf-card", "texts": "own", "strategy": "tgt-tgt"})
    reader = TraceReader(card)

    def notes(language: str, trace: str) -> TraceNotes | None:
        verdict = Verdict(id="v", task_id="t", outcome=Outcome.OK, score=A, trace=trace)
        return reader.read(pair(language=language), verdict)

    loop = f"{PROSE} " + "It is brief, and so is the other one. " * 60
    read = [notes("en", PROSE), notes("de", PROSE), notes("en", loop), notes("tlh", PROSE), notes("de", "Kurz.")]
    found = trace_metrics(read)
    told = found["in_named_language"]
    assert (told["value"], told["n"]) == (pytest.approx(2 / 3), 3), "three can be told, one of them is not German"
    assert told["not_checked"] == {"unknown_language": 1, "too_short": 1}
    assert told["by_language"]["de"]["value"] == 0.0
    assert told["by_language"]["tlh"]["value"] is None and "unknown_language" in told["by_language"]["tlh"]["reason"]
    assert found["repetition"]["degenerate"]["value"] == pytest.approx(1 / 5)
    assert 0.1 < found["repetition"]["mean_repeated_share"]["value"] < 0.3
    assert found["repetition"]["mean_repeated_share"]["n"] == 4
    short = trace_metrics([notes("de", "Kurz.")])
    assert short["in_named_language"]["value"] is None and "too_short" in short["in_named_language"]["reason"]
    assert short["repetition"]["mean_repeated_share"]["value"] is None
