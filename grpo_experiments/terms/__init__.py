"""The reward terms by name: one file each, which holds `TERM`. docs/grpo.md has their formulas and sources."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, cast

from grpo_experiments.contract import RewardTerm, ServedTerm, Term
from mr3.config import build_config
from mr3.importing import load_named

__all__ = ["names", "open_terms"]


def names() -> list[str]:
    """The terms that come with the project."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def _class_of(name: str) -> type[RewardTerm]:
    if ":" in name:
        found: Any = load_named(name, "the reward term")
        if not (isinstance(found, type) and issubclass(found, Term | ServedTerm)):
            raise ValueError(f"the reward term {name!r} is no Term of grpo_experiments.contract: derive it from that")
        return found
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown reward term {name!r}: {hint}choose from {', '.join(names())}")
    return cast("type[RewardTerm]", importlib.import_module(f"{__name__}.{name}").TERM)


def open_terms(rewards: Mapping[str, float | Mapping[str, Any]]) -> dict[str, RewardTerm]:
    """Terms from a config's `rewards:` block: a weight alone, or options with a weight among them.

    Raises:
        ValueError: for an unknown term or option, or where nothing has a weight.
    """
    found: dict[str, RewardTerm] = {}
    for name, said in rewards.items():
        options = dict(said) if isinstance(said, Mapping) else {"weight": said}
        found[name] = build_config(_class_of(name), options, f"rewards.{name}")
    if not sum(term.weight for term in found.values()) > 0:
        raise ValueError("rewards: the weights of the terms must sum to more than 0")
    return found
