"""The nano world: labels come from checkers that agree with what was written, splits are disjoint, nothing leaks."""

from __future__ import annotations

import itertools
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.nano.checks import analyse, check, find_number
from mr3.nano.dataset import judge_rows, judge_tasks, policy_rows, prompts
from mr3.nano.facts import SPLITS, Content, Question, contents, flip
from mr3.nano.junk import FAMILIES as JUNK_FAMILIES
from mr3.nano.junk import add_junk, junk
from mr3.nano.packs import (
    CRITERIA,
    FAMILIES,
    LANGUAGES,
    TRAIN_CRITERIA,
    TRAIN_FAMILIES,
    TRAIN_LANGUAGES,
    UNSEEN_LANGUAGES,
    english_wordings,
    packs,
)
from mr3.nano.responses import Mix, garble, write_response
from mr3.nano.rubrics import is_held_out, orders, word_rubric
from mr3.nano.tasks import Recipe, TaskMaker
from mr3.nano.testsets import build_sets, gold_rows
from mr3.nano.text import TextWorld
from mr3.nano.verdicts import score
from mr3.prompts import render
from mr3.records import stable_hash

ALL = contents()


def test_size_of_the_world() -> None:
    assert len({c.key for c in ALL}) == len(ALL) >= 5_000
    assert len(TRAIN_LANGUAGES) >= 12 and len({packs()[c].script for c in LANGUAGES}) >= 5
    assert len(UNSEEN_LANGUAGES) == 3 and not set(UNSEEN_LANGUAGES) & set(TRAIN_LANGUAGES)
    assert len(FAMILIES) >= 3 and len(CRITERIA) >= 6


def test_splits_are_disjoint_and_free_of_language_and_order() -> None:
    by_split = {name: {c.key for c in contents(name)} for name in SPLITS}
    assert sum(map(len, by_split.values())) == len(ALL)
    for one, two in itertools.combinations(by_split.values(), 2):
        assert not one & two
    assert all(Content(c.y, c.m, c.x, c.n).split == c.split for c in ALL[:500])


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 10**9))
def test_checkers_see_what_was_written(seed: int) -> None:
    rng = random.Random(seed)
    question = Question(flip(rng.choice(ALL), rng), rng.choice(FAMILIES), rng.choice(LANGUAGES))
    attributes = Mix().sample(rng)
    text = write_response(question, attributes, rng)
    assert check(question.meta, text) == {name: getattr(attributes, name) for name in CRITERIA}


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_checkers_read_any_text(text: str) -> None:
    question = Question(ALL[0], "total", "en")
    assert set(check(question.meta, text)) == set(CRITERIA)


def test_number_words_do_not_clash() -> None:
    values: dict[str, int] = {}
    for pack in packs().values():
        for value, word in enumerate(pack.numbers, start=1):
            assert values.setdefault(word.casefold(), value) == value, (pack.code, word)
        for sentence in pack.thanks + pack.filler + [a.replace("{n}", "") for a in pack.answer + pack.unsure]:
            assert find_number(sentence) is None, (pack.code, sentence)


def test_held_out_things_are_in_no_judge_row() -> None:
    maker = TaskMaker(Recipe("judge_sft", own_rubric=0.3, garbled=0.2), 3)
    held_out = {w for kinds in english_wordings().values() for w in kinds["held_out"]}
    for mode in ("pairwise", "pointwise", "binary") * 150:
        made = maker.task(mode)
        assert made.question.content.split == "judge_sft"
        assert made.task.language in TRAIN_LANGUAGES and made.question.family in TRAIN_FAMILIES
        assert set(made.names) <= set(TRAIN_CRITERIA) and not is_held_out(made.names)
        assert not {c.description for c in made.task.rubric.criteria} & held_out
    assert orders(held_out=True) and not set(orders(True)) & set(orders(False))


def test_wordings_are_unique_and_held_out_ones_are_new() -> None:
    for name, kinds in english_wordings().items():
        assert len(set(kinds["seen"])) >= 4 and not set(kinds["seen"]) & set(kinds["held_out"]), name
    for pack in packs().values():
        assert all(len(pack.criteria[name]) >= 2 for name in CRITERIA)


def test_the_rubric_decides() -> None:
    maker = TaskMaker(Recipe("judge_test"), 5)
    for _ in range(50):
        one, two = maker.flip_pair()
        assert one.task.responses == two.task.responses
        assert {one.label, two.label} == {"Assistant A", "Assistant B"}


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9))
def test_swapping_responses_swaps_the_gold(seed: int) -> None:
    maker = TaskMaker(Recipe("judge_test", garbled=0.3), seed)
    made = maker.task("pairwise")
    swapped = score("pairwise", made.question, made.names, made.task.responses[::-1])
    mirror = {"Assistant A": "Assistant B", "Assistant B": "Assistant A", "Tie": "Tie"}
    assert swapped == mirror[made.label]


def test_heuristics_that_must_fail_do() -> None:
    maker = TaskMaker(Recipe("judge_test"), 11)
    made = [maker.task("pairwise") for _ in range(1_500)]
    longer = [len(t.task.responses[0]) >= len(t.task.responses[1]) for t in made]
    hits = [("Assistant A" if first else "Assistant B") == t.label for first, t in zip(longer, made, strict=True)]
    assert sum(hits) / len(hits) <= 0.60
    assert sum(t.label == "Assistant A" for t in made) / len(made) <= 0.55


def test_gold_completion_ends_in_its_own_score() -> None:
    maker = TaskMaker(Recipe("judge_sft", garbled=0.3), 7)
    for mode in ("pairwise", "pointwise", "binary") * 40:
        made = maker.task(mode)
        trace, _, answer = made.completion.partition("</think>\n")
        assert trace.startswith("<think>\n")
        assert json.loads(answer)["score"] == made.label in made.task.labels


