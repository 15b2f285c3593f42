"""The judge: render a task, generate, parse, undo an exchange of A and B, and report what the scores' own odds were.

A plain class over the engine protocol; it knows neither Ray nor the store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from pydantic import Field, model_validator

from mr3.inference.engine import Completion, Engine, Request, Sampling
from mr3.judge_card import JudgeCard
from mr3.judging.chat import ChatPrompt
from mr3.judging.expected import Reading, answer_until_score, read_tokens, settle
from mr3.judging.scale import VALUED, expected_score, mirrored
from mr3.parsing import Parsed, format_named
from mr3.parsing.parsed import unfinished
from mr3.records import Outcome, Record, Task, Verdict, stable_hash

T = TypeVar("T")
Odds: TypeAlias = tuple[dict[str, float], float]
"""Label -> probability (sums to 1), and the probability of what is no label."""
# Enough rounds for any label that two branches share; each round is one token per open branch.
_MAX_ROUNDS = 4


class JudgeItem(Record):
    """One judgement to make: a task, in which order it is shown, and which of k samples it is."""

    task: Task
    swapped: bool = Field(False, description="show A and B exchanged (pairwise only)")
    sample: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _only_pairs_swap(self) -> JudgeItem:
        if self.swapped and self.task.mode != "pairwise":
            raise ValueError(f"task {self.task.id!r}: only pairwise tasks can be judged swapped")
        return self


def judge_constant(judge_id: str, card: JudgeCard) -> str:
    """What all verdicts of a judge share: who it is, how it samples, which prompts it refuses, how it is parsed."""
    return stable_hash(judge_id, card.sampling.model_dump(mode="json"), card.max_prompt_tokens, card.format)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item with its prompt and its identity."""

    item: JudgeItem
    id: str
    prompt: str
    rubric_hash: str


