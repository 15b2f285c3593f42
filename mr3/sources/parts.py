"""Rows of a source together with the column that a benchmark counts by: a subset, a domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from mr3.sources.families import labelled_row
from mr3.sources.labelled import Labelled, SetAside
from mr3.sources.opening import open_source, set_raw
from mr3.sources.registry import known_set
from mr3.sources.spec import SetSource, SourceSpec, Texts


def rows_with_part(
    spec: SourceSpec,
    texts: Texts,
    column: str | None,
    keep: Callable[[dict[str, Any]], bool],
    own_language: bool = True,
) -> Iterator[tuple[Labelled, str | None] | SetAside]:
    """Labelled rows, each with the value of one column of the raw row (None where no column is asked for).

    Args:
        keep: whether a raw row of a known set belongs to the benchmark; rows of other sources all do. A row may lack
            columns here: it is then set aside.
        own_language: as `open_source` takes it.

    Raises:
        ValueError: as `open_source`, and for a missing file or a hub set that can't be read.
    """
    if not isinstance(spec, SetSource):
        for row in open_source(spec, texts, own_language=own_language):
            yield row if isinstance(row, SetAside) else (row, None)
        return
    about = known_set(spec.set)
    for where, raw in set_raw(spec):
        if isinstance(raw, SetAside):
            yield raw
            continue
        if not keep(raw):
            continue
        part = None if column is None or raw.get(column) is None else str(raw[column])
        missing = [c for c in about.columns if raw.get(c) is None]
        if missing:
            shown = {name: str(raw[name]) for name in ("id", "language") if raw.get(name) is not None}
            yield SetAside(where, f"no value in {', '.join(missing)}", "incomplete", part=part, **shown)
            continue
        found = labelled_row(where, raw, about, texts, spec.gold_scale, own_language)
        yield replace(found, part=part) if isinstance(found, SetAside) else (found, part)
