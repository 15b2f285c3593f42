"""Groups of work through an actor pool on Ray Data: no barrier between batches, bounded queues, any order out.

A group is what must stay together on one replica (all judgements of one prompt): a name and a JSON payload.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Source = str | Path | Sequence[dict[str, str]]
_TASKS_PER_ACTOR = 2
_FEEDERS = 2
"""Ray Data's own tasks at a time (reading, cutting). Else it starts a process for each logical CPU, and keeps it."""


class StreamSettings(BaseModel):
    """The actor pool and its queues."""

    model_config = ConfigDict(extra="forbid")

    replicas_min: int = Field(1, ge=1)
    replicas_max: int = Field(1, ge=1)
    batch_groups: int = Field(16, ge=1, description="groups per hand-over")
    concurrency: int = Field(6, ge=1, description="batches that one actor works on at once")
    num_cpus: float = 1.0
    num_gpus: float = 0.0


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
        ValueError: where a worker raised one.
    """
    import ray

    if isinstance(source, str | Path):
        # A task hands over its results at its end: small ones, so that they flow, and that a death costs little.
        rows = settings.batch_groups * settings.concurrency
        data = ray.data.read_parquet(str(source)).repartition(target_num_rows_per_block=rows)
    else:
        if not source:
            return
        blocks = max(1, min(64, len(source) // settings.batch_groups))
        data = ray.data.from_items(list(source), override_num_blocks=blocks)
    results = data.map_batches(
        worker,
        fn_constructor_kwargs=worker_kwargs,
        batch_size=settings.batch_groups,
        compute=ray.data.ActorPoolStrategy(
            min_size=settings.replicas_min,
            max_size=settings.replicas_max,
            # One at work and one behind it keep an engine full; more would wait here while another replica has none.
            max_tasks_in_flight_per_actor=_TASKS_PER_ACTOR,
        ),
        num_cpus=settings.num_cpus,
        num_gpus=settings.num_gpus,
        max_concurrency=settings.concurrency,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}},
    )
    options = results.context.execution_options
    options.resource_limits = options.resource_limits.copy(cpu=settings.replicas_max * settings.num_cpus + _FEEDERS)
    try:
        for batch in results.iter_batches(batch_size=None, prefetch_batches=0):
            yield from zip(batch["group"], batch["payload"], strict=True)
    except ray.exceptions.RayTaskError as error:
        raise _user_error(error) or error from error


def _user_error(error: BaseException) -> ValueError | None:
    """The ValueError that a worker raised, without Ray's wrapping around it."""
    seen: BaseException | None = error
    while seen is not None:
        inner = getattr(seen, "cause", None) or seen.__cause__
        if isinstance(inner, ValueError):
            return ValueError(str(inner))
        seen = inner
    return None
