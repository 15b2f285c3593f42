"""The profiles `mr3-train` and `hf-card`: mR3's prompt layout over a library of texts, in the published strategies.

`mr3-train` is what the published models were trained on: indented as in the public code, with an identity line.
`hf-card` is what their model cards show: flat, without that line. Data go in as they are, but for chat-template
tokens, which are neutralised; nothing is filled in twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mr3.families.errors import FamilyError
from mr3.families.table import Family
from mr3.prompts.rendered import Rendered, neutralise, neutralise_turn
from mr3.prompts.texts import FamilyTexts, Texts, family_of_task
from mr3.records import MAX_LISTED, Strategy, Task
from mr3.rubrics.entries import fitting

STRATEGIES: tuple[Strategy, ...] = ("eng-eng", "tgt-eng", "tgt-tgt", "tgt-tgt-translated")
_ENUMERATED = 3
"""Responses of a list-wise task up to which the schema lists every order (6 of them)."""
Section = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Languages:
    """In which language a prompt is written, and in which one the judge thinks."""

    prompt: str
    thinking: str


def languages_of(strategy: str, language: str, family: Family | None = None) -> Languages:
    """The languages of a strategy for a task in `language`; input and responses always keep their own.

    Raises:
        ValueError: for an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}: choose one of {', '.join(STRATEGIES)}")
    own = "en" if family is not None and family.english else language
    prompt, thinking = strategy.split("-")[:2]
    return Languages(own if prompt == "tgt" else "en", own if thinking == "tgt" else "en")


def _conversation(task: Task) -> str:
    if isinstance(task.input, str):
        return neutralise(task.input)
    return "".join(f"<{m.role}>\n{neutralise_turn(m.content)}\n</{m.role}>\n" for m in task.input)


def _what_fits(family: Family) -> str:
    """What to use in place of a rubric that a family can't show."""
    named = fitting(family.labels or ())
    some = f"use one of the library that does ({', '.join(named)}), or " if named else ""
    return f"{some}leave the family out: any rubric has the general layout"


def _rubric(task: Task, family: Family, texts: FamilyTexts) -> str | None:
    if task.rubric.absent:
        return None
    levels = dict(task.rubric.levels)
    if not levels and texts.generic and texts.rubrics:
        levels = {label: texts.rubrics[0][label] for label in task.labels if label in texts.rubrics[0]}
    if not levels and family.mode not in ("listwise", "choice"):
        raise FamilyError(
            f"task {task.id!r}: family {family.name} needs a rubric with a description per score (`levels`), because "
            f"its texts describe the scores themselves: {_what_fits(family)}",
            family.name,
            task.language,
        )
    criteria = [f"{i}. {neutralise(c.description)}" for i, c in enumerate(task.rubric.criteria, start=1)]
    return "\n".join([*criteria, *(neutralise(f"{label}: {text}") for label, text in levels.items())])


def _schema(task: Task, family: Family, texts: FamilyTexts) -> str:
    if family.labels is not None and set(task.labels) != set(family.labels) and not texts.generic:
        raise FamilyError(
            f"task {task.id!r}: family {family.name} has the scores {', '.join(family.labels)}, the task has "
            f"{', '.join(task.labels[:8])}: {_what_fits(family)}",
            family.name,
            task.language,
        )
    ordered = task.labels
    if family.labels is not None and set(task.labels) == set(family.labels):
        ordered = family.labels
    ranked = len(task.responses) if family.mode == "listwise" and len(task.responses) > _ENUMERATED else 0
    return str(texts.schema([neutralise(label) for label in ordered], ranked))


