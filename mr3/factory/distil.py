"""Steps 2 and 3: the teacher's traces with the correctness and alignment filters, and the student's with difficulty."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec import json

from mr3.factory.asking import AskWorker
from mr3.factory.config import Asked, AskedModel, Difficulty, FactoryConfig
from mr3.factory.filters import RIGHT, TraceChecks, alignment, correctness, finding, right_of
from mr3.factory.funnel import Filter
from mr3.factory.gather import GROUPS, PLACED
from mr3.factory.parts import PartWriter, Step, batches_of
from mr3.factory.progress import counted
from mr3.factory.rows import SEPARATOR, Head, read_head, told
from mr3.factory.streaming import stream_parts
from mr3.inference.store import Store

log = logging.getLogger("mr3.factory")
GRADED = PLACED.append(pa.field("right", pa.int8()))
UNGRADED = -1


def _answers(
    config: FactoryConfig, model: AskedModel, asks: list[tuple[Asked, int]], parts: list[Path], store: Path, total: int
) -> Iterator[tuple[str, str]]:
    asked = config.asked(model)
    identity = asked.identity()
    folder = store.resolve()
    with Store(folder) as stored:
        run, known = stored.open_run(), stored.refresh()
        log.info("%s is %s; the store %s holds %d answers", asked.name, identity, folder, known)
        arguments = {
            "judge": asked.absolute().model_dump(mode="json"),
            "store": str(folder),
            "identity": identity,
            "run": run,
            "asks": asks,
        }
        stream = config.stream_of(model)
        yield from counted(stream_parts(parts, AskWorker, arguments, stream, config.ray), total, asked.name)


def distil(config: FactoryConfig, before: Step, step: Step, store: Path, total: int) -> dict[str, Any]:
    """The teacher under all strategies; rows that are right under the required ones, with traces that are fit to
    learn from, go on with their verdicts."""
    right, aligned = Filter("correctness"), Filter("alignment")
    checks = TraceChecks(config.traces, config.required)
    outcomes: dict[str, Counter[str]] = {s: Counter() for s in config.strategies}
    accuracy: dict[str, dict[str, list[int]]] = {s: {} for s in config.strategies}
    tokens: dict[str, list[int]] = {s: [0, 0] for s in config.strategies}
    asks: list[tuple[Asked, int]] = [(s, 1) for s in config.strategies]
    with PartWriter(step.begin(), GROUPS) as writer:
        for group, payload in _answers(config, config.teacher, asks, before.parts, store, total):
            row, (verdicts,) = read_head(payload), told(payload)
            language, source = row["language"], row["source"]
            findings: dict[str, str] = {s: finding(verdicts[s][0], row["gold"]) for s in config.strategies}
            for strategy, found in findings.items():
                outcomes[strategy][found] += 1
                counts = accuracy[strategy].setdefault(language, [0, 0])
                counts[0] += found == RIGHT
                counts[1] += 1
                tokens[strategy][0] += verdicts[strategy][0]["prompt_tokens"]
                tokens[strategy][1] += verdicts[strategy][0]["output_tokens"]
            wrong = correctness(findings, config.required)
            if wrong is not None:
                right.drop(wrong, language, source)
                continue
            right.keep(language, source)
            apart = alignment(findings, config.required)
            if apart is not None:
                aligned.drop(apart, language, source)
                continue
            aligned.keep(language, source)
            if checks.fit(row, verdicts, [s for s, found in findings.items() if found == RIGHT]):
                kept = payload.rpartition(SEPARATOR)[0]
                writer.add(group=group, payload=f"{kept}{SEPARATOR}{json.encode(verdicts).decode()}")
    right.details = {
        "strategies": {s: dict(c.most_common()) for s, c in outcomes.items()},
        "tokens": {s: {"prompts": read, "answers": written} for s, (read, written) in tokens.items()},
        "right_by_language": {s: dict(sorted(table.items())) for s, table in accuracy.items()},
    }
    return {"filters": [right.as_json(), aligned.as_json(), *checks.filters()]}


def _graded(
    config: FactoryConfig, settings: Difficulty, before: Step, store: Path, total: int
) -> Iterator[tuple[str, str, Head, int | None]]:
    asks: list[tuple[Asked, int]] = [(settings.strategy, settings.samples)]
    for group, payload in _answers(config, settings.student, asks, before.parts, store, total):
        kept, _, samples = payload.rpartition(SEPARATOR)
        row = read_head(kept)
        yield group, kept, row, right_of(json.decode(samples)[settings.strategy], row["gold"])


def grade(
    config: FactoryConfig, settings: Difficulty, before: Step, step: Step, store: Path, total: int
) -> dict[str, Any]:
    """k answers of the student per row; rows that are too easy go."""
    hard = Filter("difficulty")
    spread: Counter[int] = Counter()
    with PartWriter(step.begin(), GRADED) as writer:
        for group, payload, row, right in _graded(config, settings, before, store, total):
            language, source = row["language"], row["source"]
            if right is None:
                hard.drop("student_failed", language, source)
                continue
            spread[right] += 1
            if right > settings.limit:
                hard.drop(f"{right} of {settings.samples} right", language, source)
                continue
            hard.keep(language, source)
            writer.add(group=group, language=language, source=source, right=right, payload=payload)
    hard.details = {"right_of_k": {str(k): spread[k] for k in range(settings.samples + 1)}}
    return {"filters": [hard.as_json()]}


def ungraded(before: Step, step: Step) -> dict[str, Any]:
    """The same rows in the shape of graded ones, where there is no student."""
    with PartWriter(step.begin(), GRADED) as writer:
        for batch in batches_of(before.parts):
            for row in batch.to_pylist():
                about = read_head(row["payload"])
                place = {"language": about["language"], "source": about["source"]}
                writer.add(right=UNGRADED, **row, **place)
    return {"filters": []}
