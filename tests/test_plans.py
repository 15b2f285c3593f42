"""Plans: what they ask for, that they find what they promise, and that stored verdicts replay them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mr3.records import Outcome, PoolRow, Verdict
from mr3.rubrics import Criterion, Rubric
from rewards.pairs import RULES, select_pairs
from rewards.plans import ONE_ROUND, PLANS, Board, plan_pairs
from rewards.prompt_schedule import Judgement, judge_prompt, replay, task_id
from rewards.tasks import TaskSettings

RUBRIC = Rubric(criteria=[Criterion(name="good", description="It is good.")])
Answer = Callable[[Judgement], str | None]


def pool_row(texts: list[str]) -> PoolRow:
    responses = [{"id": f"r{i}", "text": t, "policy": "p"} for i, t in enumerate(texts)]
    return PoolRow.model_validate({"prompt_id": "q", "prompt": "?", "language": "en", "responses": responses})


def play(
    row: PoolRow, settings: TaskSettings, answer: Answer
) -> tuple[list[list[Judgement]], list[Verdict], list[Any]]:
    """Drive a prompt to its end: the rounds, the verdicts, the comparisons."""
    judging, rounds, made = judge_prompt(row, settings), [], []
    try:
        wanted = next(judging)
        while True:
            verdicts = []
            for n, judgement in enumerate(wanted, start=len(made)):
                score = answer(judgement)
                verdicts.append(
                    Verdict(
                        id=str(n),
                        task_id=task_id(row.prompt_id, judgement),
                        outcome=Outcome.OK if score else Outcome.PARSE_FAILED,
                        score=score,
                        swapped=judgement.swapped,
                        sample=judgement.sample,
                    )
                )
            rounds.append(wanted)
            made += verdicts
            wanted = judging.send(verdicts)
    except StopIteration as end:
        return rounds, made, end.value


def by_quality(row: PoolRow) -> Answer:
    """A judge without error: the greater number is better."""
    worth = {r.id: float(r.text) for r in row.responses}

    def answer(judgement: Judgement) -> str:
        a, b = (worth[i] for i in judgement.response_ids)
        return "Assistant A" if a > b else "Assistant B" if b > a else "Tie"

    return answer


def settings(**more: Any) -> TaskSettings:
    return TaskSettings.model_validate({"rubric": RUBRIC, **more})


def same(ids: Sequence[str]) -> dict[str, str]:
    """Responses whose texts are their ids."""
    return {i: i for i in ids}


def texts_of(row: PoolRow) -> dict[str, str]:
    return {r.id: r.text for r in row.responses}


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=6),
    st.permutations(range(6)),
    st.permutations(range(6)),
    st.sampled_from(sorted(PLANS)),
    st.sampled_from(sorted(RULES)),
    st.none() | st.integers(1, 3),
    st.integers(0, 3),
)
def test_the_names_and_the_order_of_the_responses_have_no_say(
    qualities: list[int],
    names: list[int],
    places: list[int],
    plan: str,
    rule: str,
    limit: int | None,
    seed: int,
) -> None:
    """All margins are 1, as without logprobs: what is equal is decided by lot, and a lot enters no id."""
    texts = [f"{quality}.{n}" for n, quality in enumerate(qualities)]
    row = pool_row(texts)
    others = [r.model_copy(update={"id": f"r{names[n]}"}) for n, r in enumerate(row.responses)]
    renamed = row.model_copy(update={"responses": tuple(others[i] for i in places if i < len(others))})

    def chosen(of: PoolRow) -> list[tuple[str, str]]:
        worth = {r.id: int(r.text.split(".")[0]) for r in of.responses}

        def answer(judgement: Judgement) -> str:
            a, b = (worth[i] for i in judgement.response_ids)
            return "Assistant A" if a > b else "Assistant B" if b > a else "Tie"

        _, _, comparisons = play(of, settings(plan=plan, seed=seed), answer)
        pairs = select_pairs(comparisons, rule, texts_of(of), limit=limit, seed=seed, prompt_id=of.prompt_id)
        return [(texts_of(of)[p.chosen], texts_of(of)[p.rejected]) for p in pairs]

    assert chosen(row) == chosen(renamed)


def test_plans_of_one_round_ask_for_what_they_say() -> None:
    sizes = {"all_pairs": [0, 1, 21], "circular": [0, 1, 7], "chain": [0, 1, 6]}
    for plan in sorted(ONE_ROUND):
        ids = same([f"r{i}" for i in range(7)])
        assert [len(plan_pairs(plan, same([*ids][:n]), 0, "q")) for n in (1, 2, 7)] == sizes[plan]
        pairs = plan_pairs(plan, ids, 0, "prompt")
        assert len({frozenset(p) for p in pairs}) == len(pairs) and all(a != b for a, b in pairs)
        assert pairs == plan_pairs(plan, same([*ids][::-1]), 0, "prompt"), "the pool's order must not matter"
        assert plan_pairs(plan, ids, 0, "prompt", cap=2) != plan_pairs(plan, ids, 1, "prompt", cap=2)


def test_who_is_shown_first_is_balanced() -> None:
    first = [plan_pairs("chain", same(["a", "b"]), 0, f"prompt {i}")[0][0] for i in range(400)]
    assert 160 < first.count("a") < 240
    board = Board.of(same(["a", "b", "c"]), 0, "q")
    assert board.shown(0, 1) == board.shown(1, 0), "two that meet again are shown as before"


@pytest.mark.parametrize("plan", ["all_pairs", "circular"])
def test_a_response_that_is_added_later_brings_only_its_own_pairs(plan: str) -> None:
    for prompt in ("p", "q", "r"):
        before = set(plan_pairs(plan, same(["a", "b", "c", "d"]), 0, prompt))
        after = set(plan_pairs(plan, same(["a", "b", "new", "c", "d"]), 0, prompt))
        assert all("new" in pair for pair in after - before)


@given(st.permutations(range(11)), st.integers(2, 11), st.integers(0, 5))
def test_knockout_finds_best_and_worst_with_few_comparisons(order: list[int], n: int, seed: int) -> None:
    row = pool_row([str(x) for x in order[:n]])
    rounds, verdicts, comparisons = play(row, settings(plan="knockout", orders="final", seed=seed), by_quality(row))
    worth = {r.id: int(r.text) for r in row.responses}
    [pair] = select_pairs(comparisons, "best_worst", texts_of(row))
    assert worth[pair.chosen] == max(worth.values()) and worth[pair.rejected] == min(worth.values())
    assert len(comparisons) <= (3 * n - 1) // 2
    assert len(verdicts) <= len(comparisons) + 1, "only the deciding comparison is judged in both orders"
    assert {j.swapped for j in rounds[-1]} in ({True, False}, {True})


@given(st.data(), st.integers(2, 7), st.sampled_from(sorted(PLANS)), st.sampled_from(["both", "one", "final"]))
def test_whatever_the_judge_says_stored_verdicts_replay_the_plan(data: Any, n: int, plan: str, orders: str) -> None:
    row = pool_row([str(x) for x in range(n)])
    how = settings(
        plan=plan,
        orders=orders,
        samples=data.draw(st.integers(1, 3)),
        combine=data.draw(st.sampled_from(["agree", "mean"])),
    )
    labels = st.sampled_from(["Assistant A", "Assistant B", "Tie", None])
    rounds, verdicts, comparisons = play(row, how, lambda _: data.draw(labels))
    asked, again = replay(row, how, [Verdict.model_validate_json(v.model_dump_json()) for v in verdicts])
    assert asked == [j for wanted in rounds for j in wanted] and again == comparisons
    assert len(set(asked)) == len(asked), "nothing is judged twice"
    for pair in select_pairs(comparisons, "best_worst", texts_of(row)):
        assert (pair.chosen, pair.rejected) in {(c.winner, c.loser) for c in comparisons}
    if len(verdicts) > 1:
        with pytest.raises(AssertionError):
            replay(row, how, verdicts[:-1])


def test_votes_stop_when_they_are_decided() -> None:
    row = pool_row(["1", "2"])
    rounds, verdicts, _ = play(row, settings(plan="chain", samples=5), by_quality(row))
    assert [len(wanted) for wanted in rounds] == [2, 2, 2], "three of five decide, in each order"
    _, verdicts, _ = play(row, settings(plan="chain", samples=5, combine="mean"), by_quality(row))
    assert len(verdicts) == 10, "a mean needs all its samples"
    _, verdicts, [comparison] = play(row, settings(plan="chain", samples=5, orders="one"), lambda _: None)
    assert len(verdicts) == 1 and comparison.result == "failed"


def test_single_modes_judge_each_response_and_compare_scores() -> None:
    row = pool_row(["1", "5", "5", "3"])
    worth = {r.id: r.text for r in row.responses}
    for plan, count in (("all_pairs", 3), ("knockout", 3)):
        rounds, verdicts, comparisons = play(
            row, settings(mode="pointwise", plan=plan), lambda j: worth[j.response_ids[0]]
        )
        assert len(rounds) == 1 and len(verdicts) == 3, "equal texts once"
        assert len(comparisons) == count
        [pair] = select_pairs(comparisons, "best_worst", texts_of(row))
        assert (worth[pair.chosen], worth[pair.rejected]) == ("5", "1")


def test_plans_that_can_not_be_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown plan 'swiss': choose one of"):
        settings(plan="swiss")
    with pytest.raises(ValueError, match="leave comparisons_per_prompt out"):
        settings(plan="knockout", comparisons_per_prompt=2)


def test_settings_go_through_json() -> None:
    how = settings(plan="knockout", samples=3)
    assert TaskSettings.model_validate(json.loads(how.model_dump_json())) == how