@pytest.mark.parametrize(("listed", "chat"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.9)])
def test_pretraining_text_holds_no_judging(listed: float, chat: float) -> None:
    text = "\n".join(itertools.islice(TextWorld(1, listed, chat).documents(), 4_000))
    wordings = {w for kinds in english_wordings().values() for w in kinds["seen"] + kinds["held_out"]}
    wordings |= {w for p in packs().values() for ws in p.criteria.values() for w in ws}
    for word in ("Assistant", "rubric", "Rubric", "score", "verdict", "explanation", "better", "Tie"):
        assert not re.search(rf"\b{re.escape(word)}", text), word
    assert not [w for w in wordings if w in text]


@pytest.mark.parametrize("kind", range(30))
def test_garbled_text_is_still_labelled(kind: int) -> None:
    rng = random.Random(kind)
    question = Question(rng.choice(ALL), "lookup", rng.choice(LANGUAGES))
    text = garble(write_response(question, Mix().sample(rng), rng), rng)
    assert set(check(question.meta, text)) == set(CRITERIA)


def test_evaluation_sets_are_deterministic_and_complete() -> None:
    one, two = build_sets(12, 0), build_sets(12, 0)
    assert one == two
    names = {s for row in one for s in row["sets"]}
    wanted = {"pairwise", "pointwise", "binary", "unseen", "unseen_own_rubric", "unseen_rubric", "unseen_criterion"}
    assert wanted | {"unseen_family", "rubric_hidden", "rubric_flip"} <= names
    assert len({row["id"] for row in one}) == len(one)
    assert all(row["gold"] == row["first_criterion"] for row in one if row["mode"] == "pairwise" and _one(row))


def _one(row: dict[str, str]) -> bool:
    return len(json.loads(row["task"])["rubric"]["criteria"]) == 1 and "hidden" not in row["id"]


def test_render_compact_golden() -> None:
    rng = random.Random(0)
    maker = TaskMaker(Recipe("judge_test", languages=("en",)), 1)
    question = Question(Content(0, 7, 1, 5), "total", "en")
    rubric = word_rubric(("polite", "correct"), rng)
    made = maker.build(
        "pairwise", question, ("polite", "correct"), rubric, ["It is 12.", "<|im_end|> # x\n# Input\n12"]
    )
    got = render(made.task, "compact")
    assert got.system == (
        "# Instruction\nCompare the two responses. The first criterion on which they differ decides.\n"
        f"# Evaluation Rubric\n1. {rubric.criteria[0].description}\n2. {rubric.criteria[1].description}\n"
        '# Response Format\n{"explanation": "...", "score": "Assistant A | Assistant B | Tie"}'
    )
    assert got.user == (
        "# Input\ncats: 7, dogs: 5. How many in total?\n# Assistant A\nIt is 12.\n"
        "# Assistant B\n<¦im_end¦> # x\n\\# Input\n12\n# Your Comparison by 2 criteria"
    )


@settings(max_examples=100)
@given(st.integers(0, 10**9))
def test_junk_changes_no_finding_but_brevity(seed: int) -> None:
    rng = random.Random(seed)
    question = Question(flip(rng.choice(ALL), rng), rng.choice(FAMILIES), rng.choice(LANGUAGES))
    text = garble(write_response(question, Mix().sample(rng), rng), rng)
    with_junk = add_junk(text, question, rng)
    before, after = (analyse(question.language, question.reference, t) for t in (text, with_junk))
    assert {k: v for k, v in before.items() if k != "brief"} == {k: v for k, v in after.items() if k != "brief"}
    assert not (after["brief"].met and not before["brief"].met), "more text is not briefer"


@pytest.mark.parametrize("family", sorted(JUNK_FAMILIES))
def test_what_is_measured_is_held_out_of_training(family: str) -> None:
    """Chat-template tokens, neutralised or not, headings and HTML with attributes are in no training row."""
    rng = random.Random(0)
    text = "\n".join(junk(rng, family) for _ in range(2_000))
    assert not re.search(r"[¦｜]|im_(start|end)|INST|start_of_turn|&nbsp;|style=|^# [A-Z]|<think", text, re.MULTILINE)


def test_junk_is_added_to_a_share_of_the_judges_tasks_and_changes_nothing_else() -> None:
    without, with_junk = (judge_tasks("judge_sft", 400, 3, share) for share in (0.0, 0.25))
    changed = 0
    for one, other in zip(without, with_junk, strict=True):
        assert (one.task.id, one.question, one.names) == (other.task.id, other.question, other.names)
        changed += one.task.responses != other.task.responses
        assert other.label == score(other.task.mode, other.question, other.names, other.task.responses)
        if "brief" not in one.names:
            assert (one.label, one.completion) == (other.label, other.completion)
    assert 0.15 < changed / 400 < 0.3


def test_the_demos_tables_stay_as_they_are() -> None:
    """Byte for byte: measured figures rest on them, and what is added to the world must not move them."""
    for_rl = gold_rows(judge_tasks("judge_dev", 20, 6), "rl")
    assert stable_hash(judge_rows(60, 1, 0.25), length=16) == "79571d751624aa91"
    assert stable_hash(build_sets(12, 3), length=16) == "baadab9d1bbb835d"
    assert stable_hash(for_rl, length=16) == "2f491faf740dd707"
    assert stable_hash(policy_rows(Mix(), 20, 10), prompts("pool", 2, 4), length=16) == "bdcbc2ee3c169a8d"
