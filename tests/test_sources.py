"""Sources: every format gives the same labelled rows; what is no row is set aside with its reason, never dropped."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from mr3.factory.config import FactoryConfig
from mr3.sources import Labelled, SetAside, SourceSpec, Texts, input_texts, known_sets, open_source
from mr3.sources.families import plain_gold
from mr3.sources.reading import file_rows

TEMPLATES = Path(os.environ.get("MR3_DATA", "/nonexistent")) / "mr3_rubrics"
SPEC: TypeAdapter[Any] = TypeAdapter(SourceSpec)
ROWS = [
    {"n": "r1", "q": "2+2?", "a": "4", "b": "5", "who": 1, "lang": "en"},
    {"n": "r2", "q": "ポストは何色？", "a": "青", "b": "赤", "who": 2, "lang": "ja"},
]
COLUMNS = {"id": "n", "input": "q", "responses": ["a", "b"], "gold": "who", "language": "lang"}
PAIRS = {
    "mode": "pairwise",
    "columns": COLUMNS,
    "rubric": {"criteria": [{"name": "right", "description": "It is right."}]},
    "own_rubrics": {"ja": {"language": "ja", "criteria": [{"name": "right", "description": "正しい。"}]}},
    "labels": {"1": "Assistant A", "2": "Assistant B"},
}


def write(folder: Path, kind: str) -> Path:
    file = folder / f"rows.{kind}"
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in ROWS)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), file)
    elif kind == "jsonl.gz":
        file.write_bytes(gzip.compress(lines.encode()))
    elif kind == "json":
        file.write_text(json.dumps(ROWS), encoding="utf-8")
    elif kind in ("csv", "tsv"):
        separator = "," if kind == "csv" else "\t"
        table = [list(ROWS[0]), *([str(v) for v in r.values()] for r in ROWS)]
        file.write_text("".join(separator.join(t) + "\n" for t in table), encoding="utf-8")
    else:
        file.write_text(lines, encoding="utf-8")
    return file


def test_json_lines_may_be_named_json(tmp_path: Path) -> None:
    file = write(tmp_path, "jsonl").rename(tmp_path / "rtp_lx_dataset.json")
    assert [row for _, row in file_rows(file)] == ROWS
    file.write_text(json.dumps({"rows": ROWS}, indent=1))
    with pytest.raises(ValueError, match="holds no list of rows"):
        list(file_rows(file))


def opened(given: dict[str, Any]) -> list[Labelled | SetAside]:
    return list(open_source(SPEC.validate_python(given)))


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "parquet", "csv", "tsv"])
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    first, second = opened({"path": str(write(tmp_path, kind)), **PAIRS})
    assert isinstance(first, Labelled) and isinstance(second, Labelled)
    assert (first.key, first.gold, first.task.responses, first.own) == ("rows/r1", "Assistant A", ["4", "5"], None)
    assert (second.gold, second.task.language, second.task.input) == ("Assistant B", "ja", "ポストは何色？")
    assert second.prompt_task(False).rubric.criteria[0].description == "It is right."
    assert second.prompt_task(True).rubric.criteria[0].description == "正しい。"


def test_what_is_no_row_is_set_aside_where_it_stands(tmp_path: Path) -> None:
    file = write(tmp_path, "jsonl")
    bad = [{**ROWS[0], "n": "r3", "who": 7}, {**ROWS[0], "n": "r4", "a": None}, {"q": "no more"}]
    more = "not json\n[1]\n" + "".join(json.dumps(b) + "\n" for b in bad)
    file.write_text(file.read_text(encoding="utf-8") + more, encoding="utf-8")
    aside = [r for r in opened({"path": str(file), **PAIRS}) if isinstance(r, SetAside)]
    assert [a.where.split(":")[1] for a in aside] == ["3", "4", "5", "6", "7"]
    assert [a.kind for a in aside] == ["unreadable", "unreadable", "invalid", "invalid", "incomplete"]
    assert "'7'" in aside[2].reason and "responses.0" in aside[3].reason


@pytest.mark.parametrize(("column", "value"), [("n", None), ("n", ""), ("n", [1]), ("lang", None), ("lang", ["ja"])])
def test_a_row_without_id_or_language_gets_none_that_was_made_up(tmp_path: Path, column: str, value: Any) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{**row, column: value} for row in ROWS] + [{**ROWS[0], "n": 5}]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    *bad, good = opened({"path": str(file), **PAIRS})
    assert [r.kind for r in bad if isinstance(r, SetAside)] == ["incomplete"] * 2
    assert all(f"no value in {column}: it holds {value!r}" in r.reason for r in bad if isinstance(r, SetAside))
    assert isinstance(good, Labelled) and good.key == "rows/5"


def test_a_rubric_that_does_not_suit_the_files_mode_is_said_before_any_row(tmp_path: Path) -> None:
    rubric = {"levels": {"excellent": "e.", "poor": "p."}}
    single = {"columns": {**COLUMNS, "responses": ["a"]}, "mode": "pointwise", "rubric": rubric}
    file = str(write(tmp_path, "jsonl"))
    with pytest.raises(ValueError, match="add `worst_first: true`"):
        opened({"path": file, **single})
    (tmp_path / "word.yaml").write_text("levels: {excellent: e., poor: p.}\n", encoding="utf-8")
    given = {**single, "rubric": None, "rubrics": str(tmp_path / "word.yaml")}
    assert [r.kind for r in opened({"path": file, **given}) if isinstance(r, SetAside)] == ["unfit_rubric"] * 2


def test_the_factorys_own_format_and_evaluation_tasks_are_read(tmp_path: Path) -> None:
    rows = [r for r in opened({"path": str(write(tmp_path, "jsonl")), **PAIRS}) if isinstance(r, Labelled)]
    own, tasks = tmp_path / "own.jsonl", tmp_path / "tasks.parquet"
    own.write_text("".join(r.model_dump_json() + "\n" for r in rows), encoding="utf-8")
    dumped = [{"id": r.task.id, "task": r.task.model_dump_json(), "gold": r.gold, "sets": ["s"]} for r in rows]
    pq.write_table(pa.Table.from_pylist(dumped), tasks)
    assert opened({"path": str(own)}) == [r.model_copy(update={"source": "own"}) for r in rows]
    assert [r.task for r in opened({"path": str(tasks)}) if isinstance(r, Labelled)] == [r.task for r in rows]
    assert list(input_texts(SPEC.validate_python({"path": str(tasks)}))) == [
        ("en", "2+2?"),
        ("ja", "ポストは何色？"),
    ]


def test_limit_and_languages(tmp_path: Path) -> None:
    file = str(write(tmp_path, "jsonl"))
    assert len(opened({"path": file, **PAIRS, "limit": 1})) == 1
    first, second = opened({"path": file, **PAIRS, "languages": ["ja"]})
    assert isinstance(first, SetAside) and first.kind == "language" and isinstance(second, Labelled)
    one, other = open_source(SPEC.validate_python({"path": file, **PAIRS}), without=["ja"])
    assert isinstance(one, Labelled) and isinstance(other, SetAside) and other.kind == "language"


def test_an_adapter_is_a_function_by_name() -> None:
    found = opened({"adapter": "mr3.nano.labelled:rows", "options": {"count": 5, "seed": 3}, "name": "world"})
    assert len(found) == 5 and all(isinstance(r, Labelled) and r.source == "world" for r in found)
    with pytest.raises(ValueError, match="can't load the adapter"):
        opened({"adapter": "mr3.nano.labelled:nothing"})
    with pytest.raises(ValidationError, match=r"package\.module:function"):
        SPEC.validate_python({"adapter": "mr3.nano.labelled"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"path": "nowhere.jsonl"}, "no file at nowhere.jsonl"),
        ({"set": "helpsteer4", "path": "x.jsonl"}, "did you mean 'helpsteer3'"),
        ({"set": "rtp-lx"}, "is on no hub"),
    ],
)
def test_mistakes_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        opened(given)


def test_a_file_without_a_column_of_a_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no column actual_score"):
        opened({"set": "mgsm", "path": str(write(tmp_path, "parquet"))})


def test_the_papers_sets_are_known_and_benchmarks_are_never_taught() -> None:
    sets = known_sets()
    train = {name for name, s in sets.items() if s.use == "train"}
    assert {"polyguardmix", "arena", "helpsteer3", "mmmlu", "math500", "humanevalxl"} <= train
    tests = {"m-rewardbench", "rewardbench", "mm-eval", "indopref", "include", "mgsm", "rtp-lx", "helpsteer3-test"}
    assert set(sets) - train == tests
    teacher = {"name": "t", "model": "m", "profile": "compact", "max_prompt_tokens": 9, "max_output_tokens": 9}
    with pytest.raises(ValidationError, match="mgsm is a benchmark and is never taught"):
        FactoryConfig.model_validate({"output_dir": "x", "sources": [{"set": "mgsm", "path": "x"}], "teacher": teacher})


def test_what_a_conversation_asks_is_flattened_and_needs_no_templates(tmp_path: Path) -> None:
    context = [{"role": "user", "content": "first"}, {"role": "assistant", "content": [{"text": "second"}]}]
    row = {"id": "1", "language": "en", "actual_score": 0, "domain": "g", "response1": "a", "response2": "b"}
    file = tmp_path / "h.jsonl"
    file.write_text(json.dumps({**row, "context": context}) + "\n", encoding="utf-8")
    assert list(input_texts(SPEC.validate_python({"set": "helpsteer3-test", "path": str(file)}))) == [
        ("en", "first\nsecond")
    ]


def test_hub_sets_are_taught_and_kept_out_at_a_commit_only() -> None:
    teacher = {"name": "t", "model": "m", "profile": "compact", "max_prompt_tokens": 9, "max_output_tokens": 9}
    given: dict[str, Any] = {"output_dir": "x", "teacher": teacher, "sources": [{"set": "mmmlu", "revision": "a" * 40}]}
    assert FactoryConfig.model_validate(given)
    for changes in (
        {"sources": [{"set": "mmmlu"}]},
        {"decontaminate": {"benchmarks": [{"set": "mgsm", "revision": "v1"}]}},
    ):
        with pytest.raises(ValidationError, match="set revision to a commit of 40 hex digits"):
            FactoryConfig.model_validate({**given, **changes})


@pytest.mark.skipif(not TEMPLATES.is_dir(), reason="set MR3_DATA to the folder that holds mr3_rubrics")
def test_rows_of_known_sets_get_their_family_and_both_languages(tmp_path: Path) -> None:
    context = [{"role": "user", "content": "Wie geht es?"}]
    common = {
        "language": "de",
        "actual_score": 2,
        "context": context,
        "response1": "a",
        "response2": "b",
        "domain": "g",
    }
    file = tmp_path / "h.jsonl"
    lines = [{**common, "id": f"h{i}", "language": code} for i, code in enumerate(["de"] * 12 + ["en", "tlh"])]
    file.write_text("".join(json.dumps(r) + "\n" for r in lines), encoding="utf-8")
    spec = SPEC.validate_python({"set": "helpsteer3", "path": str(file)})
    found = list(open_source(spec, Texts(templates_dir=TEMPLATES)))
    german, english, klingon = found[:12], found[12], found[13]
    assert all(isinstance(r, Labelled) and r.gold == "6" and r.task.rubric.language == "en" for r in german)
    assert {r.prompt_task(True).rubric.language for r in german if isinstance(r, Labelled)} == {"de"}
    assert len({r.task.rubric.name for r in german if isinstance(r, Labelled)}) > 1, "paraphrases are drawn by the id"
    assert isinstance(english, Labelled) and english.own is None
    assert isinstance(klingon, SetAside) and klingon.kind == "no_texts" and "tlh" in klingon.reason
    assert found == list(open_source(spec, Texts(templates_dir=TEMPLATES)))


@pytest.mark.parametrize(
    ("value", "label"), [(True, "true"), ("False", "false"), (3, "3"), (4.0, "4"), ("Assistant A", "Assistant A")]
)
def test_labels_are_strings_as_judges_write_them(value: Any, label: str) -> None:
    assert plain_gold(value) == label
