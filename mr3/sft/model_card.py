"""README.md beside a trained model: base, data with their hash, order, hyperparameters, metrics, licence, limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mr3.artifacts import package_versions, read_json, write_atomic
from mr3.sft.config import SftConfig
from mr3.sft.source import is_hub_id

_ORDERS = {
    "kept": "as in the data at every optimizer step (sequential sampling, no re-binning)",
    "shuffled": "shuffled anew each epoch",
    "grouped": "shuffled in groups of like length",
    None: "that of TRL's sampler (see the options below)",
}
_SHOWN = ("train_loss", "held_out_loss", "steps", "tokens", "rows", "dropped", "tokens_per_s", "processes")


def _front(config: SftConfig) -> str:
    front: dict[str, Any] = {"library_name": "transformers", "base_model": config.model}
    if config.licence is not None:
        front["license"] = config.licence
    if is_hub_id(config.data) and not Path(config.data).is_file():
        front["datasets"] = [config.data]
    front["tags"] = ["sft", "trl", *(["reward-model", "judge"] if config.judge else [])]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n"


def _table(rows: Mapping[str, Any]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in rows.items())])


def _judge(config: SftConfig) -> str:
    if config.judge is None:
        return ""
    card = config.judge
    return (
        f"\nIt is a judge: prompt profile `{card.profile}`, strategy `{card.strategy}` (prompt language - thinking "
        f"language), modes {', '.join(card.modes)}. `judge.json` holds what it must be run with: the project's "
        "commands read it, and refuse another prompt.\n"
    )


def card_text(config: SftConfig, metrics: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    """The whole card. `hashes`: of the inputs, by path."""
    data_hash = hashes.get(config.data, "not a local file: see the id's revision")
    facts = {
        "base": f"`{config.model}` (content hash {hashes.get(config.model, 'none: from the hub')})",
        "data": f"`{config.data}` (content hash {data_hash})",
        "columns": f"{config.columns.prompt} -> {config.columns.completion}",
        "replayed text": f"{config.replay_share:.0%} of the rows" if config.replay_share else "none",
        "order": _ORDERS[config.order],
        "packing": f"in order, {config.max_tokens} tokens" if config.packing else "none",
        "longest row": f"{config.max_tokens} tokens; longer ones were left out, none was cut",
        "loss": "on the completion and its end of turn; the prompt and a forced first sentence are masked",
        "weights": f"LoRA {config.peft}, added to the base" if config.peft else "all",
        "seed": config.seed,
    }
    options = dict(config.trl) | ({"muon_lr": config.muon_lr} if config.muon_lr is not None else {})
    shown = {k: metrics[k] for k in _SHOWN if k in metrics}
    versions = ", ".join(f"{k} {v}" for k, v in package_versions().items())
    return "\n".join(
        [
            _front(config),
            f"# {config.output_dir.name}",
            f"\nFine-tuned from `{config.model}` by supervised learning with `mr3 sft` (TRL's SFTTrainer).",
            _judge(config),
            "## Training\n",
            _table(facts),
            "\n## Hyperparameters\n",
            _table(options or {"trl": "all as TRL sets them"}),
            "\n## Metrics\n",
            _table(shown),
            f"\nMade with {versions}.",
            "\n## Licence\n",
            config.licence or "Not stated in the run's config: the base's and the data's licences apply.",
            "\n## Limits\n",
            "- The metrics above are of training. How well the model judges or answers is measured by an evaluation "
            "(`mr3 eval`, `mr3 policy-eval`), not here.",
            "- It was trained on the layout of prompts and the languages of its data: others are new to it.",
            "- A judge's score is a model's opinion. Check it against people's labels before it decides anything.",
            "",
        ]
    )


def write_model_card(config: SftConfig, folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write `folder/model/README.md`."""
    hashes: dict[str, str] = read_json(folder / "started.json")["inputs"]
    write_atomic(folder / "model" / "README.md", card_text(config, metrics, hashes).encode())
