"""What the tests of prompts share: a small template folder in the published format, and a made-up language."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.prompt_cases import published_families
from mr3.families import FAMILIES, Family, family_of_row, task_of_row
from mr3.prompts import OwnTexts, Rendered, Templates, languages_of, render
from mr3.records import Strategy

LANGUAGES = ("en", "qx")
_TAGS = {
    "math_solution": "math_solution",
    "code_solution": "code_solution",
    "options": "options_tag",
}


def _section(family: Family, language: str, index: int = 3) -> dict[str, Any]:
    where = f"{language} {family.file} {family.section}"
    section: dict[str, Any] = {"task_description": f"[{where} description]"}
    if family.mode != "choice":
        labels = family.labels or ()
        section["rubric_list"] = [{label: f"[{where} {i} {label}]" for label in labels} for i in range(index)]
    return section


def _schema(family: Family, language: str) -> dict[str, Any]:
    said = f"[{language} {family.file}"
    score = {"type": "string", "description": f"{said} score]", "enum": list(family.labels or ())}
    explanation = {"type": "string", "description": f"{said} explanation]"}
    properties = {"explanation": explanation, "score": score}
    return {"type": "object", "properties": properties, "required": ["explanation", "score"]}


def _entry(families: list[Family], language: str) -> dict[str, Any]:
    first = families[0]
    tags = {
        name: f"{language} {first.file} {name}"
        for name in ("input_tag", "evaluation_rubric_tag", "response_format_tag", "your_response_tag")
    }
    if first.parts in _TAGS:
        tags[_TAGS[first.parts]] = f"{language} {first.file} part"
    entry: dict[str, Any] = {"tags": tags, "schema": _schema(first, language)}
    for family in families:
        if family.section is None:
            entry |= _section(family, language)
        else:
            entry[family.section] = _section(family, language)
    return entry


def write_templates(folder: Path, zipped: bool = False, languages: Sequence[str] = LANGUAGES) -> Path:
    """A template folder in the published format with made-up texts, in English and the language `qx` by default."""
    folder.mkdir(parents=True, exist_ok=True)
    by_file: dict[str, list[Family]] = {}
    for family in published_families():
        by_file.setdefault(family.published_file, []).append(family)
    files: dict[str, Any] = {n: {c: _entry(f, c) for c in languages} for n, f in by_file.items()}
    for name, what in (
        ("instruction_msg_translated.json", "Instruction"),
        ("system_msg_translated_qwen3.json", "identity"),
        ("system_msg_translated.json", "teacher"),
        ("thinking_msg_translated.json", "forcing"),
    ):
        files[name] = {code: f"[{code} {what}]" for code in languages}
    for name, data in files.items():
        raw = json.dumps(data).encode()
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
        else:
            (folder / name).write_bytes(raw)
    return folder


def _mode_texts(code: str, mode: str, labels: tuple[str, ...]) -> SimpleNamespace:
    levels = {label: f"[{code} {mode} {label}]" for label in labels}
    return SimpleNamespace(instruction=f"[{code} {mode} instruction]", levels=levels)


_TITLE_NAMES = (
    *("instruction", "rubric", "format", "response", "input", "conversation", "math_problem", "math_solution"),
    *("code_problem", "code_solution", "question", "options", "reference"),
)


def made_up_language(code: str) -> Any:
    """What `mr3.languages.language` gives, with texts that name their place."""
    labels: Mapping[str, tuple[str, ...]] = {
        "pointwise": ("1", "2", "3", "4", "5"),
        "pairwise": ("Assistant A", "Assistant B", "Tie"),
        "binary": ("true", "false"),
    }
    if code not in LANGUAGES:
        raise ValueError(f"no texts for language {code!r}")
    return SimpleNamespace(
        code=code,
        identity=f"[{code} identity]",
        forcing=f"[{code} forcing]",
        titles=SimpleNamespace(**{name: f"{code} {name}" for name in _TITLE_NAMES}),
        templates=SimpleNamespace(**{mode: _mode_texts(code, mode, names) for mode, names in labels.items()}),
        schema_texts=SimpleNamespace(explanation=f"[{code} explanation]", score=f"[{code} score]"),
    )


def own_texts(unverified: bool = True) -> OwnTexts:
    """Own texts where `qx` is the language that no machine verified."""
    return OwnTexts(
        unverified,
        lambda code, verified: made_up_language("en" if verified and code == "qx" else code),
        made_up_language,
    )


def rendered(
    templates: Templates, family: str, row: dict[str, Any], strategy: Strategy = "eng-eng", **more: Any
) -> Rendered:
    """A row of a family as `mr3-train` renders it."""
    said = languages_of(strategy, row["language"], FAMILIES[family_of_row(family, row)])
    return render(task_of_row(row, family, templates, said.prompt, **more), "mr3-train", strategy, templates)
