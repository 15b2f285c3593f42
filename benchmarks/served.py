"""What the benchmarks of serving share: the real `mr3 serve` as a process, the demo's tasks, and a direct judge."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.runs import DEMO, demo_judge
from mr3.artifacts import read_json
from mr3.evaluation.tasks import read_tasks
from mr3.judging.config import JudgeConfig
from mr3.records import Task
from rewards.serving.schema import JudgeResult, JudgeTask

CLIENTS = 64
KEY = "benchmark-key"
_KEYS = "MR3_BENCHMARK_KEYS"
_START_S = 240.0
_STOP_S = 120.0
_SMALL_CACHE = 128 << 20
A = TypeVar("A")
B = TypeVar("B")


def judge_config() -> JudgeConfig:
    """The demo's judge with a small cache, as the server has it."""
    return JudgeConfig(model=str(demo_judge()), engine={"kv_cache_memory_bytes": _SMALL_CACHE})


def demo_tasks() -> list[Task]:
    """The demo's judge test set: all modes and languages, in the order of the file."""
    return [t.task for t in read_tasks(DEMO / "data" / "judge_test.parquet", None)]


def on_the_wire(task: Task) -> JudgeTask:
    """A task as a client sends it."""
    return JudgeTask(
        mode=task.mode,
        input=task.input,
        responses=task.responses,
        rubric=task.rubric,
        language=task.language,
        reference=task.reference,
        instruction=task.instruction,
        id=task.id,
    )


@contextmanager
def server(folder: Path, *overrides: str, judge: Path | None = None) -> Iterator[str]:
    """The URL of an `mr3 serve` process (one replica, API key `KEY`) that is told to stop at the end.

    Args:
        judge: its folder; the demo's where none is named.

    Raises:
        RuntimeError: when it does not get ready, or does not end with 0.
    """
    command = [sys.executable, "-m", "mr3.cli.main", "serve", "--config", "configs/nano/serve.yaml"]
    command += [
        "--output_dir",
        str(folder),
        "--judge.model",
        str(judge or demo_judge()),
        "--port",
        "0",
        "--replicas.max",
        "1",
    ]
    command += ["--api_keys_env", _KEYS, *overrides]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, _KEYS: KEY})
        try:
            yield _wait_ready(process, folder)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    if status != 0:
        raise RuntimeError(f"the server ended with {status}: {(folder / 'server.log').read_text()[-2_000:]}")


def _wait_ready(process: subprocess.Popen[bytes], folder: Path) -> str:
    record, begun = folder / "server.json", time.monotonic()
    while time.monotonic() - begun < _START_S:
        if process.poll() is not None:
            raise RuntimeError(
                f"the server ended with {process.returncode}: {(folder / 'server.log').read_text()[-2_000:]}"
            )
        if record.is_file():
            url: str = read_json(record)["url"]
            return url
        time.sleep(0.2)
    raise RuntimeError(
        f"the server was not ready after {_START_S:.0f} s: {(folder / 'server.log').read_text()[-2_000:]}"
    )


class DirectJudge:
    """The reward model as a plain Ray actor: what HTTP is measured against."""

    def __init__(self, config: JudgeConfig) -> None:
        from mr3.judging.opening import open_judge
        from rewards.model import RewardModel

        self._model = RewardModel(open_judge(config))

    async def judge(self, tasks: list[Task]) -> list[JudgeResult]:
        """As `/v1/judge` with its defaults."""
        from rewards.serving.judging import judge_task

        return list(await asyncio.gather(*(judge_task(self._model, task) for task in tasks)))


def direct_judge() -> Any:
    """A handle of a `DirectJudge` in the present Ray session, its engine up."""
    import ray

    config = judge_config()
    config = config.absolute()
    environment = {"env_vars": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}}
    actor = ray.remote(DirectJudge).options(num_cpus=1, max_concurrency=1_000, runtime_env=environment).remote(config)
    ray.get(actor.__ray_ready__.remote())
    return actor


async def work_off(jobs: Sequence[A], worker: Callable[[A], Awaitable[B]], clients: int = CLIENTS) -> list[B]:
    """All jobs by so many clients at once, each taking the next as soon as it is free; results in order."""
    results: dict[int, B] = {}
    left = iter(enumerate(jobs))

    async def client() -> None:
        for i, job in left:
            results[i] = await worker(job)

    await asyncio.gather(*(client() for _ in range(clients)))
    return [results[i] for i in range(len(jobs))]
