"""Raw rows of hub sets and files, streamed: (place, dict), or a SetAside for a line that is none."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mr3.rows import BadRow, check_json, json_lines, parquet_rows, parse_object
from mr3.sources.labelled import SetAside

Raw = tuple[str, dict[str, Any] | SetAside]
_BATCH = 1_024
_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".tsv", ".parquet")


def files_of(paths: str | Sequence[str]) -> list[Path]:
    """The files that paths name; a folder stands for what it holds, by name.

    Raises:
        ValueError: for a path that is not there, or a folder without a readable file.
    """
    found: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, str) else paths):
        if path.is_dir():
            inside = sorted(f for f in path.rglob("*") if f.name.endswith(_SUFFIXES))
            if not inside:
                raise ValueError(f"no file with rows in {path}: put {', '.join(_SUFFIXES)} files there")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"no file at {path}: give the path of a file or folder with rows")
    return found


def file_rows(file: Path, columns: Sequence[str] | None = None) -> Iterator[Raw]:
    """Rows of one file by its suffix; of a Parquet file only the named columns are read.

    Raises:
        ValueError: for an unknown suffix, a damaged file, or a column that a Parquet file lacks.
    """
    name = file.name
    if name.endswith(".parquet"):
        yield from _parquet(file, columns)
    elif name.endswith((".jsonl", ".jsonl.gz")):
        yield from _jsonl(file)
    elif name.endswith((".json", ".json.gz")):
        yield from _json(file)
    elif name.endswith((".csv", ".tsv")):
        yield from _csv(file)
    else:
        raise ValueError(f"{file} is none of {', '.join(_SUFFIXES)}: convert it")


def _parquet(file: Path, columns: Sequence[str] | None) -> Iterator[Raw]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        missing = sorted(set(columns or ()) - set(table.schema_arrow.names))
        if missing:
            raise ValueError(
                f"{file} has no column {', '.join(missing)} (it has {', '.join(table.schema_arrow.names)})"
            )
        batches = table.iter_batches(batch_size=_BATCH, columns=list(columns) if columns else None)
        for number, row in enumerate(parquet_rows(batches), start=1):
            yield _raw(f"{file.name}:{number}", row)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} can't be read as Parquet: {error}. Give a whole file") from error


def _open(file: Path) -> Any:
    return gzip.open(file, "rb") if file.name.endswith(".gz") else file.open("rb")


def _raw(where: str, row: dict[str, Any] | BadRow) -> Raw:
    return where, SetAside(where, str(row)) if isinstance(row, BadRow) else row


def _jsonl(file: Path) -> Iterator[Raw]:
    for where, line in json_lines(file):
        yield _raw(where, line if isinstance(line, BadRow) else _object(line))


def _object(line: bytes | str) -> dict[str, Any] | BadRow:
    try:
        return parse_object(line)
    except BadRow as problem:
        return problem


def _json(file: Path) -> Iterator[Raw]:
    try:
        with _open(file) as stream:
            # Public files named .json often hold JSON lines (RTP-LX as the published evaluation reads it).
            lines = _begins_with_an_object(stream)
            rows = None if lines else json.load(stream)
    except (ValueError, EOFError, zlib.error, RecursionError) as error:
        raise ValueError(f"{file} can't be read as JSON: {error}") from error
    if lines:
        yield from _jsonl(file)
        return
    if not isinstance(rows, list):
        raise ValueError(f"{file} holds no list of rows: give a JSON array of objects, or JSON lines")
    for number, row in enumerate(rows, start=1):
        yield _raw(f"{file.name}:{number}", _element(row))


def _element(row: Any) -> dict[str, Any] | BadRow:
    if not isinstance(row, dict):
        return BadRow("not a JSON object")
    try:
        check_json(row)
    except BadRow as problem:
        return problem
    return row


def _begins_with_an_object(stream: Any) -> bool:
    """Whether the first line is a whole JSON object; the stream is at its beginning again."""
    try:
        return stream.read(1) == b"{" and isinstance(json.loads(b"{" + stream.readline()), dict)
    except (ValueError, RecursionError):
        return False
    finally:
        stream.seek(0)


def _csv(file: Path) -> Iterator[Raw]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        dialect: Any = "excel-tab" if file.suffix == ".tsv" else "excel"
        for number, row in enumerate(csv.DictReader(stream, dialect=dialect), start=1):
            yield _raw(f"{file.name}:{number}", _cells(row))


def _cells(row: dict[Any, Any]) -> dict[str, Any] | BadRow:
    if None in row:
        return BadRow("more cells than the header has columns")
    try:
        "".join(cell or "" for cell in row.values()).encode()
    except UnicodeEncodeError:
        return BadRow("text that is not UTF-8")
    return dict(row)


def hub_rows(hub: str, split: str, revision: str | None, columns: Sequence[str], streaming: bool) -> Iterator[Raw]:
    """Rows of a hub set in its own order, the named columns only.

    Raises:
        ValueError: when the set can't be loaded or read on, or lacks a column.
    """
    import datasets
    import pyarrow as pa

    number = 0
    try:
        data = datasets.load_dataset(hub, split=split, revision=revision, streaming=streaming)
        for table in data.with_format("arrow").iter(batch_size=_BATCH):
            missing = sorted(set(columns) - set(table.column_names))
            if missing:
                raise ValueError(f"{hub} ({split}) has no column {', '.join(missing)}: check the split and revision")
            for row in table.select(list(columns)).to_pylist():
                number += 1
                yield f"{hub}:{split}:{number}", row
    except (OSError, datasets.exceptions.DatasetsError, pa.ArrowInvalid) as error:
        raise ValueError(
            f"{hub} ({split}) can't be read after row {number}: {error}. Check the name, the split and the connection"
        ) from error
