"""The frame of every stage's `main`: --config, overrides, clean errors, a resumable Ctrl-C.

A stage module defines a config model, a `run(config)` and
`def main(argv=None): return stage_main("sft", SftConfig, run, argv, __doc__)`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from mr3.config import StageConfig, load_config
from mr3.files import disk_trouble
from mr3.inference.liveness import SessionLost, end_lost_session

C = TypeVar("C", bound=StageConfig)


def _fields(model: type[StageConfig]) -> str:
    rows = ["keys of the config (override any with --key value, nested ones with --a.b value):"]
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else f"default {field.get_default(call_default_factory=True)!r}"
        about = f"  {field.description}" if field.description else ""
        rows.append(f"  {field.alias or name}: {default[:100]}{about}")
    return "\n".join(rows)


def stage_main(
    stage: str,
    model: type[C],
    run: Callable[[C], None],
    argv: Sequence[str] | None,
    about: str | None = None,
) -> int:
    """Parse arguments, load the config, run the stage; return the exit code.

    2 is a user's error (printed as one message), 130 an interrupt.
    """
    parser = argparse.ArgumentParser(
        prog=f"mr3 {stage}",
        description=(about or "").strip(),
        epilog=_fields(model),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="YAML file of this stage")
    parser.add_argument("--overlay", help="YAML file whose section for this stage is laid over the config")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only")
    arguments, overrides = parser.parse_known_args(argv)
    logging.basicConfig(
        level=logging.WARNING if arguments.quiet else logging.INFO,
        format="%(asctime)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    if arguments.quiet:
        os.environ["MR3_QUIET"] = "1"
    try:
        if arguments.overlay is not None:
            overrides = ["--overlay", arguments.overlay, *overrides]
        config = load_config(model, arguments.config, overrides)
        run(config)
    except ValueError as error:
        if os.environ.get("MR3_TRACEBACK"):
            raise
        print(f"mr3 {stage}: error: {error}", file=sys.stderr)
        if isinstance(error, SessionLost):
            _leave(2)
        return 2
    except (OSError, sqlite3.Error) as error:
        reason = disk_trouble(error)
        if reason is None or os.environ.get("MR3_TRACEBACK"):
            raise
        print(
            f"mr3 {stage}: error: {reason} ({error}): mend that, and the same command goes on from here",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"mr3 {stage}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _leave(code: int) -> None:
    """End at once: at a regular exit Ray and its threads would wait for the session that is lost."""
    sys.stdout.flush()
    sys.stderr.flush()
    end_lost_session()
    os._exit(code)


class RateLimit:
    """Says yes at most once in so many seconds, first after that time: for lines that tell how far a stage is."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def __call__(self) -> bool:
        """Whether it is time for the next line."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


def quiet() -> bool:
    """Whether progress bars are unwanted: `--quiet`, or no terminal."""
    return bool(os.environ.get("MR3_QUIET")) or not sys.stderr.isatty()
