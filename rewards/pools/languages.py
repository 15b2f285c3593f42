"""The language of a row: by its code, by an English name, or told by the text of the last user turn."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from mr3.languages.codes import base_code
from mr3.languages.identify import identify
from mr3.records import PoolRow
from rewards.pools.messages import last_user_turn

_NO_LANGUAGES = frozenset({"und", "mul", "zxx", "mis", "css", "sql", "php", "cpp"})
"""Codes that say nothing, and programming languages that data sets of code give, some of them codes too."""


@cache
def _names() -> dict[str, str]:
    """English names of the languages that have a two-letter code, without what stands in brackets."""
    import pycountry

    found: dict[str, str] = {}
    for language in pycountry.languages:
        code = getattr(language, "alpha_2", None)
        if code is None:
            continue
        names = [language.name, getattr(language, "common_name", None), getattr(language, "inverted_name", None)]
        for name in filter(None, names):
            plain = re.sub(r"\s*\(.*?\)", "", name)
            for form in (plain, plain.split(",")[0]):  # "Greek, Modern (1453-)" is Greek
                found.setdefault(form.strip().lower(), code)
    return found


def language_code(value: str) -> str | None:
    """A code as it is, an English name as its ISO 639-1 code, None for anything else (`python`, `unknown`)."""
    import pycountry

    text = value.strip()
    named = _names().get(text.lower())
    if named is not None:
        return named
    base = text.replace("_", "-").split("-")[0].lower()
    if base in _NO_LANGUAGES or not 2 <= len(base) <= 3:
        return None
    known = pycountry.languages.get(**{"alpha_2" if len(base) == 2 else "alpha_3": base})
    return text if known is not None or base != base_code(base) else None


@dataclass(frozen=True)
class Tagger:
    """Gives a language to rows without one."""

    default: str | None = None
    among: tuple[str, ...] | None = None
    min_confidence: float = 0.5

    def tag(self, row: PoolRow) -> PoolRow | None:
        """The row with its language and how it was found (`provenance.language`); None where it can't be told.

        Raises:
            ValueError: when the identifier knows none of `among`.
        """
        found = identify(last_user_turn(row), self.among)
        if found is not None and found.confidence >= self.min_confidence:
            how: dict[str, object] = {"told_by": "text", "confidence": round(found.confidence, 4)}
            language = found.language
        elif self.default is not None:
            how, language = {"told_by": "default"}, self.default
        else:
            return None
        return row.model_copy(update={"language": language, "provenance": {**row.provenance, "language": how}})
