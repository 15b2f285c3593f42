"""Trace sheets: blind, the same tasks for every run, read back by item, paired differences by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewards.annotation.cells import read_sheet, write_sheet
from rewards.trace_sheet import FilledSheets, TraceSheetConfig, main, run
from tests.judging_support import single


def tasks_file(folder: Path, languages: dict[str, str]) -> Path:
    rows = [
        {
            "id": name,
            "task": single("binary", "=six", id=name, language=language).model_dump_json(),
            "gold": "true",
            "sets": ["binary"],
        }
        for name, language in languages.items()
    ]
    file = folder / "tasks.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def evaluation(folder: Path, traces: dict[str, str | None]) -> Path:
    folder.mkdir(parents=True)
    rows = [
        {"task_id": t, "swapped": False, "sample": 0, "trace": trace, "explanation": "so", "score": "true"}
        for t, trace in traces.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "verdicts.parquet")
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Sheets of two runs over three tasks in two languages; one task has no trace in one run."""
    tasks = tasks_file(tmp_path, {"t1": "de", "t2": "de", "t3": "ja", "t4": "de"})
    runs = {
        "with": evaluation(tmp_path / "with", {"t1": "gut 1", "t2": "gut 2", "t3": "良い", "t4": "gut 4"}),
        "without": evaluation(tmp_path / "without", {"t1": "bad 1", "t2": "bad 2", "t3": "bad 3", "t4": None}),
    }
    run(TraceSheetConfig(output_dir=tmp_path / "sheet", tasks=tasks, runs=runs))
    return tmp_path / "sheet"


def test_sheets_are_blind_and_hold_the_same_tasks_of_every_run(made: Path) -> None:
    key = json.loads((made / "key.json").read_text())
    rows = read_sheet(made / "sheets" / "de.csv", ("item", "fluency"))
    assert {row["reasoning"] for row in rows} == {"gut 1", "gut 2", "bad 1", "bad 2"}  # t4 has no trace in one run
    assert {key["items"][row["item"]]["run"] for row in rows} == {"with", "without"}
    text = (made / "sheets" / "de.csv").read_text(encoding="utf-8-sig")
    assert "with" not in text.replace("without", "") and "without" not in text
    assert all(
        row["fluency"] == row["soundness"] == row["language_"] == "" for row in [{**r, "language_": ""} for r in rows]
    )
    assert len(read_sheet(made / "sheets" / "ja.csv", ("item",))) == 2


def fill(made: Path, folder: Path) -> list[Path]:
    """`with` gets fluency 4 on t1 and 5 on t2; `without` 2 and 2; soundness of t1 alone."""
    key = json.loads((made / "key.json").read_text())["items"]
    fluency = {("with", "t1"): "4", ("with", "t2"): "5", ("without", "t1"): "2", ("without", "t2"): "2"}
    rows = read_sheet(made / "sheets" / "de.csv", ("item",))
    for row in rows:
        about = key[row["item"]]
        row["fluency"] = fluency[about["run"], about["task"]]
        row["soundness"] = "3" if about["task"] == "t1" else ""
    write_sheet(folder / "de.csv", list(rows[0]), rows)
    return [folder / "de.csv"]


def test_ratings_come_back_per_run_and_paired_by_task(made: Path, tmp_path: Path) -> None:
    files = fill(made, tmp_path)
    config = TraceSheetConfig.model_validate(
        {"output_dir": tmp_path / "rated", "import": FilledSheets(sheet=made, files=files)}
    )
    run(config)
    found = json.loads((tmp_path / "rated" / "ratings.json").read_text())
    assert found["fluency"]["with"]["mean"]["value"] == 4.5
    assert found["fluency"]["without"]["difference"] == {
        "value": -2.5,
        "n": 2,
        "interval": found["fluency"]["without"]["difference"]["interval"],
    }
    assert found["soundness"]["without"]["difference"]["n"] == 1
    assert found["in_language"]["with"]["mean"]["value"] is None


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("fluency", "7", "fluency '7' is none of 1, 2, 3, 4, 5"), ("item", "zzz", "'zzz' is not of these sheets")],
)
def test_a_wrong_cell_is_named_with_its_row(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, value: str, said: str
) -> None:
    [file] = fill(made, tmp_path)
    rows = read_sheet(file, ("item",))
    rows[1][column] = value
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    settings = json.dumps({"sheet": str(made), "files": [str(file)]})
    assert main(["--output_dir", str(tmp_path / "rated"), "--import", settings]) == 2
    error = capsys.readouterr().err
    assert said in error and "row 2" in error
    assert not (tmp_path / "rated").exists()


def test_a_language_without_traces_is_told(tmp_path: Path) -> None:
    tasks = tasks_file(tmp_path, {"t1": "de"})
    runs = {"a": evaluation(tmp_path / "a", {"t1": "x"})}
    with pytest.raises(ValueError, match="no task in te has a trace in every run"):
        run(TraceSheetConfig(output_dir=tmp_path / "s", tasks=tasks, runs=runs, languages=["te"]))
