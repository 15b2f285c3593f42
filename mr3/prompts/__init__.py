"""Prompts: a task becomes a system and a user message, by a named profile.

Profiles are golden-tested; a judge's card names the one it was trained on.
"""

from mr3.prompts.render import PROFILES, Rendered, neutralise, render

__all__ = ["PROFILES", "Rendered", "neutralise", "render"]