class Judge:
    """One judge behind one engine.

    Args:
        card: prompt profile, sampling and limits.
        tokenizer: with the chat template that the judge was trained with.
        engine: anything that keeps the engine protocol.
        judge_id: `JudgeConfig.identity()`: weights, backend and all else that decides what the engine writes.
    """

    def __init__(self, card: JudgeCard, tokenizer: Any, engine: Engine, judge_id: str) -> None:
        self.card = card
        self.tokenizer = tokenizer
        self.engine = engine
        self.judge_id = judge_id
        self._chat = ChatPrompt(tokenizer)
        self._render = card.renderer()
        self._format = format_named(card.format)
        self._constant = judge_constant(judge_id, card)

    def prepare(self, item: JudgeItem) -> Prepared:
        """Render one item and name it.

        Raises:
            ValueError: when the judge was not trained for the item's mode, or its labels can't be exchanged.
        """
        task = item.task
        if task.mode not in self.card.modes:
            known = ", ".join(self.card.modes)
            raise ValueError(f"task {task.id!r} is {task.mode}, and this judge was trained for {known} only")
        shown = task
        if item.swapped:
            mirrored(task.labels)  # refuses labels that can't be mapped back, before any work is spent
            shown = task.model_copy(update={"responses": task.responses[::-1]})
        prompt = self._chat.text(self._render(shown))
        rubric_hash = task.rubric.content_hash
        return Prepared(item, self._identity(item, prompt, rubric_hash), prompt, rubric_hash)

    def _identity(self, item: JudgeItem, prompt: str, rubric_hash: str) -> str:
        """The verdict's id: all that the judge reads is in the prompt, and all else that decides is named here."""
        task = item.task
        parts = (self._constant, task.mode, task.language, rubric_hash, str(item.swapped), str(item.sample))
        digest = hashlib.blake2b("\n".join(parts).encode(), digest_size=16)
        digest.update(json.dumps(task.labels).encode())
        digest.update(prompt.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    async def _completions(self, prepared: Sequence[Prepared]) -> list[Completion]:
        """Of all prompts, in their order; those over the judge's limit don't reach the engine."""
        requests = await self._run(lambda: self._requests(prepared))
        fitting = [r for r in requests if isinstance(r, Request)]
        answers = iter(await self.engine.generate(fitting) if fitting else [])
        return [r if isinstance(r, Completion) else next(answers) for r in requests]

    async def _run(self, work: Callable[[], T]) -> T:
        """Do what takes the processor, not the engine; a server does it beside its event loop."""
        return work()

    def _requests(self, prepared: Sequence[Prepared]) -> list[Request | Completion]:
        """A request per item; for a prompt over the judge's limit, the completion that says so."""
        least = [self._chat.at_least(p.prompt, self.card.max_prompt_tokens) for p in prepared]
        open_ones = [p for p, tokens in zip(prepared, least, strict=True) if tokens is None]
        found = iter(self._text_requests(open_ones) if self.engine.takes_text else self._token_requests(open_ones))
        return [
            next(found) if tokens is None else self._too_long(p, tokens, "at least ")
            for p, tokens in zip(prepared, least, strict=True)
        ]

    def _token_requests(self, prepared: Sequence[Prepared]) -> list[Request | Completion]:
        """Text and token ids of every prompt; tokenised here in one call, so that the engine's loop need not."""
        ids = self._chat.ids([p.prompt for p in prepared]) if prepared else []
        return [self._request(p, tokens, len(tokens)) for p, tokens in zip(prepared, ids, strict=True)]

    def _text_requests(self, prepared: Sequence[Prepared]) -> list[Request | Completion]:
        """Text alone. A token is a byte or more, so only a prompt of more bytes than the limit need be tokenised."""
        sizes = {p.id: len(p.prompt.encode("utf-8", "surrogatepass")) for p in prepared}
        long = [p for p in prepared if sizes[p.id] > self.card.max_prompt_tokens]
        if long:
            ids = self._chat.ids([p.prompt for p in long])
            sizes |= {p.id: len(tokens) for p, tokens in zip(long, ids, strict=True)}
        return [self._request(p, None, sizes[p.id]) for p in prepared]

    def _request(self, prepared: Prepared, tokens: list[int] | None, size: int) -> Request | Completion:
        if size > self.card.max_prompt_tokens:
            return self._too_long(prepared, size)
        return Request(
            id=prepared.id, prompt=prepared.prompt, prompt_ids=tokens, sampling=self._sampling_of(prepared.id)
        )

    def _too_long(self, prepared: Prepared, size: int, how: str = "") -> Completion:
        error = f"prompt of {how}{size} tokens; the judge reads at most {self.card.max_prompt_tokens}"
        return Completion(id=prepared.id, finish="too_long", prompt_tokens=size, error=error)

    def _sampling_of(self, identity: str) -> Sampling:
        """A configured seed becomes one per judgement: samples differ, and nothing depends on the batch."""
        sampling = self.card.sampling
        if sampling.seed is None:
            return sampling
        return sampling.model_copy(update={"seed": int(identity[:8], 16)})

    async def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        """The verdicts of some items, in their order. Judgements fail as outcomes; only a dead engine raises."""
        return await self.judge_prepared(await self._run(lambda: [self.prepare(item) for item in items]))

    async def judge_prepared(self, prepared: Sequence[Prepared]) -> list[Verdict]:
        """As `judge`, for items that were prepared already (and looked up in a store)."""
        if not prepared:
            return []
        completions = await self._completions(prepared)
        assert [c.id for c in completions] == [p.id for p in prepared], "engines keep order and ids"
        parsed = [
            self._format.parse(c.text, p.item.task.labels, c.finish) for p, c in zip(prepared, completions, strict=True)
        ]
        odds: list[Odds | Parsed | None] = [None] * len(prepared)
        if self.card.sampling.logprobs:
            odds = await self._odds(prepared, completions, parsed)
        return [self._verdict(*row) for row in zip(prepared, completions, parsed, odds, strict=True)]

    async def _odds(
        self, prepared: Sequence[Prepared], completions: Sequence[Completion], parsed: Sequence[Parsed]
    ) -> list[Odds | Parsed | None]:
        """Distribution and outside mass of every `ok` answer, asking for single tokens where some are open.

        Where a token was asked for and the engine failed, the failure: what is left of the distribution would be a
        wrong expected score. None where an answer came without logprobs.
        """
        readings: dict[int, Reading] = {}
        lost: dict[int, Parsed | None] = {}
        for i, (p, completion, result) in enumerate(zip(prepared, completions, parsed, strict=True)):
            if result.outcome is Outcome.OK:
                labels = p.item.task.labels
                found = read_tokens(completion.logprobs or [], labels)
                # Nothing to read (an engine without logprobs for it, a repaired key): force the score from its start.
                readings[i] = found or Reading(dict.fromkeys(labels, 0.0), open={"": 1.0})
        one_token = Sampling(max_tokens=1, logprobs=self.card.sampling.logprobs)
        for _ in range(_MAX_ROUNDS):
            asked = [(i, text, mass) for i, reading in readings.items() for text, mass in settle(reading)]
            if not asked:
                break
            requests = [
                Request(
                    id=f"{prepared[i].id}-{n}",
                    prompt=prepared[i].prompt + answer_until_score(completions[i].text) + text,
                    sampling=one_token,
                )
                for n, (i, text, _) in enumerate(asked)
            ]
            answers = await self.engine.generate(requests)
            for (i, text, mass), answer in zip(asked, answers, strict=True):
                failure = None if answer.finish == "length" else unfinished("", answer.finish)  # of one token
                if failure is not None:
                    why = (
                        f"the odds of its score {parsed[i].score!r} could not be had: {answer.error or failure.reason}"
                    )
                    lost[i] = replace(failure, trace=parsed[i].trace, reason=why)
                elif answer.logprobs:
                    readings[i].spread(answer.logprobs[0].top, mass, text)
                else:
                    lost.setdefault(i, None)
            for i in lost:
                readings.pop(i, None)
        return [readings[i].finish() if i in readings else lost.get(i) for i in range(len(prepared))]

    def _verdict(
        self,
        prepared: Prepared,
        completion: Completion,
        parsed: Parsed,
        odds: Odds | Parsed | None,
    ) -> Verdict:
        item = prepared.item
        labels, mode = item.task.labels, item.task.mode
        distribution, outside = None, None
        if isinstance(odds, Parsed):
            parsed = odds
        elif odds is not None:
            distribution, outside = odds
        score = parsed.score
        if item.swapped:
            back = mirrored(labels)
            score = back[score] if score is not None else None
            if distribution is not None:
                distribution = {label: distribution[back[label]] for label in labels}
        return Verdict(
            id=prepared.id,
            task_id=item.task.id,
            outcome=parsed.outcome,
            score=score,
            expected=expected_score(distribution, labels, mode) if distribution and mode in VALUED else None,
            distribution=distribution,
            outside_mass=outside,
            repaired=parsed.repaired,
            explanation=parsed.explanation,
            trace=parsed.trace,
            reason=completion.error if completion.error and parsed.score is None else parsed.reason,
            swapped=item.swapped,
            sample=item.sample,
            attempts=completion.attempts,
            judge=self.judge_id,
            rubric_hash=prepared.rubric_hash,
            prompt_tokens=completion.prompt_tokens,
            output_tokens=completion.output_tokens,
        )
