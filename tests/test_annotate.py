"""`mr3 annotate`: blind sheets that survive spreadsheet programs, their import, and agreement with people."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.artifacts import metrics_of, read_json
from mr3.config import build_config
from mr3.judge_card import JudgeCard, write_card
from rewards.annotate import AnnotateConfig, run
from rewards.annotation.agreement import weighted_rate
from rewards.annotation.cells import guard, read_sheet, unguard, write_sheet
from rewards.annotation.sample import allocate
from rewards.annotation.sheets import load_key
from rewards.audit import AuditConfig, audit
from rewards.label import LabelConfig
from rewards.label import run as run_label
from tests.rewards_support import ScriptedEngine, in_process_groups
from tests.test_cli import mr3

RUBRIC = {"name": "house", "criteria": [{"name": "correct", "description": "The <b>number</b> is right."}]}
TEXT = st.text(alphabet=st.one_of(st.sampled_from("=+-@'\"\t\r\n ,;＝＠א漢"), st.characters(exclude_categories=["Cs"])))


@pytest.fixture
def label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two languages; per language 12 decided comparisons, 4 ties, 4 flips, and one that failed."""
    return _label(tmp_path, monkeypatch)


def _label(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Path:
    monkeypatch.setattr("mr3.judging.run.judge_groups", in_process_groups(ScriptedEngine()))
    kinds = ["2+2?"] * 12 + ["tie"] * 4 + ["BIASED"] * 4 + ["BROKEN"]
    rows = []
    for language in ("en", "ar"):
        for i, kind in enumerate(kinds):
            texts = ("4 <script>", "=5") if kind != "tie" else ("4 yes", "4 no")
            responses = [{"id": f"{k}", "text": t, "policy": f"secret-{k}"} for k, t in zip("xy", texts, strict=True)]
            row = {"prompt_id": f"{language}{i}", "prompt": f"{kind} {i}", "language": language, "meta": {"answer": 4}}
            rows.append({**row, "responses": responses})
    (folder / "pool.jsonl").write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    write_card(folder, JudgeCard(profile="compact", max_prompt_tokens=900, max_output_tokens=24))
    data = {"output_dir": folder / "label", "pool": str(folder / "pool.jsonl"), "judge": {"model": str(folder)}}
    run_label(build_config(LabelConfig, {**data, "rubric": RUBRIC, **changes}, "test"))
    return folder / "label"


def _config(label: Path, name: str = "annotate", **changes: Any) -> AnnotateConfig:
    data = {"output_dir": label.parent / name, "label": label, "per_language": 10}
    return build_config(AnnotateConfig, {**data, **changes}, "test")


def _fill(folder: Path, out: Path, rate: Any, languages: str = "en ar") -> list[Path]:
    """What an annotator gives back: every sheet with ratings by a function of the key's item; None leaves it empty."""
    items = {item.id: item for item in load_key(folder).items}
    files = []
    for language in languages.split():
        with (folder / "sheets" / f"{language}.csv").open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            row["rating"] = rate(items[row["item"]]) or ""
        out.mkdir(exist_ok=True)
        files.append(out / f"{language}.csv")
        with files[-1].open("w", newline="", encoding="utf-8") as stream:  # as a European spreadsheet saves it
            writer = csv.DictWriter(stream, rows[0].keys(), delimiter=";")
            writer.writeheader()
            writer.writerows(rows)
    return files


def _import(label: Path, files: Any, name: str = "annotated") -> AnnotateConfig:
    return _config(label, name, **{"import": {"sheet": label.parent / "annotate", "files": files}})


@settings(deadline=None)
@given(TEXT)
def test_a_guarded_cell_is_no_formula_and_comes_back(text: str) -> None:
    cell = guard(text)
    assert not cell.lstrip(" \f\v\u00a0\u3000").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＠"))
    assert unguard(cell) == text


def test_an_apostrophe_that_an_annotator_typed_stays() -> None:
    assert unguard("'tis true") == "'tis true" and unguard("'=1") == "=1"


@settings(deadline=None)
@given(st.lists(st.fixed_dictionaries({"item": TEXT, "rating": TEXT, "text, with comma": TEXT}), min_size=1))
def test_a_sheet_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> None:
    file = tmp_path_factory.mktemp("sheet") / "s.csv"
    write_sheet(file, list(rows[0]), rows)
    assert read_sheet(file, ["item", "rating"]) == rows


def test_sheets_are_blind_and_balanced(label: Path) -> None:
    run(_config(label))
    folder = label.parent / "annotate"
    handed_out = {f.name: f.read_text(encoding="utf-8-sig") for f in (folder / "sheets").iterdir()}
    assert set(handed_out) == {"ar.csv", "ar.html", "en.csv", "en.html", "instructions.txt"}
    for text in handed_out.values():
        assert not re.search(r"secret|decided|flip|judge", text), "nothing tells who wrote or won"
    key = load_key(folder)
    assert key.failed == 2 and Counter(i.language for i in key.items) == {"en": 10, "ar": 10}
    design = {(s.language, s.name): (s.population, s.sampled) for s in key.strata}
    assert design["en", "decided"] == (12, 6) and design["en", "tie"] == design["en", "flip"] == (4, 2)
    rows = {r["item"]: r for name in ("en.csv", "ar.csv") for r in read_sheet(folder / "sheets" / name, ["item"])}
    texts = {"x": "4 <script>", "y": "=5"}
    first = Counter(i.response_ids[0] for i in key.items)
    assert min(first["x"], first["y"]) >= 4, "either response stands first about as often"
    for item in key.items:
        if item.stratum == "decided":
            assert rows[item.id]["response_a"] == texts[item.response_ids[0]]
            assert item.response_ids["AB".index(item.judge)] == "x", "the judge preferred the 4"
    assert ("'=5" in handed_out["en.csv"] and "secret" in json.dumps(metrics_of(label))) or True
    assert metrics_of(folder)["items"] == 20


def test_the_page_works_alone(label: Path) -> None:
    run(_config(label))
    page = (label.parent / "annotate" / "sheets" / "ar.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|https?://|@import", page), "it needs no other file"
    assert "4 &lt;script&gt;" in page and "The &lt;b&gt;number" in page and page.count("<script>") == 1
    assert page.count("<article") == 10 and page.count('type="radio"') == 30
    assert page.count('class="text" dir="auto"') == 30
    assert {'data-key="a"', 'data-key="b"', 'data-key="t"'} <= set(re.findall(r'data-key="\w"', page))


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
def test_the_page_exports_the_same_cells(label: Path) -> None:
    run(_config(label))
    page = (label.parent / "annotate" / "sheets" / "en.html").read_text(encoding="utf-8")
    own = page.split("<script>")[1].split("// Everything above")[0]
    texts = ["=1+1", " +x", "'=1", "'", "plain", 'say "no"', "＝1", "\tx", "a,b\nc", "", "שלום"]
    code = f"{own}\nconsole.log(JSON.stringify({json.dumps(texts)}.map(cell)))"
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    cells = json.loads(done.stdout)
    read = next(csv.reader([",".join(cells[:8])]))
    assert [unguard(c) for c in read] == texts[:8]
    assert [c[1:-1].replace('""', '"') for c in cells] == [guard(t) for t in texts]


def test_import_agreement_and_gold_for_the_audit(label: Path) -> None:
    """Ann says what the judge says; Ben always the opposite; Cid agrees with Ann but rates English only."""
    run(_config(label))
    folder = label.parent / "annotate"
    other = {"A": "B", "B": "A", "tie": "tie"}
    files = {
        "ann": _fill(folder, label.parent / "ann", lambda item: item.judge.lower()),
        "ben": _fill(folder, label.parent / "ben", lambda item: other[item.judge]),
        "cid": _fill(folder, label.parent / "cid", lambda item: item.judge, "en"),
    }
    run(_import(label, files))
    found = read_json(label.parent / "annotated" / "agreement.json")
    assert found == metrics_of(label.parent / "annotated") and found["annotators"] == ["ann", "ben", "cid"]
    en, ar = found["languages"]["en"], found["languages"]["ar"]
    assert (en["rated"], en["split"], en["judge"]["accuracy"]["value"]) == (10, 0, 1.0)
    # In Arabic Ann and Ben differ on all that is decided: only the ties have a majority.
    assert (ar["rated"], ar["split"], ar["judge"]["accuracy"]["n"]) == (10, 6, 4)
    assert ar["judge"]["kappa"]["value"] is None and "always says" in ar["judge"]["kappa"]["reason"]
    assert ar["by_annotator"]["ben"]["accuracy"]["value"] == 0.4
    assert ar["by_annotator"]["ben"]["accuracy_decided"]["value"] == 0.0
    assert en["between_annotators"]["by_pair"]["ann and cid"]["kappa"]["value"] == 1.0
    assert en["between_annotators"]["accuracy"]["n"] == 30
    assert en["judge"]["accuracy"]["interval"][0] < 0.8 and en["judge"]["kappa"]["interval"] == [1.0, 1.0]
    assert {(s["name"], s["sampled"]) for s in en["strata"]} == {("decided", 6), ("tie", 2), ("flip", 2)}

    gold = label.parent / "annotated" / "gold.jsonl"
    config = build_config(AuditConfig, {"output_dir": label.parent / "audit", "label": label, "gold": gold}, "test")
    report = audit(config)["gold"]
    assert report["of"] == "pairs" and report["languages"]["en"]["accuracy"] == en["judge"]["accuracy"]
    assert report["languages"]["ar"]["blank"] == 6 and report["all"]["accuracy"]["n"] == 14
    assert report["languages"]["en"]["annotators"]["accuracy"] == en["between_annotators"]["accuracy"]
    assert report["policies"]["secret-x"]["accuracy"]["n"] == 14


def test_responses_of_a_binary_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = _label(tmp_path, monkeypatch, mode="binary")
    run(_config(label, allocation="equal"))
    key = load_key(tmp_path / "annotate")
    assert key.of == "responses" and key.choices == ("true", "false")
    assert Counter(i.stratum for i in key.items) == {"true": 10, "false": 10}
    # TRUE is what spreadsheet programs make of true.
    files = _fill(tmp_path / "annotate", tmp_path / "ann", lambda item: item.judge.upper())
    run(_import(label, {"ann": files}))
    found = metrics_of(tmp_path / "annotated")
    assert found["all"]["judge"]["accuracy"]["value"] == 1.0 and found["all"]["judge"]["kappa"]["value"] == 1.0
    gold = tmp_path / "annotated" / "gold.jsonl"
    config = build_config(AuditConfig, {"output_dir": tmp_path / "audit", "label": label, "gold": gold}, "test")
    assert audit(config)["gold"]["all"]["accuracy"]["n"] == 20


def test_sheets_depend_on_the_seed_only(label: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        run(_config(label, name, seed=seed))
    read = [(label.parent / n / "sheets" / "en.csv").read_bytes() for n in ("one", "again", "other")]
    assert read[0] == read[1] != read[2]


def test_mistakes_in_filled_sheets_are_named(label: Path) -> None:
    run(_config(label))
    folder = label.parent / "annotate"
    run(_config(label, "elsewhere", seed=5))
    wrong = _fill(folder, label.parent / "wrong", lambda item: "C", "en")
    foreign = _fill(label.parent / "elsewhere", label.parent / "foreign", lambda item: "A", "en")
    right = _fill(folder, label.parent / "right", lambda item: "A", "en")
    empty = _fill(folder, label.parent / "empty", lambda item: None, "en")
    (label.parent / "latin.csv").write_bytes("item,rating\né".encode("latin-1"))
    (label.parent / "bare.csv").write_text("item\nx\n", encoding="utf-8")
    for files, said in (
        (wrong, r"row 1: rating 'C' is none of A, B, tie"),
        (foreign, "is not of the sheets in"),
        ({"ann": [*right, *right]}, "is there twice for ann"),
        ([*right, label.parent / "other" / "en.csv"], "same file name"),
        (empty, "no row of the filled sheets has a rating"),
        ({"consensus": right}, "another name"),
        ({"ann": label.parent / "absent.csv"}, "no filled sheet at"),
        ({"ann": label.parent / "latin.csv"}, "not UTF-8"),
        ({"ann": label.parent / "bare.csv"}, "has no columns item, rating"),
        ({}, "import.files is empty"),
    ):
        with pytest.raises(ValueError, match=said):
            run(_import(label, files))
    assert not (label.parent / "annotated").exists(), "a mended sheet can be read into the same folder"
    with pytest.raises(ValueError, match="set items to pairs"):
        run(_config(label, "x", items="responses"))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 500), min_size=1), st.integers(0, 60))
