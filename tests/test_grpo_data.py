"""Tasks for GRPO: bundles stay whole, held-out contents are never trained on, choices go by the seed; their order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_experiments.config import GrpoConfig
from grpo_experiments.data import bundled, chosen, exchanged, read_examples, read_tasks, split
from grpo_experiments.judge import tasks_of
from grpo_experiments.sampler import BundleSampler, covering, packed
from mr3.judge_card import JudgeCard
from mr3.records import Task
from mr3.training import load_tokenizer
from tests.grpo_support import example, task, write_tasks

A, B = "Assistant A", "Assistant B"


def row(name: str, **more: Any) -> dict[str, Any]:
    return {"task": task(name).model_dump_json(), "gold": A, **more}


def asked_task(name: str, question: Any) -> Task:
    return task(name, input=question, responses=[f"{name} one", f"{name} two"])


def asked(name: str, question: Any, **more: Any) -> dict[str, Any]:
    """A row that asks this."""
    return {"task": asked_task(name, question).model_dump_json(), "gold": A, **more}


def test_only_task_and_gold_are_required(tmp_path: Path) -> None:
    (found,) = read_examples(write_tasks(tmp_path / "t.parquet", [row("t")]))
    assert (found.gold, found.twin, found.criteria, found.hidden) == (A, None, (), None) and found.content
    full = row("t", content="c", twin="x", criteria=["correct"], hidden=B, decided_by=0, trace="T")
    (found,) = read_examples(write_tasks(tmp_path / "u.parquet", [full]))
    assert (found.content, found.twin, found.criteria, found.hidden, found.decided_by) == ("c", "x", ("correct",), B, 0)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"task": "{}"}], "no column 'gold'"),
        ([{"task": "{}", "gold": A}], "row 0 holds no task"),
        ([row("t") | {"gold": "C"}], "gold is 'C', and the legal scores are"),
        ([row("t"), row("t")], "comes more than once"),
    ],
)
def test_rows_that_are_none_are_named(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_examples(write_tasks(tmp_path / "t.parquet", rows))
    with pytest.raises(ValueError, match="make them with"):
        read_examples(tmp_path / "none.parquet")


def test_an_exchanged_example_is_right_where_the_other_was() -> None:
    one = example(A, hidden=B, task=task("t"))
    other = exchanged(one)
    assert (other.gold, other.hidden, other.task.responses, other.swapped) == (B, A, ["5", "4"], True)
    assert exchanged(example("Tie")).gold == "Tie"


def test_bundles_hold_twins_and_orders() -> None:
    found = bundled([example(name="a", twin="x"), example(name="b"), example(name="c", twin="x")], both_orders=True)
    assert [[(e.task.id, e.swapped) for e in bundle] for bundle in found] == [
        [("a", False), ("a", True), ("c", False), ("c", True)],
        [("b", False), ("b", True)],
    ]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 12),
    st.integers(0, 3),
)
def test_no_content_is_both_trained_on_and_held_out(rows: list[tuple[int, bool]], wanted: int, seed: int) -> None:
    examples = [
        example(name=f"{i}-{k}", content=f"c{content}", twin=f"t{i}" if twin else None)
        for i, (content, twin) in enumerate(rows)
        for k in range(2 if twin else 1)
    ]
    bundles = bundled(examples, False)
    train, held_out = split(bundles, wanted, seed)
    of = lambda part: {e.content for b in part for e in b}  # noqa: E731
    assert not of(train) & of(held_out) and len(train) + len(held_out) == len(bundles)
    assert sum(map(len, held_out)) >= min(wanted, len(examples))
    assert split(bundles, wanted, seed) == (train, held_out)


def test_a_held_out_file_takes_its_contents_out_of_training(tmp_path: Path) -> None:
    train = write_tasks(tmp_path / "t.parquet", [row(f"r{i}", content=f"c{i % 3}") for i in range(6)])
    held = write_tasks(tmp_path / "h.parquet", [row("h", content="c1")])
    found = read_tasks(train, held, max_tasks=None, held_out_tasks=0, both_orders=False, seed=0)
    assert {e.content for b in found.train for e in b} == {"c0", "c2"} and found.dropped == {"content_held_out": 2}
    with pytest.raises(ValueError, match="is left to train on"):
        read_tasks(train, None, max_tasks=None, held_out_tasks=6, both_orders=False, seed=0)


def test_one_id_for_two_tasks_is_refused_and_the_same_task_in_both_files_is_not(tmp_path: Path) -> None:
    train = write_tasks(tmp_path / "t.parquet", [asked("row-0", "2 + 2?"), asked("row-1", "3 + 3?")])
    other = write_tasks(tmp_path / "h.parquet", [asked("row-0", "4 + 4?")])
    same = write_tasks(tmp_path / "s.parquet", [asked("row-0", "2 + 2?")])
    options: dict[str, Any] = {"max_tasks": None, "held_out_tasks": 0, "both_orders": True, "seed": 0}
    with pytest.raises(ValueError, match="'row-0' is one task in `tasks` and another in `held_out`"):
        read_tasks(train, other, **options)
    found = read_tasks(train, same, **options)
    assert [[b[0].task.id for b in part] for part in (found.train, found.held_out)] == [["row-1"], ["row-0"]]


def test_a_row_is_trained_on_its_own_prompt(tmp_path: Path) -> None:
    """Also where the other file has a row of its id, which is not among those that were drawn to be evaluated."""
    more = [asked(f"row-{i}", f"{i} + {i}?") for i in range(4)]
    options = {
        "output_dir": tmp_path, "model": "m", "rewards": {"correctness": 1.0}, "orders": "both", "held_out_tasks": 2,
        "tasks": write_tasks(tmp_path / "t.parquet", [*more, asked("own", "5 + 5?")]),
        "held_out": write_tasks(tmp_path / "h.parquet", more),
    }  # fmt: skip
    card = JudgeCard(profile="compact", max_prompt_tokens=1024, max_output_tokens=128)
    tasks, prompts = tasks_of(GrpoConfig.model_validate(options), card, load_tokenizer("mr3/nano/base"))
    rows = [example for bundle in (*tasks.train, *tasks.held_out) for example in bundle]
    assert len(rows) == len(prompts) == 10 and len(set(prompts.values())) == 10
    for i, shown in enumerate(rows):
        first, second = shown.task.responses
        assert str(shown.task.input) in prompts[i] and prompts[i].index(first) < prompts[i].index(second)


def test_contents_meet_by_what_is_asked_too(tmp_path: Path) -> None:
    """A file with contents and one without, a text and the same text as the user's turn: the same question."""
    turn = [{"role": "user", "content": "2 + 2?"}]
    rows = [asked("named", "2 + 2?", content="sum"), asked("turn", turn), asked("apart", "3 + 3?")]
    train = write_tasks(tmp_path / "t.parquet", rows)
    held = write_tasks(tmp_path / "h.parquet", [asked("held", "2 + 2?")])
    found = read_tasks(train, held, max_tasks=None, held_out_tasks=0, both_orders=False, seed=0)
    assert [b[0].task.id for b in found.train] == ["apart"] and found.dropped == {"content_held_out": 2}
    for seed in range(8):
        sides = split(bundled(read_examples(train), False), 1, seed)
        assert sorted(len(side) for side in sides) == [1, 2], "named and turn stay together"


