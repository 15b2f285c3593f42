"""The command as users call it, in a fresh process: help, mistakes, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mr3.cli.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]


def mr3(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("RUN", "SEED")}
    command = [sys.executable, "-m", "mr3.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def test_help_lists_every_stage() -> None:
    done = mr3("--help")
    assert done.returncode == 0 and all(f"  {name} " in done.stdout for name in STAGES)
    assert mr3().returncode == 2


def test_version() -> None:
    import mr3 as package

    assert mr3("--version").stdout.strip() == f"mr3 {package.__version__}"


def test_the_installed_command_is_the_same() -> None:
    script = Path(sys.executable).with_name("mr3")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == mr3("--version").stdout


def test_stage_help_shows_the_keys_of_its_config() -> None:
    done = mr3("label", "--help")
    assert done.returncode == 0
    assert "one house rubric" in done.stdout and "output_dir: required" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lable",), "unknown stage 'lable': did you mean 'label'?"),
        (("data", "--config", "nowhere.yaml"), "no config file at nowhere.yaml"),
        (("data", "--config", "configs/nano/data.yaml", "--judge_row", "3"), "judge_row: unknown key"),
        (("data", "--config", "configs/nano/data.yaml", "--judge_rows", "few"), "judge_rows: Input should be"),
        (("data", "--config", "configs/nano/data.yaml", "--judge_rows"), "--judge_rows needs a value"),
        (("sft", "--config", "configs/nano/judge-sft.yaml", "--data", "no.parquet"), "no data file at no.parquet"),
        (("demo", "--run"), "--run needs a name"),
        (("report", "no/such/run"), "is not the run folder of a demo"),
        (("config", "copy", "giant", "there"), "unknown profile 'giant'"),
        (("judge", "--model", "no/such", "--criterion", "Good.", "--input", "?", "--response", "!"), "is not a judge"),
        (("judge", "--model", "m", "--input", "?", "--response", "!"), "either --rubric FILE or --criterion"),
        (
            ("judge", "--model", "m", "--criterion", "a", "--criterion", "a", "--input", "?", "--response", "!"),
            "duplicate criteria",
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_a_users_mistake_is_one_message_and_exit_code_2(words: tuple[str, ...], said: str) -> None:
    done = mr3(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr


def test_config_copy_gives_configs_that_work_elsewhere(tmp_path: Path) -> None:
    done = mr3("config", "copy", "nano", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    copied = tmp_path / "mine" / "judge-sft.yaml"
    assert copied.read_text(encoding="utf-8").startswith("# mr3 sft --config mine/judge-sft.yaml")
    assert Path(yaml.safe_load(copied.read_text(encoding="utf-8"))["model"]).is_dir()
    assert {p.name for p in copied.parent.iterdir()} == {p.name for p in (ROOT / "configs/nano").glob("*.yaml")}
    again = mr3("config", "copy", "nano", "mine", cwd=tmp_path)
    assert again.returncode == 2 and "is there already" in again.stderr
    assert "nano" in mr3("config", "list", cwd=tmp_path).stdout.split()
