"""The tables of labelling: their columns, and a Parquet writer that leaves a whole file or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.files import sync_folder

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_IDS = pa.list_(pa.string())

PROMPTS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("language", pa.string()),
        ("prompt", _MESSAGES),
        ("reference", pa.string()),
        ("meta", pa.string()),  # JSON, as in the pool
        ("provenance", pa.string()),  # JSON: a language told by the text, rows joined
    ]
)
RESPONSES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("text", pa.string()),
        ("policy", pa.string()),
        ("language", pa.string()),
        ("judged_as", pa.string()),  # the response of this prompt whose equal text was judged
        ("text_hash", pa.string()),
        ("chars", pa.int32()),
        ("cut", pa.bool_()),
    ]
)
VERDICTS = pa.schema(
    [
        ("id", pa.string()),
        ("task_id", pa.string()),
        ("prompt_id", pa.string()),
        ("response_ids", _IDS),
        ("language", pa.string()),
        ("mode", pa.string()),
        ("outcome", pa.string()),
        ("score", pa.string()),
        ("expected", pa.float64()),
        ("distribution", pa.string()),
        ("outside_mass", pa.float64()),
        ("repaired", pa.bool_()),
        ("explanation", pa.string()),
        ("trace", pa.string()),
        ("reason", pa.string()),
        ("swapped", pa.bool_()),
        ("sample", pa.int32()),
        ("attempts", pa.int32()),
        ("judge", pa.string()),
        ("rubric_hash", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
    ]
)
COMPARISONS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("language", pa.string()),
        ("a", pa.string()),
        ("b", pa.string()),
        ("policy_a", pa.string()),  # everyone who wrote the text, by name, joined with " + "
        ("policy_b", pa.string()),
        ("result", pa.string()),
        ("p_a", pa.float64()),
        ("margin", pa.float64()),
        ("flip", pa.bool_()),
        ("truth", pa.int8()),  # 1: a is truly better, -1: b, 0: equal, null: no checker
        ("verdict_ids", _IDS),
    ]
)
PREFERENCES = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
        ("prompt_id", pa.string()),
        ("language", pa.string()),
        ("chosen_policy", pa.string()),
        ("rejected_policy", pa.string()),
        ("chosen_id", pa.string()),
        ("rejected_id", pa.string()),
        ("judge", pa.string()),
        ("rubric_hash", pa.string()),
        ("verdict_ids", _IDS),
        ("p_better", pa.float64()),
        ("margin", pa.float64()),
    ]
)


class TableWriter:
    """Append rows to a Parquet file that appears, whole, when the `with` block ends cleanly.

    Rows are held back to `batch` and written as one row group each time, so memory stays bounded.
    """

    def __init__(self, path: Path, schema: pa.Schema, batch: int = 4096) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        self._batch = batch
        self._held: list[dict[str, Any]] = []
        self._temporary = path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._temporary, schema, compression="zstd", write_page_checksum=True)

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows; their keys must be columns of the schema (a missing one is null)."""
        self._held.extend(rows)
        if len(self._held) >= self._batch:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_pylist(self._held, schema=self._schema))
            self.rows += len(self._held)
            self._held = []

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                if kind is None:
                    self._flush()
            finally:
                self._writer.close()
            if kind is None:
                with self._temporary.open("rb") as done:
                    os.fsync(done.fileno())
                os.replace(self._temporary, self.path)
                sync_folder(self.path.parent)
        finally:
            with suppress(OSError):  # renamed, or a disk that fails: the next run replaces it
                self._temporary.unlink()
