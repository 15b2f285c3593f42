"""`mr3 rubric`: list, show, check, render, and the two stages; errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import factory_throughput, oracle_engine
from benchmarks.workload import base_judge
from mr3.cli.main import main
from mr3.config import load_config
from mr3.factory.config import FactoryConfig
from mr3.factory.stage import run as data
from mr3.inference.engine import Completion
from mr3.refinement.stage import RefineConfig
from mr3.refinement.stage import run as refine
from mr3.rubrics import generate, load_rubric
from mr3.rubrics.entries import load_entries
from mr3.rubrics.generate import RubricGenerateConfig, subjects
from mr3.rubrics.teacher import Question, Teacher
from mr3.sources import FileSource, Labelled, SetAside, open_source, source_files
from tests.rubric_support import HOUSE, TeacherEngine, backend, item, judge_folder, tasks_file

Capture = pytest.CaptureFixture[str]


def house(folder: Path) -> Path:
    file = folder / "house.yaml"
    file.write_text("version: 4\ncriteria: [{name: right, description: The number is right.}]\n", encoding="utf-8")
    return file


def test_list_names_every_rubric_and_filters(tmp_path: Path, capsys: Capture) -> None:
    assert main(["rubric", "list"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{text}" for name in load_entries())
    house(tmp_path)
    assert main(["rubric", "list", "--library", str(tmp_path), "--json", "--mode", "listwise"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all("listwise" in r["modes"] and not r["levels"] for r in rows)
    assert [r["version"] for r in rows if r["id"] == "house"] == [4]
    assert main(["rubric", "list", "--family", "mgsm"]) == 0 and "math-solution" in capsys.readouterr().out
    assert main(["rubric", "list", "--family", "nonsense"]) == 2


def test_show_gives_what_a_config_takes(capsys: Capture, tmp_path: Path) -> None:
    assert main(["rubric", "show", "helpsteer", "--json"]) == 0
    shown = load_rubric(json.loads(capsys.readouterr().out))
    assert shown == load_entries()["helpsteer"].rubric
    assert main(["rubric", "show", str(house(tmp_path))]) == 0
    assert "version 4" in capsys.readouterr().out
    assert main(["rubric", "show", "helpster"]) == 2 and "did you mean helpsteer" in capsys.readouterr().err


def test_check_lists_the_bad_and_the_good(capsys: Capture, tmp_path: Path) -> None:
    house(tmp_path)
    bad = tmp_path / "bad.yaml"
    bad.write_text("criteria: [{name: a, description: b, weight: -1}]", encoding="utf-8")
    assert main(["rubric", "check", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert f"{bad} is not a valid rubric" in text and "criterion 'a'.weight" in text and "1 of 2 are valid" in text
    assert main(["rubric", "check", str(tmp_path / "house.yaml"), "--mode", "choice"]) == 1
    assert main(["rubric", "check", str(tmp_path / "house.yaml"), "--mode", "listwise"]) == 0


def test_render_shows_the_judges_prompt(capsys: Capture) -> None:
    assert main(["rubric", "render", "translation-levels", "--input", "Guten Tag", "--response", "Good day"]) == 0
    text = capsys.readouterr().out
    levels = load_entries()["translation-levels"].rubric.levels
    assert all(f"{label}: {words}" in text for label, words in levels.items())
    assert "Guten Tag" in text and "Good day" in text and text.index("----- system") < text.index("----- user")
    assert main(["rubric", "render", "translation-levels", "--mode", "binary"]) == 2
    assert "can't be used in mode binary" in capsys.readouterr().err
    assert main(["rubric", "render", "general", "--response", "only one"]) == 2
    assert "takes 2 response(s), got 1" in capsys.readouterr().err
    assert main(["rubric", "render", "general", "--profile", "nonsense"]) == 2
    assert main(["rubric", "render", "general", "--profile", "mr3-train"]) == 2
    capsys.readouterr()
    asked = ["--profile", "hf-card", "--texts", "own", "--strategy", "tgt-tgt", "--language", "de"]
    assert main(["rubric", "render", "general-levels", *asked]) == 0
    text = capsys.readouterr().out
    assert "# Anweisung" in text and load_entries()["general-levels"].rubric.levels["1"] in text


def test_help_names_all_commands(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rubric", "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(word in text for word in ("list", "show", "check", "render", "generate", "refine", "--library"))
    for stage in ("generate", "refine"):
        with pytest.raises(SystemExit):
            main(["rubric", stage, "--help"])
        assert f"mr3 rubric {stage}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "model"), [("rubric-generate", RubricGenerateConfig), ("rubric-refine", RefineConfig)]
)
def test_the_examples_are_valid(name: str, model: type[RubricGenerateConfig] | type[RefineConfig]) -> None:
    file = Path(f"configs/qwen3/{name}.yaml")
    assert file.read_text(encoding="utf-8").startswith(f"# mr3 {name} --config {file}\n")
    load_config(model, file)


def test_mistakes_of_a_refinement_are_told_before_anything_is_judged(tmp_path: Path) -> None:
    tasks = tasks_file(tmp_path / "tasks.parquet", [item(i, HOUSE) for i in range(100)], True)
    common = {
        "output_dir": tmp_path / "out",
        "tasks": tasks,
        "judge": {"model": str(judge_folder(tmp_path / "judge"))},
        "proposer": {"kind": "edits", "library": ["general"]},
    }
    for more, said in (
        ({"rubric": "generall"}, "did you mean general"),
        ({"rubric": "truthfulness"}, "can't be used for pairwise tasks"),
        ({"rubric": "general-pair"}, "has gold 'Tie', but rubric 'general-pair' allows"),
        ({"rubric": "general", "tasks": {"source": "tests.nowhere:make"}}, "can't load tasks.source"),
    ):
        with pytest.raises(ValueError, match=r"general|truthfulness|nowhere") as caught:
            refine(RefineConfig.model_validate({**common, **more}))
        assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def generate_config(tmp_path: Path, **more: object) -> RubricGenerateConfig:
    teacher = {"model": str(tmp_path / "teacher"), "backend": backend(TeacherEngine)}
    return RubricGenerateConfig.model_validate({"output_dir": tmp_path / "out", "teacher": teacher, **more})


FAMILIES = {"recipes": "Requests for recipes.", "poems": "Requests for poems."}


class ListedTeacher(Teacher):
    """Answers without Ray and without a tokenizer."""

    def row(self, question: Question) -> dict[str, str]:
        text = question.messages[1]["content"]
        return {"group": question.id, "payload": json.dumps({"text": text, "samples": question.samples})}

    def stream(self, rows: Path | Sequence[dict[str, str]]) -> Iterator[tuple[str, list[Completion]]]:
        assert isinstance(rows, Path)
        engine = TeacherEngine(self.config.engine_config())
        for row in pq.read_table(rows).to_pylist():
            payload = json.loads(row["payload"])
            made = [Completion(id="x", text=engine.answer(payload["text"]), finish="stop")] * payload["samples"]
            yield row["group"], made


def test_every_answer_is_kept_with_its_outcome_and_provenance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "Teacher", ListedTeacher)
    generate.run(generate_config(tmp_path, families=FAMILIES, samples=2))
    rows = pq.read_table(tmp_path / "out" / "rubrics.parquet").to_pylist()
    assert [(r["id"], r["sample"], r["outcome"]) for r in rows] == [
        *(("recipes", 0, "ok"), ("recipes", 1, "ok"), ("poems", 0, "parse_failed"), ("poems", 1, "parse_failed"))
    ]
    assert rows[2]["rubric"] is None and "not one JSON object" in rows[2]["reason"] and "poem" in rows[2]["text"]
    assert json.loads(rows[0]["teacher"])["backend"] == backend(TeacherEngine)
    library = load_entries([tmp_path / "out" / "library"], own=False)
    assert list(library) == ["recipes"] and library["recipes"].rubric.content_hash == rows[0]["hash"]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["outcomes"] == {"ok": 2, "parse_failed": 2} and metrics["covered"]["value"] == 0.5


def test_one_rubric_per_task_in_the_tasks_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "Teacher", ListedTeacher)
    file = tmp_path / "tasks.jsonl"
    lines = [
        {"id": "a", "input": "Wie koche ich Reis?", "language": "de", "x": 1},
        {"id": "b", "input": "Write poems."},
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    generate.run(generate_config(tmp_path, tasks=file, language=None))
    rows = {r["id"]: r for r in pq.read_table(tmp_path / "out" / "rubrics.parquet").to_pylist()}
    assert json.loads(rows["a"]["rubric"])["language"] == "de" and rows["b"]["outcome"] == "parse_failed"
    file.write_text('{"id": "a", "input": "x"}\n{"id": "a", "input": "y"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="'a' comes twice"):
        list(subjects(generate_config(tmp_path, tasks=file)))
    file.write_text('{"id": "a"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"tasks\.jsonl, line 1: Field required"):
        list(subjects(generate_config(tmp_path, tasks=file)))


def test_a_rubric_is_never_asked_for_with_the_responses_in_view(tmp_path: Path) -> None:
    tasks = tasks_file(tmp_path / "tasks.parquet", [item(1, HOUSE, text="What is 2 + 4?")], False)
    (subject,) = subjects(generate_config(tmp_path, tasks=tasks))
    asked = subject.messages[1]["content"]
    assert "What is 2 + 4?" in asked and '"formal"' not in asked


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "give either `families`"),
        ({"families": FAMILIES, "tasks": "x.parquet"}, "give either `families`"),
        ({"families": {"a/b": "x"}}, "can't be the name of a file"),
        ({"families": FAMILIES, "mode": "pointwise", "levels": ["2", "1"]}, "not in order"),
        ({"families": FAMILIES, "language": None}, "set `language`"),
    ],
)
def test_configs_of_generation_are_checked(tmp_path: Path, more: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match="validation error") as caught:
        generate_config(tmp_path, **more)
    assert said in str(caught.value)


@pytest.mark.slow
def test_generation_through_the_stream_is_resumable(tmp_path: Path) -> None:
    from mr3.inference.store import Store

    judge_folder(tmp_path / "teacher")
    config = generate_config(tmp_path, families=FAMILIES, samples=2)
    generate.run(config)
    first = pq.read_table(tmp_path / "out" / "rubrics.parquet").to_pylist()
    assert sorted((r["id"], r["outcome"]) for r in first) == [
        *(("poems", "parse_failed"), ("poems", "parse_failed"), ("recipes", "ok"), ("recipes", "ok"))
    ]
    store = Store(tmp_path / "out" / "store")
    assert store.refresh() == 4
    (tmp_path / "out" / "manifest.json").unlink()
    generate.run(config)
    again = pq.read_table(tmp_path / "out" / "rubrics.parquet").to_pylist()
    assert store.refresh() == 4 and sorted(map(str, again)) == sorted(map(str, first))


def test_generated_rubrics_go_all_the_way_into_training_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "Teacher", ListedTeacher)
    sources = tmp_path / "sources"
    sources.mkdir()
    factory_throughput.write_sources(sources, 60)
    base_judge(tmp_path / "judge")
    generate.run(generate_config(tmp_path, families={"recipes": FAMILIES["recipes"]}))
    lines = [json.loads(line) for line in (sources / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps({"id": r["task"]["id"], "input": "x"}) + "\n" for r in lines[:58]))
    per_task = generate_config(tmp_path, tasks=asked, output_dir=tmp_path / "per-task")
    generate.run(per_task)
    library, by_task = tmp_path / "out" / "library", tmp_path / "per-task" / "rubrics.parquet"
    source = {"path": str(sources / "rows.jsonl"), "name": "nano", "rubrics": str(by_task)}
    found = list(open_source(FileSource.model_validate(source)))
    assert [r.kind for r in found if isinstance(r, SetAside)] == ["no_rubric"] * 2, "two were not asked for"
    model = {"model": str(tmp_path / "judge"), "backend": oracle_engine.NAME, "dialect": "plain"}
    given = {
        "output_dir": tmp_path / "data",
        "profile": "compact",
        "ray": False,
        "sources": [{**source, "rubrics": [str(by_task), str(library)]}],
        "teacher": {**model, "name": "teacher"},
        "output": {"dialect": "plain"},
    }
    data(FactoryConfig.model_validate(given))
    table = pq.read_table(tmp_path / "data" / "sft" / "tgt-tgt" / "easy-hard.parquet")
    prompts = ["\n".join(m["content"] for m in row) for row in table["prompt"].to_pylist()]
    assert len(prompts) == 60 and all("It tastes good." in prompt for prompt in prompts)
    assert all(prefix for prefix in table["assistant_prefix"].to_pylist()), "forced traces begin as they did"


def test_a_generated_rubric_that_does_not_fit_its_row_is_named(tmp_path: Path) -> None:
    house(tmp_path)
    levels = tmp_path / "levels.yaml"
    levels.write_text("levels: {'1': bad, '2': good}\n", encoding="utf-8")
    rows = [item(n, HOUSE) for n in range(3)]
    tasks = tasks_file(tmp_path / "tasks.parquet", rows, False)
    spec = {"path": str(tasks), "rubrics": [str(tmp_path / "house.yaml")]}
    kept = list(open_source(FileSource.model_validate(spec)))
    assert all(isinstance(r, Labelled) and r.task.rubric.criteria[0].name == "right" for r in kept)
    assert set(source_files(FileSource.model_validate(spec))) == {tasks, tmp_path / "house.yaml"}
    (aside, *_) = open_source(FileSource.model_validate({**spec, "rubrics": str(levels)}))
    assert isinstance(aside, SetAside) and aside.kind == "unfit_rubric" and "none of its scores (1, 2)" in aside.reason
    with pytest.raises(ValueError, match="no rubrics at nowhere"):
        open_source(FileSource.model_validate({**spec, "rubrics": "nowhere"}))
    with pytest.raises(ValueError, match=r"is no rubrics\.parquet"):
        open_source(FileSource.model_validate({**spec, "rubrics": str(tasks)}))
