"""Several sources as one pool: prompts joined, languages told by the text, nothing lost and nothing shifted."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from mr3.records import Candidate, PoolRow
from rewards.ingest import Ingested, ingest_pool, read_part
from rewards.pool import Placed, PoolSpec, read_pool
from rewards.pools.merge import CLASH
from rewards.pools.messages import prompt_key

ENGLISH = "Could you tell me where the longest river of the world is?"
GERMAN = "Wo liegt eigentlich der längste Fluss der Welt, und wie heißt er?"


def row(prompt_id: str, prompt: Any, *texts: str, language: str | None = "en", **more: Any) -> dict[str, Any]:
    responses = [{"text": text, "policy": f"{prompt_id}-{i}"} for i, text in enumerate(texts)]
    return {"prompt_id": prompt_id, "prompt": prompt, "language": language, "responses": responses, **more}


def pool(folder: Path, *sources: list[Any], **more: Any) -> PoolSpec:
    """A pool of one JSONL file per source."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(sources):
        lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in rows]
        (folder / f"{number}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    given = {"sources": [{"path": str(folder / f"{n}.jsonl")} for n in range(len(sources))], **more}
    spec: PoolSpec = TypeAdapter(PoolSpec).validate_python(given)
    return spec


def taken(spec: PoolSpec, folder: Path) -> tuple[Ingested, list[PoolRow], list[dict[str, Any]]]:
    done = ingest_pool(spec, folder / "work", folder / "rejected.jsonl", part_rows=3)
    rows = [r for part in done.parts for _, r in read_part(part)]
    return done, rows, [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


def test_rows_of_one_prompt_become_one(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", GERMAN)
    first = [
        row("a", composed, "Am Nil.", "Am Amazonas.", language="de", meta={"x": 1}),
        row("b", ENGLISH, "In Africa."),
    ]
    second = [
        row(
            "c", "  " + unicodedata.normalize("NFD", GERMAN).replace(" ", "\n "), "Am Nil. ", "Am Kongo.", language="de"
        ),
        row(
            "a",
            [{"role": "user", "content": composed}],
            "Am Rhein.",
            language="de",
            reference="Am Nil",
            meta={"x": 2, "y": 3},
        ),
        row("d", ENGLISH.lower(), "In Africa."),
    ]
    done, rows, rejected = taken(pool(tmp_path, first, second, merge=True), tmp_path)
    assert [r.prompt_id for r in rows] == ["a", "b", "d"], (
        "in the order in which the prompts came; case makes a difference"
    )
    joined = rows[0]
    assert joined.prompt == composed and joined.language == "de" and joined.reference == "Am Nil"
    assert joined.meta == {"x": 1, "y": 3}
    assert [(r.id, r.text) for r in joined.responses] == [
        ("a#0", "Am Nil."),
        ("a#1", "Am Amazonas."),
        ("c#1", "Am Kongo."),
        ("a#0~2", "Am Rhein."),
    ]
    assert joined.provenance == {
        "merged": [{"prompt_id": "c", "where": "1.jsonl:1"}, {"prompt_id": "a", "where": "1.jsonl:2"}],
        "same_text": {"a#0": [{"id": "c#0", "policy": "c-0"}]},
    }
    assert (done.rows_joined, done.responses_joined, rejected) == (2, 1, [])
    assert done.reading()["rows_joined"] == 2


def test_an_id_that_names_two_prompts_is_set_aside(tmp_path: Path) -> None:
    sources = [row("a", "one", "x"), row("b", "one", "y")], [row("b", "two", "z"), row("c", "three", "v")]
    for merge, reason in ((True, CLASH), (False, "duplicate prompt id")):
        folder = tmp_path / reason[:3]
        done, rows, rejected = taken(pool(folder, *sources, merge=merge), folder)
        assert [(r["where"], r["prompt_id"], r["reason"]) for r in rejected] == [("1.jsonl:1", "b", reason)]
        assert [r.prompt_id for r in rows] == (["a", "c"] if merge else ["a", "b", "c"])
        assert done.prompts + done.rows_joined + done.rows_set_aside == 4


def test_a_declared_language_wins_over_one_told_by_the_text(tmp_path: Path) -> None:
    rows = [
        row("a", ENGLISH, "x", language=None),
        row("b", ENGLISH, "y", language="en-GB"),
        row("c", ENGLISH, "z", language="sco"),
    ]
    done, (joined,), _ = taken(pool(tmp_path, rows, merge=True), tmp_path)
    assert joined.language == "en-GB" and joined.provenance["languages"] == ["sco"]
    assert "language" not in joined.provenance and done.told == {}


def test_languages_are_told_by_the_last_user_turn(tmp_path: Path) -> None:
    talk = [
        {"role": "system", "content": "You are a helpful assistant that answers in one sentence."},
        {"role": "user", "content": ENGLISH},
        {"role": "assistant", "content": "It is in Africa."},
        {"role": "user", "content": GERMAN},
    ]
    rows = [
        row("talk", talk, "x", language=None),
        row("en", ENGLISH, "y", language=""),
        row("short", "Hm?", "z", language=None),
    ]
    done, kept, rejected = taken(pool(tmp_path / "a", rows), tmp_path / "a")
    assert [(r.prompt_id, r.language) for r in kept] == [("talk", "de"), ("en", "en")]
    assert all(r.provenance["language"]["told_by"] == "text" for r in kept)
    assert [r["prompt_id"] for r in rejected] == ["short"] and "missing or empty: language" in rejected[0]["reason"]
    told = done.reading()["languages_told"]
    assert set(told) == {"de", "en"} and told["de"]["by_text"] == 1
    assert told["de"]["mean_confidence"] == kept[0].provenance["language"]["confidence"] > 0.9

    done, kept, rejected = taken(pool(tmp_path / "b", rows, default_language="la"), tmp_path / "b")
    assert [r.language for r in kept] == ["de", "en", "la"] and rejected == []
    assert done.reading()["languages_told"]["la"] == {
        "by_text": 0,
        "by_default": 1,
        "mean_confidence": None,
        "lowest_confidence": None,
    }
    with pytest.raises(ValueError, match="no row of the pool can be judged"):
        taken(pool(tmp_path / "sure", rows, min_confidence=1.0, languages=["af", "nl", "de", "lb"]), tmp_path / "sure")
    _, kept, _ = taken(pool(tmp_path / "c", rows, languages=["nl", "en"]), tmp_path / "c")
    assert "de" not in {r.language for r in kept}
    with pytest.raises(ValueError, match="knows none of"):
        taken(pool(tmp_path / "d", rows, languages=["xx"]), tmp_path / "d")


def test_sources_of_every_kind_in_one_pool(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text(json.dumps({"q": "one", "a": "x"}) + "\n")
    pool(tmp_path / "own", [row("own", "one", "y"), row("two", "two", "z")])
    given = {
        "sources": [
            str(tmp_path / "own"),
            {"path": str(tmp_path / "set.jsonl"), "columns": {"prompt": "q", "responses": ["a"], "language": "=en"}},
            {"source": "tests.test_pool_merge:adapter", "options": {"count": 2}},
        ],
        "merge": True,
    }
    spec = TypeAdapter(PoolSpec).validate_python(given)
    done, rows, rejected = taken(spec, tmp_path)
    assert [r.prompt_id for r in rows] == ["own", "two", "made 1"] and rejected == []
    assert [r.text for r in rows[0].responses] == ["y", "x", "0"]
    assert done.rows_joined == 2
    assert TypeAdapter(PoolSpec).validate_json(TypeAdapter(PoolSpec).dump_json(spec)) == spec


def adapter(count: int) -> list[PoolRow | dict[str, Any]]:
    """An adapter may give records or raw rows."""
    made = [row(f"made {i}", "one" if i == 0 else f"prompt {i}", str(i)) for i in range(count)]
    return [
        PoolRow(prompt_id="record", prompt="two", language="en", responses=[Candidate(text="z", policy="p")]),
        *made,
    ][1:]


texts = st.sampled_from(["x", "x ", "y", "z", "", " "])
good_rows = st.builds(
    lambda number, prompt, given: row(f"p{number}", prompt, *given, meta={"was": f"p{number}"}),
    st.integers(0, 8),
    st.sampled_from(["one", "one ", "two", "three", "o\u0308", "ö"]),
    st.lists(texts, min_size=1, max_size=4),
)
bad_rows = st.sampled_from(["{", "[]", '{"prompt_id": "p1"}', json.dumps(row("p2", [], "x")), json.dumps({"a": 1})])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(good_rows | bad_rows, max_size=6), min_size=1, max_size=3), st.booleans())
def test_nothing_is_lost_and_nobody_shifted(sources: list[list[Any]], merge: bool) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        spec = pool(folder, *sources, merge=merge, default_language="en")
        try:
            done, rows, rejected = taken(spec, folder)
        except ValueError as error:
            assert "pool" in str(error)
            return
        again = list(read_pool(spec, folder / "scratch"))
    written = [r for source in sources for r in source]
    by_row = [r for r in rejected if r["response_id"] is None]
    assert len(written) == done.prompts + done.rows_joined + done.rows_set_aside
    assert (len(by_row), len(rejected)) == (done.rows_set_aside, done.rows_set_aside + done.responses_set_aside)
    # Every response of every good row: kept, joined with an equal one, set aside, or in a row that was.
    gone = {r["where"] for r in by_row}
    places = [(f"{s}.jsonl:{n}", r) for s, rs in enumerate(sources) for n, r in enumerate(rs, start=1)]
    alive = [r for where, r in places if where not in gone]
    here = sum(len(r["responses"]) for r in alive)
    lost = sum(r["response_id"] is not None and r["where"] not in gone for r in rejected)
    assert here == done.responses + done.responses_joined + lost
    # A row's text and policies belong to its own prompt.
    said: dict[tuple[str, str], set[str]] = {}
    for r in alive:
        for x, policy in ((x["text"], x["policy"]) for x in r["responses"]):
            said.setdefault((prompt_key([{"role": "user", "content": r["prompt"]}]), policy), set()).add(x)
    for kept in rows:
        key = prompt_key(kept.messages)
        assert all(r.text in said[key, r.policy] for r in kept.responses)
        assert len({r.id for r in kept.responses}) == len(kept.responses)
        assert merge is False or len({r.text.strip() for r in kept.responses}) == len(kept.responses)
    assert max(Counter(r.prompt_id for r in rows).values()) == 1
    if merge:
        assert max(Counter(prompt_key(r.messages) for r in rows).values()) == 1
        assert [i.row for i in again if isinstance(i, Placed)] == rows, "the same in every run"


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text()), min_size=1, max_size=3))
def test_a_prompt_is_itself_however_its_letters_are_composed(turns: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": text} for role, text in turns]
    other = [{"role": role, "content": f"\t{unicodedata.normalize('NFD', text)}  "} for role, text in turns]
    assert prompt_key(messages) == prompt_key(other)
    assert prompt_key([*messages, {"role": "user", "content": "x"}]) != prompt_key(messages)
