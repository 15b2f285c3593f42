"""How a model's thinking and answer are written: the prompt that it continues, and the two ways between its text and
`trace</think>answer`, which is what the parser reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mr3.factory.config import Dialect
from mr3.judging.chat import with_prefix
from mr3.prompts import Rendered

THINK, CLOSE = "<think>", "</think>"
_ANALYSIS, _FINAL = "<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>final<|message|>"
_NOISE = ("<|end|>", "<|return|>")


def forced(prefix: str) -> str:
    """The sentence with which a trace is made to begin; empty where there is none."""
    return prefix.removeprefix(THINK)


@dataclass(frozen=True)
class Speech:
    """One dialect.

    `opening` turns an assistant prefix into what follows the chat template; `parser_text` a completion into
    `trace</think>answer`; `target` (forced sentence or "", trace, answer) into what a student is taught to write
    behind a prompt.
    """

    opening: Callable[[str, str], str]
    parser_text: Callable[[str], str]
    target: Callable[[str, str, str], str]


def _tagged(separator: str) -> Callable[[str, str, str], str]:
    """Thinking in tags; behind a forced sentence the target starts mid-thought, else with the tag itself."""

    def target(sentence: str, trace: str, answer: str) -> str:
        begin = "" if sentence else THINK
        return f"{begin}\n{trace}\n{CLOSE}{separator}{answer}"

    return target


def _harmony_opening(text: str, prefix: str) -> str:
    sentence = forced(prefix)
    return f"{text}{_ANALYSIS}{sentence}" if sentence else text


def _harmony_text(completion: str) -> str:
    """Harmony's channels as a trace and an answer; engines may have taken the special tokens out."""
    text = completion
    for token in _NOISE:
        text = text.replace(token, "")
    for final, analysis in ((_FINAL, _ANALYSIS), ("assistantfinal", "analysis")):
        trace, found, answer = text.partition(final)
        if found:
            return f"{trace.removeprefix(analysis)}{CLOSE}{answer}"
    return text.removeprefix(_ANALYSIS)


def _harmony_target(sentence: str, trace: str, answer: str) -> str:
    begin = "" if sentence else _ANALYSIS
    return f"{begin}{trace}<|end|>{_FINAL}{answer}<|return|>"


_TAGS = (with_prefix, lambda text: text)
SPEECH: dict[Dialect, Speech] = {
    "qwen3": Speech(*_TAGS, _tagged("\n\n")),
    "plain": Speech(*_TAGS, _tagged("\n")),
    "gpt-oss": Speech(_harmony_opening, _harmony_text, _harmony_target),
}


class PromptWriter:
    """Prompts of one model: its chat template with the template's own arguments, then the opening.

    The template is called on probes once, and from there strings are joined, where that is provably the same.
    """

    def __init__(self, tokenizer: Any, dialect: Dialect, template: dict[str, Any], date: str) -> None:
        from mr3.judging.chat import ChatPrompt

        self._opening = None if dialect in ("qwen3", "plain") else SPEECH[dialect].opening
        # A template that asks for the date is told a fixed one: the same row, the same prompt, on any day.
        arguments = {**template, "strftime_now": lambda _: date}
        self._chat = ChatPrompt(_WithArguments(tokenizer, arguments) if dialect == "gpt-oss" or template else tokenizer)

    def __call__(self, rendered: Rendered) -> str:
        """The whole prompt."""
        if self._opening is None:
            return self._chat.text(rendered)
        bare = rendered.model_copy(update={"assistant_prefix": ""})
        return self._opening(self._chat.text(bare), rendered.assistant_prefix)


class _WithArguments:
    """A tokenizer whose chat template gets further arguments."""

    def __init__(self, tokenizer: Any, arguments: dict[str, Any]) -> None:
        self._tokenizer, self._arguments = tokenizer, arguments

    def apply_chat_template(self, messages: Any, **given: Any) -> Any:
        """As the tokenizer's, with the arguments on top."""
        return self._tokenizer.apply_chat_template(messages, **given, **self._arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)
