"""In place of a tokenizer, for judges behind a chat endpoint: messages as JSON, which the endpoint's engine reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_BYTES_PER_TOKEN = 4
"""A low guess of tokens: what is surely too long is refused here, the rest by the server, which knows its tokenizer."""


class MessagesAsText:
    """What `ChatPrompt` needs of a tokenizer."""

    added_tokens_decoder: Mapping[int, Any] = {}

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]], **_: Any) -> str:
        """The messages themselves."""
        return json.dumps(list(messages), ensure_ascii=False)

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        """Ids that only their number is known of."""
        return {"input_ids": [[0] * (len(t.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN) for t in texts]}
