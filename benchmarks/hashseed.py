"""Prompts under two PYTHONHASHSEED values: which rubric, which order, which words must not hang on a salted hash.

python -m benchmarks.hashseed        prints a digest per prompt; the benchmark compares two such runs
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.prompt_cases import (
    golden_cases,
    published_families,
    published_templates,
    render_row,
    sample_row,
    sweep,
)
from benchmarks.registry import Bar, Benchmark, Result
from mr3.families import Family
from mr3.languages import available
from mr3.prompts import OwnTexts

SEEDS = ("0", "4242")
LANGUAGES = ["en", "de", "te", "zh-Hant", "sw", "yo"]
_NANO_ROWS = 500
_CONTROL = "control"
"""A line that does hang on the hash: if it does not differ, the benchmark could not see a difference either."""


def _own(family: Family, code: str, texts: OwnTexts) -> str:
    return render_row(sample_row(family, code), family.name, texts, "tgt-tgt").model_dump_json()


def _prompts() -> Iterator[tuple[str, str]]:
    from mr3.nano.dataset import judge_rows

    texts = published_templates()
    for case in golden_cases():
        more = {"rubric_index": case["rubric_index"], "key_order": case["key_order"]}
        found = render_row(case["row"], case["family"], texts, case["strategy"], **more)
        yield f"golden {case['family']}", found.model_dump_json()
    for attempt in sweep(texts, LANGUAGES):
        said = str(attempt.error) if attempt.prompt is None else attempt.prompt.model_dump_json()
        yield f"sweep {attempt.family} {attempt.language}", said
    own = OwnTexts(unverified=True)
    for code in available():
        for family in published_families():
            yield f"own {family.name} {code}", _own(family, code, own)
    for row in judge_rows(_NANO_ROWS, seed=0):
        yield "nano", repr(row)


def digests() -> Iterator[str]:
    """A line per prompt: what it is, and the hash of its text."""
    yield f"{_CONTROL}\t{hash('a salted hash')}"
    for name, text in _prompts():
        yield f"{name}\t{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def _lines(seed: str) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-m", "benchmarks.hashseed"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise ValueError(f"rendering under PYTHONHASHSEED={seed} failed:\n{done.stderr.strip()}")
    return done.stdout.splitlines()


def run() -> Result:
    """Prompts that differ between two fresh processes."""
    first, second = (_lines(seed) for seed in SEEDS)
    assert len(first) == len(second), "both processes render the same rows"
    differing = [a.split("\t")[0] for a, b in zip(first, second, strict=True) if a != b]
    assert _CONTROL in differing, "the two processes have salted their hashes alike"
    differing.remove(_CONTROL)
    return Result(
        len(differing),
        n=len(first) - 1,
        bars={"": Bar("at_most", 0)},
        details={"seeds": list(SEEDS), "differing": differing[:20]},
    )


BENCHMARK = Benchmark("hashseed", "prompts that differ between two PYTHONHASHSEED values", run)

if __name__ == "__main__":
    for line in digests():
        print(line)
