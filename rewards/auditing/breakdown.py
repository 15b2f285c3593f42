"""The same numbers in all, per language and per source policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar


class Part(Protocol):
    """Something that was counted and can be reported."""

    def report(self) -> dict[str, Any]:
        """JSON-able numbers."""
        ...


P = TypeVar("P", bound=Part)


class Breakdown(Generic[P]):
    """One part for everything, one per language and one per policy, made when first needed."""

    def __init__(self, make: Callable[[], P]) -> None:
        self._make = make
        self.all = make()
        self.languages: dict[str, P] = {}
        self.policies: dict[str, P] = {}

    def of(self, language: str, policies: Iterable[str] = ()) -> Iterator[P]:
        """Every part that a row of this language and these policies counts in; a policy counts once."""
        yield self.all
        yield self.language(language)
        for policy in dict.fromkeys(policies):
            if policy not in self.policies:
                self.policies[policy] = self._make()
            yield self.policies[policy]

    def language(self, language: str) -> P:
        """The part of one language."""
        if language not in self.languages:
            self.languages[language] = self._make()
        return self.languages[language]

    def report(self) -> dict[str, Any]:
        """`{"all", "languages": {name: ...}, "policies": {name: ...}}`."""
        return {
            "all": self.all.report(),
            "languages": {name: part.report() for name, part in sorted(self.languages.items())},
            "policies": {name: part.report() for name, part in sorted(self.policies.items())},
        }
