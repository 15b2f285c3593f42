"""Models and tokenizers from folders or the hub, with one message where they can't be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def told_what_to_do(model: str, revision: str | None = None) -> Iterator[None]:
    """What transformers raises for a missing or unreachable model becomes a message for users.

    Raises:
        ValueError: in place of its OSError.
    """
    try:
        yield
    except OSError as error:
        which = model if revision is None else f"{model} at revision {revision}"
        raise ValueError(
            f"can't load {which}: {str(error).strip().splitlines()[0]} Give a local folder, check the name and your "
            "access (`hf auth login` for gated models), or download it where there is a network "
            f"(`hf download {model}`) and run with HF_HUB_OFFLINE=1"
        ) from error


def open_tokenizer(model: str, revision: str | None = None) -> Any:
    """The tokenizer of a folder or hub id.

    Raises:
        ValueError: when it can't be had, with what to do.
    """
    from transformers import AutoTokenizer

    with told_what_to_do(model, revision):
        return AutoTokenizer.from_pretrained(model, revision=revision)
