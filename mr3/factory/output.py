"""The rows that are trained on: TRL's conversational prompt-completion format per strategy, and the published columns.

A prompt is exactly what inference sends: messages, and `assistant_prefix`, which holds the forced sentence where there is
one (masked from the loss). The completion is what follows it; without a forced sentence it begins with `<think>`.
Published columns have the names of rubricreward/mR3-Dataset-100K, with the teacher's name in place of gpt-oss-120b.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from mr3.factory.config import Dialect, FactoryConfig
from mr3.factory.dialects import SPEECH, PromptWriter, forced
from mr3.factory.filters import RIGHT, finding
from mr3.factory.prompting import Prompter
from mr3.prompts import Rendered
from mr3.records import Strategy
from mr3.sources.labelled import Labelled

PUBLISHED: dict[Strategy, str] = {
    "eng-eng": "en_prompt_en_thinking",
    "tgt-eng": "tgt_prompt_en_thinking",
    "tgt-tgt": "tgt_prompt_tgt_thinking",
    "tgt-tgt-translated": "tgt_prompt_tgt_thinking_translated",
}
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_TRL = pa.struct([("prompt", pa.list_(_MESSAGE)), ("assistant_prefix", pa.string()), ("completion", pa.list_(_MESSAGE))])
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


def answer_json(explanation: str, score: str) -> str:
    """The answer as judges are taught to write it."""
    return json.dumps({"explanation": explanation, "score": score}, ensure_ascii=False)


class RowWriter:
    """From a kept row and its verdicts to one wide row with everything that is written."""

    def __init__(self, config: FactoryConfig, tokenizers: Mapping[str, Any]) -> None:
        self._config = config
        self._strategies = config.trained
        self._prompter = Prompter(config.profile, config.texts)
        self._student: Dialect = config.difficulty.student.dialect if config.difficulty else config.teacher.dialect
        self._published: dict[Dialect, PromptWriter] = {
            dialect: PromptWriter(
                tokenizers[place],
                dialect,
                config.teacher.template_arguments if dialect == config.teacher.dialect else {},
                config.teacher.date,
            )
            for dialect, place in config.output.prompts.items()
        }

    @property
    def schema(self) -> pa.Schema:
        """Of the wide rows: what all have, one struct per strategy, and the published columns."""
        strategies = [(s, _TRL) for s in self._strategies]
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

    def row(self, row: Labelled, verdicts: Mapping[str, Any], right: int) -> dict[str, Any]:
        """The wide row, `tokens` left open; strategies under which the row was not right are null.

        Args:
            verdicts: strategy -> verdict as JSON object; for tgt-tgt-translated its trace and explanation are translated.
        """
        task = row.task
        wide: dict[str, Any] = dict.fromkeys(self.schema_names())
        wide |= {"id": row.key, "language": task.language, "source": row.source, "mode": task.mode}
        wide |= {"family": task.family, "actual_score": row.gold, "right": right}
        for strategy in self._strategies:
            verdict = verdicts.get(strategy)
            if verdict is None or finding(verdict, row.gold) != RIGHT:
                continue
            shown = self._prompter.rendered(row, strategy)
            answer = answer_json(verdict["explanation"], row.gold)
            wide[strategy] = self._conversation(shown, verdict["trace"], answer)
            self._add_published(wide, strategy, shown, verdict["trace"], answer)
        return wide

    def schema_names(self) -> list[str]:
        """Column names, remembered."""
        if not hasattr(self, "_names"):
            self._names: list[str] = self.schema.names
        return self._names

    def _conversation(self, shown: Rendered, trace: str, answer: str) -> dict[str, Any]:
        sentence = forced(shown.assistant_prefix)
        content = SPEECH[self._student].target(sentence, trace, answer)
        return {
            "prompt": shown.messages,
            "assistant_prefix": shown.assistant_prefix if sentence else "",
            "completion": [{"role": "assistant", "content": content}],
        }

    def _add_published(self, wide: dict[str, Any], strategy: Strategy, shown: Rendered, trace: str, answer: str) -> None:
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
        first = next(wide[s] for s in self._strategies if wide[s] is not None)
        turns = [m["content"] for m in (*first["prompt"], *first["completion"])]
        return "\n".join([*turns, first["assistant_prefix"]])


def trl_table(strategy: Strategy) -> Callable[[pa.Table], pa.Table]:
    """From wide rows to the training rows of one strategy; rows without it are left out."""

    def made(table: pa.Table) -> pa.Table:
        kept = table.filter(table.column(strategy).is_valid())
        told = kept.column(strategy).combine_chunks()
        columns = {name: kept.column(name) for name, _ in _COMMON}
        parts: Sequence[str] = ("prompt", "assistant_prefix", "completion")
        columns |= {name: told.field(i) for i, name in enumerate(parts)}
        return pa.table(columns)

    return made


def published_table(columns: Sequence[str]) -> Callable[[pa.Table], pa.Table]:
    """From wide rows to the published columns."""
    return lambda table: table.select(["id", "language", "actual_score", "source", *columns])
