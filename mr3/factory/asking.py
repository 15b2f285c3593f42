"""Ask a model for verdicts on labelled rows: the judge's engine, store and parser, with the factory's prompts.

The answers are ordinary verdicts in an ordinary verdict store: found there they are not asked for again, and a row that
kills engines ends as `engine_failed`. The worker is one class for the actors of the stream and for this process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from mr3.factory.config import Asked, AskedModel
from mr3.factory.dialects import SPEECH, PromptWriter
from mr3.factory.rows import SEPARATOR, Row, read_row, rendered
from mr3.hub import open_tokenizer
from mr3.inference.engine import Completion
from mr3.inference.hosts import open_engine
from mr3.inference.store import Store
from mr3.judging.cached_judge import CachedJudge
from mr3.judging.judge import Judge, JudgeItem, Prepared, judge_constant
from mr3.records import stable_hash


@dataclass(frozen=True, slots=True)
class _Task:
    """What a verdict needs of a task once its prompt is rendered."""

    id: str
    mode: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Item:
    """What a verdict needs of an item."""

    task: _Task
    sample: int
    swapped: bool = False


class AskedJudge(Judge):
    """A judge that reads its completions in the model's dialect."""

    dialect: Any = "qwen3"

    async def _completions(self, prepared: Sequence[Prepared]) -> list[Completion]:
        made = await super()._completions(prepared)
        to_text = SPEECH[self.dialect].parser_text
        return [c if self.dialect != "gpt-oss" else c.model_copy(update={"text": to_text(c.text)}) for c in made]


def open_asked(model: AskedModel, identity: str) -> AskedJudge:
    """The model with its engine in this process."""
    tokenizer = open_tokenizer(model.tokenizer, model.tokenizer_revision)
    judge = AskedJudge(model.card, tokenizer, open_engine(model.engine_config()), identity)
    judge.dialect = model.dialect
    return judge


class AskWorker:
    """Payload: a row, and perhaps more behind a separator. Becomes the same, a separator, `{strategy: [verdict, ...]}`.

    The gold label travels with the row and is in no prompt, no id and no request.
    """

    def __init__(
        self,
        judge: dict[str, Any],
        store: str,
        identity: str,
        asks: Sequence[tuple[Asked, int]],
        run: str | None = None,
    ) -> None:
        model = AskedModel.model_validate(judge)
        opened = open_asked(model, identity)
        self.cached = CachedJudge(opened, Store(store, run))
        self._write = PromptWriter(opened.tokenizer, model.dialect, model.template_arguments, model.date)
        self._asks = [(strategy, samples) for strategy, samples in asks]
        self._heads: dict[tuple[str, tuple[str, ...]], bytes] = {}
        self._constant = stable_hash("factory", judge_constant(identity, model.card))

    def prepare(self, row: Row) -> list[list[Prepared]]:
        """The judgements of one row: per strategy, per sample."""
        found = []
        task = _Task(row["id"], row["mode"], tuple(row["labels"]))
        head = self._head(task)
        for strategy, samples in self._asks:
            prompt, rubric = self._write(rendered(row, strategy)), row["prompts"][strategy]["rubric"]
            digest = hashlib.blake2b(head, digest_size=16)
            digest.update(prompt.encode("utf-8", "surrogatepass"))
            base = digest.hexdigest()
            items = (cast("JudgeItem", _Item(task, k)) for k in range(samples))
            found.append([Prepared(item, _sample_id(base, item.sample), prompt, rubric) for item in items])
        return found

    def _head(self, task: _Task) -> bytes:
        """What decides a verdict beside the prompt, in which all is that the model reads. Few tasks differ in it."""
        key = (task.mode, task.labels)
        if key not in self._heads:
            self._heads[key] = f"{self._constant}\n{task.mode}\n{json.dumps(task.labels)}\n".encode()
        return self._heads[key]

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One batch of rows."""
        prepared = [self.prepare(read_row(payload)) for payload in batch["payload"]]
        answers = await self.cached.ask([p for row in prepared for asked in row for p in asked])
        payloads = []
        for payload, row in zip(batch["payload"], prepared, strict=True):
            told = ",".join(
                f'"{strategy}":[{",".join(answers.results[p.id] for p in asked)}]'
                for (strategy, _), asked in zip(self._asks, row, strict=True)
            )
            payloads.append(f"{payload}{SEPARATOR}{{{told}}}")
        return {"group": batch["group"], "payload": np.array(payloads, dtype=object)}


def _sample_id(base: str, sample: int) -> str:
    """Ids of k samples differ from the first character on: seeds are read from there."""
    return base if sample == 0 else hashlib.blake2b(f"{base}\n{sample}".encode(), digest_size=16).hexdigest()
