"""The last steps: choose rows in balance, translate their traces where asked for, write them in every order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import json

from mr3.factory.config import TRANSLATED, FactoryConfig, Selection, Translator
from mr3.factory.filters import TraceChecks
from mr3.factory.funnel import Filter
from mr3.factory.gather import GROUPS
from mr3.factory.orders import Keys, permutation, write_in_order
from mr3.factory.output import RowWriter, published_table, text_column, trl_table
from mr3.factory.parts import PartWriter, Step, batches_of
from mr3.factory.progress import counted
from mr3.factory.rows import SEPARATOR, Row, read_head, read_row, told
from mr3.factory.selection import Cell, choose, tie_break
from mr3.factory.streaming import stream_parts
from mr3.factory.translate import TranslateWorker
from mr3.inference.identity import model_identity
from mr3.inference.store import Store

_ENCODED = 256


def balanced(
    name: str, settings: Selection, seed: int, before: Step, prefer: int = 0
) -> tuple[Filter, npt.NDArray[np.bool_]]:
    """Which rows of a step are taken, by light columns of all of them, and the counts of the choice.

    Args:
        prefer: where rows are graded, those with at most so many right come first.

    Raises:
        ValueError: when there is no row.
    """
    names: dict[Cell, int] = {}
    code, right, ties = [], [], []
    columns = ["group", "language", "source"]
    graded = "right" in pq.read_schema(before.parts[0]).names
    for batch in batches_of(before.parts, [*columns, *(["right"] if graded else [])]):
        cells = zip(batch["language"].to_pylist(), batch["source"].to_pylist(), strict=True)
        code.append(np.fromiter((names.setdefault(c, len(names)) for c in cells), np.int32, batch.num_rows))
        right.append(batch["right"].to_numpy().astype(np.int8) if graded else np.zeros(batch.num_rows, np.int8))
        ties.append(tie_break(seed, batch["group"].to_pylist()))
    if not names:
        raise ValueError("no row is left to choose from: read the funnel of the steps before (work/*/_step.json)")
    codes = np.concatenate(code)
    chosen = choose(list(names), codes, np.concatenate(right), np.concatenate(ties), settings, prefer)
    balance, cells_of = Filter(name), list(names)
    for taken in (True, False):
        for number, rows in enumerate(np.bincount(codes[chosen == taken], minlength=len(cells_of))):
            if rows:
                language, source = cells_of[number]
                if taken:
                    balance.keep(language, source, int(rows))
                else:
                    balance.drop("over_quota", language, source, int(rows))
    return balance, chosen


def presample(config: FactoryConfig, settings: Selection, before: Step, step: Step) -> dict[str, Any]:
    """The rows that the teacher gets."""
    # Another draw than that of the end: its ties would else favour the same rows.
    drawn, chosen = balanced("presample", settings, config.seed + 1, before)
    done = 0
    with PartWriter(step.begin(), GROUPS) as writer:
        for batch in batches_of(before.parts, ("group", "payload")):
            kept = batch.filter(pa.array(chosen[done : done + batch.num_rows]))
            done += batch.num_rows
            for row in kept.to_pylist():
                writer.add(**row)
    return {"filters": [drawn.as_json()]}


def select(config: FactoryConfig, before: Step, step: Step) -> dict[str, Any]:
    """Rows in balance, harder ones first; how often the student was right goes behind each."""
    prefer = config.difficulty.prefer_right if config.difficulty else 0
    balance, chosen = balanced("balance", config.select, config.seed, before, prefer)
    done = 0
    with PartWriter(step.begin(), GROUPS) as writer:
        for batch in batches_of(before.parts, ("group", "right", "payload")):
            kept = batch.filter(pa.array(chosen[done : done + batch.num_rows]))
            done += batch.num_rows
            for row in kept.to_pylist():
                writer.add(group=row["group"], payload=f"{row['payload']}{SEPARATOR}{row['right']}")
    return {"filters": [balance.as_json()]}


def translate(
    config: FactoryConfig, translator: Translator, before: Step, step: Step, store: Path, total: int
) -> dict[str, Any]:
    """Traces of tgt-eng in the task's language; a row without one goes on, or is dropped where one is required."""
    made = Filter("translation")
    checks = TraceChecks(config.traces, ())
    failed: dict[str, int] = {}
    arguments: dict[str, Any] = {
        "translator": translator.model_dump(mode="json"),
        "model_key": model_identity(translator.engine_config()),
        "store": str(store.resolve()),
        "seed": config.seed,
    }
    with Store(store.resolve()) as stored, PartWriter(step.begin(), GROUPS) as writer:
        arguments["run"] = stored.open_run()
        stored.refresh()
        results = stream_parts(before.parts, TranslateWorker, arguments, config.stream_of(translator), config.ray)
        for group, payload in counted(results, total, "translations"):
            row, translated = read_head(payload), told(payload)[-1]
            language, source, reason = row["language"], row["source"], translated["reason"]
            if reason is None and checks.is_foreign(translated["trace"], "tgt-tgt-translated", language):
                reason = "wrong_language"
                nothing = json.encode({"trace": None, "explanation": None, "reason": reason}).decode()
                payload = f"{payload.rpartition(SEPARATOR)[0]}{SEPARATOR}{nothing}"
            if reason is not None:
                failed[reason] = failed.get(reason, 0) + 1
            if reason is not None and config.require_translation:
                made.drop(reason, language, source)
                continue
            made.keep(language, source)
            writer.add(group=group, payload=payload)
    made.details = {"failed": failed, "traces": checks.traces()}
    return {"filters": [made.as_json()]}


