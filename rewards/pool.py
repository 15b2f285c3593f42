"""Read pools of any kind (`rewards.pools.spec`), row by row; what can't be read is set aside by name.

A pool row is a prompt with its candidate responses (`mr3.records.PoolRow`). One bad row never stops a
run and never shifts its neighbours: it becomes a `SetAside` with file, line, id and reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mr3.importing import load_named
from rewards.pools.columns import Columns
from rewards.pools.files import file_rows, files_of
from rewards.pools.hub import hub_files, hub_rows
from rewards.pools.languages import Tagger
from rewards.pools.mapper import Mapper
from rewards.pools.merge import merge_rows
from rewards.pools.rows import Placed, PoolItem, RowReader
from rewards.pools.spec import Adapter, FileSource, HubSource, Pool, PoolSpec, as_pool

__all__ = [
    "Adapter",
    "Placed",
    "Pool",
    "PoolItem",
    "PoolSpec",
    "pool_files",
    "pool_is_empty",
    "read_pool",
]


def pool_files(spec: PoolSpec) -> list[Path]:
    """The files and folders that a pool is read from (for hashing); those of an adapter are its path options."""
    found: list[Path] = []
    for source in as_pool(spec).sources:
        if isinstance(source, Adapter):
            found += [Path(v) for v in source.options.values() if isinstance(v, str) and Path(v).exists()]
        elif isinstance(source, HubSource):
            found += hub_files(source)
        else:
            found += _files(source)
    return found


def _files(source: str | FileSource) -> list[Path]:
    paths = [source] if isinstance(source, str) else source.paths
    return [file for path in paths for file in files_of(Path(path))]


def read_pool(spec: PoolSpec, scratch: Path | None = None) -> Iterator[PoolItem]:
    """All rows of a pool, in the order of its sources and their files, one at a time.

    Args:
        scratch: where rows wait on disk for others of their prompt; needed where the pool says `merge: true`.

    Raises:
        ValueError: for a missing or damaged file, an unknown file type or a source without the needed columns.
    """
    pool = as_pool(spec)
    items = _items(pool)
    if not pool.merge:
        return items
    assert scratch is not None, "a pool that is merged needs a scratch file"
    return merge_rows(items, scratch)


def pool_is_empty(spec: PoolSpec) -> bool:
    """Whether there is no row at all, not even a bad one; reads one row.

    Raises:
        ValueError: as `read_pool` does.
    """
    return next(_items(as_pool(spec)), None) is None


def _items(pool: Pool) -> Iterator[PoolItem]:
    among = tuple(pool.languages) if pool.languages else None
    tagger = Tagger(pool.default_language, among, pool.min_confidence)
    for source in pool.sources:
        columns = source.columns if isinstance(source, FileSource | HubSource) else None
        reader = RowReader(tagger, Mapper(columns, by_prompt=pool.merge) if columns else None)
        for where, raw in _raw_rows(source, columns):
            yield from reader.items(where, raw)


def _raw_rows(source: str | FileSource | HubSource | Adapter, columns: Columns | None) -> Iterable[tuple[str, Any]]:
    if isinstance(source, Adapter):
        given = enumerate(load_named(source.source, "the adapter")(**source.options), start=1)
        return ((f"{source.source}, row {number}", item) for number, item in given)
    if isinstance(source, HubSource):
        rows = hub_rows(source)
    else:
        rows = (row for file in _files(source) for row in file_rows(file, columns))
    return rows if isinstance(source, str) else islice(rows, source.limit)
