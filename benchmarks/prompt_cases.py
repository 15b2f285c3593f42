"""Where the benchmarks of prompts find the published data, and a row of every published family."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mr3.families import FAMILIES, Family, FamilyError, KeyOrder, family_of_row, task_of_row
from mr3.prompts import STRATEGIES, Rendered, Templates, Texts, languages_of, render
from mr3.records import Strategy

PROFILES = ("mr3-train", "hf-card")
_ARENA = {
    "conversation_a": [
        {"role": "user", "content": [{"text": "IN"}]},
        {"role": "assistant", "content": [{"text": "ONE"}]},
    ],
    "conversation_b": [
        {"role": "user", "content": [{"text": "IN"}]},
        {"role": "assistant", "content": [{"text": "TWO"}]},
    ],
}
_ROWS: dict[str, dict[str, Any]] = {
    "arena-single": {**_ARENA, "conv_metadata": {"turns": 1}},
    "arena-multi": {**_ARENA, "conv_metadata": {"turns": 2}},
    "helpsteer3": {"context": [{"role": "user", "content": "IN"}], "response1": "ONE", "response2": "TWO"},
    "mcq": {"question": "IN", "options_str": "A. ONE\nB. TWO"},
    "math500": {"problem": "IN", "full_solution": "ONE"},
    "mgsm": {"question": "IN", "answer": "ONE"},
    "humanevalxl": {"input": "IN", "code_response": "ONE"},
    "polyguard-prompt": {"input": "IN"},
    "polyguard-response": {"input": "IN"},
    "rtp-lx": {"input": "IN"},
}
_PAIR = {"input": "IN", "response_1": "ONE", "response_2": "TWO"}


def published_families() -> list[Family]:
    """The families that the published templates have."""
    return [family for family in FAMILIES.values() if family.file is not None]


def sample_row(family: Family, language: str = "en") -> dict[str, Any]:
    """A row that a published family takes."""
    return {"id": "r1", "language": language, **_ROWS.get(family.name, _PAIR)}


def _named(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        raise ValueError(f"this benchmark needs {what}: set {variable} to where they are")
    path = Path(value)
    if not path.exists():
        raise ValueError(f"{variable} is {path}, which does not exist: it must name {what}")
    return path


def published_templates() -> Templates:
    """The folder `mr3_rubrics` under MR3_DATA, or MR3_DATA itself.

    Raises:
        ValueError: when MR3_DATA is not set, or no such folder.
    """
    path = _named("MR3_DATA", "the published templates (a folder mr3_rubrics)")
    return Templates.load(path / "mr3_rubrics" if (path / "mr3_rubrics").is_dir() else path)


def golden_cases() -> list[dict[str, Any]]:
    """The cases of MR3_GOLDEN: `mr3-train.json`, or the folder that it is in.

    Raises:
        ValueError: when MR3_GOLDEN is not set, or no such file.
    """
    path = _named("MR3_GOLDEN", "the golden cases (mr3-train.json)")
    cases: list[dict[str, Any]] = json.loads((path / "mr3-train.json" if path.is_dir() else path).read_text("utf-8"))
    return cases


def render_row(
    row: dict[str, Any],
    family: str,
    texts: Texts,
    strategy: Strategy,
    profile: str = "mr3-train",
    rubric_index: int = 0,
    key_order: KeyOrder = "file",
) -> Rendered:
    """The prompt of a row by profile and strategy."""
    said = languages_of(strategy, row["language"], FAMILIES[family_of_row(family, row)])
    task = task_of_row(row, family, texts, said.prompt, rubric_index, key_order)
    return render(task, profile, strategy, texts)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One family in one language, rendered or refused."""

    family: str
    language: str
    held: bool
    prompt: Rendered | None
    error: ValueError | KeyError | TypeError | None


def sweep(texts: Templates, languages: list[str]) -> Iterator[Attempt]:
    """Every family x language x strategy x profile x two rubrics; `held`: the templates have the language."""
    for family in published_families():
        known = set(texts.languages(family))
        for language in languages:
            row = sample_row(family, language)
            for strategy in STRATEGIES[:3]:
                held = language in known or strategy == "eng-eng" or family.english
                for profile in PROFILES:
                    for index, order in ((0, "file"), (1, "reversed")):
                        prompt, error = None, None
                        try:
                            prompt = render_row(row, family.name, texts, strategy, profile, index, order)  # type: ignore[arg-type]
                        except (ValueError, KeyError, TypeError) as found:
                            error = found
                        yield Attempt(family.name, language, held, prompt, error)


def is_named(error: BaseException | None) -> bool:
    """Whether an error says which family and language it is about."""
    return isinstance(error, FamilyError) and bool(error.family) and bool(error.language)
