"""The languages by code, and which may instruct a judge: those whose texts `mr3 languages check` verified."""

from __future__ import annotations

import difflib
import logging
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from mr3.languages.codes import canonical
from mr3.languages.model import Language, read_language

DATA = Path(str(resources.files("mr3"))) / "languages" / "data"
VERIFIED_FILE = DATA.parent / "verified.json"
Status = Literal["verified", "twin", "uncovered", "contradicted", "faulty"]
_LOG = logging.getLogger(__name__)


class Evidence(BaseModel):
    """What the checks found about the texts of one language.

    `verified`: every identifier that covers the language names it (see mr3.languages.check); `twin`: one named only
    a near twin; `uncovered`: no identifier knows the language; `contradicted`: one named another language; `faulty`:
    letters of a wrong script, or another fault that `problems` names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Status
    content_hash: str
    identified: dict[str, dict[str, str]] = {}
    problems: tuple[str, ...] = ()


class Verified(BaseModel):
    """The stored result of the checks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tools: dict[str, str]
    languages: dict[str, Evidence]


def available() -> tuple[str, ...]:
    """The codes that have a file, sorted."""
    return tuple(sorted(file.stem for file in DATA.glob("*.yaml")))


@cache
def _load(code: str) -> Language:
    return read_language(DATA / f"{code}.yaml")


def _near(code: str) -> str:
    """A hint for an unknown code: the languages whose code or name is like it."""
    named = {known: _load(known) for known in available()}
    words = {word.casefold(): c for c, found in named.items() for word in (c, found.name, found.endonym)}
    close = difflib.get_close_matches(code.casefold(), words, n=3, cutoff=0.5)
    hits = dict.fromkeys(words[word] for word in close)
    return f"did you mean {' or '.join(f'{c} ({named[c].name})' for c in hits)}? " if hits else ""


def language(code: str) -> Language:
    """The language of a code; old codes and regions are understood (`iw`, `pt_BR`, `zh-TW`).

    Raises:
        ValueError: for a code without texts, with the nearest ones.
    """
    known = canonical(code)
    if not (DATA / f"{known}.yaml").is_file():
        raise ValueError(f"no texts for language {code!r}: {_near(code)}`mr3 languages list` names all")
    return _load(known)


@cache
def verified() -> Verified:
    """The stored result of the checks.

    Raises:
        ValueError: when it was never made.
    """
    if not VERIFIED_FILE.is_file():
        raise ValueError(f"{VERIFIED_FILE} is missing: make it with `mr3 languages check --write`")
    return Verified.model_validate_json(VERIFIED_FILE.read_text(encoding="utf-8"))


def is_verified(code: str) -> bool:
    """Whether the texts, as they are now, were found to be in their language."""
    found = language(code)
    evidence = verified().languages.get(found.code)
    return evidence is not None and evidence.status == "verified" and evidence.content_hash == found.content_hash


@cache
def _notice(code: str, name: str) -> None:
    _LOG.warning(
        "the texts of %s (%s) are not machine-verified: the judge is instructed in English; "
        "ask for unverified texts to have them all the same",
        code,
        name,
    )


def instructions_for(code: str, require_verified: bool = True) -> Language:
    """The language whose texts instruct a judge about a task in `code`: itself, or English where it is unverified.

    The fall-back is said once per language in the log.

    Args:
        require_verified: False takes the texts as they are.

    Raises:
        ValueError: for a code without texts.
    """
    wanted = language(code)
    if not require_verified or is_verified(wanted.code):
        return wanted
    _notice(wanted.code, wanted.name)
    return language("en")
