"""Judge many groups: the stream of an actor pool of judges, resumable through the store."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mr3.inference.stream import StreamSettings, stream_groups
from mr3.judging.config import JudgeConfig

log = logging.getLogger("mr3.judging")


def group_row(name: str, items: Iterable[dict[str, Any]], meta: Any = None) -> dict[str, str]:
    """One source row: `items` are dumps of JudgeItem, `meta` any JSON that the result brings back."""
    return {"group": name, "payload": json.dumps({"items": list(items), "meta": meta}, ensure_ascii=False)}


def judge_groups(
    groups: str | Path | Iterable[dict[str, str]],
    judge: JudgeConfig,
    store: str | Path,
    settings: StreamSettings,
    expand: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (group, `{"verdicts": [...], "meta": ..., "new": n}`) in any order, each verdict stored before.

    Args:
        groups: rows made by `group_row`, or a Parquet path that `expand` turns into such rows inside Ray Data.
        store: folder of the verdict store; what is in it is not judged again.

    Raises:
        ValueError: when the judge can't be run as configured.
    """
    from mr3.inference.session import ray_session
    from mr3.inference.store import Store
    from mr3.judging.worker import JudgeWorker

    engine = judge.engine_config()  # a bad card or profile is an error here, not in a dead actor
    identity = judge.identity()
    folder = Path(store).resolve()
    known = Store(folder).refresh()
    log.info("judge %s (up to %s tokens); the store %s holds %d results", identity, engine.max_model_len, folder, known)
    # Other nodes, and actors, may have another working directory.
    source = str(Path(groups).resolve()) if isinstance(groups, str | Path) else list(groups)
    if Path(judge.model).is_dir():
        judge = judge.model_copy(update={"model": str(Path(judge.model).resolve())})
    arguments = {"judge": judge.model_dump(mode="json"), "store": str(folder), "identity": identity}
    try:
        with ray_session():
            yield from stream_groups(source, JudgeWorker, arguments, settings, expand)
    finally:
        Store(folder).refresh()
