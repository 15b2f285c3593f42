"""Between trainer and rewards: what the trainer asks of whoever scores, and how the judge's completions are scored.

The trainer knows rows, bundles and numbers; a `Scorer` knows what they mean. `measure` runs in every process on its own
completions (it may use the model); `score` runs on whole bundles, in one process each. Free of torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from grpo_experiments.composite import Composite
from grpo_experiments.contract import Example, Finish, Group, Need, Sample, blanked
from mr3.judge_card import JudgeCard
from mr3.judging.chat import ChatPrompt
from mr3.judging.expected import answer_until_score
from mr3.parsing import format_named
from mr3.records import Task

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion of one row, as the trainer has it."""

    row: int
    text: str
    ids: Sequence[int]
    finish: Finish


@dataclass(frozen=True, slots=True)
class Marked:
    """What scoring says of one completion.

    Args:
        reward: None where it could not be measured. It is logged, guarded and shown.
        truth: what the reward is a stand-in for (1 for the right score), never part of it; None where nobody knows.
        terms: name -> value.
        columns: what else is to be logged of it: plain values.
        normalised: what it is compared by within its set in place of the reward, where the terms are normalised.
    """

    reward: float | None
    truth: float | None
    terms: Mapping[str, float | None] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    normalised: float | None = None

    @property
    def compared(self) -> float | None:
        """What advantages are computed from."""
        return self.reward if self.normalised is None else self.normalised


RowGroup = tuple[int, Sequence[Any]]
"""A row's number and its measured completions."""


class Probabilities(Protocol):
    """Label -> probability behind each text (see `measures.LabelReader`)."""

    def read(self, texts: Sequence[str | None], labels: Sequence[Labels]) -> list[dict[str, float] | None]:
        """None for a text that is None."""
        ...


Logps = Callable[[Sequence[str], Sequence[Sequence[int]]], list[float]]
"""Prompts and token ids of completions -> log p(completion | prompt) in nats, by the model in training."""


class Scorer(Protocol):
    """Who gives rewards: the judge's terms here; a policy's judge elsewhere."""

    @property
    def terms(self) -> Sequence[str]:
        """Names of what is told apart in a reward."""
        ...

    def measure(self, completions: Sequence[Completion]) -> list[Any]:
        """What `score` needs of each completion, as values that can be sent to another process."""
        ...

    async def score(self, bundles: Sequence[Sequence[RowGroup]]) -> list[list[list[Marked]]]:
        """Bundle -> group -> completion. Raises ValueError where the run can't go on."""
        ...


