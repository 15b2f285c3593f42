"""Which pairs (or responses) people see: a stratified sample of each language, by seed, in bounded memory."""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from mr3.records import Record, stable_hash
from rewards.auditing.agreement import judged_label
from rewards.plans import shuffled
from rewards.walk import Labelled

Of = Literal["pairs", "responses"]
Allocation = Literal["proportional", "equal"]
PAIR_CHOICES = ("A", "B", "tie")


class Item(Record):
    """One line of a sheet, with what the sheet must not show: which responses these are, and what the judge said."""

    id: str
    language: str
    stratum: str
    prompt_id: str
    response_ids: tuple[str, ...] = Field(description="in the order shown")
    judge: str = Field(description="the judge's answer as one of the sheet's choices")


class Shown(Record):
    """What an annotator reads of an item."""

    prompt: str
    responses: tuple[str, ...]
    reference: str | None = None


class Stratum(Record):
    """Where a sample comes from: how many there were, and how many are in the sheet."""

    language: str
    name: str
    population: int
    sampled: int


def slug(language: str) -> str:
    """A language as part of file names and item ids."""
    plain = re.sub(r"[^\w-]", "_", language)
    return plain if plain == language else f"{plain}-{stable_hash(language, length=6)}"


def allocate(sizes: Mapping[str, int], n: int, how: Allocation) -> dict[str, int]:
    """Shares of `n` for strata of these sizes (Sainte-Laguë): by size, or as equal as their sizes let it be."""
    found = dict.fromkeys(sorted(sizes), 0)
    for _ in range(min(n, sum(sizes.values()))):
        room = [name for name in found if found[name] < sizes[name]]
        weight = {name: sizes[name] if how == "proportional" else 1 for name in room}
        best = max(room, key=lambda name: weight[name] / (2 * found[name] + 1))
        found[best] += 1
    return found


def _messages(messages: Sequence[Mapping[str, str]]) -> str:
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in messages)


class Sampler:
    """Takes prompts as they come and keeps the candidates of lowest hash per language and stratum.

    Strata of pairs are what the judge said (`decided`, `tie`, `flip`), strata of responses its labels. What the judge
    failed on is in no stratum; it is counted in `failed`.
    """

    def __init__(self, of: Of, per_language: int, how: Allocation, seed: int, *, reference: bool) -> None:
        self._of, self._per_language, self._how, self._seed, self._reference = of, per_language, how, seed, reference
        self._held: dict[str, dict[str, list[tuple[int, str, dict[str, Any]]]]] = defaultdict(lambda: defaultdict(list))
        self._sizes: dict[str, Counter[str]] = defaultdict(Counter)
        self.failed = 0

    def add(self, prompt: Labelled) -> None:
        """Look at one prompt."""
        for stratum, ids, judge in self._pairs(prompt) if self._of == "pairs" else self._responses(prompt):
            if stratum == "failed":
                self.failed += 1
                continue
            self._sizes[prompt.language][stratum] += 1
            place = int(stable_hash("annotate", self._seed, prompt.prompt_id, *ids, length=16), 16)
            held = self._held[prompt.language][stratum]
            if len(held) == self._per_language and -held[0][0] <= place:
                continue
            heapq.heappush(held, (-place, "\t".join((prompt.prompt_id, *ids)), self._entry(prompt, ids, judge)))
            if len(held) > self._per_language:
                heapq.heappop(held)

    def _pairs(self, prompt: Labelled) -> Iterator[tuple[str, tuple[str, ...], str]]:
        for row in prompt.comparisons:
            a, b, result = row["a"], row["b"], row["result"]
            stratum = "flip" if row["flip"] else result if result in ("failed", "tie") else "decided"
            ids = tuple(shuffled(sorted((a, b)), "shown", self._seed, prompt.prompt_id, *sorted((a, b))))
            judge = "tie" if result == "tie" else "A" if {"a": a, "b": b}.get(result) == ids[0] else "B"
            yield ("failed" if result == "failed" else stratum), ids, judge

    @staticmethod
    def _responses(prompt: Labelled) -> Iterator[tuple[str, tuple[str, ...], str]]:
        for response in prompt.responses:
            name = response["response_id"]
            if response["judged_as"] == name:
                label, _ = judged_label(prompt.verdicts_on(name))
                yield label or "failed", (name,), label or ""

    def _entry(self, prompt: Labelled, ids: tuple[str, ...], judge: str) -> dict[str, Any]:
        texts = {r["response_id"]: r["text"] for r in prompt.responses}
        return {
            "prompt_id": prompt.prompt_id,
            "response_ids": ids,
            "judge": judge,
            "shown": Shown(
                prompt=_messages(prompt.prompt),
                responses=tuple(texts[i] for i in ids),
                reference=prompt.reference if self._reference else None,
            ),
        }

    def sample(self) -> tuple[list[tuple[Item, Shown]], list[Stratum]]:
        """The items by language, shuffled within it so that no stratum can be told, and the design of the sample."""
        items: list[tuple[Item, Shown]] = []
        design = []
        for language, sizes in sorted(self._sizes.items()):
            taken = []
            for stratum, n in allocate(sizes, self._per_language, self._how).items():
                design.append(Stratum(language=language, name=stratum, population=sizes[stratum], sampled=n))
                held = sorted(self._held[language][stratum], reverse=True)[:n]
                taken += [(stratum, entry) for _, _, entry in held]
            for number, (stratum, entry) in enumerate(shuffled(taken, "sheet", self._seed, language), start=1):
                shown = entry.pop("shown")
                # A row of another sheet must not pass for this one's: the id holds a hash of what it is about.
                mark = stable_hash(self._seed, entry["prompt_id"], entry["response_ids"], length=6)
                name = f"{slug(language)}-{number:03d}-{mark}"
                items.append((Item(id=name, language=language, stratum=stratum, **entry), shown))
        return items, design
