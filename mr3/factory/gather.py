"""Step 1: rows of all sources, without duplicates and without what stands in a benchmark, as groups for the teacher.

Decontamination comes before the teacher, because an answer to a row that is dropped was paid for in vain.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash
from msgspec import json

from mr3.factory.config import FactoryConfig
from mr3.factory.contamination import Index
from mr3.factory.funnel import Filter
from mr3.factory.parts import PartWriter, Step
from mr3.factory.prompting import Prompter
from mr3.factory.rows import make_row
from mr3.parsing.parsed import encodable
from mr3.records import Task
from mr3.sources import Labelled, SetAside, input_texts, open_source
from mr3.sources.labelled import SetAsideShare
from mr3.sources.opening import source_name, task_text

log = logging.getLogger("mr3.factory")
GROUPS = pa.schema([("group", pa.string()), ("payload", pa.string())])
PLACED = GROUPS.append(pa.field("language", pa.string())).append(pa.field("source", pa.string()))
"""Groups with what balance is kept over."""
_BATCH = 2_048
_SHOWN = 1_000
_EXAMPLES = 5
_EXCERPT = 200
_UNKNOWN = "?"


class Seen:
    """Which keys came before, in eight bytes each."""

    def __init__(self) -> None:
        self._sorted: npt.NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._new: set[int] = set()

    def add(self, key: bytes) -> bool:
        """Whether the key is new."""
        mark = xxhash.xxh3_64_intdigest(key)
        place = int(np.searchsorted(self._sorted, np.uint64(mark)))
        if mark in self._new or (place < len(self._sorted) and int(self._sorted[place]) == mark):
            return False
        self._new.add(mark)
        if len(self._new) >= 16_384:
            fresh = np.fromiter(self._new, np.uint64, len(self._new))
            self._sorted = np.sort(np.concatenate([self._sorted, fresh]))
            self._new.clear()
        return True


def content_key(task: Task) -> bytes:
    """What makes two rows the same task: all but the ids and the wording of the rubric."""
    rubric = [[c.name for c in task.rubric.criteria], sorted(task.rubric.levels)]
    asked = task.input if isinstance(task.input, str) else [[m.role, m.content] for m in task.input]
    return json.encode([task.mode, asked, task.responses, task.options, task.reference, rubric])


def build_index(config: FactoryConfig) -> Index:
    """All benchmarks of the config."""
    settings = config.decontaminate
    index = Index(settings.ngram, settings.dense_ngram, settings.common)
    for spec in settings.benchmarks:
        made = index.add(source_name(spec), input_texts(spec, config.texts))
        log.info("benchmark %s: %d texts", made.name, made.texts)
    return index


class Gatherer:
    """The filters of this step."""

    def __init__(self, config: FactoryConfig, index: Index, writer: PartWriter) -> None:
        self._config, self._index, self._writer = config, index, writer
        self.read, self.duplicates, self.clean = Filter("read"), Filter("duplicates"), Filter("decontamination")
        self.prompts = Filter("prompts")
        self.set_aside: list[dict[str, str]] = []
        self._hits: dict[str, Counter[str]] = {b.name: Counter() for b in index.benchmarks}
        self._examples: dict[str, list[dict[str, str]]] = {}
        self._ids, self._contents = Seen(), Seen()
        self._own_language = config.strategies != ["eng-eng"] or config.translator is not None
        self._prompter = Prompter(config.profile, config.texts, config.speaks_harmony)

    def _rows(self) -> Iterator[Labelled]:
        for spec in self._config.sources:
            name = source_name(spec)
            if spec.languages is None:
                spec = spec.model_copy(update={"languages": self._config.languages})
            share = SetAsideShare(f"the source {name}")
            for row in open_source(spec, self._config.texts, self._config.without, self._own_language):
                if isinstance(row, SetAside):
                    share.aside(row)
                    self.read.drop(row.kind, _UNKNOWN, name)
                    self._aside(name, row.where, row.reason)
                    continue
                try:
                    reason = self._twice(row)
                except UnicodeEncodeError as error:  # a lone surrogate, which JSON can spell and no file takes
                    share.aside(SetAside(encodable(row.key), str(error), "not_unicode"))
                    self.read.drop("not_unicode", row.task.language, name)
                    self._aside(name, encodable(row.key), str(error))
                    continue
                share.rows += 1
                self.read.keep(row.task.language, name)
                if reason is None:
                    self.duplicates.keep(row.task.language, name)
                    yield row
                else:
                    self.duplicates.drop(reason, row.task.language, name)
            share.check(self._config.allow_set_aside)

    def _twice(self, row: Labelled) -> str | None:
        if not self._ids.add(row.key.encode()):
            return "same_id"
        return None if self._contents.add(content_key(row.task)) else "same_task"

    def run(self) -> None:
        """Read all, write what is left."""
        batch: list[Labelled] = []
        for row in self._rows():
            batch.append(row)
            if len(batch) >= _BATCH:
                self._check(batch)
                batch = []
        self._check(batch)
        self.clean.details = {
            "benchmarks": {
                b.name: {"texts": b.texts, "set_phrases": b.set_phrases, **self._hits[b.name]}
                for b in self._index.benchmarks
            },
            "examples": self._examples,
        }

    def _check(self, batch: list[Labelled]) -> None:
        for row, hit in zip(batch, self._index.check([task_text(r.task) for r in batch]), strict=True):
            language = row.task.language
            if hit is not None:
                kind, benchmark = hit
                self._hits[benchmark][kind] += 1
                self.clean.drop(kind, language, row.source)
                self._show(row, kind, benchmark)
                continue
            self.clean.keep(language, row.source)
            try:
                text = make_row(row, self._prompter, self._config.strategies)
            except ValueError as error:
                self.prompts.drop("no_texts", language, row.source)
                self._aside(row.source, row.key, str(error))
                continue
            self.prompts.keep(language, row.source)
            self._writer.add(group=row.key, payload=text, language=language, source=row.source)

    def _show(self, row: Labelled, kind: str, benchmark: str) -> None:
        """A few of the dropped rows, with what stands in the benchmark."""
        shown = self._examples.setdefault(f"{benchmark}: {kind}", [])
        if len(shown) < _EXAMPLES:
            shared = self._index.shared(task_text(row.task), benchmark)
            shown.append({"id": row.key, "language": row.task.language, "shared": shared[:_EXCERPT]})

    def _aside(self, source: str, where: str, reason: str) -> None:
        if len(self.set_aside) < _SHOWN:
            self.set_aside.append({"source": source, "where": where, "reason": reason})


def gather(config: FactoryConfig, step: Step) -> dict[str, Any]:
    """Make the step's parts; returns what is kept with them.

    Raises:
        ValueError: when a source or benchmark can't be read, or nothing is left.
    """
    with PartWriter(step.begin(), PLACED) as writer:
        gatherer = Gatherer(config, build_index(config), writer)
        gatherer.run()
    filters = (gatherer.read, gatherer.duplicates, gatherer.clean, gatherer.prompts)
    if not gatherer.prompts.rows_out:
        seen = "; ".join(f"{f.name}: {f.rows_in} in, {f.rows_out} out" for f in filters)
        why = gatherer.set_aside[0]["reason"] if gatherer.set_aside else "see the sources"
        raise ValueError(f"no rows are left for the teacher ({seen}); first reason: {why}")
    return {"filters": [f.as_json() for f in filters], "set_aside": gatherer.set_aside}
