"""The data card: README.md of a set of pairs, with the front matter that the hub reads.

It says how the pairs came to be (judges, rubrics, seeds, funnel), what is known of their quality (audits), and under
which licences their source policies stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mr3.languages.codes import base_code
from rewards.selection.config import PUBLISHING, Format, PairsConfig
from rewards.selection.funnel import cell, funnel_tables
from rewards.selection.outputs import FILES, SPLITS

UNKNOWN = "unknown"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_ABOUT: dict[Format, str] = {
    "trl": "TRL's explicit conversational preference type: `prompt`, `chosen`, `rejected` (DPOTrainer)",
    "kto": "TRL's unpaired preference type: `prompt`, `completion`, `label` (KTOTrainer)",
    "ranked": "prompts with their responses from best to worst; `scores` are margins above the last, added up",
    "llamafactory": "LLaMA-Factory's sharegpt preference format, with dataset_info.json",
}
_RATES_SHOWN = 40


def card(
    config: PairsConfig, metrics: Mapping[str, Any], manifest: Mapping[str, Any], audits: Sequence[Mapping[str, Any]]
) -> str:
    """The text of README.md."""
    parts = [
        f"---\n{front_matter(config, metrics)}\n---\n",
        f"# {' '.join(config.title.split())}\n",
        f"{metrics['pairs']} preference pairs of {metrics['prompts_with_pairs']} prompts, chosen by `mr3 pairs` from "
        "off-policy responses that judges compared under the rubrics below. The preferences are machine-made.\n",
        "## Files\n",
        _files(config, metrics),
        "## Judges and rubrics\n",
        _labels(metrics),
        "## Selection\n",
        _selection(config, manifest),
        "## Funnel\n\nPairs of responses left after each filter, per language.\n",
        funnel_tables(metrics["funnel"]),
        "## Audit\n",
        _audit(audits),
        "## Source policies and their licences\n",
        _policies(config, metrics),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def front_matter(config: PairsConfig, metrics: Mapping[str, Any]) -> str:
    """The YAML that the hub reads."""
    from huggingface_hub import DatasetCardData

    last = metrics["funnel"][-1]["languages"] if metrics["funnel"] else {}
    languages = sorted({base_code(name) for name, entry in last.items() if entry["out"]})
    data = DatasetCardData(
        language=languages or None,
        license=config.licence,
        pretty_name=" ".join(config.title.split()),
        size_categories=next((name for limit, name in _SIZES if metrics["pairs"] < limit), "n>1M"),
        task_categories=["text-generation"],
        annotations_creators=["machine-generated"],
        multilinguality="multilingual" if len(languages) > 1 else "monolingual",
        tags=["preference", *(["dpo"] if "trl" in config.formats else []), "reward-reasoning", "mr3"],
        configs=_configs(config.formats, metrics),
    )
    return str(data.to_yaml(line_break="\n"))


def _configs(formats: Sequence[Format], metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in sorted(formats, key=lambda f: f != "trl"):
        files = [{"split": s, "path": FILES[name].format(SPLITS[s])} for s in SPLITS if s in metrics["formats"][name]]
        found.append({"config_name": name, "data_files": files})
    found[0]["default"] = True
    return found


def _files(config: PairsConfig, metrics: Mapping[str, Any]) -> str:
    lines = ["| configuration | rows | left out | what it is |", "| --- | --- | --- | --- |"]
    for name in config.formats:
        found = metrics["formats"][name]
        rows = ", ".join(f"{split} {found[split]}" for split in SPLITS if split in found)
        left = ", ".join(f"{reason} {n}" for reason, n in found.get("left_out", {}).items()) or "-"
        lines.append(f"| {name} | {rows} | {left} | {_ABOUT[name]} |")
    return "\n".join(lines) + "\n"


def _labels(metrics: Mapping[str, Any]) -> str:
    lines = ["| label run | judge | mode | rubric | weight | seed |", "| --- | --- | --- | --- | ---: | ---: |"]
    rubrics: dict[str, Any] = {}
    for name, run in metrics["labels"].items():
        rubrics[run["rubric_hash"]] = run["rubric"]
        cells = [cell(name), f"`{cell(run['judge'])}`", run["mode"], f"`{run['rubric_hash']}`"]
        lines.append(f"| {' | '.join(cells)} | {run['weight']:g} | {run['seed']} |")
    for key, rubric in rubrics.items():
        lines += ["", f"Rubric `{key}`:", "", fenced(_yaml(rubric), "yaml")]
    return "\n".join(lines) + "\n"


def _selection(config: PairsConfig, manifest: Mapping[str, Any]) -> str:
    settings = {k: v for k, v in manifest["config"].items() if k not in ("labels", *PUBLISHING)}
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return (
        "Margins are on a scale of 0 to 1: |2 P - 1| of pairwise labels, the difference of scores over the width of "
        "the scale of others. Every pair rests on a direct, decided comparison; ties and failed verdicts make none.\n\n"
        f"{fenced(_yaml(settings), 'yaml')}\n\nSeed {manifest['seed']}; made with {versions}.\n"
    )


def rates(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every rate of an audit (a value with its n) that is over all languages and policies."""
    if not isinstance(value, Mapping):
        return
    if "value" in value and "n" in value:
        yield path, value
        return
    for key, inner in value.items():
        if key not in ("languages", "policies"):
            yield from rates(inner, f"{path}.{key}" if path else str(key))


