"""The project's own language files as a library of texts: every language renders in every mode."""

from __future__ import annotations

import logging

import pytest

from mr3.families import TextsMissing
from mr3.languages import available, is_verified, language
from mr3.languages.registry import _notice
from mr3.prompts import OwnTexts, render
from mr3.records import Task

MODES = {"pointwise": ["a"], "pairwise": ["a", "b"], "binary": ["a"]}


def task(mode: str, code: str) -> Task:
    rubric = {"criteria": [{"name": "right", "description": "It is right."}]}
    fields = {"id": "t", "mode": mode, "input": "IN", "responses": MODES[mode], "rubric": rubric}
    return Task.model_validate({**fields, "language": code})


@pytest.mark.parametrize("code", available())
def test_every_language_renders_in_every_mode(code: str) -> None:
    texts, found = OwnTexts(unverified=True), language(code)
    for mode in MODES:
        shown = render(task(mode, code), "mr3-train", "tgt-tgt", texts)
        assert shown.system.startswith(f"{found.identity}\n\n# {found.titles.instruction}\n    ")
        assert getattr(found.templates, mode).instruction in shown.system
        assert f"# {found.titles.response}\n" in shown.user
        assert shown.assistant_prefix == f"<think>{found.forcing}"


def test_an_unverified_language_is_instructed_in_english_with_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    code = next(code for code in available() if not is_verified(code))
    _notice.cache_clear()  # it is said once per process
    caplog.set_level(logging.WARNING)
    shown = render(task("pairwise", code), "mr3-train", "tgt-tgt", OwnTexts())
    assert f"# {language('en').titles.instruction}\n" in shown.system
    assert shown.system.startswith(language(code).identity)
    assert f"the texts of {code}" in caplog.text and "not machine-verified" in caplog.text


def test_an_old_code_is_its_language_and_an_unknown_one_is_named() -> None:
    texts = OwnTexts(unverified=True)
    assert texts.forcing("iw") == texts.forcing("he")
    with pytest.raises(TextsMissing, match="no texts for language 'xyz'"):
        texts.forcing("xyz")
