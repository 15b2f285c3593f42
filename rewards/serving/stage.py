"""`mr3 serve`: the judge behind HTTP on Ray Serve, until SIGTERM or Ctrl-C.

Routes: /v1/judge, /v1/rubrics, /v1/chat/completions, /v1/models, /health, /metrics; documents at /docs. When it is
told to stop, requests in flight are finished, new ones are refused, and the process exits with 0. A server is no
stage that finishes: the same command starts it again. The signal is for this process alone: one to the whole process
group (systemd's default; KillMode=mixed is right) ends Ray at once, and nothing can be finished.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from mr3.artifacts import package_versions, write_json
from mr3.stage import stage_main
from rewards.serving.config import ServeConfig
from rewards.serving.ingress import prepare_ingress
from rewards.serving.keys import load_keys
from rewards.serving.library import load_library

log = logging.getLogger("mr3.serving")
_FLUSH_S = 1.0
"""Between a replica's last answer and the end of the proxies, which pass it on."""
_ANSWERS_S = 30.0
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0.

    Raises:
        ValueError: when somebody listens there already.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(f"can't listen on {host}:{port} ({error.strerror}): choose another --port") from error
        found: int = probe.getsockname()[1]
        return found


def _absolute(config: ServeConfig, port: int) -> ServeConfig:
    """Replicas may have another working directory; what was read here already is not read again there."""
    judge = config.judge.absolute()  # replicas may have another working directory
    return config.model_copy(
        update={"judge": judge, "port": port, "rubrics": {}, "api_keys_env": None, "api_keys_file": None}
        | {"open_to_all": True}
    )


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that the first SIGTERM or SIGINT sets; a second one ends the process as usual."""
    event = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, _: FrameType | None) -> None:
        event.set()
        signal.signal(number, signal.SIG_DFL)

    for number in before:
        signal.signal(number, stop)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _drain(handle: Any, seconds: float) -> None:
    """Let every replica finish what it has."""
    log.info("stopping: requests in flight have %.0f s", seconds)
    left = handle.broadcast("drain", seconds).results(timeout_s=seconds + 10, return_exceptions=True)
    lost = sum(found for found in left if isinstance(found, int))
    silent = sum(not isinstance(found, int) for found in left)
    if lost or silent:
        log.warning("%d requests were cut off, %d replicas did not answer", lost, silent)
    time.sleep(_FLUSH_S)


def _wait_until_it_answers(url: str) -> None:
    """Ask for /health as a client would.

    Raises:
        ValueError: when nobody answers there, although Ray Serve says that the application runs.
    """
    import httpx

    ends = time.monotonic() + _ANSWERS_S
    while time.monotonic() < ends:
        try:
            if httpx.get(f"{url}/health", timeout=_ANSWERS_S).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise ValueError(
        f"the judge is up, but nothing answers at {url}: does Ray Serve run in this Ray session already, with another "
        "host or port? Stop it (`serve shutdown`), or use another session"
    )


def _deploy(application: Any, logging_config: dict[str, Any]) -> Any:
    """Run the application; its handle.

    Raises:
        ValueError: when no replica could be started, with Ray Serve's account of why.
    """
    from ray import serve

    from rewards.serving.deployment import APPLICATION

    try:
        return serve.run(application, name=APPLICATION, route_prefix="/", logging_config=logging_config)
    except RuntimeError as error:
        raise ValueError(f"the judge could not be started: {error}") from error


def _serve(config: ServeConfig, port: int, identity: str, digests: list[str]) -> None:
    from ray import serve

    from rewards.serving.deployment import judge_application

    quiet = {"log_level": "WARNING", "enable_access_log": False}
    serve.start(
        proxy_location="HeadOnly" if config.proxies == "head" else "EveryNode",
        http_options={"host": config.host, "port": port, "keep_alive_timeout_s": 60},
        logging_config=quiet,
    )
    application = judge_application(_absolute(config, port), identity, load_library(config.rubrics), digests)
    record = config.output_dir / "server.json"
    with _asked_to_stop() as stop:
        try:
            handle = _deploy(application, quiet)
            url = f"http://{_ANY_HOST.get(config.host, config.host)}:{port}"
            _wait_until_it_answers(url)
            write_json(record, {"url": url, "pid": os.getpid(), "judge": identity, "versions": package_versions()})
            log.info("ready on %s (judge %s; documents at %s/docs)", url, identity, url)
            while not stop.wait(1.0):
                pass
            _drain(handle, config.limits.drain_s)
        finally:
            record.unlink(missing_ok=True)
            serve.shutdown()
    log.info("stopped")


def run(config: ServeConfig) -> None:
    """Serve until told to stop.

    Raises:
        ValueError: for a judge, key source, rubric library or port that can't be used.
    """
    from mr3.inference.session import ray_session

    config.judge.engine_config()
    load_library(config.rubrics)
    digests = load_keys(config.api_keys_env, config.api_keys_file)
    port = _free_port(config.host, config.port)
    identity = config.judge.identity()
    if not digests:
        log.warning("no API keys: whoever reaches %s:%d may use the judge", config.host, port)
    with tempfile.TemporaryDirectory(prefix="mr3-") as folder:
        prepare_ingress(config.ingress, Path(folder), config.limits.body_s)
        with ray_session():
            _serve(config, port, identity, digests)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `mr3 serve`."""
    return stage_main("serve", ServeConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
