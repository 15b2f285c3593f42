"""Continuations that share a prompt have the log-probabilities and gradients of single rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.trainer.utils import add_fused_lm_head

from mr3.compact_head import use_compact_head
from mr3.shared_prefix import Work, groups_of, pack, saves, takes_masks
from mr3.training import load_model

BASE = "mr3/nano/base"
Row = tuple[list[int], list[int]]


def batch(rows: list[Row], pad: int = 3068) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Prompts padded on the left, continuations on the right, as TRL has them."""
    width, keep = max(len(p) for p, _ in rows), max(len(c) for _, c in rows)
    ids = [[pad] * (width - len(p)) + p + c + [pad] * (keep - len(c)) for p, c in rows]
    mask = [[0] * (width - len(p)) + [1] * (len(p) + len(c)) + [0] * (keep - len(c)) for p, c in rows]
    return torch.tensor(ids), torch.tensor(mask), keep


def logps(
    rows: list[Row], shared: bool, attention: str = "sdpa", compact: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, K) log-probabilities, and the gradient of a weighted sum of them in the embedding."""
    model = load_model(BASE, attention=attention)
    add_fused_lm_head(model, temperature=0.7)
    if compact:
        use_compact_head(model, 0.7)
    ids, mask, keep = batch(rows)
    if shared:
        packed = pack(ids, mask, keep, groups_of(ids, mask, keep))
        out = model(
            input_ids=packed.input_ids,
            attention_mask=packed.attention_mask,
            position_ids=packed.position_ids,
            labels=packed.labels,
            fused_lm_head=True,
        )
        found = packed.spread(out.log_probs, (len(rows), keep))
    else:
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, :-keep] = -100
        out = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
        found = out.log_probs[:, -keep:] * mask[:, -keep:]
    weights = torch.arange(found.numel()).reshape(found.shape) % 5 - 2.0
    (found * weights).sum().backward()
    return found.detach(), model.get_input_embeddings().weight.grad


ROWS: list[Row] = [
    ([5, 6, 7, 8], [10, 11, 12]),
    ([9], [13, 14]),
    ([5, 6, 7, 8], [15]),
    ([5, 6, 7, 8], [10, 11, 12, 16, 17]),
    ([9], [18, 19, 20, 21]),
    ([22, 23], [24]),
]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("compact", [True, False])
def test_values_and_gradients_are_those_of_single_rows(attention: str, compact: bool) -> None:
    alone, alone_gradient = logps(ROWS, shared=False, attention=attention, compact=compact)
    together, gradient = logps(ROWS, shared=True, attention=attention, compact=compact)
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(gradient, alone_gradient, atol=2e-4, rtol=1e-3)


token = st.integers(4, 3000)


@settings(max_examples=10)
@given(
    st.lists(
        st.tuples(st.lists(token, min_size=1, max_size=4), st.lists(token, min_size=1, max_size=6)),
        min_size=1,
        max_size=5,
    )
)
def test_any_batch_has_the_values_of_single_rows(rows: list[Row]) -> None:
    doubled = [row for row in rows for _ in range(2)]
    torch.testing.assert_close(logps(doubled, True)[0], logps(doubled, False)[0], atol=5e-5, rtol=1e-3)


def test_rows_are_grouped_by_prompt_wherever_they_stand() -> None:
    ids, mask, keep = batch(ROWS)
    assert groups_of(ids, mask, keep) == [[0, 2, 3], [1, 4], [5]]


def test_packing_is_for_long_prompts_and_short_answers() -> None:
    long, short = batch([([5] * 300, [7] * 20)] * 8), batch([([5], [7] * 300)] * 8)
    work = Work.of(load_model(BASE))
    assert work.attention == 2 * 4 * 4 * 32 and 700_000 < work.weights < 900_000
    assert saves([list(range(8))], long[1], long[2], work)
    assert not saves([list(range(8))], short[1], short[2], work)
    assert not saves([[i] for i in range(8)], long[1], long[2], work), "nothing is shared"


def test_only_plain_attention_takes_the_mask() -> None:
    assert takes_masks(load_model(BASE)) and takes_masks(load_model(BASE, attention="eager"))
    windowed = load_model(BASE)
    windowed.config.layer_types = ["full_attention", "sliding_attention"]
    assert not takes_masks(windowed) and not takes_masks(torch.nn.Linear(1, 1))
