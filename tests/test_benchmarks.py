"""The framework of figures: results, bars, the table of results; and the worst of several seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import property_seeds, registry
from benchmarks.loop_seeds import worst
from benchmarks.registry import Bar, Benchmark, Result, all_benchmarks, below_bar, measure, result_file, stored
from benchmarks.report import BEGIN, END, rewrite, table


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "RESULTS", tmp_path)
    return tmp_path


def benchmark(value: Any, **bars: Bar) -> Benchmark:
    return Benchmark("speed", "how fast", lambda: Result(value, n=5, interval=None), bars={**bars})


def test_a_result_says_all_that_it_must(results: Path) -> None:
    measure(Benchmark("speed", "how fast", lambda: Result(3.5, n=5, interval=[3.0, 4.0]), {"": Bar("at_least", 3)}))
    record = json.loads(result_file("speed").read_text())
    assert set(record) >= {
        *("name", "value", "bar", "n", "interval", "baseline", "seconds", "command", "versions", "machine", "commit")
    }
    assert record["met"] is True and record["machine"]["cores"] >= 1 and "torch" in record["versions"]
    assert record["command"] == "python -m benchmarks speed"


def test_stored_results_below_their_bar_are_named(results: Path) -> None:
    record = measure(benchmark({"a": 1.0, "b": None, "c": 9.0}, a=Bar("at_least", 2), b=Bar("at_most", 1)))
    assert record["met"] is False
    assert below_bar(record) == ["speed.a: 1.0 is not ≥ 2", "speed.b: None is not ≤ 1"]
    assert stored() == [json.loads(result_file("speed").read_text())]


def test_a_bar_for_a_number_that_was_not_measured_is_an_error(results: Path) -> None:
    with pytest.raises(ValueError, match="did not measure"):
        measure(benchmark({"a": 1.0}, b=Bar("at_least", 2)))


def test_a_gpu_result_stands_beside_the_cpus(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "accelerator", lambda: "NVIDIA H100")
    assert result_file("speed").name == "speed.gpu.json"
    monkeypatch.setattr(registry, "accelerator", lambda: None)
    assert result_file("speed").name == "speed.json"


def test_the_readme_table_is_made_from_results(results: Path, tmp_path: Path) -> None:
    measure(benchmark({"a": 0.25, "b": 12_000}, a=Bar("at_least", 0.5)))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert rewrite(readme, stored())
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith(f"{END}\nafter\n") and "old" not in text
    assert "| `speed` | how fast | **a 0.25 (≥ 0.5: missed)**; b 12,000 | 5 |" in text
    assert rewrite(readme, stored()) and readme.read_text() == text
    readme.write_text("no marks")
    assert not rewrite(readme, stored()) and readme.read_text() == "no marks"


def test_a_long_list_is_summed_up_and_misses_are_named(results: Path) -> None:
    values = {f"v{i}": i for i in range(20)}
    measure(benchmark(values, v3=Bar("at_least", 3), v4=Bar("at_least", 5)))
    assert "1 of 2 bars met; **v4 4 (≥ 5: missed)**" in table(stored())


def test_the_projects_table_is_up_to_date() -> None:
    text = command.README.read_text(encoding="utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    assert text[begin:end].strip() == table(stored()).strip()


def test_commands(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "loop-seeds" in all_benchmarks()
    assert command.main(["--list"]) == 0 and "loop-seeds" in capsys.readouterr().out
    assert command.main(["nonsense"]) == 2 and "loop-seeds" in capsys.readouterr().err
    assert command.main(["--check"]) == 0
    measure(benchmark(1.0, **{"": Bar("at_least", 2)}))
    capsys.readouterr()
    assert command.main(["--check"]) == 1 and capsys.readouterr().out == "speed: 1.0 is not ≥ 2\n"


def summary(accuracy: float | None, failed: float) -> dict[str, Any]:
    return {
        "bars": [
            {"key": "accuracy", "value": accuracy, "bar": {"at_least": 0.9, "low_above": 0.8}, "met": True},
            {"key": "failed", "value": failed, "bar": {"at_most": 0.01}, "met": True},
            {"key": "change", "value": 0.0, "bar": {"high_at_least": 0.0}, "met": True},
        ]
    }


def test_the_worst_seed_counts_in_the_sense_of_each_bar() -> None:
    result = worst([summary(0.95, 0.0), summary(0.91, 0.02), summary(0.99, 0.01)])
    assert result.value == {"accuracy": 0.91, "failed": 0.02} and result.n == 3
    assert not Bar("above", 0.5).met_by(0.5) and Bar("above", 0.5).met_by(0.51), "a tie is not more"
    assert worst([summary(0.95, 0.0), summary(None, 0.0)]).value == {"accuracy": None, "failed": 0.0}


def test_property_seeds_names_what_fails_under_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").mkdir()
    conftest = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
    (tmp_path / "tests" / "conftest.py").write_text(conftest, encoding="utf-8")
    (tmp_path / "tests" / "test_it.py").write_text(
        "from hypothesis import given, strategies as st\n\n\n"
        "@given(st.integers())\ndef test_small(x):\n    assert x < 10\n\n\n"
        "@given(st.integers())\ndef test_whole(x):\n    assert x == int(x)\n\n\n"
        "def test_plain():\n    raise AssertionError('no property test')\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MR3_SEEDS", "1")
    found = property_seeds.run()
    assert (found.value, found.n) == (1, 1)
    assert found.details == {"tests": 2, "first_seed": 1, "failed": {"tests.test_it::test_small": [1]}}
    (tmp_path / "tests" / "conftest.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    with pytest.raises(ValueError, match="could not run the property tests under seed 1"):
        property_seeds.run_seed(1)
