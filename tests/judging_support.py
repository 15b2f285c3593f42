"""What the tests of judging share: a tokenizer with a Qwen-style template, and an engine that answers by a function."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from mr3.inference.engine import Completion, Engine, Request, Sampling, TokenLogprobs
from mr3.judge_card import JudgeCard
from mr3.judging.judge import Judge, JudgeItem
from mr3.judging.worker import JudgeWorker
from mr3.records import Task
from mr3.rubrics import Criterion, Rubric

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CARD = JudgeCard(profile="compact", max_prompt_tokens=1_000, max_output_tokens=100, sampling=Sampling(max_tokens=100))
RUBRIC = Rubric(
    name="two",
    criteria=[
        Criterion(name="correct", description="The number is right."),
        Criterion(name="brief", description="There is nothing but the answer."),
    ],
)


def make_tokenizer(template: str = TEMPLATE) -> Any:
    """Byte-level, no merges: every text comes back from its ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.add_tokens(["<think>", "</think>"])
    fast.chat_template = template
    return fast


class ScriptedEngine:
    """Keeps the engine protocol; `answer(request)` gives text or a whole completion."""

    takes_text = False

    def __init__(self, answer: Callable[[Request], str | Completion]) -> None:
        self.answer = answer
        self.calls: list[list[Request]] = []

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.calls.append(list(requests))
        found = [(r, self.answer(r)) for r in requests]
        return [a if isinstance(a, Completion) else Completion(id=r.id, text=a, finish="stop") for r, a in found]

    def close(self) -> None:
        return


def make_judge(
    answer: Callable[[Request], str | Completion], sampling: Sampling | None = None, format: str = "mr3"
) -> Judge:
    """A judge over a scripted engine."""
    engine: Engine = ScriptedEngine(answer)
    card = CARD.model_copy(update={"sampling": sampling or CARD.sampling, "format": format})
    return Judge(card, make_tokenizer(), engine, "model@1")


def pair(a: str = "six", b: str = "ten", **more: Any) -> Task:
    """A pairwise task."""
    fields = {"id": "t", "mode": "pairwise", "input": "What is 2 + 4?", "language": "en", "rubric": RUBRIC}
    return Task.model_validate({**fields, "responses": [a, b], **more})


def single(mode: str, response: str = "six", **more: Any) -> Task:
    """A pointwise or binary task."""
    fields = {"id": "s", "mode": mode, "input": "What is 2 + 4?", "language": "en", "rubric": RUBRIC}
    return Task.model_validate({**fields, "responses": [response], **more})


def written(score: str) -> str:
    """What a well-behaved judge writes after `<think>`."""
    return f'\nlooked\n</think>\n\n{{"explanation": "so", "score": "{score}"}}'


def shown_pair(prompt: str) -> tuple[str, str]:
    """The two responses as the prompt shows them."""
    first, second = prompt.split("\n# Assistant A\n")[1].split("\n# Assistant B\n")
    return first, second.split("\n# Your ")[0]


def prefers_sixes(request: Request) -> str:
    """A judge without position bias: the response with more sixes."""
    a, b = (text.count("six") for text in shown_pair(request.prompt or ""))
    return written("Tie" if a == b else "Assistant A" if a > b else "Assistant B")


def positions(text: str, chunks: Sequence[str], tops: dict[int, dict[str, float]]) -> list[TokenLogprobs]:
    """Logprobs of a generation: certain everywhere but at the chunks that `tops` names (probabilities)."""
    import math

    assert "".join(chunks) == text
    return [
        TokenLogprobs(token=c, top={t: math.log(p) for t, p in tops.get(i, {c: 1.0}).items()})
        for i, c in enumerate(chunks)
    ]


class PoisonedEngine:
    """Ends its process on a poisonous prompt, as a segmentation fault in a kernel would."""

    takes_text = False

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        if any("POISON" in (r.prompt or "") for r in requests):
            os._exit(1)
        return [Completion(id=r.id, text=prefers_sixes(r), finish="stop") for r in requests]

    def close(self) -> None:
        return


class PoisonedWorker(JudgeWorker):
    """The real worker over an engine that dies."""

    def __init__(self, judge: dict[str, Any], store: str, identity: str, run: str | None = None) -> None:
        super().__init__(judge, store, identity, run)
        self.cached.judge = Judge(CARD, make_tokenizer(), PoisonedEngine(), identity)


def item(task: Task, **more: Any) -> JudgeItem:
    """A judgement to make."""
    return JudgeItem(task=task, **more)
