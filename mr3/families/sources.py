"""Which family a row belongs to: by the data set that it comes from, and where that holds several, by its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mr3.families.errors import RowError
from mr3.families.table import FAMILIES, family_name, find_family

_SAFETY = ("donotanswer", "refusals-", "xstest-")


def _arena(row: Mapping[str, Any]) -> str:
    return "arena-single" if turns(row) == 1 else "arena-multi"


def turns(row: Mapping[str, Any]) -> int:
    """Turns of an arena row, as its metadata says; counted from the user's messages where there is none."""
    about = row.get("conv_metadata")
    if isinstance(about, Mapping) and isinstance(about.get("turns"), int):
        return int(about["turns"])
    conversation = row.get("conversation_a")
    if not isinstance(conversation, list):
        raise RowError(f"row {row.get('id')!r} has neither conv_metadata.turns nor conversation_a", "arena")
    return sum(isinstance(m, Mapping) and m.get("role") == "user" for m in conversation)


def _strict_pair(row: Mapping[str, Any]) -> str:
    source = str(row.get("source", ""))
    if source.startswith(_SAFETY):
        return "strict-pair-safety"
    if source.startswith("hep-"):
        return "strict-pair-code"
    return "strict-pair-math" if source == "math-prm" else "strict-pair-general"


def _by_column(group: str, column: str) -> Callable[[Mapping[str, Any]], str]:
    def family(row: Mapping[str, Any]) -> str:
        value = row.get(column)
        if not isinstance(value, str):
            raise RowError(f"row {row.get('id')!r} has no {column}: it decides the family of a {group} row", group)
        return find_family(f"{group}-{value}").name

    return family


def _polyguard(row: Mapping[str, Any]) -> str:
    return "polyguard-prompt" if str(row.get("id", "")).endswith("prompt") else "polyguard-response"


_GROUPS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "arena": _arena,
    "strict-pair": _strict_pair,
    "mm-eval": _by_column("mm-eval", "subset"),
    "indopref": _by_column("indopref", "domain"),
    "polyguard": _polyguard,
}
# Data sets under the names of their hubs and of the paper; the owner before the slash does not matter.
_DATASETS = {
    "arena-human-preference": "arena",
    "lmarena": "arena",
    "m-reward-bench": "strict-pair",
    "m-rewardbench": "strict-pair",
    "reward-bench": "strict-pair",
    "rewardbench": "strict-pair",
    "polyguardmix": "polyguard",
    "polyguardmix-filtered": "polyguard",
    "mmmlu": "mcq",
    "include": "mcq",
    "include-base-44": "mcq",
    "math-500-multilingual": "math500",
    "humaneval-xl": "humanevalxl",
    "humaneval-xl-python": "humanevalxl",
}


def family_of_row(source: str, row: Mapping[str, Any]) -> str:
    """The family of a row.

    Args:
        source: a family, a group of families (arena, strict-pair, mm-eval, indopref, polyguard), or the name or hub id
            of a data set of mR3's registry.

    Raises:
        FamilyError: for an unknown source, or a row without the column that decides.
    """
    key = family_name(source.rsplit("/", 1)[-1])
    key = _DATASETS.get(key, key)
    if key in FAMILIES:
        return key
    if key in _GROUPS:
        return _GROUPS[key](row)
    return find_family(source).name