def _audit(audits: Sequence[Mapping[str, Any]]) -> str:
    if not audits:
        return "None was given.\n"
    lines = []
    for audit in audits:
        found = [(path, rate) for path, rate in rates(audit) if rate["value"] is not None]
        lines += [f"**{cell(str(audit.get('title', 'Audit')))}**, mode {cell(str(audit.get('mode', UNKNOWN)))}:", ""]
        lines += ["| figure | value | 95% interval | n |", "| --- | ---: | --- | ---: |"]
        for path, rate in found[:_RATES_SHOWN]:
            interval = rate.get("interval")
            shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-"
            lines.append(f"| {cell(path)} | {rate['value']:.3f} | {shown} | {rate['n']} |")
        if len(found) > _RATES_SHOWN:
            lines.append(f"\n{len(found) - _RATES_SHOWN} more figures are in the audit itself.")
        lines.append("")
    return "\n".join(lines) + "\n"


def unknown_licences(config: PairsConfig, metrics: Mapping[str, Any]) -> list[str]:
    """The policies in the data whose licence nobody gave."""
    return [policy for policy in metrics["policies"] if not config.licences.get(policy, "").strip()]


def _policies(config: PairsConfig, metrics: Mapping[str, Any]) -> str:
    lines = ["| policy | licence | chosen | rejected | in ranked lists |", "| --- | --- | ---: | ---: | ---: |"]
    for policy, counts in metrics["policies"].items():
        licence = config.licences.get(policy, "").strip() or UNKNOWN
        numbers = " | ".join(str(counts.get(side, 0)) for side in ("chosen", "rejected", "ranked"))
        lines.append(f"| {cell(policy)} | {cell(licence)} | {numbers} |")
    if unknown_licences(config, metrics):
        lines += ["", "Where the licence is unknown, find it out before you use the texts of that policy."]
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=110).rstrip()


def fenced(text: str, kind: str) -> str:
    """A code block that its text can't end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{kind}\n{text}\n{fence}"


def card_files(formats: Sequence[Format], folder: Path) -> list[str]:
    """The files that belong on the hub, relative to the folder: data, card and funnel, never local paths or scratch."""
    names = [FILES[name].format(suffix) for name in formats for suffix in SPLITS.values()]
    if "llamafactory" in formats:
        names.append("llamafactory/dataset_info.json")
    return [name for name in (*names, "README.md", "funnel.md") if (folder / name).is_file()]
