"""Chat messages as data sets write them, brought into ours; and what makes two prompts the same.

Read as well: ShareGPT's `from`/`value` with `human` and `gpt`, and content in text parts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from mr3.records import PoolRow, stable_hash

Messages = list[dict[str, str]]

_ROLES = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}


class Unreadable(Exception):
    """A row can't be brought into the pool's form; the text is the reason."""


def _role_of(message: Mapping[str, Any]) -> Any:
    return message.get("role") or message.get("from")


def _content(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in value):
        return "\n".join(part["text"] for part in value)
    raise Unreadable(f"a message's content is no text but {type(value).__name__}")


def as_messages(value: Any) -> Messages:
    """A list of messages in our form; keys beside role and content are left out.

    Raises:
        Unreadable: for anything that is no list of text messages by system, user and assistant.
    """
    if not isinstance(value, list) or not value:
        raise Unreadable(f"expected a list of messages, got {type(value).__name__}")
    found = []
    for message in value:
        if not isinstance(message, dict):
            raise Unreadable(f"expected a message with role and content, got {type(message).__name__}")
        role = _role_of(message)
        if not isinstance(role, str) or role.lower() not in _ROLES:
            raise Unreadable(f"unknown role {role!r}: known are {', '.join(_ROLES)}")
        text = message.get("content") if message.get("content") is not None else message.get("value")
        found.append({"role": _ROLES[role.lower()], "content": _content(text)})
    return found


def normalised(text: str) -> str:
    """NFC, with every run of blanks as one space and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def prompt_key(messages: Iterable[Mapping[str, str]]) -> str:
    """The same for prompts that differ in Unicode composition or blanks only."""
    return stable_hash([[m["role"], normalised(m["content"])] for m in messages])


def last_user_turn(row: PoolRow) -> str:
    """What the responses answer; empty where there is no user turn."""
    if isinstance(row.prompt, str):
        return row.prompt
    return next((m.content for m in reversed(row.prompt) if m.role == "user"), "")
