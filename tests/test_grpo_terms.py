"""The reward terms, each by itself: what it pays, what it does not, and what it can't measure."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_experiments.contract import Example, Group, Values, blanked
from grpo_experiments.terms import names, open_terms
from grpo_experiments.terms.criteria import coverage
from grpo_experiments.terms.frozen_judge import trace_task
from mr3.records import Outcome, Task
from mr3.rubrics import Criterion, Rubric
from rewards.serving.client import JudgeRefused, JudgeUnavailable
from rewards.serving.schema import JudgeResult
from tests.grpo_support import answer, example, group, sample, task

A, B, TIE = "Assistant A", "Assistant B", "Tie"
SCALE = {"mode": "pointwise", "responses": ["x"]}


def values(term: str, of: Group, **options: Any) -> Values:
    return open_terms({term: {"weight": 1.0, **options}})[term].score(of)


def test_a_term_is_a_file_and_all_are_listed() -> None:
    assert len(names()) == 13 and {"format", "counterfactual", "frozen_judge"} <= set(names())
    with pytest.raises(ValueError, match="did you mean 'counterfactual'"):
        open_terms({"counterfactal": 1.0})
    with pytest.raises(ValueError, match=r"rewards.length is not a valid Length:\n  soft: Field required"):
        open_terms({"length": 1.0})
    with pytest.raises(ValueError, match="sum to more than 0"):
        open_terms({"format": {"weight": 0.0, "gate": True}})
    with pytest.raises(ValueError, match="standard library"):
        open_terms({"os:system": 1.0})
    with pytest.raises(ValueError, match=r"is no Term of grpo_experiments.contract"):
        open_terms({"tests.grpo_support:task": 1.0})


@pytest.mark.parametrize(
    ("text", "finish", "wanted"),
    [
        (answer(A), "stop", 1.0),
        (answer(A), "length", 0.0),
        (answer("Assistant C"), "stop", 0.0),
        (answer(A, explanation=" "), "stop", 0.0),
        (f"{answer(A)}\nAnd {answer(B)}", "stop", 0.0),
        (f"{answer(A)} I hope this helps.", "stop", 0.0),
        ('the answer is {"explanation": "x", "score": "Assistant A"}', "stop", 0.0),
        ('\n</think>\n{"score": "Assistant A"}', "stop", 0.0),
        ('\n</think>\n```json\n{"explanation": "x", "score": "Assistant A"}\n```', "stop", 0.0),
    ],
)
def test_format_is_strict_and_before_any_repair(text: str, finish: Any, wanted: float) -> None:
    assert values("format", group(example(), [text], [{"finish": finish}])) == [wanted]


def test_correctness_pays_the_strictly_parsed_verdict_alone() -> None:
    texts = [answer(A), answer(B), f'"score": "{A}"', answer(TIE)]
    assert values("correctness", group(example(A), texts)) == [1.0, 0.0, 0.0, 0.0]
    assert values("correctness", group(example(A), texts), distance="ordinal") == [1.0, 0.0, 0.0, 0.5]
    assert values("correctness", group(example(A), [answer(A)], [{"finish": "length"}])) == [0.0]
    assert values("correctness", group(example(None), texts)) == [None] * 4


def test_ordinal_correctness_falls_with_the_distance() -> None:
    of = example("2", task=task("t", **SCALE))
    texts = [answer(str(k)) for k in range(1, 6)] + ["nothing"]
    assert values("correctness", group(of, texts), distance="ordinal") == [0.75, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_expected_correctness_is_the_mass_on_the_right_label() -> None:
    more: list[dict[str, Any]] = [
        {"label_probs": {A: 0.7, B: 0.2, TIE: 0.05}}, {"label_probs": {A: 0.1, B: 0.9, TIE: 0.0}}, {}, {}
    ]  # fmt: skip
    found = values("expected_correctness", group(example(A), [answer(A), answer(B), answer(A), "cut"], more))
    assert found == [pytest.approx(0.7), pytest.approx(0.1), None, 0.0]
    ordinal = values("expected_correctness", group(example(A), [answer(A)], more[:1]), distance="ordinal")
    assert ordinal == [pytest.approx(0.7 + 0.05 / 2)], "a tie is half right; what is outside the labels earns nothing"


def twins(gold: str, other: str, here: Sequence[str], there: Sequence[str]) -> Group:
    twin = group(example(other, "t2", twin="x"), [answer(s) for s in there])
    return group(example(gold, "t1", twin="x"), [answer(s) for s in here], twins=(twin,))


def test_counterfactual_pays_in_so_far_as_the_twin_is_right_too() -> None:
    assert values("counterfactual", twins(A, B, [A, A, B, A], [B, A, A, A])) == [0.25, 0.25, 0.0, 0.25]
    assert values("counterfactual", twins(A, B, [A, A], [A, A])) == [0.0, 0.0], "the same verdict for both is not paid"
    assert values("counterfactual", twins(A, B, [A, B], [B, B])) == [1.0, 0.0]
    assert values("counterfactual", twins(A, A, [A], [A])) == [None], "a twin with the same gold tells nothing"
    assert values("counterfactual", twins(A, A, [A], [A]), only_flips=False) == [1.0]
    assert values("counterfactual", group(example(A), [answer(A)])) == [None]
    cut = group(
        example(A, "t1"), ["no verdict", answer(A)], twins=(group(example(B, "t2"), [answer(B), "no verdict"]),)
    )
    assert values("counterfactual", cut) == [0.0, 0.5], "a failed verdict is right on neither side"
    half, quarter = (
        group(example(B, "other"), [answer(label) for label in labels]) for labels in ([B, A], [B, A, A, A])
    )
    both = group(example(A), [answer(A), answer(B)], twins=(half, quarter))
    assert values("counterfactual", both) == [0.25, 0.0], "of several twins the one that it knows least counts"


@given(
    st.lists(st.sampled_from([A, B, TIE]), min_size=1, max_size=6),
    st.lists(st.sampled_from([A, B]), min_size=1, max_size=6),
)
def test_a_judge_that_ignores_the_rubric_earns_no_counterfactual(here: list[str], there: list[str]) -> None:
    """Whatever it says: a term is at most correctness, and one verdict for both twins earns nothing on either side."""
    found = values("counterfactual", twins(A, B, here, there))
    right = values("correctness", twins(A, B, here, there))
    assert all(f is not None and r is not None and 0 <= f <= r for f, r in zip(found, right, strict=True))
    blind = [here[0]] * 4
    assert values("counterfactual", twins(A, B, blind, blind)) == [0.0] * 4


def test_both_orders_multiplies_by_the_other_order() -> None:
    other = group(example(B, swapped=True), [answer(B), answer(A)])
    assert values("both_orders", group(example(A), [answer(A), answer(B)], swapped=other)) == [0.5, 0.0]
    wrong = group(example(B, swapped=True), [answer(A)])
    assert values("both_orders", group(example(A), [answer(A)], swapped=wrong)) == [0.0], "one order alone pays nothing"
    assert values("both_orders", group(example(A), [answer(A)])) == [None]


def test_rubric_use_is_a_capped_log_likelihood_ratio() -> None:
    more: list[dict[str, Any]] = [
        {"label_probs": {A: 0.9}, "blank_probs": {A: 0.3}},
        {"label_probs": {A: 0.9}, "blank_probs": {A: 0.0001}},
        {"label_probs": {A: 0.2}, "blank_probs": {A: 0.8}},
        {"label_probs": {A: 0.2}},
        {},
    ]
    found = values("rubric_use", group(example(A), [answer(A)] * 4 + ["cut"], more))
    assert found == [pytest.approx(math.log(3) / 2), 1.0, 0.0, None, 0.0]
    gains: list[dict[str, Any]] = [{"rubric_gain": 1.0}, {"rubric_gain": -3.0}, {"rubric_gain": 30.0}, {}]
    assert values("rubric_use", group(example(A), [answer(A)] * 4, gains), over="completion") == [0.5, 0.0, 1.0, None]
    assert open_terms({"rubric_use": {"over": "completion"}})["rubric_use"].wanted() == {"rubric_gain"}


def test_criteria_are_named_in_the_order_of_the_rubric() -> None:
    of = example(criteria=("correct", "polite", "brief"))
    texts = [
        answer(A, "1 correct: yes. 2 politeness: no. 3 brief: yes"), answer(A, "polite, then correct, then brief"),
        answer(A, "correct only"), answer(A, "nothing"), "no trace at all",
    ]  # fmt: skip
    assert values("criteria", group(of, texts)) == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0, 0.0])
    early = example(criteria=("correct", "polite", "brief"), decided_by=0)
    assert values("criteria", group(early, texts[2:3])) == [1.0], "what decides first may be last"
    assert values("criteria", group(early, texts[2:3]), until_decided=False) == pytest.approx([1 / 3])
    assert coverage(["correct"], "incorrect") == 0.0, "inside another word is not named"
    for named, trace in (
        (("正确性", "礼貌"), "我们先看正确性:A正确。再看礼貌:B更礼貌。"),
        (("正確さ", "丁寧さ"), "まず正確さを見る。次に丁寧さを見る。"),
        (("ความถูกต้อง", "ความสุภาพ"), "ดูความถูกต้องก่อนแล้วดูความสุภาพ"),
        (("शुद्धता", "विनम्रता"), "पहले शुद्धता, फिर विनम्रता।"),
        (("정확성", "예의"), "먼저 정확성을 본다. 다음은 예의를 본다."),
    ):
        assert coverage(named, trace) == 1.0 and coverage(named[::-1], trace) == 0.0
    assert coverage(["शुद्धता", "विनम्रता"], "यह दोनों उत्तर अच्छे हैं, मैं कुछ नहीं देखता") == 0.0, "one letter named nothing"


def no_criteria() -> Task:
    return task("t", **{"rubric": Rubric(levels={A: "a", B: "b"}), "labels": ()})


def test_a_rubric_without_criteria_has_no_coverage() -> None:
    assert values("criteria", group(example(task=no_criteria()), [answer(A)])) == [None]


def checker(of: Task, trace: str, facts: dict[str, Any]) -> float | None:
    assert of.responses and facts["criteria"] == ("correct",)
    return {"good": 1.0, "half": 0.5, "odd": 7.0}.get(trace)


def test_findings_are_held_against_a_checker() -> None:
    of = example(criteria=("correct",))
    found = values(
        "findings",
        group(of, [answer(A, t) for t in ("good", "half", "who knows")] + ["none"]),
        checker=f"{__name__}:checker",
    )
    assert found == [1.0, 0.5, None, 0.0]
    with pytest.raises(ValueError, match=r"gave 7.0 .* a share is from 0 to 1"):
        values("findings", group(of, [answer(A, "odd")]), checker=f"{__name__}:checker")
    with pytest.raises(ValueError, match="standard library"):
        values("findings", group(of, [answer(A)]), checker="os:system")


def test_an_explanation_must_say_the_score_that_is_given() -> None:
    more: list[dict[str, Any]] = [{"reader_probs": {A: 0.9, B: 0.1}}, {"reader_probs": {A: 0.9, B: 0.1}}, {}, {}]
    texts = [answer(A), answer(B), answer(A), answer(A, explanation="")]
    assert values("explanation_consistency", group(example(A), texts, more)) == [0.9, 0.1, None, 0.0]


GERMAN = (
    "Die erste Antwort ist richtig, denn sie nennt die gesuchte Zahl, und sie bedankt sich auch noch bei "
    "dem Menschen, der gefragt hat; die zweite Antwort dagegen nennt eine andere Zahl und ist deshalb falsch."
)
ENGLISH = (
    "The first answer is right because it gives the number that was asked for, and it also thanks the person who "
    "asked; the second answer gives another number, and is therefore wrong."
)


def test_trace_and_explanation_are_in_the_language_that_was_asked_for() -> None:
    of = example(task=task(language="de"))
    texts = [answer(A, GERMAN, GERMAN), answer(A, ENGLISH, GERMAN), answer(A, ENGLISH, ENGLISH), answer(A, "4", "4")]
    own = values("language", group(of, texts), trace="task", explanation="task")
    assert own == [1.0, 0.5, 0.0, None]
    assert values("language", group(of, [*texts[:2], "none"]), trace="en") == [0.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="say in which language"):
        open_terms({"language": 1.0})


def test_length_pays_for_no_difference_within_the_budget() -> None:
    more: list[dict[str, Any]] = [{"tokens": n} for n in (1, 100, 150, 200, 300)]
    found = values("length", group(example(), [answer(A)] * 5, more), soft=100, hard=200)
    assert found == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert values("length", group(example(), [answer(A)], [{"finish": "length"}]), soft=100, hard=200) == [0.0]
    with pytest.raises(ValueError, match="must be more tokens than soft"):
        open_terms({"length": {"soft": 9, "hard": 9}})


def test_repetition_costs_the_share_that_is_a_loop() -> None:
    loop = "again and again it says this. " * 40
    found = values("repetition", group(example(), [answer(A, ENGLISH), answer(A, loop), loop]))
    assert found[0] == pytest.approx(1.0) and found[1] is not None and found[1] < 0.1 and found[2] is not None
    assert found[2] < 0.1


@given(st.text(max_size=200), st.sampled_from(["stop", "length"]))
def test_every_term_takes_any_text_and_stays_within_its_range(text: str, finish: Any) -> None:
    options = {
        "length": {"soft": 5, "hard": 9},
        "language": {"trace": "task"},
        "findings": {"checker": f"{__name__}:anything"},
    }
    plain: dict[str, Any] = {name: options.get(name, 1.0) for name in names() if name != "frozen_judge"}
    of: Example = example(twin="x", criteria=("correct",))
    one = group(of, [text, answer(A, text)], [{"finish": finish}] * 2)
    for name, term in open_terms(plain).items():
        told = term.score(one)
        assert len(told) == 2 and all(v is None or 0 <= v <= 1 for v in told), name
        assert told == term.score(one), "pure"


def anything(of: Task, trace: str, facts: dict[str, Any]) -> float | None:
    return None


def test_a_blanked_task_keeps_the_legal_scores_and_nothing_else_of_the_rubric() -> None:
    levels = task(labels=[A, B]).model_copy()
    assert blanked(levels).labels == (A, B) and "thanks" not in blanked(levels).model_dump_json()
    assert blanked(task()).labels == (A, B, TIE) and blanked(task()).responses == ["4", "5"]
    assert Criterion(name="blank", description="The response is good.") in blanked(task()).rubric.criteria


class Judge:
    """A frozen judge that says what it is told to."""

    def __init__(self, scores: Sequence[float | None] | Exception) -> None:
        self.scores, self.asked = scores, list[int]()

    async def judge_batch(self, tasks: Sequence[Any]) -> list[Any]:
        self.asked.append(len(tasks))
        if isinstance(self.scores, Exception):
            raise self.scores
        assert len(tasks) == len(self.scores)
        return [
            JudgeResult(outcome=Outcome.OK if s is not None else Outcome.ENGINE_FAILED, score=s, verdicts=[])
            for s in self.scores
        ]


def frozen(scores: Sequence[float | None] | Exception, **more: Any) -> Any:
    rubric = {"criteria": [{"name": "q", "description": "The reasoning is sound."}]}
    options = {"url": "http://127.0.0.1:9", "rubric": rubric, "patience": 2} | more
    term: Any = open_terms({"frozen_judge": options})["frozen_judge"]
    term._client = Judge(scores)
    return term


GROUPS = [group(example(A), [answer(A), "cut"]), group(example(B), [answer(B), answer(A)])]


def test_a_frozen_judge_is_asked_once_for_a_batch_and_its_failure_is_no_number() -> None:
    term = frozen([5.0, None, 3.0])
    assert asyncio.run(term.score_all(GROUPS)) == [[1.0, 0.0], [None, 0.5]] and term._client.asked == [3]
    assert asyncio.run(frozen([1.0, 0.0, 0.25], mode="binary").score_all(GROUPS)) == [[1.0, 0.0], [0.0, 0.25]]


def test_a_frozen_judge_that_is_down_gives_none_and_then_stops_the_run() -> None:
    term = frozen(JudgeUnavailable("no answer in time"))
    assert asyncio.run(term.score_all(GROUPS)) == [[None, 0.0], [None, None]]
    with pytest.raises(ValueError, match=r"no verdict in 2 batches in a row"):
        asyncio.run(term.score_all(GROUPS))
    with pytest.raises(ValueError, match=r"refuses its tasks: 400: no such mode"):
        asyncio.run(frozen(JudgeRefused(400, "no such mode")).score_all(GROUPS))
    again = frozen([None] * 3)
    assert asyncio.run(again.score_all(GROUPS)) == [[None, 0.0], [None, None]]
    again._client.scores = [1.0] * 3
    assert asyncio.run(again.score_all(GROUPS))[0][0] == 0.0 and again._silent == 0
    nothing = [group(example(A), ["cut", "cut"])]
    assert asyncio.run(again.score_all(nothing)) == [[0.0, 0.0]] and len(again._client.asked) == 2
    again._client.scores = [None] * 3
    asyncio.run(again.score_all(GROUPS))
    asyncio.run(again.score_all(nothing))
    with pytest.raises(ValueError, match="in 2 batches in a row"):  # a batch with nothing to ask ends no row
        asyncio.run(again.score_all(GROUPS))


def test_a_frozen_judge_has_one_way_to_be_asked() -> None:
    with pytest.raises(ValueError, match="either judge"):
        frozen([], judge={"model": "m"})
    with pytest.raises(ValueError, match="store is missing"):
        frozen([], judge={"model": "m"}, url=None)


def test_the_frozen_judge_sees_rubric_responses_and_trace() -> None:
    rubric = Rubric(criteria=[Criterion(name="q", description="The reasoning is sound.")])
    asked = trace_task(example(A), sample(answer(A, "4 is right"), task().labels), rubric, "pointwise")
    assert "It thanks." in str(asked.input) and "Response B: 5" in str(asked.input)
    assert asked.responses == ["4 is right\nAssistant A: Because."] and asked.rubric == rubric
