"""Judge many groups: the stream of an actor pool of judges, resumable through the store."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mr3.inference.stream import StreamSettings, stream_groups
from mr3.judging.config import JudgeConfig

log = logging.getLogger("mr3.judging")


def group_row(name: str, items: Iterable[dict[str, Any]], meta: Any = None) -> dict[str, str]:
    """One source row: `items` are dumps of JudgeItem, `meta` any JSON that the result brings back."""
    return {"group": name, "payload": json.dumps({"items": list(items), "meta": meta}, ensure_ascii=False)}


@dataclass(frozen=True)
class Work:
    """A worker class for the stream, beside `JudgeWorker`, and what its constructor takes beyond that one's."""

    worker: type
    arguments: dict[str, Any] = field(default_factory=dict)


def judge_groups(
    groups: str | Path | Iterable[dict[str, str]],
    judge: JudgeConfig,
    store: str | Path,
    settings: StreamSettings,
    work: Work | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield (group, `{"verdicts": [...], "meta": ..., "new": n}` as JSON) in any order, each verdict stored before.

    Args:
        groups: rows made by `group_row`, or a Parquet path (a file or a folder) with the columns `group` and `payload`.
        store: folder of the verdict store; what is in it is not judged again.
        work: who does it, where groups are something else than `JudgeWorker` takes.

    Raises:
        ValueError: when the judge can't be run as configured, or the store can't be written.
    """
    from mr3.inference.session import ray_session
    from mr3.inference.store import Store
    from mr3.judging.worker import JudgeWorker

    work = work or Work(JudgeWorker)
    engine = judge.engine_config()  # a bad card or profile is an error here, not in a dead actor
    identity = judge.identity()
    folder = Path(store).resolve()
    # Other nodes, and actors, may have another working directory.
    source = str(Path(groups).resolve()) if isinstance(groups, str | Path) else list(groups)
    arguments = {"judge": judge.absolute().model_dump(mode="json"), "store": str(folder), "identity": identity}
    with Store(folder) as stored:
        run, known = stored.open_run(), stored.refresh()
        tokens = engine.max_model_len
        log.info("judge %s (up to %s tokens); the store %s holds %d results", identity, tokens, folder, known)
        with ray_session():
            yield from stream_groups(source, work.worker, {**arguments, "run": run, **work.arguments}, settings)
