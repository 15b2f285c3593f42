"""Probabilities of scores at the place of the verdict, by forward passes: exact over labels of several tokens.

A label's tokens are looked at in their context (a quote may melt into a label's first token), up to the one that tells
it from all other labels: p(label) is the product of the probabilities of those tokens. What the labels lack to 1 lies
outside the legal scores. Rows are padded on the left, so only the logits of the last few places are computed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Tree:
    """The labels of one text as token paths.

    Args:
        context: token ids that all labels share, the text among them.
        paths: label -> token ids behind the context, up to the one that tells it from the others.
    """

    context: list[int]
    paths: dict[str, list[int]]

    def rows(self) -> list[list[int]]:
        """Token ids behind the context that, as rows, hold every place where a path goes on; none begins another."""
        places = sorted({tuple(path[:-1]) for path in self.paths.values()}, key=len, reverse=True)
        kept: list[tuple[int, ...]] = []
        for place in places:
            if not any(longer[: len(place)] == place for longer in kept):
                kept.append(place)
        return [list(place) for place in kept]


def tree_of(tokenizer: Any, text: str, labels: Labels) -> Tree:
    """The token paths of the labels behind `text`, which ends where the score's value begins."""
    spelled = [f'{text}{json.dumps(label, ensure_ascii=False)[1:-1]}"' for label in labels]
    ids: list[list[int]] = tokenizer(spelled, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    shared = 0
    while all(len(row) > shared for row in ids) and len({row[shared] for row in ids}) == 1:
        shared += 1
    paths = {}
    for label, row in zip(labels, ids, strict=True):
        others = [other for other in ids if other is not row]
        length = shared + 1
        while any(other[:length] == row[:length] for other in others):
            length += 1
        paths[label] = row[shared:length]
    return Tree(ids[0][:shared], paths)


def _batches(rows: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


class LabelReader:
    """Asks one model for the probabilities of labels.

    Args:
        model: gives the module to call (a trainer's model is wrapped later than it is handed over).
        batch: rows of one forward pass.
        together: all processes make the same number of passes, as a sharded model needs it.
    """

    def __init__(self, model: Callable[[], Any], tokenizer: Any, batch: int, together: bool = False) -> None:
        self._model, self._tokenizer, self._batch, self._together = model, tokenizer, batch, together

    @torch.no_grad()
    def read(self, texts: Sequence[str | None], labels: Sequence[Labels]) -> list[dict[str, float] | None]:
        """Label -> probability behind each text; None for None."""
        trees = [
            None if t is None else tree_of(self._tokenizer, t, names) for t, names in zip(texts, labels, strict=True)
        ]
        rows = [(i, row) for i, tree in enumerate(trees) if tree is not None for row in tree.rows()]
        # Rows of like length together: padding is what a pass costs.
        rows.sort(key=lambda r: len(trees[r[0]].context) + len(r[1]))  # type: ignore[union-attr]
        batches = _batches(rows, self._batch)
        passes = max(gather_object([len(batches)])) if self._together else len(batches)
        logp: list[dict[tuple[int, ...], torch.Tensor]] = [{} for _ in trees]
        for number in range(passes):
            if number >= len(batches):
                self._pass([[0]], 1)
                continue
            batch = batches[number]
            keep = max(len(row) for _, row in batch) + 1
            out_BKV = self._pass([trees[i].context + row for i, row in batch], keep)  # type: ignore[union-attr]
            for (i, row), out_KV in zip(batch, out_BKV, strict=True):
                for depth in range(len(row) + 1):
                    logp[i][tuple(row[:depth])] = out_KV[keep - 1 - len(row) + depth]
        return [None if tree is None else _probabilities(tree, logp[i]) for i, tree in enumerate(trees)]

    def _pass(self, rows: list[list[int]], keep: int) -> torch.Tensor:
        """Log-probabilities behind each of the last `keep` tokens of the rows, (rows, keep, vocabulary), in fp32."""
        model = self._model()
        width = max(map(len, rows))
        device = next(model.parameters()).device
        pad = self._tokenizer.pad_token_id or 0
        ids_BT = torch.tensor([[pad] * (width - len(r)) + r for r in rows], device=device)
        mask_BT = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=device)
        was_training = model.training
        model.eval()
        logits = model(input_ids=ids_BT, attention_mask=mask_BT, logits_to_keep=keep, use_cache=False).logits
        model.train(was_training)
        found: torch.Tensor = logits.float().log_softmax(-1).cpu()
        return found


def _probabilities(tree: Tree, logp: dict[tuple[int, ...], torch.Tensor]) -> dict[str, float]:
    found = {}
    for label, path in tree.paths.items():
        total = sum(float(logp[tuple(path[:depth])][token]) for depth, token in enumerate(path))
        found[label] = float(torch.tensor(total).exp())
    return found
