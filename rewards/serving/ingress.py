"""How requests reach the replicas: through Ray Serve's own proxy, or through HAProxy, which is far cheaper per request.

Ray Serve (2.60) reads these choices from the environment, in every process of its Ray session, when it is imported. So
they must be set before Ray starts, and can't be changed in a session that runs already.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Literal

Ingress = Literal["proxy", "haproxy"]
_SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
_PORTS = ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has; held until all are chosen, so that they differ."""
    held = [socket.create_server(("", 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in held]
    finally:
        for probe in held:
            probe.close()


def haproxy_settings(folder: Path) -> dict[str, str]:
    """The environment of a session whose ingress is HAProxy; `folder` is for its files, with a short path (sockets).

    Every port is chosen anew, so that several servers can run on one machine.
    """
    return {
        _SWITCH: "1",
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
    ingress: Ingress, folder: Path, environment: MutableMapping[str, str] | None = None
) -> Mapping[str, str]:
    """Set what the ingress needs, before Ray starts; returns what was set. What the user has set stays.

    Raises:
        ValueError: for HAProxy in a Ray session that was started without it.
    """
    env = os.environ if environment is None else environment
    if ingress == "proxy" or env.get(_SWITCH) == "1":
        return {}
    if env.get("RAY_ADDRESS"):
        raise ValueError(
            f"ingress: haproxy needs {_SWITCH}=1 in the environment of every node when Ray is started, and RAY_ADDRESS "
            "names a session that runs already: start Ray with it (and export it here), or set ingress: proxy"
        )
    settings = {name: value for name, value in haproxy_settings(folder).items() if name not in env}
    env.update(settings)
    return settings
