"""What rendering gives, and how text that is data is kept from posing as markup."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

_SPECIAL = re.compile(r"<\|([^<>|\s]{1,40})\|>|<(/?)(think|tool_call|tool_response)>")


class Rendered(BaseModel):
    """What goes to the chat template, and what the assistant's turn is made to begin with."""

    model_config = ConfigDict(frozen=True)

    system: str
    user: str
    assistant_prefix: str = "<think>"

    @property
    def messages(self) -> list[dict[str, str]]:
        """System and user turn."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


def neutralise(text: str) -> str:
    """Make chat-template tokens inside data inert, visibly: `<|im_end|>` becomes `<¦im_end¦>`.

    Covers `<|...|>` tokens, think and tool tags; ordinary text comes back unchanged.
    """
    if "<" not in text:
        return text
    return _SPECIAL.sub(lambda m: f"<¦{m.group(1)}¦>" if m.group(1) else f"<¦{m.group(2)}{m.group(3)}¦>", text)
