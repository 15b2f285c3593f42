"""The language codes of the project: those of the training data, those kept unseen, other names of the same language.

The 72 training codes are those of the published data set (mR3, section 3). `iw` is the old code of `he`, so they
are 71 languages; with the three unseen ones there are 74.
"""

from __future__ import annotations

_PUBLISHED = """
aa af ar as az be bg bn bs ca cs da de el en es et eu fa fi fr ha he hi hr hu hy id ie it iw ja ka kk ko ku la lt lv mk
ms my nl nn no oc pl pt ro ru rw sa sco si sk sl sr sv sw ta th tl tlh tr tt uk vi vo war xh zh zh-Hant
"""
TRAINING_CODES: tuple[str, ...] = tuple(_PUBLISHED.split())
"""As they stand in the published rows: 72, `he` and `iw` among them."""

ALIASES: dict[str, str] = {
    "cmn": "zh",
    "fil": "tl",
    "in": "id",
    "iw": "he",
    "ji": "yi",
    "jw": "jv",
    "kmr": "ku",
    "mo": "ro",
    "nb": "no",
    "zh-CN": "zh",
    "zh-HK": "zh-Hant",
    "zh-Hans": "zh",
    "zh-MO": "zh-Hant",
    "zh-SG": "zh",
    "zh-TW": "zh-Hant",
}
"""Old codes, and codes that name the same texts here: Filipino is standard Tagalog, Norwegian (`no`) is Bokmål."""

TRAINING: tuple[str, ...] = tuple(sorted({ALIASES.get(code, code) for code in TRAINING_CODES}))
UNSEEN: tuple[str, ...] = ("jv", "sq", "te")
"""Javanese, Albanian, Telugu: in no training row."""
ALL: tuple[str, ...] = tuple(sorted({*TRAINING, *UNSEEN}))

TWINS: tuple[frozenset[str], ...] = (
    frozenset({"bs", "hr", "sr"}),
    frozenset({"da", "nn", "no"}),
    frozenset({"id", "ms"}),
)
"""Languages whose written texts are so close that an identifier may name the one for the other."""


def twins_of(code: str) -> frozenset[str]:
    """The near twins of a language, without itself."""
    return frozenset().union(*(group for group in TWINS if code in group)) - {code}


def canonical(code: str) -> str:
    """One spelling for all names of a language: `iw` is `he`, `pt_BR` is `pt`, `zh-tw` is `zh-Hant`.

    A code that is not known here comes back without its region, in lower case.
    """
    parts = code.strip().replace("_", "-").split("-")
    spelled = [parts[0].lower()]
    for part in parts[1:]:  # BCP 47: scripts have four letters and are titled, regions two and are capitals
        spelled.append(part.title() if len(part) == 4 else part.upper())
    for length in range(min(2, len(spelled)), 0, -1):
        tried = "-".join(spelled[:length])
        if tried in ALIASES:
            return ALIASES[tried]
        if tried in ALL:
            return tried
    return spelled[0]


def base_code(code: str) -> str:
    """The ISO 639 code without region or script, with old names replaced: `zh-Hant` is `zh`, `iw` is `he`."""
    return canonical(code).split("-")[0]