def test_a_task_in_both_orders_is_one_held_out_task() -> None:
    bundles = bundled(
        [example(name=f"t{i}", content=f"c{i}", task=asked_task(f"t{i}", f"{i}?")) for i in range(9)], True
    )
    _, held_out = split(bundles, 4, 0)
    assert len(held_out) == 4 and all(len(bundle) == 2 for bundle in held_out)


def test_tasks_are_chosen_by_the_seed_and_not_from_the_head() -> None:
    bundles = bundled([example(name=str(i), twin=f"t{i // 2}") for i in range(40)], False)
    first, again, other = (chosen(bundles, 10, seed, "tasks") for seed in (0, 0, 1))
    assert first == again != other and first != bundles[:5] and sum(map(len, first)) == 10
    assert chosen(bundles, None, 0, "tasks") == bundles


def test_a_prompt_that_is_too_long_takes_its_bundle_with_it(tmp_path: Path) -> None:
    file = write_tasks(tmp_path / "t.parquet", [row("a", twin="x"), row("b", twin="x"), row("c", twin=None)])
    found = read_tasks(
        file, None, max_tasks=None, held_out_tasks=0, both_orders=False, seed=0, fits=lambda e: e.task.id != "b"
    )
    assert [e.task.id for b in found.train for e in b] == ["c"] and found.dropped == {"too_long": 2}


