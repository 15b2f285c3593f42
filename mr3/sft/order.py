"""The order of SFT rows: what stands where before the trainer sees it, and how the trainer must sample.

Packing is next fit: a row opens a new pack when it does not fit into the last one, and no earlier pack is touched
again. So rows stay in order at any batch size, accumulation and number of processes: accelerate gives process p of P
the batches p, p + P, ..., and the batches of one optimizer step are the next ones of the sequence.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from mr3.sft.config import Order
from mr3.sft.data import Row

SAMPLING: dict[Order, str] = {"kept": "sequential", "shuffled": "random", "grouped": "group_by_length"}
T = TypeVar("T")


def interleave(rows: Sequence[T], extra: Sequence[T]) -> list[T]:
    """`extra` spread evenly through `rows`, both in their own order."""
    placed = [((i + 0.5) / len(rows), 0, row) for i, row in enumerate(rows)]
    placed += [((i + 0.5) / len(extra), 1, row) for i, row in enumerate(extra)]
    return [row for _, _, row in sorted(placed, key=lambda p: p[:2])]


def arranged(rows: list[Row], replay: list[Row], order: Order | None, packing: bool, seed: int) -> list[Row]:
    """All rows as the trainer's data set holds them.

    A kept order has replayed text spread through it; else the two are shuffled together (as are rows before they are
    packed: the sampler can only shuffle packs).
    """
    if order == "kept":
        return interleave(rows, replay)
    both = rows + replay
    if replay or (packing and order == "shuffled"):
        random.Random(seed).shuffle(both)
    return both


def next_fit(lengths: Sequence[int], size: int) -> list[range]:
    """Packs of consecutive rows of at most `size` tokens in all.

    Raises:
        ValueError: for a row that is longer than `size`: it can't be packed whole.
    """
    packs: list[range] = []
    begin, used = 0, 0
    for i, length in enumerate(lengths):
        if length > size:
            raise ValueError(f"row {i} has {length} tokens, more than a pack of {size}: drop it or raise max_tokens")
        if used + length > size:
            packs.append(range(begin, i))
            begin, used = i, 0
        used += length
    if begin < len(lengths):
        packs.append(range(begin, len(lengths)))
    return packs


def blank(token: int) -> Row:
    """A row without loss. Two tokens: the loss is on the next token, so one would leave nothing to mask."""
    return Row(np.array([token, token], dtype=np.int32), 2)


def in_packs(rows: Sequence[Row], packing: bool, max_tokens: int, multiple: int, pad_token: int) -> list[list[Row]]:
    """Rows in packs (of one row each without packing), in order, filled up with blanks to a multiple of `multiple`.

    The multiple is the rows of one forward pass of all processes. Without the blanks accelerate would fill the last
    batch of an epoch with the first rows of the curriculum (`even_batches`).
    """
    if packing:
        packs = [[rows[i] for i in pack] for pack in next_fit([len(r) for r in rows], max_tokens)]
    else:
        packs = [[row] for row in rows]
    return packs + [[blank(pad_token)] for _ in range(-len(packs) % multiple)]
