"""The adapters of the labelled real sets: counts of rows, unique names, and labels checked by hand."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from mr3.sources import Labelled, SetAside, real

DATA = Path(os.environ.get("MR3_DATA", "/nonexistent"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="set MR3_DATA to the folder of the labelled real sets")


def rows(name: str, folder: str | None = None, **options: str) -> tuple[list[Labelled], Counter[str]]:
    """Labelled rows, and what was set aside by kind."""
    found = list(getattr(real, name)(str(DATA / (folder or name)), **options))
    kept = [r for r in found if isinstance(r, Labelled)]
    assert len({r.key for r in kept}) == len(kept), "names are unique"
    return kept, Counter(r.kind for r in found if isinstance(r, SetAside))


def test_truthfulqa_has_400_reviewed_answers_per_language() -> None:
    kept, aside = rows("truthfulqa_multi")
    assert aside == {"unlabelled": 1} and len(kept) == 1_199
    assert {r.task.language for r in kept} == {"en", "es", "ca"} and all(r.task.mode == "binary" for r in kept)


def test_tata_is_true_only_where_a_sentence_is_understood_and_read_from_the_table() -> None:
    kept, _ = rows("tata")
    assert len(kept) == 6_122
    gold = {r.task.id: r.gold for r in kept}
    assert gold["SR238-yo-9/reference"] == "false" and gold["SR238-yo-9/mt5_xxl"] == "true"
    assert gold["SR238-yo-9/mt5_small"] == "false", "not understood: nothing more was asked"


@pytest.mark.parametrize(("part", "count"), [("adequacy", 7_000), ("post_edit", 5_480), ("catastrophic", 4_000)])
def test_mlqe_parts(part: str, count: int) -> None:
    kept, _ = rows("mlqe_pe", part=part)
    assert len(kept) == count


def test_mlqe_bands_and_sides_are_those_of_the_files() -> None:
    adequacy = {r.task.id: r for r in rows("mlqe_pe", part="adequacy")[0]}
    assert adequacy["adequacy/et-en/0"].gold == "5", "a mean of 93.3"
    assert "Tskinvali" in adequacy["adequacy/et-en/0"].task.responses[0]
    edits = rows("mlqe_pe", part="post_edit")[0]
    assert Counter(r.gold for r in edits) == {"Assistant A": 2_738, "Assistant B": 2_742}, "no side is favoured"
    votes = {r.task.id: r.gold for r in rows("mlqe_pe", part="catastrophic")[0]}
    assert (votes["catastrophic/enzh/4107"], votes["catastrophic/enzh/4335"]) == ("false", "true")


def test_m_ifeval_has_the_rule_checkers_labels() -> None:
    kept, _ = rows("m_ifeval")
    assert len(kept) == 7_452
    assert Counter(r.task.language for r in kept) == {"en": 541 * 9, "es": 115 * 9, "ja": 172 * 9}


def test_xcopa_and_pandalm() -> None:
    kept, _ = rows("xcopa")
    zh = next(r for r in kept if r.task.id == "zh/0")
    assert len(kept) == 1_100 and (zh.gold, zh.task.responses[1]) == ("Assistant B", "水从水龙头喷口流出。")
    pairs, aside = rows("pandalm", "pandalm_testset")
    assert len(pairs) + aside["no_majority"] == 999
    assert next(r for r in pairs if r.task.id == "0").gold == "Assistant B", "three votes for 2"


def test_mgsm_has_each_problem_with_its_number_and_a_wrong_one() -> None:
    kept, _ = rows("mgsm")
    assert len(kept) == 250 * 2 * 8 and Counter(r.gold for r in kept) == {"true": 2_000, "false": 2_000}
    two = {r.gold: r.task.responses[0] for r in kept if r.task.id.startswith("ja/0/")}
    assert two["true"] == "18" and two["false"] != "18"


def test_a_wrong_folder_or_part_is_named() -> None:
    with pytest.raises(ValueError, match=r"no testset-v1\.json"):
        list(real.pandalm(str(DATA)))
    with pytest.raises(ValueError, match="no part 'x'"):
        real.mlqe_pe(str(DATA / "mlqe_pe"), part="x")
