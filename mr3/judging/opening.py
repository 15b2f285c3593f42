"""Open a judge from its config: tokenizer and engine in this process (or a shared engine's handle)."""

from __future__ import annotations

from typing import Any

from mr3.hub import open_tokenizer
from mr3.judging.config import JudgeConfig
from mr3.judging.judge import Judge


def tokenizer_of(config: JudgeConfig) -> Any:
    """The tokenizer whose chat template the judge was trained with; a stand-in for a judge behind a chat endpoint."""
    if config.backend == "chat":
        from mr3.judging.messages import MessagesAsText

        return MessagesAsText()
    return open_tokenizer(config.tokenizer, config.tokenizer_revision)


def open_judge(config: JudgeConfig, identity: str | None = None, apart: bool = False) -> Judge:
    """A judge that is ready to be asked; close it with `judge.engine.close()`.

    Args:
        identity: `config.identity()`, where the caller has computed it already (it reads the whole model).
        apart: the engine's process is another one, which can die and be replaced; needs a Ray session.
    """
    from mr3.inference.hosts import hosted_engine, open_engine

    engine = config.engine_config()
    opened = hosted_engine(engine) if apart else open_engine(engine)
    return Judge(config.card, tokenizer_of(config), opened, identity or config.identity())
