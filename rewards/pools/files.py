"""Rows of JSONL, JSONL.gz and Parquet files, in order, with the place where each one stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mr3.rows import BadRow, json_lines, parquet_rows
from rewards.pools.columns import Columns
from rewards.pools.rows import COLUMNS, REQUIRED
from rewards.records import SetAside

_BATCH = 256
_HINT = "give a .parquet or .jsonl file, or a folder that `mr3 pool` made"


def files_of(path: Path) -> list[Path]:
    """The pool files at a path, in the order in which they are read.

    Raises:
        ValueError: when there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"no pool at {path}: {_HINT}")
    if (path / "pool.parquet").is_file():
        return [path / "pool.parquet"]
    found = sorted(p for p in path.iterdir() if p.suffix == ".parquet" or _is_jsonl(p))
    found = [p for p in found if not p.name.startswith((".", "rejected"))]
    if not found:
        raise ValueError(f"no .parquet or .jsonl file in {path}: {_HINT}")
    return found


def _is_jsonl(path: Path) -> bool:
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def file_rows(file: Path, columns: Columns | None) -> Iterator[tuple[str, Any]]:
    """(place, row) of one file: JSON lines as bytes, Parquet rows as dicts.

    Raises:
        ValueError: for an unknown or damaged file, or a table without the needed columns.
    """
    if file.suffix == ".parquet":
        return _parquet_rows(file, columns)
    if _is_jsonl(file):
        return (_placed(where, line) for where, line in json_lines(file))
    raise ValueError(f"{file} is neither .parquet, .jsonl nor .jsonl.gz: give a pool in one of these formats")


def wanted_columns(names: list[str], columns: Columns | None, what: str) -> list[str]:
    """Which of a table's columns are read.

    Raises:
        ValueError: when a column that is needed, or named in `columns`, is not there.
    """
    if columns is None:
        missing = [c for c in REQUIRED if c not in names]
        if missing:
            raise ValueError(
                f"{what} is no pool: it has no column {', '.join(missing)}; needed: {', '.join(REQUIRED)}. Where the "
                "columns have other names, say which is what with `columns:`"
            )
        return [c for c in COLUMNS if c in names]
    asked = columns.names()
    unknown = sorted(a for a in asked if not any(n == a or n.startswith(f"{a}.") for n in names))
    if unknown:
        raise ValueError(
            f"{what} has no column {', '.join(unknown)}, which `columns:` names; it has {', '.join(names)}"
        )
    return [n for n in names if any(n == a or n.startswith(f"{a}.") for a in asked)]


def _parquet_rows(file: Path, columns: Columns | None) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        table = pq.ParquetFile(file)
        wanted = wanted_columns(table.schema_arrow.names, columns, str(file))
        for value in parquet_rows(table.iter_batches(batch_size=_BATCH, columns=wanted)):
            number += 1
            yield _placed(f"{file.name}:{number}", value)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} can't be read as Parquet after row {number}: {error}. Give a whole file") from error


def _placed(where: str, value: Any) -> tuple[str, Any]:
    return where, SetAside(where=where, reason=str(value)) if isinstance(value, BadRow) else value
