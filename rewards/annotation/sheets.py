"""Write the blind sheets of a sample, one CSV and one HTML page per language, and the key that stays behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mr3.artifacts import write_atomic
from mr3.records import Record
from rewards.annotation.cells import PATTERN, write_sheet
from rewards.annotation.sample import Item, Of, Shown, Stratum, slug

KEY = "key.json"


class Key(Record):
    """What the sheets must not show."""

    of: Of
    choices: tuple[str, ...] = Field(description="the legal ratings")
    label_hash: str = Field(description="of the manifest of the label folder that was sampled")
    failed: int = Field(description="judged without a verdict: in no stratum")
    strata: tuple[Stratum, ...]
    items: tuple[Item, ...]


def load_key(folder: Path) -> Key:
    """The key of a folder that `mr3 annotate` made.

    Raises:
        ValueError: when there is none.
    """
    file = folder / KEY
    if not file.is_file():
        raise ValueError(f"no {KEY} in {folder}: give the folder in which `mr3 annotate` made the sheets")
    try:
        return Key.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ValueError(f"{file} is not the key of `mr3 annotate`: {error.errors()[0]['msg']}") from error


def _columns(of: Of, reference: bool) -> list[str]:
    responses = ["response_a", "response_b"] if of == "pairs" else ["response"]
    return ["item", "language", "prompt", *(["reference"] if reference else []), *responses, "rating", "comment"]


def _row(item: Item, shown: Shown) -> dict[str, str]:
    names = ("response",) if len(shown.responses) == 1 else ("response_a", "response_b")
    row = {"item": item.id, "language": item.language, "prompt": shown.prompt, "rating": "", "comment": ""}
    if shown.reference is not None:
        row["reference"] = shown.reference
    return row | dict(zip(names, shown.responses, strict=True))


def instructions(rubric: Mapping[str, Any], choices: Sequence[str]) -> str:
    """What annotators are asked, in words: the rubric by which the judge decided too."""
    criteria = [f"{i}. {c['description']}" for i, c in enumerate(rubric["criteria"], start=1)]
    levels = [f"{label}: {text}" for label, text in (rubric.get("levels") or {}).items()]
    return "\n".join(
        (
            f"Write one of {', '.join(choices)} into the column rating of every row, by these criteria in this order:",
            *criteria,
            *levels,
            "Leave the rating empty where you can't tell. The column comment is yours.",
            "Don't change the other columns, and save as CSV (UTF-8). The HTML page asks the same and exports the CSV.",
        )
    )


def write_sheets(folder: Path, items: Sequence[tuple[Item, Shown]], key: Key, rubric: Mapping[str, Any]) -> list[Path]:
    """Write `sheets/LANGUAGE.csv` and `.html`, `sheets/instructions.txt` and key.json; returns the CSV files."""
    files = []
    text = instructions(rubric, key.choices)
    for language, group in groupby(items, key=lambda pair: pair[0].language):
        rows = list(group)
        columns = _columns(key.of, any(shown.reference is not None for _, shown in rows))
        file = folder / "sheets" / f"{slug(language)}.csv"
        write_sheet(file, columns, (_row(item, shown) for item, shown in rows))
        write_atomic(file.with_suffix(".html"), _page(language, rows, key, text).encode())
        files.append(file)
    write_atomic(folder / "sheets" / "instructions.txt", f"{text}\n".encode())
    write_atomic(folder / KEY, key.model_dump_json(indent=1).encode())
    return files


def _page(language: str, rows: Sequence[tuple[Item, Shown]], key: Key, text: str) -> str:
    """One self-contained page: it works offline, keeps ratings in the browser and exports them as CSV."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = (resources.files("rewards.annotation") / "sheet.html").read_text(encoding="utf-8")
    pairs = key.of == "pairs"
    choices = [(c, c[0].lower() if pairs else str(i)) for i, c in enumerate(key.choices, start=1)]
    return environment.from_string(template).render(
        language=language,
        items=[(item.id, shown) for item, shown in rows],
        choices=choices,
        names=("Response A", "Response B") if pairs else ("Response",),
        instructions=text.split("\n"),
        pattern=PATTERN,
        name=slug(language),
        sheet=f"mr3:{rows[0][0].id}:{len(rows)}",
    )
