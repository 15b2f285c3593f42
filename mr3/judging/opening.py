"""Open a judge from its config: tokenizer and engine in this process (or a shared engine's handle)."""

from __future__ import annotations

from mr3.judging.config import JudgeConfig
from mr3.judging.judge import Judge


def open_judge(config: JudgeConfig, identity: str | None = None) -> Judge:
    """A judge that is ready to be asked; close it with `judge.engine.close()`.

    Args:
        identity: `config.identity()`, where the caller has computed it already (it reads the whole model).
    """
    from transformers import AutoTokenizer

    from mr3.inference.hosts import open_engine

    card = config.card
    tokenizer = AutoTokenizer.from_pretrained(config.tokenizer, revision=config.revision)
    return Judge(card, tokenizer, open_engine(config.engine_config()), identity or config.identity())
