"""Groups through a worker: on the actors of a Ray stream, or in this process where no actors are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mr3.factory.parts import batches_of
from mr3.inference.stored_work import end_tasks
from mr3.inference.stream import StreamSettings, stream_groups

_WINDOW = 8_192
"""Results that may wait in this process for whoever reads them."""


def _groups(parts: Sequence[Path], size: int) -> Iterator[dict[str, Any]]:
    for batch in batches_of(parts, ("group", "payload"), size):
        yield {name: np.array(batch.column(name).to_pylist(), dtype=object) for name in ("group", "payload")}


def _here(parts: Sequence[Path], worker: type, arguments: dict[str, Any], settings: StreamSettings) -> Iterator[Any]:
    """Windows of batches on one event loop: several at once in a window, none held beyond it."""
    made = worker(**arguments)
    batches = _groups(parts, settings.batch_groups)
    window = max(settings.concurrency, _WINDOW // settings.batch_groups)

    async def ask(found: list[dict[str, Any]]) -> list[Any]:
        gate = asyncio.Semaphore(settings.concurrency)

        async def one(batch: dict[str, Any]) -> Any:
            async with gate:
                return await made(batch)

        return list(await asyncio.gather(*map(one, found)))

    # Not asyncio.Runner: its signal handler spells out the finished task, and a window of rows with it, each time.
    loop = asyncio.new_event_loop()
    try:
        while found := list(islice(batches, window)):
            for answer in loop.run_until_complete(ask(found)):
                yield from zip(answer["group"], answer["payload"], strict=True)
    finally:
        # What an interrupt left at work ends here, and not when the loop is gone.
        loop.run_until_complete(end_tasks(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def stream_parts(
    parts: Sequence[Path], worker: type, arguments: dict[str, Any], settings: StreamSettings, ray: bool
) -> Iterator[tuple[str, str]]:
    """Yield (group, result) of all groups in some parts, in any order.

    Args:
        parts: Parquet files with the columns `group` and `payload`, in one folder.
        worker: a class whose async `__call__` maps a batch to the same columns.
        ray: on actors; else in this process.

    Raises:
        ValueError: where a worker raised one.
    """
    if not ray:
        yield from _here(parts, worker, arguments, settings)
        return
    from mr3.inference.session import ray_session

    with ray_session():
        yield from stream_groups(parts[0].parent.resolve(), worker, arguments, settings)
