"""The checks of the languages' texts: complete, in their script, in their language. The result is `verified.json`.

Two identifiers read the long texts of each language: lingua and py3langid, whose models ship in their wheels. A
language is verified when every identifier that covers it names it for every long text. A near twin (Bosnian and
Croatian, Danish and Norwegian, Indonesian and Malay) is taken for one text, but then the same identifier must name
the language itself for all its texts together: twins alone verify nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from mr3.languages.codes import base_code, twins_of
from mr3.languages.model import KEPT_WORDS, Language
from mr3.languages.registry import Evidence, Status, Verified, available, language
from mr3.languages.scripts import script_problems, without_kept_words

ALL_TEXTS = "all"
"""The name of the answer for all long texts together."""


@dataclass(frozen=True)
class Identifier:
    """A language identifier: the codes that it can tell apart, and its answer for a text."""

    package: str
    covers: frozenset[str]
    tell: Callable[[str], str]


@cache
def identifiers() -> tuple[Identifier, ...]:
    """Lingua over its 75 languages and py3langid over its 140, at full accuracy.

    Raises:
        ValueError: when lingua is not installed.
    """
    try:
        from lingua import Language as Known
        from lingua import LanguageDetectorBuilder
    except ImportError as error:
        raise ValueError("the language checks need lingua: pip install 'mr3[dev]'") from error
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    detector = LanguageDetectorBuilder.from_all_languages().build()
    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def by_lingua(text: str) -> str:
        found = detector.detect_language_of(text)
        return "und" if found is None else base_code(found.iso_code_639_1.name)

    def by_py3langid(text: str) -> str:
        return base_code(model.classify(text)[0])

    lingua_codes = frozenset(base_code(known.iso_code_639_1.name) for known in Known.all())
    return (
        Identifier("lingua-language-detector", lingua_codes, by_lingua),
        Identifier("py3langid", frozenset(map(base_code, model.labels)), by_py3langid),
    )


def label_problems(found: Language) -> list[str]:
    """Labels that a mode's texts don't name, though a judge must write them as they are."""
    pairwise, binary = found.templates.pairwise, found.templates.binary
    wanted = [("pairwise", pairwise, KEPT_WORDS[:2]), ("binary", binary, KEPT_WORDS[3:])]
    return [
        f"templates.{mode}: no text names {label}"
        for mode, part, labels in wanted
        for label in labels
        if label not in " ".join([part.instruction, *part.levels.values()])
    ]


def copied_texts(languages: Iterable[Language]) -> dict[str, list[str]]:
    """Code -> long texts that another language has too: such a text is not the language's own."""
    owners: dict[str, list[tuple[str, str]]] = {}
    for found in languages:
        for key, text in found.long_texts().items():
            owners.setdefault(text.casefold(), []).append((found.code, key))
    copied: dict[str, list[str]] = {}
    for shared in owners.values():
        if len(shared) > 1:
            for code, key in shared:
                others = ", ".join(f"{c}.{k}" for c, k in shared if (c, k) != (code, key))
                copied.setdefault(code, []).append(f"{key}: the same text as {others}")
    return copied


def judged(code: str, answers: Mapping[str, Mapping[str, str]]) -> Status:
    """What the answers of the identifiers that cover a language amount to (identifier -> text -> code)."""
    own = base_code(code)
    if not answers:
        return "uncovered"
    if any(not set(told.values()) <= {own, *twins_of(own)} for told in answers.values()):
        return "contradicted"
    return "verified" if all(told[ALL_TEXTS] == own for told in answers.values()) else "twin"


def examine(found: Language, problems: Sequence[str] = (), tools: Sequence[Identifier] | None = None) -> Evidence:
    """What the checks say of one language.

    Args:
        problems: faults found elsewhere (texts shared with another language).
        tools: the identifiers to ask; those of `identifiers()` where None.
    """
    faults = [*script_problems(found), *label_problems(found), *problems]
    texts = {key: without_kept_words(text) for key, text in found.long_texts().items()}
    texts[ALL_TEXTS] = " ".join(texts.values())
    covering = [tool for tool in tools or identifiers() if base_code(found.code) in tool.covers]
    answers = {tool.package: {key: tool.tell(text) for key, text in texts.items()} for tool in covering}
    status: Status = "faulty" if faults else judged(found.code, answers)
    return Evidence(status=status, content_hash=found.content_hash, identified=answers, problems=tuple(faults))


def examine_all() -> Verified:
    """The checks over every language that has a file."""
    languages = [language(code) for code in available()]
    copied = copied_texts(languages)
    return Verified(
        tools={tool.package: version(tool.package) for tool in identifiers()} | {"fonttools": version("fonttools")},
        languages={found.code: examine(found, copied.get(found.code, ())) for found in languages},
    )
