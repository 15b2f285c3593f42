"""`judge.json`: what a judge must be run with, kept beside the model so that it can't get the wrong prompt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mr3.artifacts import read_json, write_json
from mr3.inference.engine import Sampling
from mr3.parsing import format_named
from mr3.prompts import Rendered, TextsName, needs_texts, renderer
from mr3.records import Mode, Strategy, Task

FILE = "judge.json"


class JudgeCard(BaseModel):
    """Prompt profile, strategy, modes, sampling and limits of one judge."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str = Field(description="prompt profile, see mr3.prompts")
    strategy: Strategy = "eng-eng"
    texts: TextsName | None = Field(None, description="own or published; every profile but compact needs one")
    templates_dir: Path | None = Field(None, description="the user's copy of the published templates")
    unverified_texts: bool = Field(False, description="own texts also of languages that were not verified")
    format: str = Field("mr3", description="how it writes its answers, see mr3.parsing.FORMATS")
    modes: tuple[Mode, ...] = ("pointwise", "pairwise", "binary")
    sampling: Sampling = Sampling()
    max_prompt_tokens: int
    max_output_tokens: int

    @model_validator(mode="after")
    def _can_be_prompted(self) -> JudgeCard:
        # Refused where the card is made, so before the first hour of training and not after the last.
        if needs_texts(self.profile) and self.texts is None:
            raise ValueError(
                f"the profile {self.profile} needs texts, and the card names none: say `texts: own` or "
                "`texts: published`, whichever the training prompts were rendered with"
            )
        return self

    @model_validator(mode="after")
    def _known_format(self) -> JudgeCard:
        known = format_named(self.format)
        if self.sampling.logprobs and not known.has_odds:
            raise ValueError(
                f"sampling.logprobs is set, but odds of scores can't be read in the format {self.format}: leave it out"
            )
        return self

    @property
    def max_model_len(self) -> int:
        """Tokens that the engine must hold per request."""
        return self.max_prompt_tokens + self.max_output_tokens

    def renderer(self) -> Callable[[Task], Rendered]:
        """How this judge's prompts are made.

        Raises:
            ValueError: for an unknown profile, or texts that are not named or not there.
        """
        return renderer(self.profile, self.strategy, self.texts, self.templates_dir, self.unverified_texts)


_PAPER = Sampling(temperature=0.6, top_p=0.95, top_k=20, max_tokens=16_384)
_PUBLISHED: dict[str, Strategy] = {
    "en-prompt-en-thinking": "eng-eng",
    "tgt-prompt-en-thinking": "tgt-eng",
    "tgt-prompt-tgt-thinking": "tgt-tgt",
}


def published_card(model: str) -> JudgeCard | None:
    """The built-in card of a published `rubricreward/mR3-Qwen3-*` id, or None (model cards, 2025-10)."""
    for size in ("4B", "8B", "14B"):
        for suffix, strategy in _PUBLISHED.items():
            if model == f"rubricreward/mR3-Qwen3-{size}-{suffix}":
                return JudgeCard(
                    profile="mr3-train",
                    strategy=strategy,
                    texts="published",
                    modes=("pairwise", "binary", "choice"),
                    sampling=_PAPER,
                    max_prompt_tokens=16_384,
                    max_output_tokens=16_384,
                )
    return None


def write_card(folder: Path, card: JudgeCard) -> None:
    """Put the card beside a saved model."""
    write_json(folder / FILE, card.model_dump(mode="json"))


def find_card(model: str) -> JudgeCard | None:
    """The card in a model's folder, or the built-in one of a published id; None where there is neither.

    Raises:
        ValueError: for a card that no prompt can be made with.
    """
    path = Path(model) / FILE
    if not path.is_file():
        return published_card(model)
    try:
        return JudgeCard.model_validate(read_json(path))
    except ValidationError as error:
        raise ValueError(
            f"{path} is no card that a judge can be run with: {error.errors()[0]['msg']}. Mend the file with what the "
            "judge was trained with, or train it again"
        ) from error


def no_judge(model: str) -> str:
    """What a user is told of a model without a card."""
    return (
        f"{model} is not a judge: there is no {FILE} in it and it is not a published rubricreward/mR3 id. "
        "Train one with `mr3 sft`, or write a judge.json with its prompt profile"
    )


def load_card(model: str) -> JudgeCard:
    """The card of a judge folder or published id.

    Raises:
        ValueError: when the model is no judge: there is no card for it, or none that a prompt can be made with.
    """
    card = find_card(model)
    if card is None:
        raise ValueError(no_judge(model))
    return card
