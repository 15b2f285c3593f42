"""The demo's machinery with real processes: order, failure, interruption, resume; and what it makes of metrics."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import yaml

from mr3.artifacts import read_json
from mr3.cli.demo import DemoConfig, arguments
from mr3.cli.memory import PeakMemory
from mr3.cli.progress import Clock, last_lines
from mr3.cli.schedule import Child, Job, run_jobs
from mr3.config import build_config

ROOT = Path(__file__).resolve().parents[1]


class Journal:
    """A view that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.most = 0

    def skipped(self, job: Job) -> None:
        self.events.append(f"skip {job.name}")

    def started(self, job: Job) -> None:
        self.events.append(f"start {job.name}")

    def ended(self, child: Child, code: int) -> None:
        self.events.append(f"end {child.job.name} {code}")

    def tick(self, children: Sequence[Child]) -> None:
        self.most = max(self.most, len(children))


def job(folder: Path, name: str, code: str = "", needs: Sequence[str] = (), done: bool = False) -> Job:
    return Job(name, [sys.executable, "-c", code], folder / f"{name}.log", needs, is_done=lambda: done)


def test_needs_come_first_and_two_run_at_once(tmp_path: Path) -> None:
    wait = "import time; time.sleep(0.5)"
    jobs = [
        job(tmp_path, "first", "print('hello from first')"),
        *(job(tmp_path, name, wait, ["first"]) for name in "abc"),
        job(tmp_path, "last", "", ["a", "b", "c"]),
    ]
    view = Journal()
    assert run_jobs(jobs, 2, view) is None
    assert view.most == 2
    place = {event: i for i, event in enumerate(view.events)}
    assert place["end first 0"] < place["start a"] < place["start b"] < place["start c"]
    assert view.events[-2:] == ["start last", "end last 0"]
    assert last_lines(tmp_path / "first.log") == ["hello from first"]


def test_finished_jobs_are_skipped_without_taking_a_place(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "a", done=True), job(tmp_path, "b", needs=["a"], done=True), job(tmp_path, "c", needs=["b"])]
    view = Journal()
    assert run_jobs(jobs, 1, view) is None
    assert view.events == ["skip a", "skip b", "start c", "end c 0"]


def test_a_failure_stops_what_runs_beside_it(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, "long", f"import os,time; open(r'{tmp_path}/pid','w').write(str(os.getpid())); time.sleep(60)"),
        job(tmp_path, "bad", "import time; time.sleep(1); print('the reason'); raise SystemExit(3)"),
        job(tmp_path, "never", needs=["bad"]),
    ]
    view = Journal()
    begun = time.monotonic()
    failed = run_jobs(jobs, 2, view)
    assert failed is not None and failed.name == "bad" and time.monotonic() - begun < 30
    assert "start never" not in view.events
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert last_lines(failed.log)[-1] == "the reason"


@pytest.mark.parametrize(
    ("needs", "said"),
    [({"a": ["b"]}, "needs 'b', which is not a stage"), ({"a": ["b"], "b": ["a"]}, "circle")],
)
def test_a_wrong_graph_is_an_error(needs: dict[str, list[str]], said: str) -> None:
    stages = {name: {"stage": "data", "config": "data.yaml", "needs": n} for name, n in needs.items()}
    with pytest.raises(ValueError, match=said):
        build_config(DemoConfig, {"output_dir": "x", "stages": stages, "figures": {}}, "demo.yaml")


def test_run_names_and_default_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = arguments(["--run", "second", "--seed=4"])
    assert words[:2] == ["--config", "configs/nano/demo.yaml"]
    assert words[words.index("--output_dir") + 1] == "runs/second"
    assert words[words.index("--configs") + 1] == "configs/nano"
    assert words[words.index("--seed") + 1] == "4"


def test_memory_counts_children() -> None:
    with PeakMemory() as peak:
        hold = "x = bytearray(300_000_000); import time; time.sleep(3)"
        subprocess.run([sys.executable, "-c", hold], check=True)
    assert 0.3 < peak.gb < 20


def test_times_add_up_over_calls(tmp_path: Path) -> None:
    file = tmp_path / "timing.json"
    first = Clock(file)
    first.add("a", 2.0)
    time.sleep(0.05)
    first.save(peak_rss_gb=1.5)
    before = read_json(file)["total"]
    second = Clock(file)
    time.sleep(0.05)
    second.add("a", 1.0)
    second.save(peak_rss_gb=0.5)
    state = read_json(file)
    assert state["stages"] == {"a": 3.0} and state["peak_rss_gb"] == 1.5
    assert state["total"] >= before + 0.04 >= 0.08


