"""The rows that are trained on: TRL's conversational prompt-completion format per strategy, and the published columns.

A prompt is exactly what inference sends: messages, and `assistant_prefix`, which holds the forced sentence where there
is one (masked from the loss). The completion is what follows it; without a forced sentence it begins with `<think>`.
Published columns have the names of rubricreward/mR3-Dataset-100K, with the teacher's name in place of gpt-oss-120b.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mr3.factory.config import Dialect, FactoryConfig
from mr3.factory.dialects import SPEECH, PromptWriter, Spoken, forced
from mr3.factory.filters import RIGHT, finding
from mr3.factory.rows import Row, rendered
from mr3.records import Strategy

PUBLISHED: dict[Strategy, str] = {
    "eng-eng": "en_prompt_en_thinking",
    "tgt-eng": "tgt_prompt_en_thinking",
    "tgt-tgt": "tgt_prompt_tgt_thinking",
    "tgt-tgt-translated": "tgt_prompt_tgt_thinking_translated",
}
_PARTS = ("system", "user", "prefix", "completion")
_ENDS: dict[Dialect, str] = {"qwen3": "<|im_end|>", "plain": "<|im_end|>", "gpt-oss": ""}
_COMMON = (
    ("id", pa.string()),
    ("language", pa.string()),
    ("source", pa.string()),
    ("mode", pa.string()),
    ("family", pa.string()),
    ("actual_score", pa.string()),
    ("right", pa.int8()),
    ("tokens", pa.int32()),
)


def text_column(strategy: str, part: str = "completion") -> str:
    """Where a wide row keeps a part of a strategy's training row."""
    return f"{strategy}/{part}"


def answer_json(explanation: str, score: str) -> str:
    """The answer as judges are taught to write it."""
    return json.dumps({"explanation": explanation, "score": score}, ensure_ascii=False)


