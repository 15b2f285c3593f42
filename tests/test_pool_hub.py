"""Sets read by `datasets.load_dataset`, from local files: rows as by our own readers, pinned, with telling errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from rewards.pool import Placed, PoolItem, PoolSpec, pool_files, read_pool
from rewards.records import SetAside

COLUMNS = {
    "prompt": "context",
    "responses": [{"text": "response1", "policy": "=1"}, {"text": "response2", "policy": "=2"}],
    "language": "language",
}
TALK = [
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "2+2?"},
]


def set_row(number: int) -> dict[str, Any]:
    return {"context": TALK, "language": "english", "response1": f"4, {number}", "response2": "5", "extra": number}


def spec_of(**given: Any) -> PoolSpec:
    spec: PoolSpec = TypeAdapter(PoolSpec).validate_python(given)
    return spec


def placed(items: list[PoolItem]) -> list[Placed]:
    return [i for i in items if isinstance(i, Placed)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


@pytest.mark.parametrize("streaming", [True, False])
def test_a_local_set_reads_as_its_files_do(tmp_path: Path, streaming: bool) -> None:
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    rows = [set_row(i) for i in range(700)]
    pq.write_table(pa.Table.from_pylist(rows[:400]), folder / "train-00000-of-00002.parquet", row_group_size=64)
    pq.write_table(pa.Table.from_pylist(rows[400:]), folder / "train-00001-of-00002.parquet")
    hub = spec_of(hub=str(tmp_path / "set"), split="train", columns=COLUMNS, streaming=streaming)
    found = placed(list(read_pool(hub)))
    own = placed(list(read_pool(spec_of(path=str(folder), columns=COLUMNS))))
    assert [i.row for i in found] == [i.row for i in own] and len(found) == 700
    assert [i.where for i in found] == [f"{tmp_path / 'set'}:train:{n}" for n in range(1, 701)]
    assert found[0].row.language == "en" and isinstance(found[0].row.prompt, list)
    assert pool_files(hub) == [tmp_path / "set"]
    limited = spec_of(hub=str(tmp_path / "set"), columns=COLUMNS, streaming=streaming, limit=5)
    assert [i.row for i in placed(list(read_pool(limited)))] == [i.row for i in own[:5]]


def test_bad_rows_of_a_set_are_set_aside(tmp_path: Path) -> None:
    rows = [set_row(0), {**set_row(1), "response1": None, "response2": None}, {**set_row(2), "context": []}, set_row(3)]
    file = tmp_path / "set.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    spec = spec_of(hub="json", data_files=str(file), columns=COLUMNS)
    items = list(read_pool(spec))
    assert [i.row.responses[0].text for i in placed(items)] == ["4, 0", "4, 3"]
    told = [(i.where, i.response_id is None) for i in items if isinstance(i, SetAside)]
    assert told == [("json:train:2", False), ("json:train:2", False), ("json:train:2", True), ("json:train:3", True)]
    assert pool_files(spec) == [file]


def test_a_set_in_the_pools_own_form_needs_no_columns(tmp_path: Path) -> None:
    row = {"prompt_id": "a", "prompt": "2+2?", "language": "en", "responses": [{"text": "4", "policy": "p"}]}
    (tmp_path / "set.jsonl").write_text(json.dumps(row) + "\n")
    (item,) = read_pool(spec_of(hub="json", data_files=str(tmp_path / "set.jsonl")))
    assert isinstance(item, Placed) and item.row.responses[0].id == "a#0"


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "0123abc"])
def test_a_hub_set_must_be_pinned_to_a_commit(revision: str | None) -> None:
    with pytest.raises(ValidationError, match="pin org/set: set revision to a commit"):
        spec_of(hub="org/set", revision=revision, columns=COLUMNS)
    assert pool_files(spec_of(hub="org/set", revision="0" * 40, columns=COLUMNS)) == []


def test_errors_name_the_set_and_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="say which files with data_files"):
        spec_of(hub="json", columns=COLUMNS)
    with pytest.raises(ValidationError, match="give a path, a list"):
        spec_of(files="x")
    file = tmp_path / "set.jsonl"
    file.write_text("".join(json.dumps(set_row(i)) + "\n" for i in range(3)))
    with pytest.raises(ValueError, match="no column answer"):
        list(
            read_pool(spec_of(hub="json", data_files=str(file), columns={"prompt": "context", "responses": ["answer"]}))
        )
    with pytest.raises(ValueError, match=r"no\.such|split"):
        list(read_pool(spec_of(hub="json", data_files=str(file), split="no.such", columns=COLUMNS)))
    file.write_text("{broken\n" * 3)
    with pytest.raises(ValueError, match=r"can't be read after row 0.*path: instead of hub:"):
        list(read_pool(spec_of(hub="json", data_files=str(file), columns=COLUMNS)))