def _verdicts(payload: str, translated: bool) -> tuple[Row, dict[str, Any], int]:
    """The row, its verdict per strategy, and how often the student was right."""
    answers, right, *more = told(payload)
    verdicts = {strategy: samples[0] for strategy, samples in answers.items()}
    if translated and more[0]["reason"] is None:
        changes = {name: more[0][name] for name in ("trace", "explanation")}
        verdicts["tgt-tgt-translated"] = verdicts[TRANSLATED] | changes
    return read_row(payload), verdicts, right


def write_rows(config: FactoryConfig, before: Step, step: Step, tokenizers: Mapping[str, Any]) -> dict[str, Any]:
    """Wide rows in the order of the answers, and beside them the keys of the curriculum."""
    writer_of_rows = RowWriter(config, tokenizers)
    folder = step.begin()
    found: dict[str, list[Any]] = {"right": [], "tokens": [], "english": []}
    ties = []
    wide = _wide(config, before, writer_of_rows)
    with PartWriter(folder, writer_of_rows.schema) as writer:
        while rows := list(islice(wide, _ENCODED)):
            if config.output.tokenizer is not None:
                _count_tokens(rows, tokenizers[config.output.tokenizer], writer_of_rows)
            for row in rows:
                writer.add(**row)
            found["right"].append(np.array([r["right"] for r in rows], dtype=np.int8))
            found["tokens"].append(np.array([r["tokens"] for r in rows], dtype=np.int32))
            found["english"].append(np.array([r["language"] == "en" for r in rows]))
            ties.append(tie_break(config.seed, [r["id"] for r in rows]))
    keys = {name: np.concatenate(values) for name, values in {**found, "ties": ties}.items()}
    np.savez(folder / "keys.npz", **keys)
    per = {s: int(sum(_valid(folder, text_column(s)))) for s in config.trained}
    return {"filters": [], "rows": len(keys["ties"]), "rows_per_strategy": per, "tokens": _spread(keys["tokens"])}


def _wide(config: FactoryConfig, before: Step, writer: RowWriter) -> Iterator[dict[str, Any]]:
    for batch in batches_of(before.parts, ("payload",)):
        for payload in batch["payload"].to_pylist():
            yield writer.row(*_verdicts(payload, config.translator is not None))


def _valid(folder: Path, column: str) -> Iterator[int]:
    for batch in batches_of(sorted(folder.glob("part-*.parquet")), (column,)):
        yield batch.num_rows - batch.column(0).null_count


def _spread(values: Any) -> dict[str, int]:
    low, middle, high = np.percentile(values, (0, 50, 100)).astype(int)
    return {"least": int(low), "median": int(middle), "most": int(high)}


def _count_tokens(rows: list[dict[str, Any]], tokenizer: Any, writer: RowWriter) -> None:
    """Lengths by a tokenizer, in place of those that the teacher's engine told."""
    ids = tokenizer([writer.counted_text(r) for r in rows], add_special_tokens=False)["input_ids"]
    for row, tokens in zip(rows, ids, strict=True):
        row["tokens"] = len(tokens)


def write_orders(config: FactoryConfig, before: Step, out: Path, published: list[str]) -> list[str]:
    """Every order as one file per strategy, and the published columns in theirs; files that are there stay."""
    with np.load(before.folder / "keys.npz") as found:
        keys = Keys(found["right"], found["tokens"], found["english"], found["ties"])
    names = list(dict.fromkeys([*config.output.orders, config.output.published_order]))
    written = []
    for name in names:
        outputs = {}
        if name in config.output.orders:
            outputs = {out / "sft" / s / f"{name}.parquet": trl_table(s) for s in config.trained}
        if name == config.output.published_order:
            outputs[out / "published.parquet"] = published_table(published)
        written += [str(file.relative_to(out)) for file in outputs]
        missing = {file: made for file, made in outputs.items() if not file.is_file()}
        if missing:
            scratch = out / "work" / ".orders"
            shutil.rmtree(scratch, ignore_errors=True)
            write_in_order(before.parts, permutation(name, keys), missing, scratch)
    return written
