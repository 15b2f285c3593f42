"""Groups of work through an actor pool on Ray Data: no barrier between batches, bounded queues, any order out.

A group is what must stay together on one replica (all judgements of one prompt): a name and a JSON payload.
"""

from __future__ import annotations

import logging
import uuid
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mr3.files import disk_trouble
from mr3.gc_tuning import tune_gc
from mr3.inference.liveness import SessionLost, Watch, start_beating
from mr3.inference.slices import Slices
from mr3.inference.stored_work import MOST_DEATHS

log = logging.getLogger(__name__)
Source = str | Path | Sequence[dict[str, str]]
_TASKS_PER_ACTOR = 2
"""One at work and one behind it keep an engine full; more would wait here while another replica has none."""
_TASKS_PER_FEED = 1024
"""Tasks for which one of Ray Data's own tasks makes the numbers."""
_FEEDERS = 1
"""Ray Data's own tasks at a time (counting, cutting). Else it starts a process for each logical CPU, and keeps it."""
_ERROR = "\0error"
"""The group under which a worker's ValueError comes back: Ray would end the run with a traceback of its own."""


class StreamSettings(BaseModel):
    """The actor pool and its queues."""

    model_config = ConfigDict(extra="forbid")

    replicas_min: int = Field(1, ge=1)
    replicas_max: int = Field(1, ge=1)
    batch_groups: int = Field(16, ge=1, description="groups per hand-over")
    concurrency: int = Field(6, ge=1, description="batches that one actor works on at once")
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    silence_s: float = Field(
        120.0,
        gt=0,
        description="a worker that gives no sign of life for so long is replaced; a session ends the run",
    )


def stream_groups(
    source: Source,
    worker: type,
    worker_kwargs: dict[str, Any],
    settings: StreamSettings,
) -> Iterator[tuple[str, str]]:
    """Yield (group, result) as results come.

    `source` is rows of `group` and `payload`, or a Parquet path with these columns. `worker` is a class whose async
    `__call__` maps a batch to the same columns.

    Raises:
        ValueError: where a worker raised one; where all engines die, or the Ray session stops (`SessionLost`).
    """
    import ray

    if isinstance(source, str | Path):
        slices = Slices.of(source, settings.batch_groups)
        if not len(slices):
            return
        data, size = _numbers(len(slices), settings), 1
    else:
        if not source:
            return
        slices, size = None, settings.batch_groups
        blocks = max(1, min(64, len(source) // size))
        data = ray.data.from_items(list(source), override_num_blocks=blocks)
    beats = f"stream-{uuid.uuid4().hex}"
    arguments = {
        "worker": worker,
        "arguments": worker_kwargs,
        "slices": slices,
        "beats": beats,
        "silence_s": settings.silence_s,
    }
    results = _on_actors(data, arguments, size, settings)
    for batch in _watched(results, Watch(beats, settings.silence_s), settings.replicas_max):
        for group, result in zip(batch["group"], batch["payload"], strict=True):
            if group == _ERROR:
                raise ValueError(result)
            yield group, result


def _watched(results: Any, watch: Watch, replicas: int) -> Iterator[Any]:
    """The batches of a data set. Ray Data's iterator blocks, so it runs in a thread, and this one can say stop."""
    batches = iter(results.iter_batches(batch_size=None, prefetch_batches=0))
    reader = ThreadPoolExecutor(1, "stream-reader")
    try:
        while True:
            batch = reader.submit(next, batches, None)
            while not wait([batch], watch.pause).done:
                watch.check(MOST_DEATHS + replicas)
            if (found := _result(batch)) is None:
                return
            watch.answered()
            yield found
    finally:
        watch.close()
        reader.shutdown(wait=False)


def _result(batch: Future[Any]) -> Any:
    """What Ray Data gave; what Ray says of itself, as one line. An error in a worker's code stays what it is."""
    from ray.exceptions import RayActorError, RayError, RayTaskError

    try:
        return batch.result()
    except RayTaskError:
        raise
    except RayError as error:
        lines = str(error).strip().splitlines() or [""]
        kind = ValueError if isinstance(error, RayActorError) else SessionLost
        raise kind(
            f"Ray gave the work up ({type(error).__name__}: {lines[0]} {lines[-1] if len(lines) > 1 else ''}). "
            "Everything answered so far is stored; the same command goes on"
        ) from error


def _on_actors(data: Any, arguments: dict[str, Any], size: int, settings: StreamSettings) -> Any:
    """The data set's batches of `size` rows through a pool of `StreamWorker`s."""
    import ray

    with warnings.catch_warnings():
        # Ray 2.60 takes max_concurrency as one of `ray_remote_args` only, and says that these will go in 2.64.
        warnings.filterwarnings("ignore", ".*`ray_remote_args` is deprecated", DeprecationWarning)
        results = data.map_batches(
            StreamWorker,
            fn_constructor_kwargs=arguments,
            batch_size=size,
            compute=ray.data.ActorPoolStrategy(
                min_size=settings.replicas_min,
                max_size=settings.replicas_max,
                max_tasks_in_flight_per_actor=_TASKS_PER_ACTOR,
            ),
            num_cpus=settings.num_cpus,
            num_gpus=settings.num_gpus,
            max_concurrency=settings.concurrency,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}},
        )
    options = results.context.execution_options
    options.resource_limits = options.resource_limits.copy(cpu=settings.replicas_max * settings.num_cpus + _FEEDERS)
    return results


class StreamWorker:
    """What runs in an actor: a worker, and what the stream needs around it.

    Args:
        slices: where a batch is the number of a slice, what to read it from.
        beats: under which name the stream watches its workers.
    """

    def __init__(
        self, worker: type, arguments: dict[str, Any], slices: Slices | None, beats: str, silence_s: float
    ) -> None:
        start_beating(beats, silence_s)
        self._slices = slices
        self._worker: Any = None
        self._error = ""
        try:
            self._worker = worker(**arguments)
        except ValueError as error:
            log.warning("the worker can't be made", exc_info=True)
            self._error = str(error)
        tune_gc()

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One batch; what the worker refuses comes back as an error."""
        if self._worker is None:
            return _refusal(self._error)
        try:
            if self._slices is not None:
                (index,) = batch["id"]
                batch = self._slices.read(int(index))
            done: dict[str, Any] = await self._worker(batch)
        except ValueError as error:
            log.warning("the worker refuses a batch", exc_info=True)
            return _refusal(str(error))
        except OSError as error:
            reason = disk_trouble(error)
            if reason is None:
                raise
            return _refusal(f"{reason} ({error}): mend that, and the same command goes on from here")
        return done


def _refusal(error: str) -> dict[str, Any]:
    return {"group": np.array([_ERROR], dtype=object), "payload": np.array([error], dtype=object)}


def _numbers(count: int, settings: StreamSettings) -> Any:
    """A Ray data set of `count` numbers, cut into tasks.

    A task hands over its results at its end: small ones, so that they flow, that a death costs little, and that every
    replica gets its share.
    """
    import ray

    shares = settings.replicas_max * _TASKS_PER_ACTOR
    task = max(1, min(settings.concurrency, count // shares))
    numbers = ray.data.range(count, override_num_blocks=-(-count // (_TASKS_PER_FEED * task)))
    return numbers.repartition(target_num_rows_per_block=task)
