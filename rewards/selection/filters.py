"""From a prompt's votes to the pairs that may be chosen from: agreement, then what a pair must be like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

from rewards.selection.config import LanguageCheck, PairsConfig
from rewards.selection.funnel import Funnel
from rewards.selection.merge import Merged
from rewards.selection.votes import Decision, decide

Check = Callable[[Merged, Decision], str | None]
"""None when the pair passes, else the reason why not."""


def decisions(prompt: Merged, config: PairsConfig, funnel: Funnel) -> list[Decision]:
    """What the label runs agree on, one decision at most per pair of responses."""
    found = [decide(votes, len(config.labels), config.agreement) for votes in prompt.votes.values()]
    funnel.add("agreement", prompt.language, len(found), Counter(d for d in found if isinstance(d, str)))
    return [d for d in found if isinstance(d, Decision)]


def _texts(prompt: Merged, pair: Decision) -> str | None:
    chosen, rejected = prompt.responses[pair.winner].text, prompt.responses[pair.loser].text
    if not prompt.prompt:
        return "no_prompt"
    if not chosen.strip() or not rejected.strip():
        return "empty"
    return "identical" if chosen.strip() == rejected.strip() else None


def _margin(config: PairsConfig) -> Check:
    def check(_: Merged, pair: Decision) -> str | None:
        if pair.margin < config.min_margin:
            return "too_close"
        return "too_clear" if pair.margin > config.max_margin else None

    return check


def _length(ratio: float) -> Check:
    def check(prompt: Merged, pair: Decision) -> str | None:
        chosen, rejected = (len(prompt.responses[name].text) for name in (pair.winner, pair.loser))
        if max(chosen, rejected) <= ratio * min(chosen, rejected):
            return None
        return "chosen_longer" if chosen > rejected else "rejected_longer"

    return check


class Languages:
    """Whether responses are in their prompt's language, each text looked at once while its prompt is at work."""

    def __init__(self, settings: LanguageCheck) -> None:
        from mr3.languages.identify import is_in

        self._both = settings.check == "both"
        self._is_in = cache(lambda text, language: is_in(text, language, settings.among))

    def told(self, prompt: Merged, pair: Decision) -> list[bool | None]:
        """For chosen, and rejected where it is checked: True, False, or None where it can't be told."""
        names = [pair.winner, pair.loser] if self._both else [pair.winner]
        return [self._is_in(prompt.responses[name].text, prompt.language) for name in names]

    def check(self, prompt: Merged, pair: Decision) -> str | None:
        """The reason against a pair."""
        told = self.told(prompt, pair)
        if False not in told:
            return None
        return "chosen_in_another" if told[0] is False else "rejected_in_another"

    def forget(self) -> None:
        """Let go of the texts."""
        self._is_in.cache_clear()


class Filters:
    """What every pair must be like; each filter counts into the funnel."""

    def __init__(self, config: PairsConfig, funnel: Funnel) -> None:
        self._funnel = funnel
        self._languages = Languages(config.language) if config.language is not None else None
        self._checks: list[tuple[str, Check]] = [("text", _texts), ("margin", _margin(config))]
        if config.max_length_ratio is not None:
            self._checks.append(("length", _length(config.max_length_ratio)))
        if self._languages is not None:
            self._checks.append(("language", self._languages.check))

    def passed(self, prompt: Merged, decided: Sequence[Decision]) -> list[Decision]:
        """The decisions that may become pairs."""
        pairs = list(decided)
        for name, check in self._checks:
            reasons = [check(prompt, pair) for pair in pairs]
            self._funnel.add(name, prompt.language, len(pairs), Counter(r for r in reasons if r is not None))
            pairs = [pair for pair, reason in zip(pairs, reasons, strict=True) if reason is None]
        if self._languages is not None:
            untold = sum(None in self._languages.told(prompt, pair) for pair in pairs)
            self._funnel.note("language", prompt.language, "language_not_told", untold)
            self._languages.forget()
        return pairs
