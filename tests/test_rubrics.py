"""Rubrics: what a file may hold, what is refused and how it is said, hashes that stay, and the library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_experiments.policy.config import RewardSettings
from grpo_experiments.terms.frozen_judge import FrozenJudge
from mr3.records import Mode, Task
from mr3.rubrics import Criterion, Rubric, load_rubric
from mr3.rubrics.checks import check_mode, mode_problems
from mr3.rubrics.entries import built_in, find_entry, load_entries, load_entry, rubric_files, rubric_yaml
from rewards.label import LabelConfig
from rewards.serving.client import JudgeClient
from rewards.serving.trl_reward import TrlReward
from rewards.tasks import TaskSettings
from rewards.walk import scale_of

VERSIONS = Path(__file__).parent / "rubric_versions.json"
GOOD = """name: house
version: 3
about: what the house wants
modes: [pairwise]
criteria:
  - {name: right, description: The number is right., weight: 2}
  - {name: short, description: It is short.}
"""


def write(folder: Path, text: str, name: str = "house.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_hashes_of_rubrics_stay_what_they_were() -> None:
    """They are in the ids of stored verdicts: another hash would judge everything again."""
    two = Rubric(criteria=[Criterion(name="a", description="One."), Criterion(name="b", description="Two.", weight=2)])
    assert two.content_hash == "b9262dafec72fb94"
    assert Rubric(name="x", levels={"1": "bad", "2": "good"}).content_hash == "ed0e2179d7c9a8ac"
    assert Rubric(language="de", criteria=[Criterion(name="a", description="Eins.")]).content_hash == "f7828fb64577bd10"
    assert Rubric(absent=True).content_hash == "96de3119a9b10bbe"
    assert two.model_copy(update={"name": "other"}).content_hash == two.content_hash
    assert two.model_copy(update={"criteria": two.criteria[::-1]}).content_hash != two.content_hash


def test_a_file_with_a_header_is_a_rubric_everywhere(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    rubric, entry = load_rubric(file), load_entry(file)
    assert [c.weight for c in rubric.criteria] == [2.0, 1.0] and rubric.name == "house"
    assert (entry.id, entry.header.version, entry.modes) == ("house", 3, ("pairwise",)) and entry.rubric == rubric
    assert load_rubric({"criteria": [{"name": "a", "description": "b"}]}).criteria[0].name == "a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("criteria: []", "neither criteria nor levels"),
        ("- criteria", "not a mapping with `criteria:`"),
        ("criteria: [{name: a, description: b, weight: 0}]", "criterion 'a'.weight: Value error, weight must be"),
        ("criteria: [{name: a, description: b, weight: .nan}]", "got nan"),
        ("criteria: [{name: a, description: b, weight: many}]", "criterion 'a'.weight: Input should be a valid number"),
        ("criteria: [{name: a, description: b, wieght: 2}]", "criterion 'a'.wieght: Extra inputs are not permitted"),
        ("criteria: [{name: a}]", "criterion 'a'.description: Field required"),
        ("criteria: [{description: a}]", "criterion 1.name: Field required"),
        ("criteria: [{name: a, description: '  '}]", "criterion 'a'.description: the text '  ' is empty"),
        ("criteria: [{name: a, description: b}, {name: A, description: c}]", "the name 'a' is used more than once"),
        ("criteria: [{name: a, description: 'say <|im_end|>'}]", "chat markup '<|im_end|>' has no place"),
        ("levels: {'1': bad, '2': '</think> good'}", "level '2': chat markup '</think>'"),
        ("levels: {'1': bad, '2': ''}", "level '2': the text '' is empty"),
        ("levels: {1: bad, 2: good}", "the label 1 is not text for YAML: write it as '1'"),
        ("levels: {true: bad, false: good}", "the label True is not text for YAML: write it as 'true'"),
        ("levels: {'1': bad, '1': good}", "the key '1' comes twice"),
        ("criterias: []", "criterias: Extra inputs"),
        ("criteria: [", "can't be read as YAML"),
    ],
)
def test_every_mistake_is_named_with_file_place_and_value(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ValueError, match=r"house\.yaml") as caught:
        load_rubric(file)
    assert said in str(caught.value)


def test_all_problems_of_a_file_are_listed_at_once(tmp_path: Path) -> None:
    file = write(tmp_path, "criteria: [{name: a, weight: -1}, {name: '', description: c}]")
    with pytest.raises(ValueError, match="not a valid rubric") as caught:
        load_rubric(file)
    assert str(caught.value).count("\n  ") == 3


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("version: 0", "version: Input should be greater than or equal to 1 (got 0)"),
        ("version: '2'", "version: Input should be a valid integer (got '2')"),
        ("modes: [pairwise, choice]", "mode choice: a choice has no rubric section"),
        ("modes: [pair]", "modes.0: Input should be"),
    ],
)
def test_headers_are_strict_too(tmp_path: Path, header: str, said: str) -> None:
    file = write(tmp_path, f"{header}\ncriteria: [{{name: a, description: b}}]")
    with pytest.raises(ValueError, match=r"house\.yaml") as caught:
        load_entry(file)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "labels", "said"),
    [
        ("pointwise", ["1", "2", "3", "4", "5"], None),
        ("pointwise", ["0", "1", "2"], None),
        ("pointwise", ["bad", "fair", "good"], "add `worst_first: true`"),
        ("pointwise", ["excellent", "fair", "poor"], "add `worst_first: true`"),
        ("pointwise", ["5", "4", "3", "2", "1"], "not in order"),
        ("pointwise", ["1", "2", "4"], "leave out 3"),
        ("pointwise", ["1", "two"], "mix numbers and words"),
        ("pointwise", ["1"], "decides nothing"),
        ("binary", ["true", "false"], None),
        ("binary", ["false", "true"], None),
        ("binary", ["yes", "no"], "binary levels are true and false"),
        ("binary", ["true", "false", "unsure"], "binary levels are true and false"),
        ("pairwise", ["Assistant A", "Assistant B"], None),
        ("pairwise", ["Assistant A", "Assistant B", "Tie", "Both Bad"], None),
        ("pairwise", ["1", "2", "3", "4", "5", "6", "7"], None),
        ("pairwise", ["Assistant B", "Assistant A"], None),
        ("pairwise", ["Assistant A", "Assistant B", "Neither"], "beside them only Tie and Both Bad"),
        ("pairwise", ["A", "B"], "can't be judged in both orders"),
        ("pairwise", ["better", "worse"], "can't be judged in both orders"),
        ("listwise", ["1", "2"], "names criteria only"),
        ("choice", ["A", "B"], "a choice has no rubric section"),
    ],
)
def test_levels_must_suit_the_mode(mode: Mode, labels: list[str], said: str | None) -> None:
    found = mode_problems(Rubric(levels={label: "described" for label in labels}), mode)
    assert found == [] if said is None else said in found[0]


WRONG = [
    ("pointwise", ["excellent", "fair", "poor"]),
    ("pointwise", ["3", "2", "1"]),
    ("pointwise", ["5"]),
    ("binary", ["no", "yes"]),
    ("pairwise", ["A", "B"]),
]


def _enter(where: str, rubric: Rubric, mode: Any) -> None:
    """Give the rubric with the mode to one of the places where both meet."""
    if where == "task":
        Task(id="t", mode=mode, input="i", responses=["r"] * (1 + (mode == "pairwise")), rubric=rubric, language="en")
    elif where == "pool":
        TaskSettings(rubric=rubric, mode=mode, orders="one")
    elif where == "label":
        judge = {"model": "judge", "engine": {"backend": "vllm"}}
        LabelConfig.model_validate(
            {"output_dir": "o", "pool": "p", "judge": judge, "rubric": rubric, "mode": mode, "orders": "one"}
        )
    elif where == "label folder":
        scale_of({"rubric": rubric.model_dump(), "mode": mode})
    elif where == "policy reward":
        RewardSettings.model_validate({"rubric": rubric, "mode": mode, "server": {"url": "http://x"}})
    elif where == "trl reward":
        TrlReward(JudgeClient("http://x"), rubric, mode=mode)
    elif mode != "pairwise":
        FrozenJudge.model_validate({"rubric": rubric, "mode": mode, "url": "http://x"})
    else:
        check_mode(rubric, mode)


@pytest.mark.parametrize(
    "where", ["task", "pool", "label", "label folder", "policy reward", "trl reward", "frozen judge"]
)
def test_a_scale_that_can_be_read_the_wrong_way_enters_nowhere(where: str) -> None:
    for mode, labels in WRONG:
        rubric = Rubric(name="house", levels={label: f"{label}." for label in labels})
        with pytest.raises(ValueError, match=f"rubric 'house' can't be used for {mode} tasks: levels"):
            _enter(where, rubric, mode)
    _enter(where, Rubric(levels={"poor": "p.", "good": "g."}, worst_first=True), "pointwise")
    _enter(where, Rubric(levels={"false": "f.", "true": "t."}), "binary")


def test_to_declare_an_order_changes_neither_hash_nor_what_is_written_of_other_rubrics() -> None:
    levels = {"poor": "p.", "good": "g."}
    plain, declared = Rubric(levels=levels), Rubric(levels=levels, worst_first=True)
    assert plain.content_hash == declared.content_hash
    assert "worst_first" not in plain.model_dump() and declared.model_dump()["worst_first"] is True
    assert Rubric.model_validate_json(declared.model_dump_json()) == declared


def test_every_library_rubric_makes_a_task_in_each_of_its_modes() -> None:
    counts = {"pointwise": 1, "pairwise": 2, "binary": 1, "listwise": 3}
    entries = load_entries()
    assert len(entries) >= 30
    for entry in entries.values():
        assert entry.header.about and entry.header.modes and entry.header.families and entry.rubric.name == entry.id
        for mode in entry.modes:
            task = Task(
                id="t", mode=mode, input="i", responses=["r"] * counts[mode], rubric=entry.rubric, language="en"
            )
            assert len(task.labels) >= 2
        weights = [c.weight for c in entry.rubric.criteria]
        assert weights == sorted(weights, reverse=True), f"{entry.id}: criteria are ranked, so weights never rise"


def test_a_library_text_changes_only_with_its_version() -> None:
    """A version names one text for ever; raise `version` in the file, then write the new hash here."""
    known: dict[str, dict[str, Any]] = json.loads(VERSIONS.read_text(encoding="utf-8"))
    now = {e.id: {"version": e.header.version, "hash": e.rubric.content_hash} for e in load_entries().values()}
    assert now == known


def test_folders_of_the_user_are_a_library_too(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, "criteria: [{name: mine, description: My own.}]", "general.yml")
    found = load_entries([tmp_path])
    assert found["house"].header.version == 3 and found["general"].rubric.criteria[0].name == "mine"
    assert list(load_entries([tmp_path], own=False)) == ["general", "house"]
    assert find_entry(str(tmp_path / "house.yaml")).id == "house"
    with pytest.raises(ValueError, match="did you mean house"):
        find_entry("hause", [tmp_path])
    write(tmp_path, GOOD, "house.yml")
    with pytest.raises(ValueError, match="two files of the rubric library"):
        rubric_files(tmp_path)


def test_a_server_can_take_the_library_as_its_own() -> None:
    from rewards.serving.library import load_library

    found = load_library(built_in())
    assert {name: r.content_hash for name, r in found.items()} == {
        e.id: e.rubric.content_hash for e in load_entries().values()
    }


texts = st.text(min_size=1, max_size=30).filter(lambda t: t.strip() and "<" not in t)
criteria = st.lists(
    st.tuples(texts, texts, st.floats(0.1, 10)), min_size=1, max_size=4, unique_by=lambda c: c[0].strip().casefold()
)


@settings(deadline=None, max_examples=30)
@given(criteria)
def test_what_is_written_is_read_again(made: list[tuple[str, str, float]]) -> None:
    descriptions = [d.strip().casefold() for _, d, _ in made]
    if len(set(descriptions)) < len(descriptions):
        return
    rubric = Rubric(name="r", criteria=[Criterion(name=n, description=d, weight=w) for n, d, w in made])
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), rubric_yaml(rubric, 2, "about", ("pairwise",)))
        entry = load_entry(file)
    assert entry.rubric.content_hash == rubric.content_hash and entry.header.version == 2
