"""Several Ray nodes, here on one machine: replicas spread over them, and a node that dies takes no row with it."""

from __future__ import annotations

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
RUBRIC = {"name": "house", "criteria": [{"name": "correct", "description": "The number is right."}]}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@contextmanager
def ray_nodes(count: int) -> Iterator[tuple[Any, list[Any]]]:
    """A head without CPUs for work, and `count` nodes with four each; each can hold both replicas of the test."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=4) for _ in range(count)]
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
            if "LabelWorker" in " ".join(worker.cmdline()):
                found.append(worker.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def label(folder: Path, judge: Path, url: str) -> Path:
    """The config of a run over PROMPTS prompts with two different answers each."""
    lines = [
        {
            "prompt_id": f"p{i}",
            "prompt": f"{i} and 2+2?",
            "language": "en",
            "responses": [{"id": f"p{i}-{k}", "text": t, "policy": k} for k, t in (("x", "4"), ("y", f"no, {i}5"))],
        }
        for i in range(PROMPTS)
    ]
    (folder / "pool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    config = {
        "output_dir": str(folder / "label"),
        "store": str(folder / "store"),
        "pool": str(folder / "pool.jsonl"),
        "judge": {"model": str(judge), "backend": "endpoint", "url": url},
        "rubric": RUBRIC,
        "stream": {"replicas_min": 2, "replicas_max": 2, "batch_groups": 4, "concurrency": 2, "num_cpus": 1},
    }
    file = folder / "label.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def started(config: Path, address: str, log: Path) -> subprocess.Popen[bytes]:
    """`mr3 label` as a user runs it on the head of a cluster."""
    command = [sys.executable, "-m", "mr3.cli.main", "label", "--config", str(config)]
    environment = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log.open("wb"), stderr=subprocess.STDOUT)


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, f"the run ended early:\n{log.read_text()}"
        assert time.monotonic() < end, f"waited {seconds} s in vain:\n{log.read_text()}"
        time.sleep(0.1)


def slow(prompt: str) -> str:
    """The scripted judge, slow enough that a run lasts."""
    time.sleep(0.1)
    return scripted(prompt)


def finish(process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.wait(timeout=300) == 0, log.read_text()


@pytest.mark.parametrize("kill", [False, True], ids=["all nodes live", "a node is killed"])
def test_every_verdict_once_over_two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: bool) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # nodes import the package as the driver does
    judge = make_judge(tmp_path / "judge")
    log = tmp_path / "log.txt"
    with ray_nodes(2) as (cluster, nodes), judge_server(slow) as (url, prompts):
        process = started(label(tmp_path, judge, url), cluster.address, log)
        try:
            wait_for(lambda: all(len(replicas_on(node)) == 1 for node in nodes), process, log)
            wait_for(lambda: len(prompts) > PROMPTS // 2, process, log)
            if kill:
                cluster.remove_node(nodes[1], allow_graceful=False)
                wait_for(lambda: len(replicas_on(nodes[0])) == 2, process, log)
            finish(process, log)
        finally:
            process.kill()
        asked = len(prompts)

    wanted = 2 * PROMPTS
    folder = tmp_path / "label"
    verdicts = pq.read_table(folder / "verdicts.parquet").to_pylist()
    assert len({v["id"] for v in verdicts}) == len(verdicts) == wanted
    assert {v["outcome"] for v in verdicts} == {"ok"}
    assert {v["prompt_id"] for v in verdicts} == {f"p{i}" for i in range(PROMPTS)}
    stored = dict(Store(tmp_path / "store").items())
    assert set(stored) == {v["id"] for v in verdicts}, "the store on the shared folder holds each verdict"
    preferences = pq.read_table(folder / "preferences.parquet").to_pylist()
    assert {(p["chosen_id"], p["rejected_id"]) for p in preferences} == {(f"p{i}-x", f"p{i}-y") for i in range(PROMPTS)}
    metrics = metrics_of(folder)
    assert metrics["verdicts"] == wanted and metrics["set_aside"]["rows"] == 0
    # What was in flight on the dead node is asked again: at most its two hand-overs of four prompts, two orders each.
    assert wanted <= asked <= wanted + (16 if kill else 0)


def test_a_run_waits_for_a_node_that_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for a dead node's replica its work waits; a new node takes it up."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    judge = make_judge(tmp_path / "judge")
    log = tmp_path / "log.txt"
    with ray_nodes(2) as (cluster, nodes), judge_server(slow) as (url, prompts):
        config = label(tmp_path, judge, url)
        full = yaml.safe_load(config.read_text()) | {"stream": {"replicas_min": 2, "replicas_max": 2, "num_cpus": 3}}
        config.write_text(yaml.safe_dump(full | {"stream": full["stream"] | {"batch_groups": 4, "concurrency": 2}}))
        process = started(config, cluster.address, log)
        try:
            wait_for(lambda: len(prompts) > PROMPTS // 2, process, log)
            assert all(len(replicas_on(node)) == 1 for node in nodes)
            cluster.remove_node(nodes[1], allow_graceful=False)
            later = threading.Timer(5.0, cluster.add_node, kwargs={"num_cpus": 4, "wait": False})
            later.start()
            finish(process, log)
            later.join()
        finally:
            process.kill()
    verdicts = pq.read_table(tmp_path / "label" / "verdicts.parquet").to_pylist()
    assert len({v["id"] for v in verdicts}) == len(verdicts) == 2 * PROMPTS
    assert {v["outcome"] for v in verdicts} == {"ok"}
