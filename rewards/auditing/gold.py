"""Labels made by people: read from an adapter, or from the file that `mr3 annotate` writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from mr3.artifacts import write_atomic
from mr3.importing import load_named
from rewards.pool import Adapter, pool_files
from rewards.records import Gold, GoldLabel, GoldPair

GoldSpec = Path | Adapter


def gold_files(spec: GoldSpec) -> list[Path]:
    """The files that the labels are read from (for hashing).

    Raises:
        ValueError: when the file is missing.
    """
    if not isinstance(spec, Path):
        return pool_files(spec)
    if not spec.is_file():
        raise ValueError(f"no gold labels at {spec}: give the gold.jsonl of `mr3 annotate` with import")
    return [spec]


def load_gold(spec: GoldSpec) -> list[Gold]:
    """All labels, of single responses or of pairs.

    Raises:
        ValueError: when there are none, a line is not a label, or both kinds are mixed.
    """
    if isinstance(spec, Path):
        found, where = _read(spec), str(spec)
    else:
        found, where = list(load_named(spec.source, "gold.source")(**spec.options)), spec.source
    if not found:
        raise ValueError(f"{where} gave no gold labels: check it, or leave gold out")
    if len({type(item) for item in found}) > 1:
        raise ValueError(f"{where} mixes labels of single responses and of pairs: give one kind")
    return found


def _read(file: Path) -> list[Gold]:
    [file] = gold_files(file)
    found: list[Gold] = []
    for line, text in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not text.strip():
            continue
        kind: type[Gold] = GoldLabel if '"response_id"' in text else GoldPair
        try:
            found.append(kind.model_validate_json(text))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{file}:{line} is no gold label: {where}: {first['msg']}") from error
    return found


def write_gold(file: Path, rows: Iterable[Gold]) -> None:
    """One JSON object a line."""
    write_atomic(file, "".join(f"{row.model_dump_json()}\n" for row in rows).encode())
