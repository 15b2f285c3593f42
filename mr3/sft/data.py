"""SFT rows become token ids and a prompt length: the model's own chat template, loss on the completion only.

A row whose completion would be cut off is dropped and counted, never truncated.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from mr3.judging.chat import with_prefix
from mr3.rows import BadRow
from mr3.rows import parquet_rows as checked_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("mr3.sft")
IGNORED = -100
_BATCH = 256
_SHOWN = 5
_MALFORMED = ("", "")
_PROBE = "\x02assistant probe\x03"
PREFIX_COLUMN = "assistant_prefix"


@dataclass(frozen=True)
class Row:
    """One example. `ids`: int32 (tokens,), prompt first; `prompt`: how many of them carry no loss; `source`: its place
    in the data, None for replayed text and for blanks."""

    ids: np.ndarray[Any, np.dtype[np.int32]]
    prompt: int
    source: int | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """int32 (tokens,): the ids, `IGNORED` where there is no loss."""
        labels = self.ids.copy()
        labels[: self.prompt] = IGNORED
        return labels


@dataclass
class Encoded:
    """Rows ready for the trainer, and what was left out, by reason."""

    rows: list[Row] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    completion_tokens: int = 0
    longest_prompt: int = 0
    longest_completion: int = 0


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token with which the chat template ends an assistant's turn.

    Raises:
        ValueError: when the template has none, so that a model could not learn to stop.
    """
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False)
    tail = tokenizer(text.rsplit(_PROBE, 1)[1].strip(), add_special_tokens=False).input_ids
    if not tail or tail[0] not in tokenizer.added_tokens_decoder:
        raise ValueError("the chat template puts no end-of-turn token behind an answer: use another tokenizer")
    return int(tail[0])


def _prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: Any, prefix: str) -> str:
    """What inference sends, up to where the model goes on. A string is rendered already."""
    if isinstance(prompt, str):
        return prompt + prefix
    messages = list(prompt)
    if messages[-1]["role"] == "assistant":
        prefix = messages.pop()["content"] + prefix
    text: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    return with_prefix(text, prefix) if prefix else text


def _is_chat(value: Any) -> bool:
    """Whether it is a list of turns, each with a role and a text."""
    turns = list(value) if isinstance(value, list | tuple | np.ndarray) else []
    kept = [t for t in turns if isinstance(t, Mapping) and isinstance(t.get("role"), str)]
    return bool(turns) and len(kept) == len(turns) and all(isinstance(t.get("content"), str) for t in turns)


def well_formed(row: Mapping[str, Any]) -> bool:
    """Whether prompt and completion are texts or chats."""
    return all(isinstance(row[name], str) or _is_chat(row[name]) for name in ("prompt", "completion"))


def texts_of(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], end: str) -> tuple[str, str]:
    """Prompt text and completion text, the latter without the assistant prefix (it stands in the prompt) and without
    the end of turn, which is added as a token."""
    prefix = row.get(PREFIX_COLUMN) or ""
    completion = row["completion"]
    content: str = completion if isinstance(completion, str) else completion[-1]["content"]
    content = content.removeprefix(prefix)
    if (stripped := content.rstrip("\n")).endswith(end):
        content = stripped.removesuffix(end)
    return _prompt_text(tokenizer, row["prompt"], prefix), content


def encode(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[Mapping[str, Any]], max_tokens: int, first: int = 0
) -> Encoded:
    """Encode rows in order; leave out and count what does not fit into `max_tokens` whole.

    Prompt and completion are tokenised apart, as inference does: it sends the prompt's tokens and the model goes on.
    """
    out, end = Encoded(), turn_end(tokenizer)
    end_text = str(tokenizer.convert_ids_to_tokens(end))
    left, place = iter(rows), first - 1
    while batch := list(islice(left, _BATCH)):
        pairs = [texts_of(tokenizer, row, end_text) if well_formed(row) else _MALFORMED for row in batch]
        prompts = tokenizer([text for text, _ in pairs], add_special_tokens=False).input_ids
        completions = tokenizer([text for _, text in pairs], add_special_tokens=False).input_ids
        for pair, prompt, completion in zip(pairs, prompts, completions, strict=True):
            place += 1
            if pair is _MALFORMED:
                out.dropped["malformed"] += 1
                if out.dropped["malformed"] <= _SHOWN:
                    log.warning("row %d is left out: its prompt or completion is neither text nor chat", place + 1)
                continue
            if not pair[1].strip():
                out.dropped["empty_completion"] += 1
                continue
            if len(prompt) + len(completion) + 1 > max_tokens:
                out.dropped["prompt_too_long" if len(prompt) >= max_tokens else "too_long"] += 1
                continue
            ids = np.array([*prompt, *completion, end], dtype=np.int32)
            out.rows.append(Row(ids, len(prompt), place))
            out.completion_tokens += len(completion) + 1
            out.longest_prompt = max(out.longest_prompt, len(prompt))
            out.longest_completion = max(out.longest_completion, len(completion) + 1)
    return out


def replay_rows(tokenizer: PreTrainedTokenizerBase, path: Path, count: int, tokens: int, seed: int) -> list[Row]:
    """Plain documents with loss on every token, so that SFT does not overwrite what it does not use.

    Documents are joined by the pad token, as in pretraining, into at most `count` rows of up to `tokens` ids: as long
    as the other rows, so that batches grouped by length hold both kinds.
    """
    texts = pq.read_table(path, columns=["text"]).column("text").to_pylist()
    random.Random(seed).shuffle(texts)
    rows: list[Row] = []
    buffer: list[int] = []
    for text in texts:
        if len(rows) == count:
            break
        ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.pad_token_id]
        if buffer and len(buffer) + len(ids) > tokens:
            rows.append(Row(np.array(buffer, dtype=np.int32), 0))
            buffer = []
        buffer = buffer + ids[:tokens]
    return rows


def parquet_rows(path: Path, prompt: str, completion: str, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file in order, one batch in memory, as `prompt`, `completion` and (where there is one)
    `assistant_prefix`.

    Raises:
        ValueError: for a column that the file lacks, with those that it has.
    """
    file = pq.ParquetFile(path)
    names = check_columns(file.schema_arrow.names, prompt, completion, str(path))
    left = limit if limit is not None else file.metadata.num_rows
    for batch in file.iter_batches(1_024, columns=names):
        for row in checked_rows(iter([batch.slice(0, left)])):
            yield renamed({prompt: None, completion: None} if isinstance(row, BadRow) else row, prompt, completion)
        left -= batch.num_rows
        if left <= 0:
            return


def check_columns(present: Sequence[str], prompt: str, completion: str, where: str) -> list[str]:
    """The columns to read."""
    for name in (prompt, completion):
        if name not in present:
            known = ", ".join(present)
            raise ValueError(f"{where} has no column {name!r}; set columns.prompt and columns.completion from: {known}")
    return [prompt, completion, *([PREFIX_COLUMN] if PREFIX_COLUMN in present else [])]


def renamed(row: Mapping[str, Any], prompt: str, completion: str) -> dict[str, Any]:
    """A row under the names that `encode` knows."""
    return {"prompt": row[prompt], "completion": row[completion], PREFIX_COLUMN: row.get(PREFIX_COLUMN)}
