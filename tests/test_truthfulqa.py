"""The adapter of the multilingual TruthfulQA release, on the real files and on small ones of the same form."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from mr3.records import PoolRow
from rewards.records import SetAside
from rewards.sources.truthfulqa import read, read_gold

DATA = Path(os.environ.get("MR3_DATA", "")) / "truthfulqa_multi"
real = pytest.mark.skipif(
    not os.environ.get("MR3_DATA") or not DATA.is_dir(),
    reason="needs the TruthfulQA release: set MR3_DATA to the folder that holds truthfulqa_multi",
)


def _texts(items: Iterable[PoolRow | SetAside]) -> dict[str, str]:
    return {c.id: c.text for row in items if isinstance(row, PoolRow) for c in row.responses}


@real
def test_every_response_of_the_release_is_read() -> None:
    items = list(read(str(DATA)))
    rows = [i for i in items if isinstance(i, PoolRow)]
    assert len(items) == len(rows), "no row of the release is malformed"
    assert Counter(r.language for r in rows for _ in r.responses) == {"en": 5719, "es": 5719, "ca": 5719}
    names = [c.id for r in rows for c in r.responses]
    assert len(set(names)) == len(names) == 17_157
    policies = {(r.language, c.policy) for r in rows for c in r.responses}
    assert Counter(language for language, _ in policies) == {"en": 7, "es": 7, "ca": 7}
    # Three of the seven models were asked this Catalan question in another wording.
    assert [(r.prompt_id, len(r.responses)) for r in rows if r.meta["doc_id"] == 339 and r.language == "ca"] == [
        ("ca/339", 4),
        ("ca/339-wording2", 3),
    ]


@real
def test_human_labels_are_joined_by_row_identity() -> None:
    sampled = _texts(read(str(DATA), reviewed_text="sample"))
    reviewed = _texts(read(str(DATA)))
    gold = list(read_gold(str(DATA)))
    first = [g for g in gold if g.annotator == "first"]
    assert Counter(g.language for g in first) == {"en": 400, "es": 400, "ca": 400}
    assert Counter(g.language for g in gold if g.annotator == "second") == {"en": 50, "es": 50, "ca": 50}
    assert Counter(g.language for g in first if g.label is None) == {"es": 1}
    assert Counter(g.language for g in first if g.tidied) == {"en": 61, "es": 52, "ca": 55}
    assert all(g.response_id in sampled for g in gold)
    for g in first:
        assert reviewed[g.response_id] == g.text
        assert g.tidied == (sampled[g.response_id].strip() != g.text.strip())
    labelled = {g.response_id for g in first}
    assert all(sampled[name] == reviewed[name] for name in sampled if name not in labelled)


def _release(root: Path) -> Path:
    """One language, two models, three questions; one broken line, one empty answer."""
    folder = root / "samples" / "en"
    folder.mkdir(parents=True)
    for model in ("org__one", "org__two"):
        lines = []
        for doc_id in range(3):
            doc = {"question": f"Q{doc_id}?", "best_answer": "B", "category": "C"}
            text = "" if (model, doc_id) == ("org__two", 1) else f"{model} says {doc_id}"
            lines.append(json.dumps({"doc_id": doc_id, "doc": doc, "filtered_resps": [text]}))
        if model == "org__one":
            lines[2] = '{"doc_id": 2}'
        (folder / f"{model}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    review = root / "manual_review" / "evaluated"
    review.mkdir(parents=True)
    with (review / "en.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, ["id", "model_answer", "truthfulness"])
        writer.writeheader()
        writer.writerow({"id": "0__one", "model_answer": "one says so, in short", "truthfulness": "no"})
        writer.writerow({"id": "0__two", "model_answer": "org__two says 0 ", "truthfulness": ""})
    return root


def test_small_release(tmp_path: Path) -> None:
    root = str(_release(tmp_path))
    items = list(read(root, languages=["en"]))
    aside = [i for i in items if isinstance(i, SetAside)]
    assert [(s.where, s.response_id) for s in aside] == [
        ("en/org__one.jsonl.gz:3", None),
        ("en/org__two.jsonl.gz:2", "en/1__two"),
    ]
    rows = {i.prompt_id: i for i in items if isinstance(i, PoolRow)}
    assert {k: [c.id for c in r.responses] for k, r in rows.items()} == {
        "en/0": ["en/0__one", "en/0__two"],
        "en/1": ["en/1__one"],
        "en/2": ["en/2__two"],
    }
    assert rows["en/0"].responses[0].text == "one says so, in short" and rows["en/0"].responses[0].policy == "org/one"
    sampled = next(i for i in read(root, ["en"], reviewed_text="sample", limit=1) if isinstance(i, PoolRow))
    assert sampled.responses[0].text == "org__one says 0"
    gold = [(g.response_id, g.label, g.tidied) for g in read_gold(root, ["en"])]
    assert gold == [("en/0__one", "false", True), ("en/0__two", None, False)]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MR3_DATA"):
        list(read(str(tmp_path)))
    root = str(_release(tmp_path))
    with pytest.raises(ValueError, match=r"drop 'es' from languages"):
        list(read(root, languages=["en", "es"]))
    with pytest.raises(ValueError, match="no human labels for 'es'"):
        list(read_gold(root, languages=["es"]))
