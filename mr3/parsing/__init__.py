"""From a judge's raw completion to a score, or to a named failure: the only place where a score comes into being.

`parse` reads what mR3 judges write; `FORMATS` holds the same for other judges, behind one interface.
docs/judgements.md says what is repaired and what is not.
"""

from __future__ import annotations

from mr3.parsing.formats import FORMATS, Format, format_named
from mr3.parsing.parsed import CLOSE, Parsed

__all__ = ["CLOSE", "FORMATS", "Format", "Parsed", "format_named", "parse"]

parse = FORMATS["mr3"].parse
