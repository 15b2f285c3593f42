"""The property tests on fresh examples, under many seeds: how many seeds find a failure, and which tests fail.

`make test` draws the same examples everywhere; this draws others. Every test that Hypothesis drives takes part. What it
finds belongs into an `@example` of the test. MR3_SEEDS=5 tries fewer seeds, MR3_FIRST_SEED=100 others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

from benchmarks.registry import Bar, Benchmark, Result

SEEDS, FIRST = 50, 1
_TESTS_RAN = (0, 1)
"""Exit codes of pytest: all passed, some failed. Others mean that it could not run them."""


def failures(report: Path) -> tuple[list[str], int]:
    """Names of the tests that failed by a JUnit report, and how many ran."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return sorted(f"{case.get('classname')}::{case.get('name')}" for case in failed), len(cases)


def run_seed(seed: int) -> tuple[list[str], int]:
    """The property tests under one seed.

    Raises:
        ValueError: when pytest could not run them.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-m",
                "hypothesis",
                "-n",
                "2",
                "--dist",
                "loadfile",
                "-p",
                "no:cacheprovider",
            ),
            *("--hypothesis-profile=fresh", f"--hypothesis-seed={seed}", f"--junitxml={report}"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in _TESTS_RAN:
            raise ValueError(f"pytest could not run the property tests under seed {seed}:\n{done.stdout[-2_000:]}")
        found = failures(report)
        if found[0]:
            print(done.stdout, flush=True)  # the counterexamples
        return found


def run() -> Result:
    """All seeds in turn."""
    first, count = int(os.environ.get("MR3_FIRST_SEED", FIRST)), int(os.environ.get("MR3_SEEDS", SEEDS))
    by_test: dict[str, list[int]] = defaultdict(list)
    tests = 0
    for seed in range(first, first + count):
        failed, tests = run_seed(seed)
        for name in failed:
            by_test[name].append(seed)
        print(
            f"seed {seed}: {tests} tests, {len(failed)} failed{': ' if failed else ''}{', '.join(failed)}", flush=True
        )
    failing = {seed for seeds in by_test.values() for seed in seeds}
    return Result(len(failing), n=count, details={"tests": tests, "first_seed": first, "failed": dict(by_test)})


BENCHMARK = Benchmark(
    "property-seeds", "seeds under which a property test fails on fresh examples", run, {"": Bar("at_most", 0)}
)