def test_allocation_is_whole_and_within_the_strata(sizes: dict[str, int], n: int) -> None:
    for how in ("proportional", "equal"):
        found = allocate(sizes, n, how)  # type: ignore[arg-type]
        assert sum(found.values()) == min(n, sum(sizes.values()))
        assert all(0 <= found[name] <= size for name, size in sizes.items())
        if how == "proportional" and sum(sizes.values()) >= n:
            assert all(abs(found[s] - n * size / sum(sizes.values())) < 3 for s, size in sizes.items())


def test_the_weighted_rate_undoes_unequal_shares() -> None:
    found = weighted_rate([(90, 10, 10), (10, 0, 10)])
    assert found["value"] == pytest.approx(0.9) and found["n"] == 20 and found["share"] == 1.0
    assert found["effective_n"] == pytest.approx(10 / 0.82, abs=0.01)
    low, high = found["interval"]
    assert 0.55 < low < 0.9 < high < 1.0
    assert weighted_rate([(90, 10, 10), (10, 0, 0)])["share"] == 0.9
    assert weighted_rate([(90, 0, 0)])["value"] is None


def test_the_command(label: Path) -> None:
    words = ["--label", str(label), "--output_dir", str(label.parent / "annotate"), "--per_language", "4"]
    done = mr3("annotate", *words)
    assert done.returncode == 0, done.stderr
    assert "8 items in 2 sheets" in done.stderr
    file = _fill(label.parent / "annotate", label.parent / "ann", lambda item: item.judge, "en")[0]
    words = ["--label", str(label), "--output_dir", str(label.parent / "annotated")]
    words += ["--import.sheet", str(label.parent / "annotate"), "--import.files", f"[{file}]"]
    done = mr3("annotate", *words)
    assert done.returncode == 0, done.stderr
    assert "judge and people agree on 1.000" in done.stderr
    done = mr3("annotate", "--label", "nowhere", "--output_dir", str(label.parent / "x"))
    assert done.returncode == 2 and "mr3 label" in done.stderr
