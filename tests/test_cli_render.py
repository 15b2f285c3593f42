"""`mr3 render`: rows in, one JSON object per row out, errors that name the line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.prompt_cases import published_families, sample_row
from mr3.cli.render import main
from mr3.families import FAMILIES
from tests.prompts_support import write_templates
from tests.test_prompts_cards import golden_cases

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_templates(tmp_path_factory.mktemp("templates"))


def write_rows(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def line(family: str, language: str = "qx", **more: Any) -> dict[str, Any]:
    return {"family": family, "language": language, "row": sample_row(FAMILIES[family], language), **more}


def test_rows_come_out_in_order(folder: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    families = [family.name for family in published_families()]
    rows = write_rows(tmp_path / "rows.jsonl", [line(name, strategy="tgt-tgt") for name in families] + ["", " "])
    assert main(["--templates", str(folder), "--rows", str(rows)]) == 0
    found = [json.loads(text) for text in capfdbinary.readouterr().out.splitlines()]
    assert [set(row) for row in found] == [{"system", "user", "assistant_prefix"}] * len(families)
    for name, row in zip(families, found, strict=True):
        assert f"{FAMILIES[name].file} your_response_tag" in row["user"]


def test_profile_strategy_and_language_by_option(
    folder: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    row = {"family": "rubricreward/mgsm", "row": sample_row(FAMILIES["mgsm"], "qx")}
    rows = write_rows(tmp_path / "rows.jsonl", [row])
    arguments = ["--templates", str(folder), "--rows", str(rows), "--profile", "hf-card", "--strategy", "tgt-eng"]
    assert main(arguments) == 0
    assert json.loads(capfdbinary.readouterr().out)["system"].startswith("# [qx Instruction]\n[qx mgsm None desc")


def test_a_task_of_ones_own(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    task = {"id": "t", "mode": "pointwise", "input": "IN", "responses": ["ONE"], "language": "en"}
    rubric = {"criteria": [{"name": "right", "description": "It is right."}]}
    rows = write_rows(tmp_path / "rows.jsonl", [{"task": {**task, "rubric": rubric}}])
    assert main(["--profile", "compact", "--rows", str(rows)]) == 0
    assert "1. It is right." in json.loads(capfdbinary.readouterr().out)["system"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: line: Input should be"),
        ({"row": {"id": "1"}}, "line 2: line: Value error, a `row` needs its `family`"),
        ({"family": "mcq"}, "line 2: line: Value error, give either `row`"),
        (line("mcq", strategy="tgt"), "line 2: strategy: Input should be 'eng-eng'"),
        (line("mcq", rubric_index=-1), "line 2: rubric_index"),
        (line("mcq", key_order="random"), "line 2: key_order"),
        ({**line("mcq"), "language": "en"}, "line 2: the line says language 'en', its row says 'qx'"),
        (line("mcq", "zz", strategy="tgt-eng"), "line 2: the published mcq_translated_templates.json has no texts in"),
        ({"family": "strict-par", "row": {"id": "1"}}, "line 2: unknown task family 'strict-par': did you mean"),
        ({"family": "mcq", "row": {"id": "1", "question": "?"}}, "line 2: row '1' of family mcq (None): no text in"),
    ],
)
def test_a_bad_row_names_its_line(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], bad: Any, message: str
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [line("mcq"), bad, line("mcq")])
    assert main(["--templates", str(folder), "--rows", str(rows)]) == 2
    out, err = capfd.readouterr()
    assert out.count("\n") == 1
    assert f"error: {rows}, {message}" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "git clone https://github.com/rubricreward/mr3"),
        (["--templates", "nowhere"], "no published templates at nowhere"),
        (["--templates", "x", "--texts", "own"], "leave out --texts own, or --templates"),
    ],
)
def test_texts_are_chosen_openly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [line("mcq")])
    assert main(["--rows", str(rows), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_no_rows_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--templates", str(folder), "--rows", "missing.jsonl"]) == 2
    assert "no rows at missing.jsonl" in capsys.readouterr().err


def run_command(arguments: list[str], rows: bytes, seed: str) -> bytes:
    """The real command, in an environment that knows no UTF-8 and salts its hashes."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "mr3.cli.main", "render", "--rows", "-", *arguments]
    return subprocess.run(command, input=rows, capture_output=True, check=True, cwd=ROOT, env=environment).stdout


def test_the_command_reads_standard_input_in_any_locale(folder: Path) -> None:
    row = line("strict-pair-math", "en")
    row["row"]["input"] = "Ünïcode \u2028 漢字 😀 \r\n"
    raw = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    (found,) = run_command(["--templates", str(folder)], raw, "1").decode().split("\n")[:-1]
    assert "Ünïcode \u2028 漢字 😀 \r\n" in json.loads(found)["user"]


def test_the_golden_cases_by_the_command() -> None:
    cases = golden_cases()
    keys = ("system", "user", "assistant_prefix")
    rows = "".join(json.dumps({k: v for k, v in case.items() if k not in keys}) + "\n" for case in cases)
    templates = ["--templates", str(Path(os.environ["MR3_DATA"]) / "mr3_rubrics")]
    found = run_command(templates, rows.encode(), "7").decode().split("\n")[:-1]
    assert [json.loads(text) for text in found] == [{key: case[key] for key in keys} for case in cases]
