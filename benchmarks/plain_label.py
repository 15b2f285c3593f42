"""`mr3 label` without Ray, in forked processes: for what is to be run hundreds of times, killed, and failed.

All of the stage but the stream: the same worker, store, buffer, tables and manifest. The engine's answers depend on
the run (`SALT`), so that it is seen whose verdict counts.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.instant import NAME as INSTANT
from benchmarks.instant import SALT

TABLES = ("prompts", "responses", "verdicts", "comparisons", "preferences")


def groups_without_ray(
    groups: Any, judge: Any, store: str | Path, settings: Any, work: Any = None
) -> Iterator[tuple[str, str]]:
    """As `judge_groups`, with one worker in this process."""
    from mr3.inference.slices import Slices
    from mr3.inference.store import Store

    folder = Path(store).resolve()
    slices = Slices.of(groups, settings.batch_groups)
    arguments = {"judge": judge.absolute().model_dump(mode="json"), "store": str(folder), "identity": judge.identity()}
    with Store(folder) as stored:
        run, _ = stored.open_run(), stored.refresh()
        worker = work.worker(**arguments, run=run, **work.arguments)

        async def several(numbers: list[int]) -> list[Any]:
            return await asyncio.gather(*(worker(slices.read(number)) for number in numbers))

        with asyncio.Runner() as runner:
            for start in range(0, len(slices), settings.concurrency):
                numbers = list(range(start, min(len(slices), start + settings.concurrency)))
                for batch in runner.run(several(numbers)):
                    yield from zip(batch["group"], batch["payload"], strict=True)


def prepare(judge: Path) -> None:
    """Load what every run needs, once, before any is forked; the runs of this process do without Ray from now on."""
    import ray.exceptions  # noqa: F401

    import mr3.artifacts as artifacts
    import mr3.judging.opening as opening
    import mr3.judging.run
    import rewards.label
    import rewards.worker  # noqa: F401
    from mr3.judging.config import JudgeConfig
    from mr3.stats import wilson

    config = JudgeConfig(model=str(judge), backend=INSTANT)
    opened = opening.open_judge(config, config.identity())
    wilson(1, 2)
    versions, commit = artifacts.package_versions(), artifacts.git_commit()
    for place, name, value in (
        (mr3.judging.run, "judge_groups", groups_without_ray),
        (opening, "tokenizer_of", lambda _: opened.tokenizer),
        (artifacts, "package_versions", lambda: versions),
        (artifacts, "git_commit", lambda: commit),
    ):
        setattr(place, name, value)
    gc.collect()
    gc.freeze()


def fork_label(config: Path, log: Path, salt: str = "", before: Callable[[], None] | None = None) -> int:
    """Start `mr3 label` in a process of its own; returns its number. Its messages go to `log`."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ[SALT] = salt
        if before:
            before()
        from rewards.label import main

        code = main(["--config", str(config)])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait_for(pid: int) -> int:
    """The exit status of a forked run; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def read_tables(label: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of the tables of a label folder, by name."""
    import pyarrow.parquet as pq

    return {name: pq.read_table(label / f"{name}.parquet").to_pylist() for name in TABLES}


def stored_verdicts(folder: Path) -> dict[str, dict[str, Any]]:
    """What a store holds, by id."""
    from mr3.inference.store import Store

    with Store(folder) as store:
        store.catch_up()
        return {key: json.loads(payload) for key, payload in store.items()}