def _parts(task: Task, family: Family, texts: FamilyTexts) -> list[Section]:
    """What follows the input, with its headings. Names of assistants and responses are labels: never translated."""
    if family.parts == "options":
        if task.options is None:
            raise FamilyError(f"task {task.id!r} has no options to choose from", family.name, task.language)
        return [(texts.part_title, neutralise(task.options))]
    titles = {
        "assistants": [f"Assistant {letter}" for letter in "ABCDE"[:MAX_LISTED]],
        "responses": ["Response 1", "Response 2"],
        "response": ["Response"],
        "none": [],
    }.get(family.parts, [texts.part_title])
    if family.parts == "none" and task.responses:
        raise FamilyError(
            f"task {task.id!r}: family {family.name} classifies its input alone; put the response into it",
            family.name,
            task.language,
        )
    return [(title, neutralise(text)) for title, text in zip(titles, task.responses, strict=False)]


def _sections(task: Task, family: Family, texts: FamilyTexts) -> list[Section]:
    title = texts.input_title if isinstance(task.input, str) else texts.conversation_title
    sections = [(title, _conversation(task))] if family.input else []
    if task.reference is not None:
        if texts.reference_title is None:
            raise FamilyError(
                f"task {task.id!r}: the published texts know no reference answer; leave it out, or use `texts: own`",
                family.name,
                task.language,
            )
        sections.append((texts.reference_title, neutralise(task.reference)))
    return sections + _parts(task, family, texts)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Everything that a profile lays out."""

    family: Family
    texts: FamilyTexts
    identity: str
    instruction: str
    rubric: str | None
    schema: str
    sections: list[Section]


def _train(parts: _Parts) -> tuple[str, str]:
    layout, texts = parts.family.layout, parts.texts
    lead = " " * 4
    system = f"{parts.identity}\n\n# {texts.instruction_title}\n{lead}{parts.instruction}"
    if parts.rubric is None:
        system += "\n\n"
    else:
        before, after = layout.gap
        system += f"{before}{lead}# {texts.rubric_title}\n{lead}{parts.rubric}{after}"
    system += f"{lead}# {texts.format_title}\n\n{lead}{parts.schema}"
    indent = " " * layout.indent
    sections = [f"# {title}\n{indent}{body}\n\n{indent}" for title, body in parts.sections]
    return system, "".join(sections) + f"# {texts.response_title}\n{' ' * layout.tail}"


def _card(parts: _Parts) -> tuple[str, str]:
    texts = parts.texts
    system = [(texts.instruction_title, parts.instruction.strip())]
    if parts.rubric is not None:
        system.append((texts.rubric_title, parts.rubric))
    system.append((texts.format_title, f"\n{parts.schema}"))
    user = [(title, body.rstrip("\n")) for title, body in parts.sections]
    head, body = ("\n\n".join(f"# {title}\n{body}" for title, body in part) for part in (system, user))
    return f"{head}\n", f"{body}\n\n# {texts.response_title}\n"


LAYOUTS: dict[str, Callable[[_Parts], tuple[str, str]]] = {"mr3-train": _train, "hf-card": _card}


def lay_out(task: Task, profile: str, strategy: str, texts: Texts) -> Rendered:
    """Render one task.

    Args:
        profile: mr3-train or hf-card.
        strategy: prompt and thinking language; a forced first sentence goes into the assistant prefix.
        texts: where titles, instruction and schema texts come from.

    Raises:
        FamilyError: when the texts lack what the task needs, or the task does not fit its family.
        ValueError: for an unknown strategy.
    """
    family = family_of_task(task, texts)
    said = languages_of(strategy, task.language, family)
    own = texts.family(family, said.prompt)
    parts = _Parts(
        family=family,
        texts=own,
        identity=texts.identity(said.thinking),
        instruction=own.instruction if task.instruction is None else neutralise(task.instruction),
        rubric=_rubric(task, family, own),
        schema=_schema(task, family, own),
        sections=_sections(task, family, own),
    )
    system, user = LAYOUTS[profile](parts)
    forced = texts.forcing(said.thinking) if strategy.startswith("tgt-tgt") else ""
    return Rendered(system=system, user=user, assistant_prefix=f"<think>{forced}")