sizes = st.lists(st.sampled_from([1, 1, 2, 4]), min_size=1, max_size=30)


def numbers(lengths: list[int]) -> list[list[int]]:
    found, first = [], 0
    for length in lengths:
        found.append(list(range(first, first + length)))
        first += length
    return found


@given(sizes, st.sampled_from([4, 6, 8]))
def test_bundles_are_whole_in_full_batches(lengths: list[int], size: int) -> None:
    bundles = numbers(lengths)
    if sum(lengths) < size:
        return
    try:
        batches = packed(bundles, size)
    except ValueError:
        assert not can_fill(lengths, size)
        return
    for batch in batches:
        assert len(batch) == size
        for bundle in bundles:
            assert len(set(bundle) & set(batch)) in (0, len(bundle))
    times = Counter(row for batch in batches for row in batch)
    assert max(times.values()) == 1
    left = [len(bundle) for bundle in bundles if bundle[0] not in times]
    assert not can_fill(left, size), "a batch that could be filled was left out"


def can_fill(lengths: list[int], size: int) -> bool:
    """Whether some of the lengths add up to the size."""
    sums = {0}
    for length in lengths:
        sums |= {s + length for s in sums}
    return size in sums


def test_bundles_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="4 prompts belong together"):
        packed([[0, 1, 2, 3]], 2)
    with pytest.raises(ValueError, match="can be filled"):
        packed([[0, 1], [2, 3]], 3)


@given(sizes)
def test_an_evaluation_leaves_no_task_out(lengths: list[int]) -> None:
    bundles = numbers(lengths)
    batches = covering(bundles, 4)
    assert {row for batch in batches for row in batch} == set(range(sum(lengths)))


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (2, 1), (2, 3), (4, 2)])
def test_every_process_of_a_step_sees_the_same_generation_batch(processes: int, accumulation: int) -> None:
    """As accelerate deals batches out: process p gets the p-th, p + P-th, ... batch of its size."""
    samples, bundles = 4, numbers([2] * 20 + [1] * 8)
    local = 8 // processes * accumulation  # completions of a process in one generation
    prompts = local * processes // samples
    sampler = BundleSampler(bundles, prompts, samples, repeats=accumulation, seed=3)
    rows = list(sampler)
    assert len(rows) == len(sampler)
    dealt = [rows[i : i + local] for i in range(0, len(rows), local)]
    for step in range(0, len(dealt), processes):
        together = [row for part in dealt[step : step + processes] for row in part]
        assert all(len(set(together[i : i + samples])) == 1 for i in range(0, len(together), samples))
        for bundle in bundles:
            assert len(set(bundle) & set(together)) in (0, len(bundle))


def test_epochs_differ_and_are_the_same_again() -> None:
    sampler = BundleSampler(numbers([2] * 10), 4, 2, seed=1)
    first = list(sampler)
    sampler.begin_epoch(1)
    second = list(sampler)
    sampler.begin_epoch(0)
    assert list(sampler) == first != second and len(first) == len(second)
