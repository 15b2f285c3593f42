"""What is set for an ingress before Ray starts, and the launcher of HAProxy."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rewards.serving import front
from rewards.serving.ingress import SWITCH, prepare_ingress, write_launcher


def test_haproxy_is_prepared_before_ray_starts_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"RAY_SERVE_HAPROXY_NBTHREAD": "4"}
    assert SWITCH not in prepare_ingress("proxy", tmp_path, 30, environment)
    module, function = environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].split(":")
    monkeypatch.setenv(front.SECONDS, environment[front.SECONDS])
    assert module == front.__name__ and [m.kwargs for m in getattr(front, function)()] == [{"seconds": 30.0}]
    prepare_ingress("haproxy", tmp_path, 30, environment)
    assert environment["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"] == "40", "after the replica's own answer"
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1" and environment["RAY_SERVE_HAPROXY_NBTHREAD"] == "4"
    ports = {value for name, value in environment.items() if name.endswith("_PORT")}
    assert len(ports) == 3
    assert prepare_ingress("haproxy", tmp_path, 30, {**environment, "RAY_ADDRESS": "somewhere"}) == {}
    with pytest.raises(ValueError, match="runs already"):
        prepare_ingress("haproxy", tmp_path, 30, {"RAY_ADDRESS": "somewhere"})


def test_by_default_haproxy_serves_where_ray_is_ours_and_it_is_there(tmp_path: Path) -> None:
    assert "RAY_SERVE_ENABLE_HA_PROXY" in prepare_ingress("auto", tmp_path, 30, {})
    assert prepare_ingress("auto", tmp_path, 30, {"RAY_ADDRESS": "somewhere"}) == {}
    broken = tmp_path / "broken"
    broken.write_text("no program")
    broken.chmod(0o700)
    for program in ("no-such-program", "broken"):
        named = {"RAY_SERVE_HAPROXY_BINARY_PATH": str(tmp_path / program)}
        assert SWITCH not in prepare_ingress("auto", tmp_path, 30, dict(named))
        with pytest.raises(ValueError, match=f"{program}.*ingress: proxy"):
            prepare_ingress("haproxy", tmp_path, 30, named)


def test_the_launcher_bounds_requests_and_puts_haproxys_own_pages_on_the_loopback_interface(tmp_path: Path) -> None:
    written = "defaults\n    mode http\n"
    written += "frontend metrics\n    bind :9101\nfrontend http\n    bind 0.0.0.0:80\nlisten stats\n  bind *:8404\n"
    closed = written.replace(" :9101", " 127.0.0.1:9101").replace("*:8404", "127.0.0.1:8404")
    bounds = "    option http-buffer-request\n    timeout http-request 7s\n"
    config = tmp_path / "haproxy.cfg"
    program = tmp_path / "a program"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$$" "$@"\n')
    program.chmod(0o700)
    launcher = write_launcher(tmp_path, str(program), 7)
    for _ in range(2):  # Ray writes the file anew and starts a new process whenever replicas come or go
        config.write_text(written)
        started = subprocess.Popen([launcher, "-db", "-f", config, "-sf", "12 3"], stdout=subprocess.PIPE, text=True)
        said = started.communicate()[0].splitlines()
        assert said == [str(started.pid), "-db", "-f", str(config), "-sf", "12 3"]
        assert config.read_text() == closed.replace("defaults\n", f"defaults\n{bounds}")


def test_what_the_launcher_started_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    launcher = write_launcher(tmp_path, "/bin/sleep", 7)
    words = 'import subprocess, sys; p = subprocess.Popen([sys.argv[1], "600"]); print(p.pid, flush=True); p.wait()'
    parent = subprocess.Popen([sys.executable, "-c", words, launcher], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    while child.name() != "sleep":
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    assert psutil.wait_procs([child], timeout=10)[1] == []
