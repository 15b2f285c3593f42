"""The answer formats by name: mR3's own, and those of other judges, so that they can be evaluated and used."""

from __future__ import annotations

import difflib

from mr3.parsing.formats import mr3_json, nemotron_genrm, prometheus, r3, rm_r1
from mr3.parsing.formats.base import Format

__all__ = ["FORMATS", "Format", "format_named"]

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT for module in (mr3_json, r3, rm_r1, prometheus, nemotron_genrm)
}


def format_named(name: str) -> Format:
    """The format of a judge's card.

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    if name in FORMATS:
        return FORMATS[name]
    near = difflib.get_close_matches(name.lower().replace("_", "-"), FORMATS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown answer format {name!r}: {hint}Known are {', '.join(FORMATS)}")
