"""Rows of a pool read, checked and written down per second of one core: JSONL, Parquet, renamed columns, and merging.

A row is a short question with two short answers, the case in which the work per row weighs most. Time is the process's
own (CPU), so that a busy machine does not count; the lowest of three rounds is the slowest machine's mood left out.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks.registry import Bar, Benchmark, Result
from rewards.ingest import ingest_pool
from rewards.pool import PoolSpec

_ROWS = 50_000
_ROUNDS = 3
_COLUMNS = {"prompt": "prompt", "prompt_id": "prompt_id", "language": "language", "responses": ["a", "b"]}


def _row(i: int) -> dict[str, Any]:
    a, b = f"The answer is {i + 7 * i % 13}.", f"I think it is {i}."
    return {
        "prompt_id": f"p{i}",
        "prompt": f"What is {i} plus {7 * i % 13}, and why?",
        "language": "en",
        "responses": [{"id": f"p{i}-a", "text": a, "policy": "m1"}, {"id": f"p{i}-b", "text": b, "policy": "m2"}],
    }


def _flat(i: int) -> dict[str, Any]:
    row = _row(i)
    a, b = row.pop("responses")
    return {**row, "a": a["text"], "b": b["text"]}


def _pools(folder: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = "".join(json.dumps(_row(i)) + "\n" for i in range(_ROWS))
    (folder / "pool.jsonl").write_text(lines, encoding="utf-8")
    pq.write_table(pa.Table.from_pylist([_row(i) for i in range(_ROWS)]), folder / "pool.parquet")
    pq.write_table(pa.Table.from_pylist([_flat(i) for i in range(_ROWS)]), folder / "flat.parquet")
    jsonl, parquet, flat = (str(folder / name) for name in ("pool.jsonl", "pool.parquet", "flat.parquet"))
    yield "jsonl", jsonl
    yield "parquet", parquet
    yield "parquet_with_columns", {"path": flat, "columns": _COLUMNS}
    yield "two_sources_merged", {"sources": [jsonl, {"path": flat, "columns": _COLUMNS}], "merge": True}


def run() -> Result:
    """Rows in per CPU second, for each kind of pool."""
    adapter: TypeAdapter[PoolSpec] = TypeAdapter(PoolSpec)
    speeds: dict[str, float | int | None] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, given in _pools(folder):
            rows = _ROWS * (2 if kind == "two_sources_merged" else 1)
            seconds = []
            for _ in range(_ROUNDS):
                begun = time.process_time()
                done = ingest_pool(adapter.validate_python(given), folder / "work" / "pool", folder / "rejected.jsonl")
                seconds.append(time.process_time() - begun)
                assert done.prompts + done.rows_joined == rows and done.rows_set_aside == 0
            speeds[kind] = round(rows / min(seconds))
    return Result(speeds, n=_ROWS, bars={kind: Bar("at_least", 10_000) for kind in ("jsonl", "parquet")})


BENCHMARK = Benchmark("pool-ingest", "rows of a pool read, checked and written per second of one core", run)
