"""Read pools: Parquet, JSONL or an adapter, row by row; what can't be read is set aside by name.

A pool row is a prompt with its candidate responses (`mr3.records.PoolRow`). One bad row never stops a
run and never shifts its neighbours: it becomes a `SetAside` with file, line, id and reason.
"""

from __future__ import annotations

import gzip
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mr3.records import Candidate, PoolRow
from rewards.records import SetAside


class Placed(BaseModel):
    """A readable pool row and where it stands."""

    model_config = ConfigDict(frozen=True)

    where: str
    row: PoolRow


PoolItem = Placed | SetAside

COLUMNS = ("prompt_id", "prompt", "language", "responses", "reference", "meta")
_REQUIRED = COLUMNS[:4]


class Adapter(BaseModel):
    """A reader given by import string: `source(**options)` yields `PoolRow` and `SetAside`."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(description="package.module:function")
    options: dict[str, Any] = Field(default_factory=dict)


PoolSpec = str | list[str] | Adapter


def load_function(name: str) -> Callable[..., Any]:
    """The function that `package.module:function` names.

    Raises:
        ValueError: when there is no such module or function.
    """
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(f"{name!r} is not an import string: write package.module:function")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"can't load {name!r}: {error}") from error
    function: Callable[..., Any] = found
    return function


def pool_files(spec: PoolSpec) -> list[Path]:
    """The files and folders that a pool is read from (for hashing); those of an adapter are its path options."""
    if isinstance(spec, Adapter):
        return [Path(v) for v in spec.options.values() if isinstance(v, str) and Path(v).exists()]
    return [file for path in ([spec] if isinstance(spec, str) else spec) for file in _files(Path(path))]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"no pool at {path}: give a .parquet or .jsonl file, or a folder that `mr3 pool` made")
    if (path / "pool.parquet").is_file():
        return [path / "pool.parquet"]
    found = sorted(p for p in path.iterdir() if p.suffix == ".parquet" or _is_jsonl(p))
    found = [p for p in found if not p.name.startswith((".", "rejected"))]
    if not found:
        raise ValueError(f"no .parquet or .jsonl file in {path}: give a pool file, or a folder that `mr3 pool` made")
    return found


def _is_jsonl(path: Path) -> bool:
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def read_pool(spec: PoolSpec) -> Iterator[PoolItem]:
    """All rows of a pool, in file order, one at a time.

    Raises:
        ValueError: for a missing file, an unknown file type or a table without the needed columns.
    """
    if isinstance(spec, Adapter):
        for number, item in enumerate(load_function(spec.source)(**spec.options), start=1):
            where = f"{spec.source}, row {number}"
            yield Placed(where=where, row=item) if isinstance(item, PoolRow) else item
        return
    for file in pool_files(spec):
        if file.suffix == ".parquet":
            raw = _parquet_rows(file)
        elif _is_jsonl(file):
            raw = _jsonl_rows(file)
        else:
            raise ValueError(f"{file} is neither .parquet, .jsonl nor .jsonl.gz: give a pool in one of these formats")
        for where, value in raw:
            yield from parse_row(where, value)


def _parquet_rows(file: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    missing = [c for c in _REQUIRED if c not in table.schema_arrow.names]
    if missing:
        raise ValueError(f"{file} is no pool: it has no column {', '.join(missing)}; needed: {', '.join(_REQUIRED)}")
    wanted = [c for c in COLUMNS if c in table.schema_arrow.names]
    line = 0
    for batch in table.iter_batches(batch_size=512, columns=wanted):
        for value in batch.to_pylist():
            line += 1
            yield f"{file.name}:{line}", value


def _jsonl_rows(file: Path) -> Iterator[tuple[str, Any]]:
    opener: Any = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rb") as stream:
        for line, blob in enumerate(stream, start=1):
            where = f"{file.name}:{line}"
            if not blob.strip():
                continue
            try:
                yield where, json.loads(blob)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                yield where, SetAside(where=where, reason=f"bad JSON: {error}")


def parse_row(where: str, value: Any) -> Iterator[PoolItem]:
    """One raw row to a `Placed` row, with its empty responses set aside one by one; or to a `SetAside`."""
    if isinstance(value, SetAside):
        yield value
        return
    if not isinstance(value, dict):
        reason = f"expected an object with {', '.join(_REQUIRED)}, got {type(value).__name__}"
        yield SetAside(where=where, reason=reason)
        return
    prompt_id = value.get("prompt_id")
    name = prompt_id if isinstance(prompt_id, str) and prompt_id else None
    missing = [c for c in _REQUIRED if value.get(c) in (None, "", [])]
    if missing:
        yield SetAside(where=where, prompt_id=name, reason=f"missing or empty: {', '.join(missing)}")
        return
    try:
        row = PoolRow.model_validate(_decoded(value))
    except (ValidationError, json.JSONDecodeError) as error:
        yield SetAside(where=where, prompt_id=name, reason=_first_problem(error))
        return
    yield from _split_empty(where, row)


def _decoded(value: dict[str, Any]) -> dict[str, Any]:
    """Undo the JSON columns of the Parquet form: message lists in `prompt`, mappings in `meta`."""
    row = dict(value)
    prompt, meta = row["prompt"], row.get("meta")
    if isinstance(prompt, str) and prompt.lstrip().startswith("["):
        try:
            decoded = json.loads(prompt)
        except json.JSONDecodeError:
            decoded = None  # an ordinary text that begins with a bracket
        if isinstance(decoded, list) and decoded and all(isinstance(m, dict) and "role" in m for m in decoded):
            row["prompt"] = decoded
    if isinstance(meta, str):
        row["meta"] = json.loads(meta) if meta else {}
    elif meta is None:
        row["meta"] = {}
    return row


def _first_problem(error: ValidationError | json.JSONDecodeError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"bad JSON in a column: {error}"
    problem = max(error.errors(), key=lambda e: len(e["loc"]))  # the deepest one is the most telling
    return f"{'.'.join(str(p) for p in problem['loc'])}: {problem['msg']}"


def _split_empty(where: str, row: PoolRow) -> Iterator[PoolItem]:
    named = [
        r if r.id else Candidate(id=f"{row.prompt_id}#{i}", text=r.text, policy=r.policy)
        for i, r in enumerate(row.responses)
    ]
    if len({r.id for r in named}) < len(named):
        yield SetAside(where=where, prompt_id=row.prompt_id, reason="two responses have the same id")
        return
    kept = [r for r in named if r.text.strip()]
    for response in named:
        if not response.text.strip():
            yield SetAside(where=where, prompt_id=row.prompt_id, response_id=response.id, reason="empty response")
    if kept:
        yield Placed(where=where, row=row.model_copy(update={"responses": kept}))