class JudgeScorer:
    """The composite of reward terms over a judge's completions.

    Args:
        examples: by row number.
        card: how the judge is prompted and how its answers are read.
        by_bundle: rewards of a bundle have one baseline, so they are combined as one set.
        probabilities, reader, logps: how label probabilities, the reader's, and log-likelihoods are had; needed only
            where a term asks for them.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        card: JudgeCard,
        tokenizer: Any,
        composite: Composite,
        *,
        by_bundle: bool = False,
        probabilities: Probabilities | None = None,
        reader: ReaderPrompt | None = None,
        logps: Logps | None = None,
    ) -> None:
        self.examples, self.card, self.composite = examples, card, composite
        self.terms = list(composite.terms)
        self.probabilities, self.reader, self.logps = probabilities, reader, logps
        self._by_bundle = by_bundle
        self._format = format_named(card.format)
        self._render, self._chat = card.renderer(), ChatPrompt(tokenizer)

    def prompt(self, example: Example, blank: bool = False) -> str:
        """The text that the judge continues, with its rubric or with nothing of it."""
        return self._chat.text(self._render(blanked(example.task) if blank else example.task))

    def sample(self, completion: Completion) -> Sample:
        """A completion as the judge's card reads it."""
        labels = self.examples[completion.row].task.labels
        parsed = self._format.parse(completion.text, labels, completion.finish)
        return Sample(completion.text, len(completion.ids), completion.finish, parsed)

    def measure(self, completions: Sequence[Completion]) -> list[Sample]:
        """Read, and measure what the terms need."""
        samples = [self.sample(c) for c in completions]
        examples = [self.examples[c.row] for c in completions]
        needs = self.composite.needs
        if "label_probs" in needs:
            found = self._label_probs(examples, samples, blank=False)
            samples = [replace(s, label_probs=p) for s, p in zip(samples, found, strict=True)]
        if "blank_probs" in needs:
            found = self._label_probs(examples, samples, blank=True)
            samples = [replace(s, blank_probs=p) for s, p in zip(samples, found, strict=True)]
        if "rubric_gain" in needs:
            assert self.logps is not None, "rubric_gain is measured by the trainer's model"
            ids = [c.ids for c in completions]
            seen, unseen = (self.logps([self.prompt(e, blank) for e in examples], ids) for blank in (False, True))
            samples = [replace(s, rubric_gain=a - b) for s, a, b in zip(samples, seen, unseen, strict=True)]
        if "reader_probs" in needs:
            assert self.reader is not None, "a term asks for a reader"
            found = self.reader.read(examples, samples)
            samples = [replace(s, reader_probs=p) for s, p in zip(samples, found, strict=True)]
        return samples

    def _label_probs(
        self, examples: Sequence[Example], samples: Sequence[Sample], blank: bool
    ) -> list[dict[str, float] | None]:
        assert self.probabilities is not None, "label probabilities are measured by the trainer's model"
        if not self._format.has_odds:
            return [None] * len(samples)
        texts = [
            self.prompt(e, blank) + answer_until_score(s.text) if s.ok else None
            for e, s in zip(examples, samples, strict=True)
        ]
        return self.probabilities.read(texts, [e.task.labels for e in examples])

    async def score(self, bundles: Sequence[Sequence[RowGroup]]) -> list[list[list[Marked]]]:
        """Groups see their twins and their other order; rewards are combined by the set that shares a baseline."""
        groups = [self._groups(bundle) for bundle in bundles]
        sets = groups if self._by_bundle else [[group] for bundle in groups for group in bundle]
        scored = iter([one for together in await self.composite.score(sets) for one in together])
        found: list[list[list[Marked]]] = []
        for bundle in groups:
            rows: list[list[Marked]] = []
            for group in bundle:
                one = next(scored)
                terms = [{name: values[k] for name, values in one.terms.items()} for k in range(len(group.samples))]
                compared = one.compared if self.composite.how == "normalised" else [None] * len(group.samples)
                rows.append(
                    [
                        Marked(reward, _truth(group.example, sample), told, _columns(group.example, sample), normalised)
                        for reward, normalised, sample, told in zip(
                            one.rewards, compared, group.samples, terms, strict=True
                        )
                    ]
                )
            found.append(rows)
        return found

    def _groups(self, bundle: Sequence[RowGroup]) -> list[Group]:
        bare = [Group(self.examples[row], tuple(cast("Sequence[Sample]", samples))) for row, samples in bundle]
        found = []
        for group in bare:
            mine = group.example
            twins = tuple(
                g for g in bare if g is not group and g.example.swapped is mine.swapped and mine.twin is not None
                and g.example.task.id != mine.task.id
            )  # fmt: skip
            other = next(
                (g for g in bare if g.example.swapped is not mine.swapped and g.example.task.id == mine.task.id), None
            )
            found.append(replace(group, twins=twins, swapped=other))
        return found


def _truth(example: Example, sample: Sample) -> float | None:
    return None if example.gold is None else float(sample.right(example.gold))


def _columns(example: Example, sample: Sample) -> dict[str, Any]:
    return {
        "task": example.task.id,
        "mode": example.task.mode,
        "language": example.task.language,
        "content": example.content,
        "twin": example.twin,
        "swapped": example.swapped,
        "gold": example.gold,
        "shortcut_right": None if example.hidden is None else example.hidden == example.gold,
        "outcome": str(sample.parsed.outcome),
        "score": sample.parsed.score,
        "tokens": sample.tokens,
    }


class ReaderPrompt:
    """What a frozen reader is shown: the judge's prompt with nothing in it, no trace, and one explanation."""

    def __init__(self, card: JudgeCard, tokenizer: Any, probabilities: Probabilities) -> None:
        if not format_named(card.format).has_odds:
            raise ValueError(f"the reader's format {card.format} has no odds of scores: take a judge of the format mr3")
        self._render, self._chat, self._probabilities = card.renderer(), ChatPrompt(tokenizer), probabilities

    def text(self, task: Task, explanation: str) -> str:
        """A prompt that ends where the score's value begins."""
        empty = blanked(task).model_copy(update={"input": "-", "responses": ["-"] * len(task.responses)})
        said = json.dumps(explanation, ensure_ascii=False)
        return f'{self._chat.text(self._render(empty))}\n</think>\n{{"explanation": {said}, "score": "'

    def read(self, examples: Sequence[Example], samples: Sequence[Sample]) -> list[dict[str, float] | None]:
        """The reader's probabilities; None where there is no verdict with an explanation."""
        texts = [
            self.text(e.task, s.parsed.explanation) if s.ok and s.parsed.explanation else None
            for e, s in zip(examples, samples, strict=True)
        ]
        return self._probabilities.read(texts, [e.task.labels for e in examples])


MODEL_NEEDS: frozenset[Need] = frozenset({"label_probs", "blank_probs", "rubric_gain", "reader_probs"})
"""What costs forward passes."""
