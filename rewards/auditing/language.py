"""Language consistency: are responses in their prompt's language, and does the judge prefer those that are not?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mr3.judging.scale import label_values
from mr3.languages.codes import base_code
from mr3.languages.identify import is_in, known_languages
from mr3.records import Mode, stable_hash
from mr3.stats import wilson
from mr3.uncertainty import mean_of
from rewards.auditing.breakdown import Breakdown
from rewards.walk import Labelled


class _Consistency:
    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.scores: dict[str, Counter[float]] = {"in_language": Counter(), "in_another": Counter()}
        self.mixed: Counter[str] = Counter()

    def report(self) -> dict[str, Any]:
        c, mixed = self.found, self.mixed
        found: dict[str, Any] = {
            "responses": c.total(),
            "consistent": wilson(c["in_language"], c["in_language"] + c["in_another"]),
            "undecidable": c["undecidable"],
        }
        if self.mixed:
            found["other_language_wins"] = wilson(mixed["other"], mixed["other"] + mixed["own"])
            found["other_language_ties"] = mixed["tie"]
        if any(self.scores.values()):
            found["mean_score"] = {name: mean_of(counts) for name, counts in self.scores.items()}
        return found


class Languages:
    """Identifies the language of a share of the prompts' responses, chosen by a hash of the prompt's id.

    Args:
        responses: language -> responses of the run.
        per_language: identify about so many of each language; None for all.
    """

    def __init__(
        self, labels: Sequence[str], mode: Mode, responses: Mapping[str, int], per_language: int | None, seed: int
    ) -> None:
        self._values = label_values(labels, mode)
        self._pairwise = mode == "pairwise"
        self._among = sorted(responses)
        self._shares = {
            name: 1.0 if per_language is None else per_language / max(1, n) for name, n in responses.items()
        }
        self._seed = seed
        self._found = Breakdown(_Consistency)

    def add(self, prompt: Labelled) -> None:
        """Identify one prompt's responses, if it is among the chosen."""
        place = int(stable_hash("language", self._seed, prompt.prompt_id, length=12), 16) / 16**12
        if place >= self._shares[prompt.language]:
            return
        own: dict[str, bool | None] = {}
        for response in prompt.responses:
            inside = is_in(response["text"], prompt.language, self._among)
            own[response["response_id"]] = inside
            name = "undecidable" if inside is None else "in_language" if inside else "in_another"
            for part in self._found.of(prompt.language, [response["policy"]]):
                part.found[name] += 1
                if not self._pairwise and inside is not None:
                    said = prompt.verdicts_on(response["judged_as"])
                    part.scores[name].update(self._values[v["score"]] for v in said if v["score"] is not None)
        self._compare(prompt, own)

    def _compare(self, prompt: Labelled, own: Mapping[str, bool | None]) -> None:
        """Comparisons of a response in the prompt's language with one that is not."""
        for row in prompt.comparisons:
            sides = {"a": own[row["a"]], "b": own[row["b"]]}
            if row["result"] == "failed" or set(sides.values()) != {True, False}:
                continue
            result = "tie" if row["result"] == "tie" else "own" if sides[row["result"]] else "other"
            for part in self._found.of(prompt.language, prompt.authors_of((row["a"], row["b"]))):
                part.mixed[result] += 1

    def report(self) -> dict[str, Any]:
        """With the languages that the identifier doesn't know; their responses are undecidable."""
        unknown = [name for name in self._among if base_code(name) not in known_languages()]
        return {**self._found.report(), "unknown_languages": unknown}
