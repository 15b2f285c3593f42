"""SFT rows: nothing is cut off, the prompt is masked, replayed documents are packed whole."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from mr3.sft.data import IGNORED, encode, replay_rows

BASE = Path(__file__).parent.parent / "mr3" / "nano" / "base"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(BASE)


def row(words: int) -> dict[str, Any]:
    prompt = [{"role": "user", "content": "cats: 7, dogs: 5."}]
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": "It is 12." * words}]}


def test_rows_over_the_limit_are_dropped_and_counted(tokenizer: Any) -> None:
    found = encode(tokenizer, [row(1), row(50), row(2)], max_tokens=64)
    assert found.dropped == 1 and len(found.rows) == 2
    for ids in found.rows:
        kept = [i for i, label in zip(ids["input_ids"], ids["labels"], strict=True) if label != IGNORED]
        assert tokenizer.decode(kept).startswith("It is 12.") and kept[-1] == tokenizer.eos_token_id


def test_replayed_documents_are_packed_in_order_and_whole(tokenizer: Any, tmp_path: Path) -> None:
    texts = [f"{i} + {i} = {2 * i}\n" * (i % 4 + 1) for i in range(40)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "replay.parquet")
    rows = replay_rows(tokenizer, tmp_path / "replay.parquet", 10, 60, seed=3)
    lengths = [len(r["input_ids"]) for r in rows]
    assert len(rows) == 10 and max(lengths) <= 60 and all(r["labels"] == r["input_ids"] for r in rows)
    assert all(a + b > 60 for a, b in itertools.pairwise(lengths)), "rows are filled"
    documents = [d for r in rows for d in tokenizer.decode(r["input_ids"]).split(tokenizer.pad_token) if d]
    assert set(documents) <= set(texts) and len(set(documents)) == len(documents)
