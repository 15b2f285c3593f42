"""What every adapter owes: all legal gold labels of the public schemas, read so that a perfect judge is right."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from benchmarks import public_rows
from benchmarks.perfect_judge import card, real_sets, stand_ins, truth
from mr3.evaluation.benchmarks import BENCHMARKS
from mr3.evaluation.loading import BenchmarkSource, load_benchmark
from mr3.sources import Labelled, SetAside, SourceSpec, Texts, known_sets, open_source, registry
from mr3.sources.labelled import SetAsideShare, legal_label
from tests.prompts_support import write_templates

DATA = os.environ.get("MR3_DATA")
SPEC: TypeAdapter[Any] = TypeAdapter(SourceSpec)
OWN = Texts(name="own")
ONE_TO_SEVEN = list(map(str, range(1, 8)))


def below(found: dict[str, dict[str, float | None]]) -> dict[str, float | None]:
    return {f"{name} {path}": v for name, entry in found.items() for path, v in entry.items() if v != 1.0}


def test_a_perfect_judge_is_perfect_on_every_metric_of_every_entry(tmp_path: Path) -> None:
    found = dict(stand_ins(tmp_path, card("own")))
    assert below(found) == {}
    assert set(BENCHMARKS) < set(found) and {f"{n}-train" for n, s in known_sets().items() if s.use == "train"} < set(
        found
    )
    assert all(f"benchmark/agreement/{k}" in found["helpsteer3"] for k in ("pearson", "as_published/kendall_tau"))


def test_every_legal_gold_label_is_in_the_stand_in_rows(tmp_path: Path) -> None:
    for name, about in known_sets().items():
        file = public_rows.write_set(name, tmp_path)
        rows = list(open_source(SPEC.validate_python({"set": name, "path": str(file)}), OWN))
        assert all(isinstance(r, Labelled) for r in rows), next(r for r in rows if isinstance(r, SetAside))
        labels = {label for r in rows if isinstance(r, Labelled) for label in r.task.labels}
        assert {r.gold for r in rows if isinstance(r, Labelled)} == labels, name
        assert set(about.columns) == set(public_rows.SETS[name][0]), (
            f"the columns of {name} are those of the public set"
        )


def test_a_judge_that_is_wrong_loses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.perfect_judge.truth", lambda user, labels: mirror(truth(user, labels)))
    found = next(scores for name, scores in stand_ins(tmp_path, card("own")) if name == "helpsteer3")
    assert found["accuracy"] is not None and found["accuracy"] < 0.3
    assert found["benchmark/agreement/pearson"] == pytest.approx(-1)


def mirror(label: str) -> str:
    return str(8 - int(label)) if label.isdigit() else {"true": "false", "false": "true"}.get(label, label)


@pytest.mark.skipif(DATA is None, reason="set MR3_DATA to the folder of the labelled real sets")
@pytest.mark.slow
def test_a_perfect_judge_is_perfect_on_the_real_sets() -> None:
    assert below(dict(real_sets(Path(str(DATA)), card("own", strategy="eng-eng")))) == {}


def test_over_published_texts_too(tmp_path: Path) -> None:
    about = card("published", write_templates(tmp_path / "templates"), "eng-eng")
    wanted = {"helpsteer3", "rewardbench", "xcopa"}
    (tmp_path / "rows").mkdir()
    found = {}
    for name, scores in stand_ins(tmp_path / "rows", about):
        found |= {name: scores} if name in wanted else {}
        if found.keys() == wanted:
            break
    assert below(found) == {} and len(found) == 3


# --- gold scales ------------------------------------------------------------------------------------------------------


def helpsteer3(folder: Path, golds: list[Any], **more: Any) -> list[Labelled | SetAside]:
    row = {"language": "en", "context": [{"role": "user", "content": "Q"}], "domain": "g"}
    texts = {"response1": "one", "response2": "two"}
    file = folder / "h.jsonl"
    lines = (json.dumps({**row, **texts, "id": f"h{i}", "actual_score": g}) + "\n" for i, g in enumerate(golds))
    file.write_text("".join(lines))
    return list(open_source(SPEC.validate_python({"set": "helpsteer3", "path": str(file), **more}), OWN))


def test_helpsteer3_is_minus_three_to_three_and_negative_means_that_the_first_is_better(tmp_path: Path) -> None:
    for golds in (list(range(-3, 4)), [f"{g}" for g in range(-3, 4)], [float(g) for g in range(-3, 4)]):
        found = helpsteer3(tmp_path, golds)
        assert [r.gold for r in found if isinstance(r, Labelled)] == ONE_TO_SEVEN
    best = helpsteer3(tmp_path, [-3])[0]
    assert isinstance(best, Labelled) and "1" in best.task.rubric.levels and best.task.labels == tuple(ONE_TO_SEVEN)


def test_the_other_scale_is_an_option_and_never_a_guess(tmp_path: Path) -> None:
    found = helpsteer3(tmp_path, list(range(1, 8)), gold_scale="verdict")
    assert [r.gold for r in found if isinstance(r, Labelled)] == ONE_TO_SEVEN
    misread = helpsteer3(tmp_path, [1, 2, 3, 4, 7])
    aside = [r for r in misread if isinstance(r, SetAside)]
    assert [a.kind for a in aside] == ["other_scale"] * 2 and "gold_scale: verdict" in aside[0].reason
    other = [r for r in helpsteer3(tmp_path, [5, 0, -1], gold_scale="verdict") if isinstance(r, SetAside)]
    assert [a.kind for a in other] == ["other_scale"] * 2 and "gold_scale: set" in other[0].reason
    nowhere = [r for r in helpsteer3(tmp_path, [8, -4, 0.5, "better"]) if isinstance(r, SetAside)]
    assert [a.kind for a in nowhere] == ["off_scale"] * 4 and "on the scale -3 to 3" in nowhere[0].reason


def test_one_gold_of_the_other_scale_stops_a_run_of_thousands() -> None:
    share = SetAsideShare("the source h", rows=10_000)
    share.aside(SetAside("h:7", "gold 6 is not on the scale -3 to 3", "other_scale"))
    with pytest.raises(ValueError, match=r"the source h: 1 of 10001 rows .* 1 other_scale \(first: h:7: gold 6"):
        share.check(allowed=False)
    share.check(allowed=True)


def test_a_benchmark_on_the_other_scale_is_refused_and_can_be_declared(tmp_path: Path) -> None:
    rows = [{**row, "actual_score": int(row["actual_score"]) + 4} for row in public_rows.SETS["helpsteer3-test"]]
    file = tmp_path / "h.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"other_scale .*gold_scale: verdict"):
        load_benchmark(BenchmarkSource(benchmark="helpsteer3", path=str(file)), card("own"))
    declared = BenchmarkSource(benchmark="helpsteer3", path=str(file), gold_scale="verdict")
    assert {t.gold for t in load_benchmark(declared, card("own")).tasks} == set(ONE_TO_SEVEN)


def test_without_the_declared_scale_the_misreading_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = {n: s.model_copy(update={"gold_scale": None}) for n, s in registry.known_sets().items()}
    monkeypatch.setattr(registry, "known_sets", lambda: sets)
    file = public_rows.write_set("helpsteer3-test", tmp_path)
    with pytest.raises(ValueError, match=r"15 off_scale|18 off_scale"):
        load_benchmark(BenchmarkSource(benchmark="helpsteer3", path=str(file)), card("own"))


# --- shares and cases -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bad", "stops"), [(0, False), (5, False), (6, True), (100, True)])
def test_more_than_five_percent_set_aside_stops(bad: int, stops: bool) -> None:
    share = SetAsideShare("the source s", rows=100 - bad)
    for number in range(bad):
        share.aside(SetAside(f"s:{number}", "no value in input", "incomplete" if number % 2 else "unreadable"))
    for number in range(500):
        share.aside(SetAside(f"s:{number}", "not asked for", "language"))
    if not stops:
        share.check(allowed=False)
        return
    with pytest.raises(
        ValueError, match=rf"{bad} of 100 rows .*unreadable \(first: s:0: no value.*incomplete \(first: s:1"
    ):
        share.check(allowed=False)


@pytest.mark.parametrize(
    ("value", "label"),
    [("assistant a", "Assistant A"), ("TIE", "Tie"), (" both bad", "Both Bad"), ("Both", "Both"), ("", "")],
)
def test_labels_compare_in_any_case(value: str, label: str) -> None:
    assert legal_label(value, ("Assistant A", "Assistant B", "Tie", "Both Bad")) == label
