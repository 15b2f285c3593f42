"""What can be wrong with a row or with the texts that it needs, as errors that name the family and the language."""

from __future__ import annotations


class FamilyError(ValueError):
    """A mistake in data, not in the program. `family` and `language` say where."""

    def __init__(self, message: str, family: str, language: str | None = None) -> None:
        super().__init__(message)
        self.family = family
        self.language = language


class TextsMissing(FamilyError):
    """There are no texts for a family in a language."""


class RowError(FamilyError):
    """A row lacks what its family needs, or contradicts it."""
