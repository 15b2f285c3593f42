"""Prompts: a task becomes a system and a user message, by a named profile.

Profiles are golden-tested; a judge's card names the one it was trained on, its strategy, and its texts.
"""

from mr3.prompts.layout import STRATEGIES, Languages, languages_of
from mr3.prompts.own import OwnTexts
from mr3.prompts.published import Templates
from mr3.prompts.render import PROFILES, TextsName, needs_texts, open_texts, render, renderer
from mr3.prompts.rendered import Rendered, neutralise
from mr3.prompts.texts import FamilyTexts, Texts

__all__ = [
    "PROFILES",
    "STRATEGIES",
    "FamilyTexts",
    "Languages",
    "OwnTexts",
    "Rendered",
    "Templates",
    "Texts",
    "TextsName",
    "languages_of",
    "needs_texts",
    "neutralise",
    "open_texts",
    "render",
    "renderer",
]
