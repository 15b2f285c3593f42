"""Several Ray nodes, here on one machine: replicas spread over them, and a node that dies takes no row with it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from mr3.artifacts import metrics_of
from mr3.inference.store import Store
from tests.rewards_support import judge_server, make_judge, scripted

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = 160
BATCH, CONCURRENCY, CPUS_PER_NODE = 4, 2, 4
RUBRIC = {"name": "house", "criteria": [{"name": "correct", "description": "The number is right."}]}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@contextmanager
def ray_nodes(count: int) -> Iterator[tuple[Any, list[Any]]]:
    """A head without CPUs for work, and `count` nodes with four each; each can hold both replicas of the test."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=CPUS_PER_NODE) for _ in range(count)]
        cluster.wait_for_nodes()
        yield cluster, nodes
    finally:
        cluster.shutdown()


def replicas_on(node: Any) -> list[int]:
    """The judge's actors among the worker processes of a node."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    found = []
    for worker in raylet.children(recursive=True):
        try:
            if "StreamWorker" in " ".join(worker.cmdline()):
                found.append(worker.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def label_config(folder: Path, cpus_per_replica: int) -> Path:
    """The config of a run over PROMPTS prompts with two answers each; two replicas."""
    lines = [
        {
            "prompt_id": f"p{i}",
            "prompt": f"{i} and 2+2?",
            "language": "en",
            "responses": [{"id": f"p{i}-{k}", "text": t, "policy": k} for k, t in (("x", "4"), ("y", "no idea"))],
        }
        for i in range(PROMPTS)
    ]
    (folder / "pool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    config = {
        "output_dir": str(folder / "label"),
        "store": str(folder / "store"),
        "pool": str(folder / "pool.jsonl"),
        "judge": {"model": str(make_judge(folder / "judge")), "backend": "endpoint", "revision": "1"},
        "rubric": RUBRIC,
        "canaries": {"per_language": 0},
        "stream": {
            "replicas_min": 2,
            "replicas_max": 2,
            "batch_groups": BATCH,
            "concurrency": CONCURRENCY,
            "num_cpus": cpus_per_replica,
        },
    }
    file = folder / "label.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def started(config: Path, url: str, address: str, log: Path) -> subprocess.Popen[bytes]:
    """`mr3 label` as a user runs it on the head of a cluster."""
    command = [sys.executable, "-m", "mr3.cli.main", "label", "--config", str(config), "--judge.url", url]
    environment = {**os.environ, "RAY_ADDRESS": address}
    with log.open("wb") as out:
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, f"the run ended early:\n{log.read_text()}"
        assert time.monotonic() < end, f"waited {seconds} s in vain:\n{log.read_text()}"
        time.sleep(0.1)


class Gate:
    """The scripted judge, which answers the first half of a run at once and the rest when it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self._asked = itertools.count(1)

    def answer(self, prompt: str) -> str:
        if next(self._asked) > PROMPTS:
            self.opened.wait(timeout=300)
        return scripted(prompt)


@pytest.mark.parametrize(
    ("event", "cpus_per_replica"),
    [("none", 1), ("a node dies, the other has room", 1), ("a node dies, room comes later", 3)],
    ids=["all live", "room", "no room"],
)
def test_every_verdict_once_over_two_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str, cpus_per_replica: int
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # nodes import the package as the driver does
    config = label_config(tmp_path, cpus_per_replica)
    log, gate = tmp_path / "log.txt", Gate()
    with ray_nodes(2) as (cluster, nodes), judge_server(gate.answer) as (url, prompts):
        process = started(config, url, cluster.address, log)
        try:
            wait_for(lambda: len(prompts) > PROMPTS, process, log)
            assert [len(replicas_on(node)) for node in nodes] == [1, 1]
            if event != "none":
                cluster.remove_node(nodes[1], allow_graceful=False)
                survivors = [nodes[0]]
                if "later" in event:
                    survivors.append(cluster.add_node(num_cpus=CPUS_PER_NODE))
                wait_for(lambda: sum(len(replicas_on(node)) for node in survivors) == 2, process, log)
            gate.opened.set()
            assert process.wait(timeout=240) == 0, log.read_text()
        finally:
            gate.opened.set()
            process.kill()
        asked = len(prompts)
    check(tmp_path)
    # What was at work on the dead node is asked again: CONCURRENCY tasks of as many batches, both orders of each.
    again = 0 if event == "none" else 2 * CONCURRENCY * CONCURRENCY * BATCH
    assert 2 * PROMPTS <= asked <= 2 * PROMPTS + again


def check(folder: Path) -> None:
    """Each verdict once, in the tables and in the store that the nodes share."""
    verdicts = pq.read_table(folder / "label" / "verdicts.parquet").to_pylist()
    assert len({v["id"] for v in verdicts}) == len(verdicts) == 2 * PROMPTS
    assert {v["outcome"] for v in verdicts} == {"ok"}
    assert {v["prompt_id"] for v in verdicts} == {f"p{i}" for i in range(PROMPTS)}
    store = Store(folder / "store")
    assert store.catch_up() == len(verdicts) and {name for name, _ in store.items()} == {v["id"] for v in verdicts}
    preferences = pq.read_table(folder / "label" / "preferences.parquet").to_pylist()
    assert {(p["chosen_id"], p["rejected_id"]) for p in preferences} == {(f"p{i}-x", f"p{i}-y") for i in range(PROMPTS)}
    metrics = metrics_of(folder / "label")
    assert metrics["verdicts"] == 2 * PROMPTS and metrics["set_aside"]["rows"] == 0
