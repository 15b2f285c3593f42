"""Steps of the factory as folders of Parquet parts: rows are streamed in and out, and a step is whole or absent.

A step's folder is written under another name and renamed when it is finished. A step that was stopped begins anew; what
was costly in it (answers of models) is in the store.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.artifacts import read_json, write_json

_ABOUT = "_step.json"


_FEW_VALUES = ("language", "source", "mode", "family", "actual_score", "right")


def parquet_writer(file: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer for rows that are mostly long texts: only columns of few values are worth a dictionary."""
    few = [name for name in schema.names if name in _FEW_VALUES]
    return pq.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=few or False, write_statistics=few or False
    )


class PartWriter:
    """Rows into a folder of Parquet parts of so many rows each. Use as a context."""

    def __init__(self, folder: Path, schema: pa.Schema, rows_per_part: int = 4_096) -> None:
        self._folder, self._schema, self._size = folder, schema, rows_per_part
        self._columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        self._held = self._part = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, **row: Any) -> None:
        """One row."""
        for name, column in self._columns.items():
            column.append(row[name])
        self._held += 1
        if self._held >= self._size:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        table = pa.Table.from_pydict(self._columns, schema=self._schema)
        with parquet_writer(self._folder / f"part-{self._part:05d}.parquet", self._schema) as out:
            out.write_table(table)
        self._part += 1
        self._held = 0
        for column in self._columns.values():
            column.clear()

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
            if not self._part:
                pq.write_table(self._schema.empty_table(), self._folder / "part-00000.parquet")


class Step:
    """One step's folder."""

    def __init__(self, work: Path, name: str) -> None:
        self.folder = work / name
        self.building = work / f".{name}.building"

    @property
    def about(self) -> dict[str, Any] | None:
        """What was kept with the finished step; None while it is not finished."""
        file = self.folder / _ABOUT
        return read_json(file) if file.is_file() else None

    def begin(self) -> Path:
        """An empty folder to write in."""
        shutil.rmtree(self.building, ignore_errors=True)
        self.building.mkdir(parents=True)
        return self.building

    def finish(self, about: Mapping[str, Any]) -> None:
        """The folder is whole."""
        write_json(self.building / _ABOUT, about)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.replace(self.building, self.folder)

    @property
    def parts(self) -> list[Path]:
        """Its Parquet parts in order."""
        return sorted(self.folder.glob("part-*.parquet"))


def batches_of(
    parts: Sequence[Path], columns: Sequence[str] | None = None, rows: int = 1_024
) -> Iterator[pa.RecordBatch]:
    """Record batches of parts, one part open at a time."""
    for part in parts:
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(batch_size=rows, columns=list(columns) if columns else None)
