"""How a model's thinking and answer are written: the prompt that it continues, and the two ways between its text and
`trace</think>answer`, which is what the parser reads.

gpt-oss reads harmony: who it is and how hard it thinks stand in the system message, the task in the developer's. It is
ChatGPT there, and not the model that is trained on its traces. Published prompts of gpt-oss are laid out so, without
its chat template, which would put a heading before the task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mr3.factory.config import Dialect
from mr3.judging.chat import ChatPrompt
from mr3.prompts import Rendered

THINK, CLOSE = "<think>", "</think>"
_ANALYSIS, _FINAL = "<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>final<|message|>"
_NOISE = ("<|end|>", "<|return|>")


class Spoken(Rendered):
    """A prompt, and what of it says to the model who it is.

    Attributes:
        identity: the line that the system message begins with; empty where the profile has none.
        teacher_system: the whole system message of gpt-oss where its trace is forced; empty: its own, in English.
    """

    identity: str = ""
    teacher_system: str = ""


def forced(prefix: str) -> str:
    """The sentence with which a trace is made to begin; empty where there is none."""
    return prefix.removeprefix(THINK)


@dataclass(frozen=True)
class Speech:
    """One dialect.

    `parser_text` turns a completion into `trace</think>answer`; `target` (forced sentence or "", trace, answer) into
    what a student is taught to write behind a prompt.
    """

    parser_text: Callable[[str], str]
    target: Callable[[str, str, str], str]


def _tagged(separator: str) -> Callable[[str, str, str], str]:
    """Thinking in tags; behind a forced sentence the target starts mid-thought, else with the tag itself."""

    def target(sentence: str, trace: str, answer: str) -> str:
        begin = "" if sentence else THINK
        return f"{begin}\n{trace}\n{CLOSE}{separator}{answer}"

    return target


def harmony_prompt(spoken: Spoken, effort: str, date: str) -> str:
    """The whole prompt of gpt-oss.

    Args:
        effort: reasoning effort that its system message names.
        date: the day that its system message names.
    """
    system = spoken.teacher_system or (
        "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n"
        f"Current date: {date}\n\nReasoning: {effort}\n\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message."
    )
    task = spoken.system.removeprefix(spoken.identity).lstrip("\n") if spoken.identity else spoken.system
    turns = (("system", system), ("developer", task), ("user", spoken.user))
    said = "".join(f"<|start|>{role}<|message|>{text}<|end|>" for role, text in turns)
    sentence = forced(spoken.assistant_prefix)
    return f"{said}<|start|>assistant" + (f"{_ANALYSIS}{sentence}" if sentence else "")


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


def _as_it_is(text: str) -> str:
    return text


SPEECH: dict[Dialect, Speech] = {
    "qwen3": Speech(_as_it_is, _tagged("\n\n")),
    "plain": Speech(_as_it_is, _tagged("\n")),
    "gpt-oss": Speech(_harmony_text, _harmony_target),
}


class PromptWriter:
    """Prompts of one model: its chat template with the template's own arguments, or harmony.

    Args:
        tokenizer: whose chat template is used; harmony needs none.
        template: arguments of the template; of gpt-oss its `reasoning_effort`.
        date: the day that a model which is told the date is told: the same row, the same prompt, on any day.
    """

    def __init__(self, tokenizer: Any, dialect: Dialect, template: Mapping[str, Any], date: str) -> None:
        self._chat: ChatPrompt | None = None
        self._date, self._effort = date, str(template.get("reasoning_effort", "medium"))
        if dialect == "gpt-oss":
            return
        arguments = {**template, "strftime_now": lambda _: date}
        self._chat = ChatPrompt(_WithArguments(tokenizer, arguments) if template else tokenizer)

    def __call__(self, spoken: Spoken) -> str:
        """The whole prompt."""
        if self._chat is None:
            return harmony_prompt(spoken, self._effort, self._date)
        return self._chat.text(spoken)


class _WithArguments:
    """A tokenizer whose chat template gets further arguments."""

    def __init__(self, tokenizer: Any, arguments: dict[str, Any]) -> None:
        self._tokenizer, self._arguments = tokenizer, arguments

    def apply_chat_template(self, messages: Any, **given: Any) -> Any:
        """As the tokenizer's, with the arguments on top."""
        return self._tokenizer.apply_chat_template(messages, **given, **self._arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)
