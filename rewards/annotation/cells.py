"""Sheets as CSV that spreadsheet programs open without harm and give back unchanged.

A cell that begins like a formula (`=`, `+`, `-`, `@`, their full-width forms, control characters) would be run by the
program that opens it: such a cell gets an apostrophe in front, and so does one that begins with an apostrophe, so that
reading takes exactly one away again.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mr3.artifacts import write_atomic

PATTERN = r"^(?:[\t\r\n]|[ \f\v\u00a0\u3000]*[=+\-@＝＋－＠'])"
"""What a cell must not begin with; the HTML sheet's export uses the same pattern."""
_RISKY = re.compile(PATTERN)


def guard(text: str) -> str:
    """The text as a cell that no program takes for a formula."""
    return f"'{text}" if _RISKY.match(text) else text


def unguard(cell: str) -> str:
    """The text of a cell that `guard` made; other cells come back as they are."""
    return cell[1:] if cell.startswith("'") and _RISKY.match(cell[1:]) else cell


def write_sheet(file: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    """A UTF-8 CSV with the mark by which spreadsheet programs know the encoding."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns)
    writer.writeheader()
    writer.writerows({name: guard(value) for name, value in row.items()} for row in rows)
    write_atomic(file, out.getvalue().encode("utf-8-sig"))


def read_sheet(file: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV, cells unguarded; comma, semicolon and tab are understood as separators.

    Raises:
        ValueError: when the file is missing, not UTF-8, or lacks a needed column.
    """
    if not file.is_file():
        raise ValueError(f"no filled sheet at {file}: give the CSV that an annotator saved")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8: save it as 'CSV UTF-8'") from error
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the default refuses long responses
    for separator in ",;\t":
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restkey="", restval="")
        if set(needed) <= set(reader.fieldnames or ()):
            return [{k: unguard(v) for k, v in row.items() if k} for row in reader]
    raise ValueError(f"{file} has no columns {', '.join(needed)}: keep the header of the sheet as it was")
