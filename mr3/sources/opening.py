"""Open any source: one stream of labelled rows, with what is no row set aside and counted, never dropped in silence."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mr3.importing import load_named
from mr3.records import Message, Task, stable_hash
from mr3.rows import BadRow, parse_json
from mr3.rubrics import Rubric, load_rubric
from mr3.rubrics.checks import check_mode, mode_problems
from mr3.sources.families import labelled_row, plain_gold
from mr3.sources.given_rubrics import GivenRubrics, rubric_paths
from mr3.sources.labelled import Labelled, OwnTexts, SetAside, legal_label
from mr3.sources.reading import Raw, file_rows, files_of, hub_rows
from mr3.sources.registry import known_set
from mr3.sources.spec import AdapterSource, Columns, FileSource, SetSource, SourceSpec, Texts

Rows = Iterator[Labelled | SetAside]


def source_name(spec: SourceSpec) -> str:
    """The source's name in ids and reports."""
    if spec.name is not None:
        return spec.name
    if isinstance(spec, SetSource):
        return spec.set
    if isinstance(spec, AdapterSource):
        return spec.adapter.partition(":")[2]
    first = spec.path if isinstance(spec.path, str) else spec.path[0]
    return Path(first).name.split(".")[0]


def source_files(spec: SourceSpec) -> list[Path]:
    """The local files that a source reads, for hashing; none for a hub set, whose commit is in the config."""
    path = spec.path if isinstance(spec, SetSource | FileSource) else None
    rubrics = rubric_paths(spec.rubrics) if spec.rubrics is not None else []
    return [*(files_of(path) if path is not None else []), *rubrics]


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(p) for p in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _raw(paths: str | list[str], columns: list[str] | None) -> Iterator[Raw]:
    for file in files_of(paths):
        yield from file_rows(file, columns)


def set_raw(spec: SetSource) -> Iterator[Raw]:
    """Raw rows of a known set, from the hub or from local files.

    Raises:
        ValueError: for a missing file, or a hub set that can't be read.
    """
    about = known_set(spec.set)
    if spec.path is not None:
        return _raw(spec.path, about.columns)
    if about.hub is None:
        raise ValueError(f"the set {about.name} is on no hub: give its local files with path:")
    return hub_rows(about.hub, spec.split or about.split, spec.revision, about.columns, spec.streaming)


def _set_rows(spec: SetSource, texts: Texts, own_language: bool) -> Rows:
    about = known_set(spec.set)
    for where, row in set_raw(spec):
        if isinstance(row, SetAside):
            yield row
            continue
        missing = [c for c in about.columns if row.get(c) is None]
        if missing:
            yield SetAside(where, f"no value in {', '.join(missing)}", "incomplete")
        else:
            adapt = partial(labelled_row, about=about, texts=texts, scale=spec.gold_scale, own_language=own_language)
            yield _guarded(adapt, where, row)


def _guarded(adapt: Callable[[str, Any], Labelled | SetAside], where: str, row: Any) -> Labelled | SetAside:
    """The row, unless its values are of other types than its set's."""
    try:
        return adapt(where, row)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        return SetAside(where, f"values of the wrong type: {type(error).__name__}: {error}", "invalid")


def _own_format(where: str, row: Mapping[str, Any], source: str) -> Labelled | SetAside:
    """Rows of `Labelled`, or of evaluation tasks: nested values may be JSON strings, further columns are left."""
    try:
        given = {k: parse_json(v) if isinstance(v, str) else v for k, v in row.items() if k in ("task", "own")}
        return Labelled.model_validate({"source": source, "gold": row.get("gold"), **given})
    except ValidationError as error:
        return SetAside(where, _problem(error), "invalid")
    except BadRow as error:
        return SetAside(where, str(error), "invalid")


def _named(row: Mapping[str, Any], column: str) -> str:
    """The id or the language that a row names.

    Raises:
        BadRow: where it names none. As text, a null would be one id for many rows, and all but the first would be lost.
    """
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value or not str(value).strip():
        raise BadRow(f"no value in {column}: it holds {value!r}, and a text or a number is needed")
    return str(value)


