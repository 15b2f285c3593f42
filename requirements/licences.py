"""The table of docs/licences.md: every locked package, and its licence as its own metadata says.

    python requirements/licences.py [REPORT...] > table

It reads what is installed, and reports of `pip install --dry-run --report` for what is not. What stands around the rows
in the document is written by hand.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

_HERE = Path(__file__).parent
LOCKS = ("cpu.lock", "gpu.lock", "torch-cuda.lock")
# The metadata names none; the package's own LICENSE file does.
_IN_A_FILE = {"oss-harmony": "Apache-2.0"}
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, set[str]]:
    """Package -> the locks that hold it."""
    found: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, _ in _PIN.findall((_HERE / lock).read_text(encoding="utf-8")):
            found.setdefault(normal(name), set()).add(lock)
    return found


def licence(expression: str | None, classifiers: Sequence[str], text: str | None) -> str:
    """One line: the SPDX expression, else the classifiers, else the first line of the free text."""
    if expression:
        return expression
    named = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License ::")]
    named = [n for n in named if n not in ("OSI Approved", "DFSG approved")]
    first = (text or "").strip().split("\n")[0].strip()
    if named:
        return " / ".join(named)
    return first if 0 < len(first) < 60 else "not in its metadata"


def known(reports: Sequence[Path]) -> Mapping[str, str]:
    """Package -> licence, of what is installed here and what reports describe."""
    found = {}
    for file in reports:
        for item in json.loads(file.read_text(encoding="utf-8"))["install"]:
            about = item["metadata"]
            found[normal(about["name"])] = licence(
                about.get("license_expression"), about.get("classifier", []), about.get("license")
            )
    # Not all of sys.path: packages such as setuptools put copies of others there when they are imported.
    for package in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")]):
        about = package.metadata
        found[normal(about["Name"])] = licence(
            about.get("License-Expression"), about.get_all("Classifier") or [], about.get("License")
        )
    return found


def main(argv: Sequence[str]) -> None:
    """Print the rows."""
    licences = known([Path(word) for word in argv])
    for name, locks in sorted(locked().items()):
        where = "cpu, gpu" if {"cpu.lock", "gpu.lock"} <= locks else "cpu" if "cpu.lock" in locks else "gpu"
        print(f"| {name} | {_IN_A_FILE.get(name) or licences.get(name, 'unknown')} | {where} |")


if __name__ == "__main__":
    main(sys.argv[1:])
