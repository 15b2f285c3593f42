"""SFT rows become token ids and labels: rendered by the model's own chat template, loss on the completion only.

A row whose completion would be cut off is dropped and counted, never truncated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

IGNORED = -100


@dataclass
class Encoded:
    """Rows ready for the trainer, and what was left out."""

    rows: list[dict[str, list[int]]]
    dropped: int
    completion_tokens: int
    longest_prompt: int
    longest_completion: int


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(tokenizer.eos_token)]


def encode_row(tokenizer: PreTrainedTokenizerBase, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Prompt ids and completion ids of one conversational prompt-completion row.

    The prompt is what inference sends (generation prompt included), the completion ends with the end of turn.
    """
    text = tokenizer.apply_chat_template(
        row["prompt"], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    completion = row["completion"][0]["content"]
    prompt_ids = tokenizer(text, add_special_tokens=False).input_ids
    completion_ids = tokenizer(completion, add_special_tokens=False).input_ids + _turn_end(tokenizer)
    return prompt_ids, completion_ids


def encode(tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]], max_tokens: int) -> Encoded:
    """Encode all rows; drop what is longer than `max_tokens`."""
    out = Encoded([], 0, 0, 0, 0)
    for row in rows:
        prompt, completion = encode_row(tokenizer, row)
        if len(prompt) + len(completion) > max_tokens:
            out.dropped += 1
            continue
        out.rows.append({"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion})
        out.completion_tokens += len(completion)
        out.longest_prompt = max(out.longest_prompt, len(prompt))
        out.longest_completion = max(out.longest_completion, len(completion))
    return out


def replay_rows(
    tokenizer: PreTrainedTokenizerBase, path: Path, count: int, tokens: int, seed: int
) -> list[dict[str, list[int]]]:
    """Plain documents with loss on every token, so that SFT does not overwrite what it does not use.

    Documents are joined by the pad token, as in pretraining, into at most `count` rows of up to `tokens` ids: as long
    as the other rows, so that batches grouped by length hold both kinds.
    """
    texts = pq.read_table(path, columns=["text"]).column("text").to_pylist()
    random.Random(seed).shuffle(texts)
    rows: list[dict[str, list[int]]] = []
    buffer: list[int] = []
    for text in texts:
        if len(rows) == count:
            break
        ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.pad_token_id]
        if buffer and len(buffer) + len(ids) > tokens:
            rows.append({"input_ids": buffer, "labels": list(buffer)})
            buffer = []
        buffer = buffer + ids[:tokens]
    return rows
