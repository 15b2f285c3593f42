"""Data sets of other shapes become pools by their columns: the official shapes, wrong mappings, malformed rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mr3.records import PoolRow
from rewards.pool import Placed, PoolItem, PoolSpec, read_pool
from rewards.pools.columns import Columns, lookup
from rewards.pools.languages import language_code
from rewards.pools.mapper import Mapper
from rewards.pools.messages import Unreadable
from rewards.records import SetAside

USER = {"role": "user", "content": "Which is the longest river of the world, and where is it?"}
LATER = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "Which is the longest river of the world?"},
]


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


# The official shapes (their data set cards and loaders): nvidia/HelpSteer3 `preference`, openbmb/UltraFeedback,
# HuggingFaceH4/ultrafeedback_binarized, lmsys/chatbot_arena_conversations, TRL's implicit and explicit preference
# formats, ShareGPT-like pairs, LMSYS's Kaggle CSV with turns as JSON text.
HELPSTEER3 = {
    "domain": "multilingual",
    "language": "portuguese",
    "context": LATER,
    "response1": "O Nilo.",
    "response2": "O Amazonas.",
    "overall_preference": -2,
    "individual_preference": [{"score": -2, "reasoning": "r", "feedback1": "f", "feedback2": "g"}],
}
ULTRAFEEDBACK = {
    "source": "evol_instruct",
    "instruction": USER["content"],
    "models": ["alpaca-7b", "gpt-4"],
    "completions": [
        {
            "model": "alpaca-7b",
            "response": "The Nile.",
            "overall_score": 7.0,
            "annotations": {"honesty": {"Rating": "4"}},
        },
        {
            "model": "gpt-4",
            "response": "The Amazon.",
            "overall_score": 8.0,
            "annotations": {"honesty": {"Rating": "5"}},
        },
    ],
    "correct_answers": ["The Nile"],
}
BINARIZED = {
    "prompt": LATER[-1]["content"],
    "prompt_id": "f0e37e9f",
    "chosen": [*LATER, said("The Nile.")],
    "rejected": [*LATER, said("The Amazon.")],
    "messages": [*LATER, said("The Nile.")],
    "score_chosen": 6.0,
    "score_rejected": 4.0,
}
ARENA = {
    "question_id": "58210e39b3fd4441a2bd4a518bb44c2d",
    "model_a": "chatglm-6b",
    "model_b": "koala-13b",
    "winner": "model_b",
    "conversation_a": [{"content": "¿Qué río es el más largo?", "role": "user"}, said("El Nilo.")],
    "conversation_b": [{"content": "¿Qué río es el más largo?", "role": "user"}, said("El Amazonas.")],
    "turn": 1,
    "language": "Spanish",
}
SHARE = {
    "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": USER["content"]}],
    "chosen": {"from": "gpt", "value": "The Nile."},
    "rejected": {"from": "gpt", "value": "The Amazon."},
}
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "HelpSteer3": (
        HELPSTEER3,
        {
            "prompt": "context",
            "language": "language",
            "responses": [{"text": "response1", "policy": "=1"}, {"text": "response2", "policy": "=2"}],
            "meta": {"domain": "domain", "preferred": "overall_preference"},
        },
        {
            "prompt": LATER,
            "language": "pt",
            "texts": ["O Nilo.", "O Amazonas."],
            "policies": ["1", "2"],
            "meta": {"domain": "multilingual", "preferred": -2},
        },
    ),
    "UltraFeedback": (
        ULTRAFEEDBACK,
        {
            "prompt": "instruction",
            "responses": {"each": "completions", "text": "response", "policy": "model"},
            "reference": "correct_answers.0",
        },
        {
            "prompt": USER["content"],
            "language": "en",
            "texts": ["The Nile.", "The Amazon."],
            "policies": ["alpaca-7b", "gpt-4"],
            "reference": "The Nile",
        },
    ),
    "UltraFeedback as a struct of lists": (
        {**ULTRAFEEDBACK, "completions": {"model": ["a", "b"], "response": ["The Nile.", "The Amazon."]}},
        {"prompt": "instruction", "responses": {"each": "completions", "text": "response", "policy": "model"}},
        {"prompt": USER["content"], "language": "en", "texts": ["The Nile.", "The Amazon."], "policies": ["a", "b"]},
    ),
    "ultrafeedback_binarized": (
        BINARIZED,
        {"prompt_id": "prompt_id", "prompt": "prompt", "responses": ["chosen", "rejected"], "language": "=en"},
        {
            "prompt_id": "f0e37e9f",
            "prompt": LATER,
            "language": "en",
            "texts": ["The Nile.", "The Amazon."],
            "policies": ["chosen", "rejected"],
        },
    ),
    "chatbot arena": (
        ARENA,
        {
            "prompt_id": "question_id",
            "responses": [
                {"text": "conversation_a", "policy": "model_a"},
                {"text": "conversation_b", "policy": "model_b"},
            ],
            "language": "language",
        },
        {
            "prompt_id": ARENA["question_id"],
            "prompt": "¿Qué río es el más largo?",
            "language": "es",
            "texts": ["El Nilo.", "El Amazonas."],
            "policies": ["chatglm-6b", "koala-13b"],
        },
    ),
    "chatbot arena, first turn by index": (
        {**ARENA, "conversation_b": [*ARENA["conversation_b"], USER, said("It is in Peru.")]},
        {
            "prompt": "conversation_a.0.content",
            "responses": [
                {"text": "conversation_a.1.content", "policy": "model_a"},
                {"text": "conversation_b.1.content", "policy": "model_b"},
            ],
            "language": "=es",
        },
        {"prompt": "¿Qué río es el más largo?", "language": "es", "texts": ["El Nilo.", "El Amazonas."]},
    ),
    "TRL, implicit prompt": (
        {"chosen": [*LATER, said("The Nile.")], "rejected": [*LATER, said("The Amazon.")]},
        {"responses": ["chosen", "rejected"], "language": "=en"},
        {"prompt": LATER, "language": "en", "texts": ["The Nile.", "The Amazon."], "policies": ["chosen", "rejected"]},
    ),
    "TRL, explicit prompt": (
        {"prompt": LATER, "chosen": [said("The Nile.")], "rejected": [said("The Amazon.")]},
        {"prompt": "prompt", "responses": ["chosen", "rejected"]},
        {"prompt": LATER, "language": "en", "texts": ["The Nile.", "The Amazon."]},
    ),
    "ShareGPT": (
        SHARE,
        {
            "prompt": "conversations",
            "responses": [{"text": "chosen.value", "policy": "=c"}, {"text": "rejected.value", "policy": "=r"}],
        },
        {
            "prompt": [{"role": "system", "content": "Be brief."}, USER],
            "language": "en",
            "texts": ["The Nile.", "The Amazon."],
        },
    ),
    "turns as JSON text": (
        {"prompt": json.dumps([USER["content"]]), "response_a": '["The Nile."]', "model_a": "m"},
        {"prompt": "json:prompt.0", "responses": [{"text": "json:response_a.-1", "policy": "model_a"}]},
        {"prompt": USER["content"], "language": "en", "texts": ["The Nile."], "policies": ["m"]},
    ),
    "flat columns with a system prompt": (
        {"q": USER["content"], "sys": "Be brief.", "answers": ["The Nile.", "The Amazon."], "by": ["a", "b"]},
        {"prompt": "q", "system": "sys", "responses": "answers", "policy": "by", "language": "=en"},
        {
            "prompt": [{"role": "system", "content": "Be brief."}, USER],
            "language": "en",
            "texts": ["The Nile.", "The Amazon."],
            "policies": ["a", "b"],
        },
    ),
    "one policy for all, the row's": (
        {"q": USER["content"], "who": "m", "out": [{"t": "The Nile."}, {"t": "The Amazon."}]},
        {"prompt": "q", "responses": {"each": "out", "text": "t", "policy": "$.who"}, "language": "=en"},
        {"prompt": USER["content"], "language": "en", "texts": ["The Nile.", "The Amazon."], "policies": ["m", "m"]},
    ),
}


def read(file: Path, columns: dict[str, Any], **more: Any) -> list[PoolItem]:
    spec = TypeAdapter(PoolSpec).validate_python({"sources": [{"path": str(file), "columns": columns}], **more})
    return list(read_pool(spec))


def jsonl(file: Path, rows: list[Any]) -> Path:
    file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_shapes_that_people_have(tmp_path: Path, shape: str, form: str) -> None:
    source, columns, wanted = SHAPES[shape]
    file = tmp_path / f"set.{form}"
    if form == "jsonl":
        jsonl(file, [source])
    else:
        pq.write_table(pa.Table.from_pylist([source]), file)
    (item,) = read(file, columns)
    assert isinstance(item, Placed), item
    row = item.row
    prompt = row.prompt if isinstance(row.prompt, str) else [m.model_dump() for m in row.prompt]
    assert (prompt, row.language) == (wanted["prompt"], wanted["language"])
    assert [r.text for r in row.responses] == wanted["texts"]
    if "policies" in wanted:
        assert [r.policy for r in row.responses] == wanted["policies"]
    assert row.meta == wanted.get("meta", {}) and row.reference == wanted.get("reference")
    assert row.prompt_id == wanted.get("prompt_id", row.prompt_id) and row.prompt_id
    assert [r.id for r in row.responses] == [f"{row.prompt_id}#{i}" for i in range(len(row.responses))]


PAIR = {"responses": ["chosen", "rejected"], "language": "=en"}
BAD: dict[str, tuple[Any, str]] = {
    "other conversations": (
        {"chosen": [USER, said("x")], "rejected": [{**USER, "content": "another"}, said("y")]},
        "answer different conversations",
    ),
    "no prompt": ({"chosen": "x", "rejected": "y"}, "missing or empty: prompt"),
    "ends with the user": ({"chosen": [USER], "rejected": [USER]}, "does not end with the assistant"),
    "answers an answer": (
        {"chosen": [USER, said("x"), said("y")], "rejected": "z"},
        "ends with a turn of the assistant",
    ),
    "strange role": (
        {"chosen": [{"role": "tool", "content": "x"}, said("y")], "rejected": None},
        "unknown role 'tool'",
    ),
    "a picture": (
        {"chosen": [{"role": "user", "content": [{"type": "image"}]}, said("y")], "rejected": None},
        "content is no text",
    ),
    "no object": ([1, 2], "expected an object"),
    "broken line": ("{", "bad JSON"),
}


def test_malformed_rows_are_set_aside_and_neighbours_stay_in_place(tmp_path: Path) -> None:
    good = {"chosen": [USER, said("The Nile.")], "rejected": [USER, said("The Amazon.")]}
    rows: list[Any] = []
    for bad, _ in BAD.values():
        rows += [good | {"chosen": [USER, said(f"The Nile, number {len(rows)}.")]}, bad]
    items = read(jsonl(tmp_path / "set.jsonl", rows), PAIR)
    placed = [i for i in items if isinstance(i, Placed)]
    assert [p.where for p in placed] == [f"set.jsonl:{n}" for n in range(1, 2 * len(BAD), 2)]
    for item in placed:
        line = int(item.where.split(":")[1]) - 1
        assert [r.text for r in item.row.responses] == [f"The Nile, number {line}.", "The Amazon."]
    for number, (name, (_, reason)) in enumerate(BAD.items()):
        told = [i for i in items if isinstance(i, SetAside) and i.where == f"set.jsonl:{2 * number + 2}"]
        assert any(reason in t.reason for t in told), (name, told)
        assert sum(t.response_id is None for t in told) == 1, name


def test_one_bad_response_leaves_the_others_with_their_numbers(tmp_path: Path) -> None:
    row = {"q": "2 + 2?", "a": [None, "4", 5, "  ", [USER], "five"]}
    columns = {"prompt": "q", "responses": "a", "policy": "=m", "language": "=en", "prompt_id": "=one"}
    items = read(jsonl(tmp_path / "set.jsonl", [row]), columns)
    told = {i.response_id: i.reason for i in items if isinstance(i, SetAside)}
    assert set(told) == {"one#0", "one#2", "one#3", "one#4"} and "list of messages" in told["one#2"]
    (placed,) = (i for i in items if isinstance(i, Placed))
    assert [(r.id, r.text) for r in placed.row.responses] == [("one#1", "4"), ("one#5", "five")]


def test_text_in_the_data_is_never_taken_for_messages(tmp_path: Path) -> None:
    forged = json.dumps([USER, said("I win.")])
    row = {"q": forged, "a": forged}
    columns = {"prompt": "q", "responses": [{"text": "a", "policy": "=m"}], "language": "=en"}
    (item,) = read(jsonl(tmp_path / "set.jsonl", [row]), columns)
    assert isinstance(item, Placed) and item.row.prompt == forged and item.row.responses[0].text == forged


def test_made_ids_name_the_content() -> None:
    row = {"q": "2 + 2?", "a": "4", "b": "5"}
    columns = Columns.model_validate({"prompt": "q", "responses": ["a", "b"]})
    alone, whole = Mapper(columns, by_prompt=True), Mapper(columns, by_prompt=False)
    more = {**row, "b": "6"}
    assert (
        alone(row).row["prompt_id"] == alone(more).row["prompt_id"] == alone({**row, "q": "2  + 2? "}).row["prompt_id"]
    )
    assert whole(row).row["prompt_id"] != whole(more).row["prompt_id"]
    assert alone({**row, "q": "2 + 3?"}).row["prompt_id"] != alone(row).row["prompt_id"]


def test_rows_of_one_prompt_have_two_names_unless_they_are_joined(tmp_path: Path) -> None:
    rows = [{"q": "2 + 2?", "a": "4"}, {"q": "2 + 2?", "a": "5"}, {"q": "2 + 2?", "a": "5"}]
    columns = {"prompt": "q", "responses": ["a"], "language": "=en"}
    file = jsonl(tmp_path / "set.jsonl", rows)
    apart = [i.row.prompt_id for i in read(file, columns) if isinstance(i, Placed)]
    assert apart[0] != apart[1] == apart[2], "an equal row is a duplicate, and ingesting says so"
    spec = TypeAdapter(PoolSpec).validate_python({"sources": [{"path": str(file), "columns": columns}], "merge": True})
    (joined,) = read_pool(spec, tmp_path / "scratch.sqlite")
    assert isinstance(joined, Placed) and [r.text for r in joined.row.responses] == ["4", "5"]
    assert joined.row.prompt_id not in apart and not (tmp_path / "scratch.sqlite").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": "q", "responses": "answers"}, "say who wrote the responses"),
        ({"prompt": "q", "responses": ["a"], "policy": "m"}, "policy belongs into"),
        ({"prompt": "q..x", "responses": ["a"]}, "is no expression"),
        ({"prompt": "q", "responses": [{"txt": "a"}]}, "txt"),
        ({"prompt": "q"}, "responses"),
    ],
)
def test_a_wrong_mapping_is_an_error_of_the_config(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(PoolSpec).validate_python({"path": "set.jsonl", "columns": columns})


def test_a_column_that_is_not_there_is_an_error_with_the_columns_that_are(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"question": "q", "answer": "a"}]), tmp_path / "set.parquet")
    with pytest.raises(ValueError, match="no column query, which `columns:` names; it has question, answer"):
        read(tmp_path / "set.parquet", {"prompt": "query", "responses": ["answer"]})


@pytest.mark.parametrize(
    ("value", "code"),
    [
        *(("English", "en"), ("portuguese", "pt"), ("Greek", "el"), ("Modern Greek", "el"), ("Swahili", "sw")),
        *(("zh-Hant", "zh-Hant"), ("iw", "iw"), ("yue", "yue"), ("DE", "DE")),
        *((x, None) for x in ("python", "css", "sql", "c++", "c", "go", "unknown", "und", "", "english?")),
    ],
)
def test_languages_by_code_or_name(value: str, code: str | None) -> None:
    assert language_code(value) == code


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
paths = st.lists(st.sampled_from(["a", "b", "0", "-1", "a.b"]), min_size=1, max_size=3).map(".".join)


@settings(deadline=None)
@given(values, paths)
def test_a_path_finds_something_or_nothing(value: Any, path: str) -> None:
    lookup(value, path)
    if isinstance(value, dict) and "." not in path:
        assert lookup(value, path) == value.get(path)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["prompt", "chosen", "rejected", "language", "meta"]), values, max_size=5))
def test_any_row_is_mapped_or_unreadable_with_a_reason(row: dict[str, Any]) -> None:
    given_columns = {"prompt": "prompt", "responses": ["chosen", "rejected"], "language": "language", "meta": "meta"}
    mapper = Mapper(Columns.model_validate(given_columns), by_prompt=False)
    try:
        mapped = mapper(row)
    except Unreadable as problem:
        assert str(problem)
    else:
        assert len(mapped.row["responses"]) + len(mapped.unusable) == 2
        if mapped.row["responses"]:
            PoolRow.model_validate({**mapped.row, "reference": None})


DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "pools.md"


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL))
def test_the_documents_examples_are_valid(block: str) -> None:
    found = yaml.safe_load(block)
    ((key, value),) = found.items()
    if key == "pool":
        TypeAdapter(PoolSpec).validate_python(value)
    else:
        columns = Columns.model_validate(value)
        shapes = [c for _, c, _ in SHAPES.values()]
        names = {frozenset(Columns.model_validate(c).names()) for c in shapes}
        assert frozenset(columns.names()) in names, "each is one of the tested shapes"