TINY = {
    "judge_rows": 20,
    "replay_documents": 5,
    "test_rows": 6,
    "policy_rows": 5,
    "pool_prompts": 12,
    "test_prompts_per_language": 2,
    "policies": {"start": {}},
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A demo of two stages that take a second each."""
    for name in ("one", "two"):
        data = {"output_dir": f"${{RUN:-runs/x}}/{name}", "seed": "${SEED:-0}", **TINY}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data))
    demo = {
        "output_dir": str(tmp_path / "run"),
        "stages": {
            "one": {"stage": "data", "config": "one.yaml"},
            "two": {"stage": "data", "config": "two.yaml", "needs": ["one"]},
        },
        "figures": {
            "data.rows": {"stage": "one", "at": "rows.judge_sft", "bar": {"at_least": 20}},
            "wall_s": {"stage": "demo", "at": "wall_s"},
        },
    }
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(demo))
    return tmp_path


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mr3.cli.main", "demo", "--config", str(folder / "demo.yaml"), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=_hear_ctrl_c
    )


def _hear_ctrl_c() -> None:
    """A shell that starts the tests in the background has Ctrl-C ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(folder: Path, *words: str) -> tuple[int, str]:
    process = start(folder, *words)
    _, said = process.communicate(timeout=1_000)
    return process.returncode, said


@pytest.mark.timeout(1_200)
def test_the_demo_runs_once_and_refuses_an_edited_config(tiny: Path) -> None:
    code, said = finish(tiny, "--seed", "3")
    assert code == 0, said
    assert "one: started" in said and "ok   data.rows" in said
    summary = read_json(tiny / "run/summary.json")
    assert summary["seed"] == 3 and summary["data"]["rows"] == 20
    assert set(summary["wall_s"]) == {"one", "two", "report", "total"}
    assert read_json(tiny / "run/one/manifest.json")["seed"] == 3
    before = (tiny / "run/report.html").stat().st_mtime_ns
    code, said = finish(tiny, "--seed", "3")
    assert code == 0 and "nothing to run" in said
    assert (tiny / "run/report.html").stat().st_mtime_ns == before

    edited = yaml.safe_load((tiny / "two.yaml").read_text()) | {"judge_rows": 21}
    (tiny / "two.yaml").write_text(yaml.safe_dump(edited))
    code, said = finish(tiny, "--seed", "3")
    assert code == 1
    assert "one: finished before" in said and "another config (changed: judge_rows)" in said


def test_a_mistake_in_the_last_stage_shows_before_the_first_runs(tiny: Path) -> None:
    data = yaml.safe_load((tiny / "two.yaml").read_text()) | {"judge_rowz": 21}
    (tiny / "two.yaml").write_text(yaml.safe_dump(data))
    code, said = finish(tiny)
    assert code == 2 and "judge_rowz: unknown key" in said
    assert not (tiny / "run/one").exists()


def wait_for(folder: Path, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The children of a demo whose first stage is at work."""
    for _ in range(2400):
        if (folder / "run/one/started.json").exists():
            return psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.05)
    raise AssertionError("the first stage did not start")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_children_end_with_the_demo_and_the_same_command_goes_on(tiny: Path, sign: int) -> None:
    slow = yaml.safe_load((tiny / "one.yaml").read_text()) | {"judge_rows": 200_000}
    (tiny / "one.yaml").write_text(yaml.safe_dump(slow))
    process = start(tiny)
    children = wait_for(tiny, process)
    assert children
    os.kill(process.pid, sign)
    _, said = process.communicate(timeout=60)
    assert not psutil.wait_procs(children, timeout=20)[1], "a stage outlived the demo"
    assert process.returncode != 0
    if sign == signal.SIGINT:
        assert process.returncode == 130 and "the same command goes on" in said
        return
    shutil.rmtree(tiny / "run/one")  # a made-up end to the wait: the rest of the run must still work
    code, said = finish(tiny, "--stages.one.args", "[--judge_rows, '20']")
    assert code == 0, said


def test_two_demos_do_not_share_a_folder(tiny: Path) -> None:
    slow = yaml.safe_load((tiny / "one.yaml").read_text()) | {"judge_rows": 200_000}
    (tiny / "one.yaml").write_text(yaml.safe_dump(slow))
    process = start(tiny)
    try:
        wait_for(tiny, process)
        code, said = finish(tiny)
        assert code == 2 and "another `mr3 demo` is at work" in said
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
