"""Rows of a data set by `datasets.load_dataset`: streamed from a hub at a pinned commit, or from local files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rewards.pools.files import wanted_columns
from rewards.pools.spec import HubSource

_BATCH = 256


def hub_files(source: HubSource) -> list[Path]:
    """The local files that a source reads (for hashing); none for a hub id, whose commit is in the config."""
    if Path(source.hub).is_dir():
        return [Path(source.hub)]
    given = source.data_files or []
    return [path for path in map(Path, [given] if isinstance(given, str) else given) if path.exists()]


def hub_rows(source: HubSource) -> Iterator[tuple[str, Any]]:
    """(place, row) in the set's own order.

    A set that `datasets` can't decode stops here: its reader gives up a whole file for one bad line, and what it would
    have skipped can't be named.

    Raises:
        ValueError: when the set can't be loaded or read on, or lacks a column that is needed.
    """
    import datasets
    import pyarrow as pa

    number = 0
    try:
        data = datasets.load_dataset(
            source.hub,
            source.config,
            split=source.split,
            revision=source.revision,
            data_files=source.data_files,
            streaming=source.streaming,
        )
        for table in data.with_format("arrow").iter(batch_size=_BATCH):
            if number == 0:
                wanted = wanted_columns(table.column_names, source.columns, f"{source.hub} ({source.split})")
            for value in table.select(wanted).to_pylist():
                number += 1
                yield f"{source.hub}:{source.split}:{number}", value
    except (OSError, datasets.exceptions.DatasetsError, pa.ArrowInvalid) as error:
        raise ValueError(
            f"{source.hub} ({source.config or 'default'}, {source.split}) can't be read after row {number}: {error}. "
            "Check the name, the split and the connection; a file with bad lines can be read with path: instead of hub:"
        ) from error
