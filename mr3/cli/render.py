"""`mr3 render`: the prompts of rows, one JSON object `{"system", "user", "assistant_prefix"}` per row, in order.

    mr3 render --templates mr3/data/mr3_rubrics --rows rows.jsonl
    mr3 render --texts own --profile hf-card --rows rows.jsonl

A line of the file is {"family", "language", "strategy", "rubric_index", "key_order", "row"}: `row` holds the columns of
the family's data set, `family` is a task family or a data set's name. The rest may be left out: the row's language,
eng-eng, the first rubric, keys as in the file. Or a line is {"task", "strategy"} with a task of the project's own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from mr3.families import FAMILIES, KeyOrder, family_of_row, task_of_row
from mr3.prompts import PROFILES, Rendered, Texts, TextsName, languages_of, needs_texts, open_texts, render
from mr3.records import Strategy, Task


class Line(BaseModel):
    """One line of the file; fields that it does not know (an expected prompt, notes) are passed over."""

    family: str | None = None
    language: str | None = None
    strategy: Strategy | None = None
    rubric_index: int = Field(0, ge=0)
    key_order: KeyOrder = "file"
    row: dict[str, Any] | None = None
    task: Task | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> Line:
        if (self.row is None) == (self.task is None):
            raise ValueError("give either `row` with a `family`, or `task`")
        if self.row is not None and self.family is None:
            raise ValueError("a `row` needs its `family` (a task family, or the name of a data set)")
        return self


def render_line(line: Line, profile: str, texts: Texts | None, strategy: Strategy = "eng-eng") -> Rendered:
    """The prompt of one line.

    Args:
        texts: the library of texts; None for the profile compact, which knows no rows of data sets.
        strategy: where the line names none.

    Raises:
        ValueError: naming what is wrong with the row, or which texts are missing.
    """
    wanted = line.strategy or strategy
    if line.task is not None:
        return render(line.task, profile, wanted, texts)
    if texts is None:
        raise ValueError("the profile compact renders tasks, not rows of data sets: give `task`")
    assert line.row is not None and line.family is not None, "checked when the line was read"
    row = dict(line.row)
    if line.language is not None and row.setdefault("language", line.language) != line.language:
        raise ValueError(f"the line says language {line.language!r}, its row says {row['language']!r}")
    family = family_of_row(line.family, row)
    said = languages_of(wanted, str(row.get("language", "")), FAMILIES[family])
    task = task_of_row(row, family, texts, said.prompt, line.rubric_index, line.key_order)
    return render(task, profile, wanted, texts)


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'line'}: {e['msg']}" for e in error.errors())


def rendered_lines(
    lines: Iterator[str], name: str, profile: str, texts: Texts | None, strategy: Strategy
) -> Iterator[str]:
    """The output, line by line; blank lines of the input are passed over.

    Raises:
        ValueError: naming the line.
    """
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            # Not model_validate_json: it refuses lone surrogates and huge numbers that rows may hold.
            line = Line.model_validate(json.loads(text))
            yield json.dumps(render_line(line, profile, texts, strategy).model_dump(), ensure_ascii=False)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}, line {number}: not JSON ({error})") from error
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {_reason(error)}") from error


@contextmanager
def _opened(path: str) -> Iterator[IO[str]]:
    if path == "-":
        sys.stdin.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
        yield sys.stdin
        return
    if not Path(path).is_file():
        raise ValueError(f"no rows at {path}: give a file of JSON lines, or - to read them from standard input")
    # A carriage return may stand inside a line, as JSON allows between values; only newlines end one.
    with open(path, encoding="utf-8", newline="\n") as file:
        yield file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mr3 render", description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", required=True, metavar="FILE", help="JSON lines; - for standard input")
    parser.add_argument("--templates", metavar="DIR", help="your copy of the published templates (data/mr3_rubrics)")
    parser.add_argument("--texts", choices=get_args(TextsName), help="default: published")
    parser.add_argument("--profile", choices=PROFILES, default="mr3-train", help="default: %(default)s")
    parser.add_argument("--strategy", choices=get_args(Strategy), default="eng-eng", help="of rows that name none")
    parser.add_argument("--unverified", action="store_true", help="own texts also of languages that were not verified")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """2 for a user's error: the rows before a bad one have been printed by then."""
    given = _parser().parse_args(argv)
    try:
        if given.texts == "own" and given.templates:
            raise ValueError("--templates are published texts: leave out --texts own, or --templates")
        texts = None
        if needs_texts(given.profile):
            texts = open_texts(given.texts or "published", given.templates, given.unverified)
        with _opened(given.rows) as file:
            name = "standard input" if given.rows == "-" else given.rows
            for line in rendered_lines(iter(file), name, given.profile, texts, given.strategy):
                sys.stdout.buffer.write(f"{line}\n".encode("utf-8", "surrogatepass"))
    except UnicodeDecodeError as error:
        print(f"mr3 render: error: {given.rows} is not UTF-8 ({error})", file=sys.stderr)
        return 2
    except ValueError as error:
        sys.stdout.flush()
        print(f"mr3 render: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
