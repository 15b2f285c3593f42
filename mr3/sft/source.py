"""Where SFT rows come from: a Parquet file or a data set on the hub, in order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mr3.sft.config import SftConfig
from mr3.sft.data import check_columns, parquet_rows, renamed

_HUB_ID = re.compile(r"^[\w.\-]+/[\w.\-]+$")


def is_hub_id(data: str) -> bool:
    """`owner/name` that is no path of this project's artifacts or of a Parquet file."""
    return bool(_HUB_ID.match(data)) and not data.startswith((".", "runs/")) and not data.endswith(".parquet")


def check_data(data: str) -> None:
    """
    Raises:
        ValueError: when there is neither such a file nor can it be a hub id.
    """
    if not Path(data).is_file() and not is_hub_id(data):
        raise ValueError(f"no data file at {data}: make it with `mr3 data`, or give another path or a hub id")


def read_rows(config: SftConfig, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Rows in the data's order, at most `max_rows`, and at most `limit`.

    Raises:
        ValueError: for a column that the data lack.
    """
    caps = [n for n in (config.max_rows, limit) if n is not None]
    count = min(caps) if caps else None
    prompt, completion = config.columns.prompt, config.columns.completion
    if Path(config.data).is_file():
        return parquet_rows(Path(config.data), prompt, completion, count)
    return _hub_rows(config.data, prompt, completion, count)


def _hub_rows(data: str, prompt: str, completion: str, count: int | None) -> Iterator[dict[str, Any]]:
    from datasets import load_dataset

    rows = load_dataset(data, split="train", streaming=True)
    names = check_columns(rows.column_names, prompt, completion, data)
    for row in itertools.islice(rows.select_columns(names), count):
        yield renamed(row, prompt, completion)


def count_rows(config: SftConfig) -> int:
    """How many rows training would read."""
    if Path(config.data).is_file():
        found = pq.ParquetFile(config.data).metadata.num_rows
    else:
        from datasets import load_dataset_builder

        splits = load_dataset_builder(config.data).info.splits
        if splits is None:
            raise ValueError(f"the hub does not say how many rows {config.data} has: set max_rows")
        found = splits["train"].num_examples
    return min(found, config.max_rows) if config.max_rows is not None else int(found)
