"""How far a step is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

from mr3.stage import RateLimit, quiet

log = logging.getLogger("mr3.factory")
T = TypeVar("T")
_EVERY_S = 30.0


def counted(rows: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The same rows, with progress on the way."""
    from tqdm import tqdm

    due = RateLimit(_EVERY_S)
    with tqdm(total=total, unit="row", desc=what, disable=quiet()) as bar:
        for number, row in enumerate(rows, start=1):
            yield row
            bar.update()
            if quiet() and due():
                log.info("%s: %d of %d rows", what, number, total)
