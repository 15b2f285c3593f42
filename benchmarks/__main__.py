"""`python -m benchmarks NAME...` measures, `--list` names all, `--check` prints what is stored below its bar,
`--readme` writes the table of benchmarks/README.md anew from the stored results (`make results`)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.registry import all_benchmarks, below_bar, measure, stored
from benchmarks.report import rewrite

README = Path(__file__).resolve().parent / "README.md"


def last_line(record: dict[str, Any]) -> str:
    """The result on one line."""
    shown = {key: record[key] for key in ("name", "value", "bar", "met", "n", "interval", "seconds")}
    return json.dumps(shown, ensure_ascii=False)


def main(argv: Sequence[str] | None = None) -> int:
    """1 when something is below its bar (--check), 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="name all benchmarks")
    parser.add_argument("--check", action="store_true", help="print stored results that miss their bar")
    parser.add_argument("--readme", action="store_true", help="write the table of results anew")
    given = parser.parse_args(argv)
    known = all_benchmarks()
    if given.list:
        for name, benchmark in known.items():
            print(f"{name:<24} {benchmark.about}")
        return 0
    if given.check:
        lines = [line for record in stored() for line in below_bar(record)]
        print("\n".join(lines) or f"{len(stored())} stored results, none below its bar")
        return 1 if lines else 0
    if given.readme:
        return 0 if rewrite(README, stored()) else 1
    if not given.names:
        parser.print_help()
        return 2
    unknown = [name for name in given.names if name not in known]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}: choose one of {', '.join(known)}", file=sys.stderr)
        return 2
    for name in given.names:
        print(last_line(measure(known[name])), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
