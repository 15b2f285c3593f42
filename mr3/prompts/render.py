"""Render a task by a named profile, with the texts and the strategy that a judge's card asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mr3.prompts.compact import compact
from mr3.prompts.layout import LAYOUTS, lay_out
from mr3.prompts.own import OwnTexts
from mr3.prompts.published import Templates, how_to_get
from mr3.prompts.rendered import Rendered
from mr3.prompts.texts import Texts
from mr3.records import Strategy, Task

PROFILES = ("compact", *LAYOUTS)
TextsName = Literal["own", "published"]


def needs_texts(profile: str) -> bool:
    """Whether a profile renders over a library of texts.

    Raises:
        ValueError: for an unknown profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown prompt profile {profile!r}: choose one of {', '.join(PROFILES)}")
    return profile in LAYOUTS


def open_texts(name: TextsName, templates_dir: str | Path | None = None, unverified: bool = False) -> Texts:
    """A library of texts by name.

    Args:
        templates_dir: the user's copy of the published templates.
        unverified: of the own texts, take those of languages that were not verified too.

    Raises:
        ValueError: when the published templates are not there; nothing stands in for them.
    """
    if name == "own":
        return OwnTexts(unverified)
    if templates_dir is None:
        raise ValueError(how_to_get(None))
    return Templates.load(templates_dir)


def render(task: Task, profile: str, strategy: Strategy = "eng-eng", templates: Texts | None = None) -> Rendered:
    """Render one task by a named profile.

    Args:
        templates: the library of texts, for every profile but compact.

    Raises:
        ValueError: for an unknown profile or strategy, missing texts, or a task that does not fit its family
            (then a FamilyError, with the family and the language).
    """
    if not needs_texts(profile):
        if strategy != "eng-eng":
            raise ValueError(f"the profile {profile} knows only the strategy eng-eng, not {strategy}")
        return compact(task)
    if templates is None:
        raise ValueError(f"the profile {profile} needs a library of texts: published templates or the project's own")
    return lay_out(task, profile, strategy, templates)


def renderer(
    profile: str,
    strategy: Strategy = "eng-eng",
    texts: TextsName | None = None,
    templates_dir: str | Path | None = None,
    unverified: bool = False,
) -> Callable[[Task], Rendered]:
    """How one judge's prompts are made; its texts are opened now.

    Raises:
        ValueError: for an unknown profile, or texts that are not named or not there.
    """
    if not needs_texts(profile):
        return lambda task: render(task, profile, strategy)
    if texts is None:
        raise ValueError(f"the profile {profile} needs texts: say `texts: own` or `texts: published` in the judge card")
    library = open_texts(texts, templates_dir, unverified)
    return lambda task: render(task, profile, strategy, library)
