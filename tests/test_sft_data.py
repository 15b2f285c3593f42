"""SFT rows as tokens: whole verdicts, loss on the completion and its end, forced sentences masked, whole documents."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from mr3.judging.chat import ChatPrompt
from mr3.prompts import Rendered
from mr3.sft.data import IGNORED, encode, parquet_rows, replay_rows, turn_end
from mr3.training import load_tokenizer

BASE = Path(__file__).parent.parent / "mr3" / "nano" / "base"
FORCED = "<think>\nIch denke auf Deutsch."


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(str(BASE))


def row(words: int = 3, completion: str | None = None, **more: Any) -> dict[str, Any]:
    prompt = [{"role": "system", "content": "# Instruction"}, {"role": "user", "content": "How many?"}]
    answer = "It is 12." * words if completion is None else completion
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": answer}], **more}


def trained(tokenizer: Any, rows: list[dict[str, Any]]) -> list[str]:
    """What each row has loss on, as text."""
    found = encode(tokenizer, rows, 512)
    return [tokenizer.decode([i for i in r.labels if i != IGNORED]) for r in found.rows]


def test_rows_over_the_limit_are_dropped_whole_and_counted_by_reason(tokenizer: Any) -> None:
    rows = [row(1), row(50), row(2), row(completion=" \n"), {**row(1), "prompt": "x " * 100}]
    found = encode(tokenizer, rows, max_tokens=64)
    assert found.dropped == {"too_long": 1, "empty_completion": 1, "prompt_too_long": 1}
    assert [r.source for r in found.rows] == [0, 2]


def test_the_limit_counts_every_token_and_a_row_may_fill_it(tokenizer: Any) -> None:
    (whole,) = encode(tokenizer, [row(4)], 512).rows
    assert len(encode(tokenizer, [row(4)], len(whole)).rows) == 1
    assert encode(tokenizer, [row(4)], len(whole) - 1).dropped == {"too_long": 1}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(20, 120))
def test_no_verdict_is_ever_cut(lengths: list[int], limit: int) -> None:
    tokenizer = load_tokenizer(str(BASE))
    rows = [row(n, completion="yes " * n + '{"score": "1"}') for n in lengths]
    found = encode(tokenizer, rows, limit)
    assert len(found.rows) + sum(found.dropped.values()) == len(rows)
    for r in found.rows:
        assert r.source is not None and len(r) <= limit
        text = tokenizer.decode(r.ids[r.prompt :])
        assert text == "yes " * lengths[r.source] + '{"score": "1"}<|im_end|>'


def test_loss_is_on_the_completion_and_one_end_of_turn(tokenizer: Any) -> None:
    """Published targets end their turn themselves; others do not. Both are trained to stop, once."""
    end = tokenizer.eos_token_id
    assert turn_end(tokenizer) == end
    for text in ("Yes.", "Yes.<|im_end|>", "Yes.<|im_end|>\n"):
        (found,) = encode(tokenizer, [row(completion=text)], 512).rows
        kept = [int(i) for i in found.labels if i != IGNORED]
        assert tokenizer.decode(kept) == "Yes.<|im_end|>" and kept.count(end) == 1 and kept[-1] == end
        assert found.ids[: found.prompt].tolist() == found.ids.tolist()[: len(found) - len(kept)]


@pytest.mark.parametrize("how", ["column", "column, said again in the completion", "assistant turn", "rendered string"])
def test_a_forced_first_sentence_is_masked_however_the_row_says_it(tokenizer: Any, how: str) -> None:
    rest = " Also gut.\n</think>\n{}"
    made = row(completion=rest, assistant_prefix=FORCED)
    if how.startswith("column, said"):
        made = row(completion=FORCED + rest, assistant_prefix=FORCED)
    elif how == "assistant turn":
        made = row(completion=rest)
        made["prompt"].append({"role": "assistant", "content": FORCED})
    elif how == "rendered string":
        text = tokenizer.apply_chat_template(row()["prompt"], tokenize=False, add_generation_prompt=True)
        made = {"prompt": text + FORCED, "completion": rest + "<|im_end|>"}
    assert trained(tokenizer, [made]) == [rest + "<|im_end|>"]
    rendered = Rendered(system="# Instruction", user="How many?", assistant_prefix=FORCED)
    chat = ChatPrompt(tokenizer)
    (found,) = encode(tokenizer, [made], 512).rows
    assert found.ids[: found.prompt].tolist() == chat.ids([chat.text(rendered)])[0], "the prompt that inference sends"


def test_columns_are_chosen_and_a_missing_one_is_named(tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "published.parquet"
    pq.write_table(pa.table({"qwen3-prompt": ["a<think>"] * 3, "target": ["b<|im_end|>"] * 3, "id": [1, 2, 3]}), file)
    rows = list(parquet_rows(file, "qwen3-prompt", "target", limit=2))
    assert len(rows) == 2 and trained(tokenizer, rows) == ["b<|im_end|>"] * 2
    with pytest.raises(ValueError, match=r"no column 'prompt'.*qwen3-prompt, target, id"):
        list(parquet_rows(file, "prompt", "target"))


def test_a_template_without_an_end_of_turn_is_refused() -> None:
    other = load_tokenizer(str(BASE))
    other.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    with pytest.raises(ValueError, match="no end-of-turn token"):
        turn_end(other)


def test_replayed_documents_are_packed_in_order_and_whole(tokenizer: Any, tmp_path: Path) -> None:
    texts = [f"{i} + {i} = {2 * i}\n" * (i % 4 + 1) for i in range(40)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "replay.parquet")
    rows = replay_rows(tokenizer, tmp_path / "replay.parquet", 10, 60, seed=3)
    lengths = [len(r) for r in rows]
    assert len(rows) == 10 and max(lengths) <= 60 and all(r.prompt == 0 for r in rows)
    assert all(a + b > 60 for a, b in itertools.pairwise(lengths)), "rows are filled"
    documents = [d for r in rows for d in tokenizer.decode(r.ids).split(tokenizer.pad_token) if d]
    assert set(documents) <= set(texts) and len(set(documents)) == len(documents)
