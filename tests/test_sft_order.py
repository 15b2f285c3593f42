"""An order that is kept: packs of consecutive rows, replay spread through, blanks in place of wrapped rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from mr3.sft.batches import PackCollator, write_packs
from mr3.sft.data import IGNORED, Row
from mr3.sft.order import arranged, in_packs, interleave, next_fit

BASE = Path(__file__).parent.parent / "mr3" / "nano" / "base"


def rows(*lengths: int, prompt: int = 2, start: int = 5) -> list[Row]:
    return [
        Row(np.arange(start + 10 * i, start + 10 * i + n, dtype=np.int32), min(prompt, n), i)
        for i, n in enumerate(lengths)
    ]


@given(st.lists(st.integers(1, 50)), st.integers(50, 90))
def test_packs_hold_all_rows_in_order_and_are_never_overfull_or_opened_too_soon(lengths: list[int], size: int) -> None:
    packs = next_fit(lengths, size)
    assert [i for pack in packs for i in pack] == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in pack) for pack in packs]
    assert all(0 < s <= size for s in sums)
    assert all(s + lengths[after[0]] > size for s, after in zip(sums, packs[1:], strict=False))


def test_a_row_that_no_pack_can_hold_is_an_error() -> None:
    with pytest.raises(ValueError, match="row 1 has 9 tokens"):
        next_fit([3, 9], 8)


@given(st.integers(1, 60), st.integers(0, 60))
def test_replay_is_spread_evenly_and_moves_nothing(n: int, extra: int) -> None:
    mixed = interleave([("row", i) for i in range(n)], [("extra", i) for i in range(extra)])
    for kind, count in (("row", n), ("extra", extra)):
        assert [i for k, i in mixed if k == kind] == list(range(count))
    for place, (kind, i) in enumerate(mixed):
        if kind == "extra":
            assert abs(place / len(mixed) - (i + 0.5) / extra) <= 1.5 / min(n, extra)


def test_only_a_kept_order_stays_and_shuffling_is_seeded() -> None:
    given_rows, replay = rows(*[3] * 30), [Row(np.array([1, 2], dtype=np.int32), 0)] * 3
    kept = arranged(given_rows, replay, "kept", True, seed=1)
    assert [r.source for r in kept if r.source is not None] == list(range(30))
    assert [i for i, r in enumerate(kept) if r.source is None] == [5, 16, 27], "replay in the middle of each third"
    shuffled = [[r.source for r in arranged(given_rows, [], "shuffled", True, seed)] for seed in (1, 1, 2)]
    assert shuffled[0] == shuffled[1] != shuffled[2] and sorted(shuffled[0]) == list(range(30))  # type: ignore[type-var]


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_every_process_gets_whole_batches_without_a_row_twice(
    n: int, batch: int, processes: int, packing: bool
) -> None:
    packs = in_packs(rows(*[7] * n), packing, 20, batch * processes, pad_token=0)
    assert len(packs) % (batch * processes) == 0
    assert [r.source for pack in packs for r in pack if r.source is not None] == list(range(n))
    blanks = [r for pack in packs for r in pack if r.source is None]
    assert len(blanks) < batch * processes and all((r.labels == IGNORED).all() for r in blanks)


def test_packed_logits_are_those_of_rows_alone(tmp_path: Path) -> None:
    """A row in a pack sees itself only, and its loss is the same."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    made = [
        Row(np.random.default_rng(i).integers(5, 3_000, n).astype(np.int32), p)
        for i, (n, p) in enumerate([(9, 3), (14, 6), (5, 0), (21, 8), (2, 1)])
    ]
    packs = in_packs(made, True, 30, 1, pad_token=0)
    assert [len(p) for p in packs] == [3, 2], "the test must pack"
    write_packs(packs, tmp_path / "packs.arrow")
    batch = PackCollator(0)(list(Dataset.from_file(str(tmp_path / "packs.arrow"))))
    assert batch["input_ids"].shape == (2, 28) and "attention_mask" not in batch
    with torch.no_grad():
        packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        for line, pack in enumerate(packs):
            begin = 0
            for row in pack:
                alone = model(input_ids=torch.tensor(row.ids[None].astype(np.int64))).logits[0]
                here = slice(begin, begin + len(row))
                assert torch.allclose(packed[line, here], alone, atol=1e-4)
                labels = torch.tensor(row.labels[1:].astype(np.int64))
                assert torch.equal(batch["labels"][line, here][1:], labels) and batch["labels"][line, begin] == IGNORED
                begin += len(row)


def test_packs_on_disk_are_what_was_packed(tmp_path: Path) -> None:
    packs = in_packs(rows(*[4] * 2_500), True, 9, 1, pad_token=0)
    write_packs(packs, tmp_path / "packs.arrow")
    found = Dataset.from_file(str(tmp_path / "packs.arrow"))
    assert len(found) == 1_250 and found[1_200]["input_ids"] == [int(i) for r in packs[1_200] for i in r.ids]
    assert found[1_200]["seq_lengths"] == [4, 4]
