"""`mr3 STAGE --config FILE [--a.b value]`: one command, many stages.

`mr3 --help` lists them; `mr3 STAGE --help` shows the keys of a stage's config.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import mr3
from mr3.cli.orphan import end_with_parent
from mr3.cli.stages import STAGES, stage_main_of

_USAGE = """usage: mr3 STAGE --config FILE [--overlay FILE] [--key value] [--a.b value] [--quiet]
       mr3 STAGE --help
       mr3 --version

stages:
{stages}

Any key of a config can be overridden: --seed 1, --trl.learning_rate 1e-4. A finished stage is not run again;
Ctrl-C and the same command go on. Start with: mr3 demo
"""


def usage() -> str:
    """The text of `mr3 --help`."""
    return _USAGE.format(stages="\n".join(f"  {name:<12} {stage.about}" for name, stage in STAGES.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch to a stage; returns its exit code (2 for a user's error)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"mr3 {mr3.__version__}")
        return 0
    end_with_parent()
    try:
        run = stage_main_of(words[0], words[1:])
    except ValueError as error:
        print(f"mr3: error: {error}", file=sys.stderr)
        return 2
    return run(words[1:])


if __name__ == "__main__":
    raise SystemExit(main())
