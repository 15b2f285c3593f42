"""Packs on disk for the trainer, and batches of packs for the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mr3.sft.data import IGNORED, Row

_SCHEMA = pa.schema([(name, pa.list_(pa.int32())) for name in ("input_ids", "labels", "seq_lengths")])
_CHUNK = 1_000


def _lists(arrays: Sequence[np.ndarray[Any, Any]]) -> pa.Array:
    offsets = np.cumsum([0, *(len(a) for a in arrays)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(arrays), pa.int32()))


def _labels(pack: Sequence[Row]) -> np.ndarray[Any, Any]:
    """Labels of a pack: the first token of a row follows another row's last, so it is never predicted."""
    parts = [row.labels for row in pack]
    for part in parts:
        part[0] = IGNORED
    return np.concatenate(parts)


def write_packs(packs: Sequence[Sequence[Row]], path: Path) -> None:
    """An Arrow stream that `datasets.Dataset.from_file` maps into memory: every process shares one copy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as out:
        for begin in range(0, len(packs), _CHUNK):
            chunk = packs[begin : begin + _CHUNK]
            columns = [
                _lists([np.concatenate([row.ids for row in pack]) for pack in chunk]),
                _lists([_labels(pack) for pack in chunk]),
                _lists([np.array([len(row) for row in pack], dtype=np.int32) for pack in chunk]),
            ]
            out.write_batch(pa.RecordBatch.from_arrays(columns, schema=_SCHEMA))
    temporary.replace(path)


class PackCollator:
    """Packs of one batch, padded on the right: `input_ids`, `labels`, `position_ids`, each (packs, tokens).

    Positions begin anew with each row. There is no attention mask on purpose: transformers then derives from the
    positions that a token sees its own row only (`masking_utils.find_packed_sequence_indices`).
    """

    def __init__(self, pad_token: int) -> None:
        self.pad_token = pad_token

    def __call__(self, examples: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Collate rows of `write_packs`."""
        shape = (len(examples), max(len(e["input_ids"]) for e in examples))
        ids_BT = torch.full(shape, self.pad_token)
        labels_BT = torch.full(shape, IGNORED)
        # Padding keeps position 0: every pad is a row of its own, seen by nobody.
        positions_BT = torch.zeros(shape, dtype=torch.long)
        for i, example in enumerate(examples):
            n = len(example["input_ids"])
            ids_BT[i, :n] = torch.tensor(example["input_ids"])
            labels_BT[i, :n] = torch.tensor(example["labels"])
            positions_BT[i, :n] = torch.cat([torch.arange(k) for k in example["seq_lengths"]])
        return {"input_ids": ids_BT, "labels": labels_BT, "position_ids": positions_BT}