class _Mapper:
    """Rows with a file's own columns."""

    def __init__(self, spec: FileSource, source: str, given: GivenRubrics | None) -> None:
        assert spec.columns is not None and spec.mode is not None
        self._spec, self._source, self._columns, self._given = spec, source, spec.columns, given
        self._rubric = Rubric(name="none", absent=True) if spec.rubric is None else load_rubric(spec.rubric)
        if spec.rubric is not None and spec.mode != "choice":
            check_mode(self._rubric, spec.mode)
        self._own = {code: OwnTexts(rubric=load_rubric(given)) for code, given in spec.own_rubrics.items()}

    def __call__(self, where: str, row: Mapping[str, Any]) -> Labelled | SetAside:
        """One row, or why it is none."""
        columns, spec = self._columns, self._spec
        try:
            asked, responses = _conversation(row[columns.input]), self._responses(row, columns)
            language = _named(row, columns.language) if columns.language else str(spec.language)
            value = plain_gold(row[columns.gold])
            fields: dict[str, Any] = {
                name: row[column]
                for name in ("instruction", "reference", "options")
                if (column := getattr(columns, name)) is not None
            }
            identity = _named(row, columns.id) if columns.id else stable_hash(row[columns.input], responses, language)
            rubric = self._given.pick(self._source, identity) if self._given is not None else self._rubric
            if rubric is None:
                return SetAside(where, "no valid rubric was generated for it", "no_rubric", language=language)
            if problems := self._unfit(rubric):
                reason = f"rubric {rubric.name!r}: {'; '.join(problems)}"
                return SetAside(where, reason, "unfit_rubric", language=language)
            task = Task(
                id=identity,
                mode=spec.mode,  # type: ignore[arg-type]
                input=asked,
                responses=responses,
                rubric=rubric,
                language=language,
                **fields,
            )
            gold = legal_label(spec.labels.get(value, value), task.labels)
            return Labelled(source=self._source, gold=gold, task=task, own=self._own.get(language))
        except KeyError as error:
            return SetAside(where, f"no column {error}", "incomplete")
        except BadRow as error:
            return SetAside(where, str(error), "incomplete")
        except ValidationError as error:
            return SetAside(where, _problem(error), "invalid")

    def _unfit(self, rubric: Rubric) -> list[str]:
        assert self._spec.mode is not None
        return [] if self._spec.mode == "choice" else mode_problems(rubric, self._spec.mode)

    @staticmethod
    def _responses(row: Mapping[str, Any], columns: Columns) -> list[str]:
        if isinstance(columns.responses, str):
            return list(row[columns.responses])
        return [row[column] for column in columns.responses]


def _conversation(value: Any) -> str | list[Message]:
    return value if isinstance(value, str) else [Message.model_validate(m) for m in value]


def _adapter(spec: AdapterSource, source: str) -> Rows:
    function: Callable[..., Iterable[Any]] = load_named(spec.adapter, "the adapter")
    for number, row in enumerate(function(**spec.options), start=1):
        if isinstance(row, Labelled):
            yield row if row.source == source else row.model_copy(update={"source": source})
        elif isinstance(row, SetAside):
            yield row
        else:
            yield _guarded(partial(_own_format, source=source), f"{source}:{number}", row)


def _rows(spec: SourceSpec, texts: Texts, own_language: bool, given: GivenRubrics | None) -> Rows:
    source = source_name(spec)
    if isinstance(spec, SetSource):
        return _set_rows(spec, texts, own_language)
    if isinstance(spec, AdapterSource):
        return _adapter(spec, source)
    adapt = _Mapper(spec, source, given) if spec.columns is not None else partial(_own_format, source=source)
    return (row if isinstance(row, SetAside) else _guarded(adapt, where, row) for where, row in _raw(spec.path, None))


def open_source(
    spec: SourceSpec, texts: Texts | None = None, without: Collection[str] = (), own_language: bool = True
) -> Rows:
    """Labelled rows of a source in its own order, and a SetAside in place of each row that is none.

    Args:
        without: languages of rows that are set aside.
        own_language: rows of known sets must have texts in their own language; only eng-eng does without.

    Raises:
        ValueError: for a missing file or column, an unknown set or adapter, or a hub set that can't be read.
    """
    texts = texts or Texts()
    given = GivenRubrics(spec.rubrics, texts.seed) if spec.rubrics is not None else None
    rows: Rows = itertools.islice(_rows(spec, texts, own_language, given), spec.limit)
    if given is not None:
        rows = map(given.apply, rows)
    if spec.languages is None and not without:
        return rows
    wanted = None if spec.languages is None else set(spec.languages)

    def chosen(row: Labelled | SetAside) -> Labelled | SetAside:
        if isinstance(row, SetAside):
            return row
        language = row.task.language
        if (wanted is None or language in wanted) and language not in without:
            return row
        return SetAside(row.key, f"language {row.task.language} is not asked for", "language")

    return map(chosen, rows)


def _flat(value: Any) -> str:
    """Text of a column: a conversation's turns joined, whatever it nests."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return _flat(value.get("content", value.get("text", "")))
    if isinstance(value, list | tuple):
        return "\n".join(map(_flat, value))
    return "" if value is None else str(value)


def task_text(task: Task) -> str:
    """What a task asks, as one text."""
    return task.input if isinstance(task.input, str) else "\n".join(m.content for m in task.input)


def input_texts(spec: SourceSpec, texts: Texts | None = None) -> Iterator[tuple[str, str]]:
    """Language and text of what a benchmark asks, row by row; known sets need the asking columns, and no templates.

    Raises:
        ValueError: as `open_source`, and for a row without text.
    """
    if isinstance(spec, SetSource):
        about = known_set(spec.set)
        for where, row in itertools.islice(set_raw(spec), spec.limit):
            if isinstance(row, SetAside):
                raise ValueError(f"benchmark {spec.set}, {where}: {row.reason}")
            yield str(row.get("language")), "\n".join(_flat(row[column]) for column in about.asks)
        return
    for labelled in open_source(spec, texts):
        if not isinstance(labelled, SetAside):
            yield labelled.task.language, task_text(labelled.task)
        elif labelled.kind != "language":
            raise ValueError(f"benchmark {source_name(spec)}, {labelled.where}: {labelled.reason}")
