"""From rendered messages to the prompt text that a judge continues: chat template, then the assistant prefix.

Qwen3's rule: render with `add_generation_prompt` and `enable_thinking`, and append `<think>` if the result lacks it.
Some templates already end with `<think>` or `<think>\\n`; then only what follows `<think>` in the prefix (a forced
first sentence) is appended, behind the template's own ending, newline included. Nothing is stripped: the prompt must
be token for token the one of training, which renders the same messages with the same template.
"""

from __future__ import annotations

from typing import Any

from mr3.prompts import Rendered

_OPEN = "<think>"
_SYSTEM, _USER = "\x02system probe\x03", "\x02user probe\x03"
# A template that trims, escapes or rewrites contents does so to this one.
_ODD = ("  \n a <b> & {{c}} é\u3000\n\n", "\n<tool_response>x</tool_response> \\n 'q' \n ")


def _apply(tokenizer: Any, system: str, user: str) -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    text: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    return text


def with_prefix(text: str, prefix: str) -> str:
    """The template's output followed by the assistant prefix, `<think>` being said once."""
    if text.rstrip().endswith(_OPEN):
        return text + prefix.removeprefix(_OPEN)
    return text + prefix


class ChatPrompt:
    """Renders one tokenizer's template, as string concatenation where that is provably the same."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._parts = self._split()

    def _split(self) -> tuple[str, str, str] | None:
        """The template's text around system and user content, or None when it looks into the contents."""
        whole = _apply(self._tokenizer, _SYSTEM, _USER)
        if whole.count(_SYSTEM) != 1 or whole.count(_USER) != 1 or whole.index(_SYSTEM) > whole.index(_USER):
            return None
        head, rest = whole.split(_SYSTEM)
        middle, tail = rest.split(_USER)
        system, user = _ODD
        if _apply(self._tokenizer, system, user) != head + system + middle + user + tail:
            return None
        return head, middle, tail

    def text(self, rendered: Rendered) -> str:
        """The whole prompt of one rendered task."""
        if self._parts is None:
            whole = _apply(self._tokenizer, rendered.system, rendered.user)
        else:
            head, middle, tail = self._parts
            whole = f"{head}{rendered.system}{middle}{rendered.user}{tail}"
        return with_prefix(whole, rendered.assistant_prefix)
