"""Code that configs name: loaded where it is a user's, refused where no config can need it."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mr3.ground_truth import load_checker
from mr3.importing import load_named
from mr3.inference.engine import EngineConfig
from mr3.inference.hosts import open_engine
from mr3.refinement.sets import TaskSource, _call
from mr3.sources import AdapterSource, open_source
from rewards.pool import Adapter, read_pool

system, run = os.system, subprocess.run  # what another module passes on
join = partial(os.path.join, "/")
NUMBER = 3


class Mine:
    @staticmethod
    def inner() -> str:
        return "inner"


def test_what_is_the_users_is_loaded() -> None:
    assert load_named("tests.test_importing:Mine", "backend") is Mine
    assert load_named("tests.test_importing:Mine.inner", "x")() == "inner"
    assert load_named("tests.test_importing:join", "x")("a") == "/a", "a partial is the user's own"


@pytest.mark.parametrize(
    "path",
    [
        *("os:system", "subprocess:run", "builtins:eval", "os.path:join", "posix:system", "importlib.util:find_spec"),
        *(f"tests.test_importing:{name}" for name in ("system", "run", "os.system", "subprocess.Popen")),
    ],
)
def test_the_standard_library_is_refused_before_it_runs(path: str) -> None:
    with pytest.raises(ValueError, match="standard library"):
        load_named(path, "checker")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("no colon", "must look like package.module:name"),
        ("a.b:", "must look like"),
        (":f", "must look like"),
        ("tests..x:f", "must look like"),
        ("tests.nowhere:f", "can't load checker.*No module named"),
        ("tests.test_importing:nothing", "can't load checker.*no attribute"),
        ("tests.test_importing:NUMBER", "is a int, not a function"),
        ("tests:test_importing", "is a module, not a function"),
    ],
)
def test_what_is_wrong_is_said(path: str, why: str) -> None:
    import tests.test_importing  # noqa: F401  so that `tests:test_importing` is there

    with pytest.raises(ValueError, match=why):
        load_named(path, "checker")


@pytest.mark.parametrize(
    "use",
    [
        load_checker,
        lambda path: open_engine(EngineConfig(model="m", backend=path)),
        lambda path: list(open_source(AdapterSource(adapter=path))),
        lambda path: list(read_pool(Adapter(source=path))),
        lambda path: _call(TaskSource(source=path)),
    ],
    ids=["checker", "backend", "source", "pool", "refinement"],
)
def test_every_place_uses_the_one_loader(use: Any) -> None:
    with pytest.raises(ValueError, match="standard library"):
        use("os:getcwd")


def test_nothing_else_in_the_library_imports_by_a_name_of_a_config() -> None:
    root = Path(__file__).parents[1]
    found = {
        str(file.relative_to(root))
        for package in ("mr3", "rewards", "dpo", "grpo_experiments")
        for file in (root / package).rglob("*.py")
        if "import_module(" in file.read_text(encoding="utf-8") or "resolve_name(" in file.read_text(encoding="utf-8")
    }
    own = {"mr3/cli/stages.py", "grpo_experiments/terms/__init__.py"}  # tables of their own, not a config's names
    assert found == {"mr3/importing.py", *own}
