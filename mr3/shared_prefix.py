"""Log-probabilities of several continuations of one prompt, with the prompt computed once.

GRPO has 8 or 16 completions of a prompt in a batch, DPO two, and TRL (1.17) runs every one of them with a copy of the
prompt. A judge's prompt is several times as long as its answer, so most of the work is done 8 times over. Here the
continuations of a prompt stand behind it in one row:

    prompt without its last token | last token, continuation 1 | last token, continuation 2 | ...

Each continuation sees the prompt and itself, by a mask, at the positions that it would have alone; the prompt's last
token is repeated because it predicts the first token of each. Values and gradients are those of single rows up to
rounding. Models must take an attention mask of four dimensions: eager and sdpa attention do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Packed:
    """Rows of a prompt with its continuations. G rows of L tokens; B continuations of at most K tokens.

    Args:
        input_ids, position_ids: (G, L).
        attention_mask: (G, 1, L, L), 0 where a token may look and the least number of the dtype where not.
        labels: (G, L), -100 but on tokens of continuations.
        row, column: (N,), the place of every continuation's token in a row.
        source, offset: (N,), of which continuation it is, and the how manieth of its K places.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    source: torch.Tensor
    offset: torch.Tensor

    def spread(self, values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """Values of tokens as predicted, (G, L - 1) with that of token t at t - 1, as (B, K); 0 where there is none."""
        found = torch.zeros(shape, dtype=values.dtype, device=values.device)
        return found.index_put((self.source, self.offset), values[self.row, self.column - 1])


def groups_of(input_ids: torch.Tensor, attention_mask: torch.Tensor, keep: int) -> list[list[int]]:
    """Rows of (B, T) tensors that have the same prompt, which is all but the last `keep` places."""
    found: dict[tuple[int, ...], list[int]] = {}
    width = input_ids.size(1) - keep
    prompts = input_ids[:, :width].masked_fill(attention_mask[:, :width] == 0, -1).tolist()
    for i, prompt in enumerate(prompts):
        found.setdefault(tuple(token for token in prompt if token >= 0), []).append(i)
    return list(found.values())


def takes_masks(model: Any) -> bool:
    """Whether a model's attention reads a mask of four dimensions in every layer: no flash attention, no windows."""
    config = getattr(model, "config", None)
    if config is None:
        return False
    text = config.get_text_config()
    windows = {kind for kind in getattr(text, "layer_types", None) or () if kind != "full_attention"}
    windowed = bool(windows) or (getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True))
    return text._attn_implementation in ("eager", "sdpa") and not windowed


@dataclass(frozen=True)
class Work:
    """What a token costs, in multiplications: `weights` of all layers, and `attention` for each token that it sees."""

    weights: int
    attention: int

    @classmethod
    def of(cls, model: Any) -> Work:
        """Of a transformers model; embeddings are looked up, and the head is asked for labelled tokens only."""
        config = model.config.get_text_config()
        tables = (model.get_input_embeddings(), model.get_output_embeddings())
        apart = {id(p) for table in tables if table is not None for p in table.parameters()}
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        weights = sum(p.numel() for p in model.parameters() if id(p) not in apart)
        return cls(weights, 2 * config.num_hidden_layers * config.num_attention_heads * head)


def saves(groups: Sequence[Sequence[int]], attention_mask: torch.Tensor, keep: int, work: Work) -> bool:
    """Whether packed rows need fewer operations than single ones.

    Under a mask every token looks at the whole row; without one, on average at half of it.
    """
    width = attention_mask.size(1) - keep
    prompts = attention_mask[:, :width].sum(1).tolist()
    lengths = attention_mask[:, width:].sum(1).tolist()
    longest = max(prompts[group[0]] + sum(lengths[i] + 1 for i in group) for group in groups)
    rows, places = attention_mask.shape
    packed = len(groups) * longest * (work.weights + work.attention * longest)
    return bool(packed < rows * places * (work.weights + work.attention * places / 2))


def pack(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    keep: int,
    groups: Sequence[Sequence[int]],
    dtype: torch.dtype = torch.float32,
) -> Packed:
    """Packed rows of a batch as TRL has it: prompts padded on the left, continuations on the right.

    Args:
        input_ids, attention_mask: (B, T).
        keep: K, the last places of T, which hold the continuations.
        groups: rows of the same prompt, as `groups_of` gives them.
        dtype: of the model, for the mask.
    """
    device, width = input_ids.device, input_ids.size(1) - keep
    rows: list[torch.Tensor] = []
    positions: list[torch.Tensor] = []
    segments: list[torch.Tensor] = []
    places: list[torch.Tensor] = []
    for g, group in enumerate(groups):
        prompt = input_ids[group[0], :width][attention_mask[group[0], :width].bool()]
        assert len(prompt), "a prompt has at least one token"
        ids, spots, of = (
            [prompt[:-1]],
            [torch.arange(len(prompt) - 1)],
            [torch.zeros(len(prompt) - 1, dtype=torch.long)],
        )
        column = len(prompt) - 1
        for k, i in enumerate(group, 1):
            own = input_ids[i, width:][attention_mask[i, width:].bool()]
            ids += [prompt[-1:], own]
            spots.append(torch.arange(len(prompt) - 1, len(prompt) + len(own)))
            of.append(torch.full((len(own) + 1,), k))
            offsets = torch.nonzero(attention_mask[i, width:].cpu())[:, 0]
            columns = torch.arange(column + 1, column + 1 + len(own))
            places.append(torch.stack([torch.full_like(columns, g), columns, torch.full_like(columns, i), offsets]))
            column += len(own) + 1
        rows.append(torch.cat(ids))
        positions.append(torch.cat(spots))
        segments.append(torch.cat(of))
    padded = [torch.nn.utils.rnn.pad_sequence(some, batch_first=True).to(device) for some in (rows, positions)]
    segment = torch.nn.utils.rnn.pad_sequence(segments, batch_first=True, padding_value=-1).to(device)
    row, column_of, source, offset = torch.cat(places, dim=1).to(device)
    labels = torch.full_like(padded[0], -100)
    labels[row, column_of] = padded[0][row, column_of]
    return Packed(padded[0], padded[1], _mask(segment, dtype), labels, row, column_of, source, offset)


def _mask(segment: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Causal within the prompt (0) and each continuation (1, 2, ...), which also sees the prompt; padding is -1."""
    length = segment.size(1)
    causal = torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    asks, answers = segment[:, :, None], segment[:, None, :]
    sees = causal & ((asks == answers) | (answers == 0))
    mask = torch.zeros(sees.shape, dtype=dtype, device=segment.device)
    return mask.masked_fill(~sees, torch.finfo(dtype).min)[:, None]