class RowWriter:
    """From a kept row and its verdicts to one wide row with everything that is written."""

    def __init__(self, config: FactoryConfig, tokenizers: Mapping[str, Any]) -> None:
        self._config = config
        self._strategies = config.trained
        self._names: list[str] = []
        self._target = SPEECH[config.output.dialect].target
        self._published: dict[Dialect, PromptWriter] = {
            dialect: PromptWriter(
                tokenizers[place] if place is not None else None,
                dialect,
                config.teacher.template_arguments if dialect == config.teacher.dialect else {},
                config.teacher.date,
            )
            for dialect, place in config.output.prompts.items()
        }

    @property
    def schema(self) -> pa.Schema:
        """Of the wide rows: what all have, four texts per strategy, and the published columns."""
        strategies = [(text_column(s, part), pa.string()) for s in self._strategies for part in _PARTS]
        return pa.schema([*_COMMON, *strategies, *((name, pa.string()) for name in self.published_columns)])

    @property
    def published_columns(self) -> list[str]:
        """Their names, in the order of the published set."""
        names: list[str] = []
        for strategy in self._strategies:
            told, teacher = PUBLISHED[strategy], self._config.teacher.name
            if strategy != "tgt-tgt-translated":
                names += [f"{dialect}-prompt_{told}" for dialect in self._published]
                names.append(f"{teacher}-{told}-response")
            names += [f"{teacher}-{told}-{dialect}-response" for dialect in self._published]
        return names

    def row(self, row: Row, verdicts: Mapping[str, Any], right: int) -> dict[str, Any]:
        """The wide row; strategies under which the row was not right are null.

        `tokens` is the length of prompt and answer under the first strategy, as the teacher's engine counted it.

        Args:
            verdicts: strategy -> verdict as JSON object; tgt-tgt-translated has translated texts.

        Raises:
            ValueError: when the engine counted no tokens, and no tokenizer is named to count them.
        """
        wide: dict[str, Any] = dict.fromkeys(self.schema_names())
        wide |= {name: row[name] for name in ("id", "language", "source", "mode", "family")}  # type: ignore[literal-required]
        wide |= {"actual_score": row["gold"], "right": right}
        for strategy in self._strategies:
            verdict = verdicts.get(strategy)
            if verdict is None or finding(verdict, row["gold"]) != RIGHT:
                continue
            shown = rendered(row, strategy)
            answer = answer_json(verdict["explanation"], row["gold"])
            self._add_conversation(
                wide,
                strategy,
                shown,
                self._target(forced(shown.assistant_prefix), verdict["trace"], answer),
            )
            wide["tokens"] = wide["tokens"] or self._length(verdict)
            self._add_published(wide, strategy, shown, verdict["trace"], answer)
        return wide

    def _length(self, verdict: Mapping[str, Any]) -> int:
        prompt, output = int(verdict["prompt_tokens"]), int(verdict["output_tokens"])
        if not (prompt and output) and self._config.output.tokenizer is None:
            raise ValueError("the teacher's engine counts no tokens: set output.tokenizer, which counts them instead")
        return prompt + output

    def schema_names(self) -> list[str]:
        """Column names, remembered."""
        self._names = self._names or self.schema.names
        return self._names

    def _add_conversation(self, wide: dict[str, Any], strategy: Strategy, shown: Spoken, completion: str) -> None:
        prefix = shown.assistant_prefix if forced(shown.assistant_prefix) else ""
        for part, text in zip(_PARTS, (shown.system, shown.user, prefix, completion), strict=True):
            wide[text_column(strategy, part)] = text

    def _add_published(self, wide: dict[str, Any], strategy: Strategy, shown: Spoken, trace: str, answer: str) -> None:
        told, teacher = PUBLISHED[strategy], self._config.teacher.name
        sentence = forced(shown.assistant_prefix)
        bare = shown if sentence else shown.model_copy(update={"assistant_prefix": ""})
        for dialect, write in self._published.items():
            target = SPEECH[dialect].target(sentence, trace, answer) + _ENDS[dialect]
            wide[f"{teacher}-{told}-{dialect}-response"] = target
            if strategy != "tgt-tgt-translated":
                wide[f"{dialect}-prompt_{told}"] = write(bare)
        if strategy != "tgt-tgt-translated":
            wide[f"{teacher}-{told}-response"] = answer

    def counted_text(self, wide: Mapping[str, Any]) -> str:
        """The text whose tokens are the length of a row: prompt and completion of its first strategy."""
        first = next(s for s in self._strategies if wide[text_column(s)] is not None)
        return "\n".join(wide[text_column(first, part)] for part in _PARTS)


def _messages(roles: Sequence[str], contents: Sequence[pa.Array]) -> pa.ListArray:
    """One list of chat messages per row, from one array of texts per message."""
    rows, turns = len(contents[0]), len(roles)
    # Texts stand role after role; a list wants them row after row.
    places = np.arange(rows * turns).reshape(turns, rows).T.ravel()
    names = pa.DictionaryArray.from_arrays(np.tile(np.arange(turns, dtype=np.int32), rows), pa.array(roles))
    told = [names.cast(pa.string()), pa.concat_arrays(contents).take(pa.array(places))]
    messages = pa.StructArray.from_arrays(told, names=["role", "content"])
    return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * turns, messages)


def trl_table(strategy: Strategy) -> Callable[[pa.Table], pa.Table]:
    """From wide rows to the training rows of one strategy; rows without it are left out."""

    def made(table: pa.Table) -> pa.Table:
        kept = table.filter(table.column(text_column(strategy)).is_valid())
        system, user, prefix, completion = (_array(kept.column(text_column(strategy, part))) for part in _PARTS)
        columns: dict[str, Any] = {name: kept.column(name) for name, _ in _COMMON}
        columns["prompt"] = _messages(("system", "user"), (system, user))
        columns["assistant_prefix"] = prefix
        columns["completion"] = _messages(("assistant",), (completion,))
        return pa.table(columns)

    return made


def _array(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def published_table(columns: Sequence[str]) -> Callable[[pa.Table], pa.Table]:
    """From wide rows to the published columns."""
    return lambda table: table.select(["id", "language", "actual_score", "source", *columns])
