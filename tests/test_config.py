"""Stage configs: strict keys, overrides, variables, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from dpo.policy_eval import PolicyEvalConfig
from mr3.config import StageConfig, build_config, lay_over, load_config, section_of
from mr3.sft.config import SftConfig


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rate: float = 0.1
    name: str | None = None


class Demo(StageConfig):
    inner: Inner = Inner()
    rows: int = 3
    files: list[str] = Field(default_factory=list)


def write(folder: Path, text: str) -> Path:
    file = folder / "stage.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_yaml_overrides_and_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "output_dir: runs/a\ninner: {rate: 0.5}\n")
    config = load_config(Demo, file, ["--rows", "7", "--inner.name=b", "--seed", "4"])
    assert (config.rows, config.inner.rate, config.inner.name, config.seed) == (7, 0.5, "b", 4)
    assert config.output_dir == Path("runs/a")


def test_an_override_may_hold_an_equals_sign_or_a_list(tmp_path: Path) -> None:
    file = write(tmp_path, "output_dir: runs/a\n")
    config = load_config(Demo, file, ["--inner.name=a=b", "--files", "[x, y]"])
    assert (config.inner.name, config.files) == ("a=b", ["x", "y"])


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        ("output_dir: a\nrow: 3\n", [], "row: unknown key (known here: files, inner, output_dir, rows, seed)"),
        ("output_dir: a\ninner: {rates: 1}\n", [], "inner.rates: unknown key"),
        ("output_dir: a\nrows: many\n", [], "rows: Input should be a valid integer"),
        ("rows: 3\n", [], "output_dir: Field required"),
        ("output_dir: a\n", ["--rows"], "--rows needs a value"),
        ("output_dir: a\n", ["rows", "3"], "expected an override"),
        ("output_dir: a\n", ["--rows.more", "3"], "'rows' is not a section"),
        ("- output_dir\n", [], "must hold a mapping"),
        ("output_dir: ${MR3_NO_SUCH}/a\n", [], "the environment variable MR3_NO_SUCH is not set"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, overrides: list[str], said: str) -> None:
    if "more" in "".join(overrides):
        text += "rows: 3\n"
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        load_config(Demo, write(tmp_path, text), overrides)
    assert said in str(caught.value)


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(ValueError, match="not a valid Demo") as caught:
        build_config(Demo, {"rows": "x", "wrong": 1}, "here.yaml")
    assert str(caught.value).startswith("here.yaml") and str(caught.value).count("\n  ") == 3


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no config file at nowhere\.yaml"):
        load_config(Demo, "nowhere.yaml")


def test_variables_expand_everywhere_and_have_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "output_dir: ${RUN:-runs/x}/a\nfiles: ['${DATA}/1', '${DATA}/2']\nseed: ${SEED:-5}\n")
    monkeypatch.setenv("DATA", "/d")
    monkeypatch.delenv("RUN", raising=False)
    monkeypatch.delenv("SEED", raising=False)
    config = load_config(Demo, file)
    assert (config.output_dir, config.files, config.seed) == (Path("runs/x/a"), ["/d/1", "/d/2"], 5)
    monkeypatch.setenv("RUN", "elsewhere")
    monkeypatch.setenv("SEED", "9")
    config = load_config(Demo, file)
    assert (config.output_dir, config.seed) == (Path("elsewhere/a"), 9)


@given(st.dictionaries(st.sampled_from(["rows", "seed"]), st.integers(-(10**9), 10**9)))
def test_overrides_equal_the_same_values_in_yaml(values: dict[str, int]) -> None:
    words = [w for key, value in values.items() for w in (f"--{key}={value}",)]
    by_override = load_config(Demo, None, ["--output_dir", "a", *words])
    data: dict[str, Any] = {"output_dir": "a", **values}
    assert by_override == build_config(Demo, data, "yaml")


OVERLAY = """
demo:
  rows: 1
  inner: {rate: 0.25}
  "other?": {x: 1}
other: {rows: 99}
"""


def test_an_overlay_comes_after_the_file_and_before_the_overrides(tmp_path: Path) -> None:
    file, over = write(tmp_path, "output_dir: a\nrows: 7\ninner: {name: kept, rate: 0.5}\n"), tmp_path / "tiny.yaml"
    over.write_text(OVERLAY)
    config = load_config(Demo, file, ["--inner.rate", "0.75", "--overlay", str(over), "--seed=3"])
    assert (config.rows, config.inner.rate, config.inner.name, config.seed) == (1, 0.75, "kept", 3)
    assert load_config(Demo, file, [f"--overlay={over}"]).inner.rate == 0.25
    for words, said in ((["--overlay"], "needs a value"), (["--overlay", "no.yaml"], "no overlay file at no.yaml")):
        with pytest.raises(ValueError, match=said):
            load_config(Demo, file, words)


def test_an_overlay_reaches_every_entry_and_spares_what_is_not_there() -> None:
    data = {"judges": {"a": {"model": "m"}, "b": {}}, "rows": [{"n": 5}, {"n": 6}], "judge": None}
    lay_over(data, {"judges": {"*": {"engine": {"x": 1}}, "a?": {"model": "t"}}, "rows": {"*": {"n?": 1, "k?": 2}}})
    lay_over(data, {"judge?": {"model": "t"}, "none?": {"*": {"n": 1}}})
    judges = {"a": {"model": "t", "engine": {"x": 1}}, "b": {"engine": {"x": 1}}}
    assert data == {"judges": judges, "rows": [{"n": 1}, {"n": 1}], "judge": None}
    with pytest.raises(ValueError, match="sets 'deep' where the config has 'm'"):
        lay_over({"model": "m"}, {"model": {"deep": 1}})


def test_a_section_is_named_after_its_config() -> None:
    assert [section_of(m) for m in (SftConfig, PolicyEvalConfig)] == ["sft", "policy-eval"]
