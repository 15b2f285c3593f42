"""The stages by name: where each one's `main` and config live, as strings, so that nothing is imported before dispatch.

This table is the only place of the library that names upper packages (rewards, dpo, grpo_experiments).
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from mr3.config import StageConfig


@dataclass(frozen=True)
class Stage:
    """One subcommand. `config` is the model that its YAML parses into; None where a command reads no YAML.

    `variants`: a key of the YAML, or `key=value`, -> the module that runs such a config instead, and its model.
    """

    module: str
    about: str
    config: str | None = None
    function: str = "main"
    variants: Mapping[str, tuple[str, str]] = field(default_factory=dict)


STAGES: dict[str, Stage] = {
    "demo": Stage("mr3.cli.demo", "the whole loop of a profile, resumable, with a report", "DemoConfig"),
    "data": Stage(
        "mr3.nano.dataset",
        "make training data from sources (the data factory), or the tables of the nano world",
        "DataConfig",
        variants={
            "sources": ("mr3.factory.stage", "FactoryConfig"),
            "tables": ("mr3.nano.rubric_data", "RubricDataConfig"),
        },
    ),
    "nano": Stage("mr3.nano.pretrain", "pretrain the nano base again", "PretrainConfig"),
    "sft": Stage("mr3.sft.stage", "fine-tune a judge or a policy on prompt-completion rows", "SftConfig"),
    "eval": Stage("mr3.evaluation.stage", "measure a judge on evaluation tasks with gold labels", "EvalConfig"),
    "measures": Stage(
        "mr3.evaluation.measures",
        "what a judge makes of its rubrics: twins, shortcuts, traces, gates",
        "MeasuresConfig",
    ),
    "results": Stage("mr3.evaluation.results", "finished evaluations as one table: judges, seeds, differences"),
    "judge": Stage("mr3.cli.judge_one", "one verdict in the terminal"),
    "render": Stage("mr3.cli.render", "print the prompts of rows, by profile, language and strategy"),
    "rubric": Stage("mr3.cli.rubric", "list, show, check and render rubrics; write and refine them"),
    "rubric-generate": Stage("mr3.rubrics.generate", "rubrics written by a teacher model", "RubricGenerateConfig"),
    "rubric-refine": Stage("mr3.refinement.stage", "improve a rubric on labelled tasks for a judge", "RefineConfig"),
    "pool": Stage("dpo.pool", "sample responses of several policies (off-policy)", "PoolConfig"),
    "sample": Stage("dpo.sample", "sample responses of one policy", "SampleConfig"),
    "label": Stage("rewards.label", "judge a pool and make preference pairs", "LabelConfig"),
    "pairs": Stage("rewards.selection.stage", "choose preference pairs from labels, with a funnel", "PairsConfig"),
    "audit": Stage("rewards.audit", "what can be said of labels: outcomes, biases, agreement, canaries", "AuditConfig"),
    "annotate": Stage("rewards.annotate", "blind sheets for people, and agreement with them", "AnnotateConfig"),
    "trace-sheet": Stage("rewards.trace_sheet", "blind sheets of judges' reasoning to rate", "TraceSheetConfig"),
    "serve": Stage("rewards.serving.stage", "serve a judge over HTTP until it is stopped", "ServeConfig"),
    "dpo": Stage("dpo.train", "align a policy with preference pairs", "DpoConfig"),
    "policy-eval": Stage("dpo.policy_eval", "compare a policy with its start", "PolicyEvalConfig"),
    "grpo": Stage(
        "grpo_experiments.train",
        "train a judge with rubric-aware rewards, or a policy under the judge's reward (trains: policy)",
        "GrpoConfig",
        variants={"trains=policy": ("grpo_experiments.policy.stage", "PolicyGrpoConfig")},
    ),
    "own-samples": Stage(
        "grpo_experiments.own_samples",
        "a judge's own right and wrong samples as SFT rows and pairs: what GRPO is compared with",
        "OwnSamplesConfig",
    ),
    "study": Stage("mr3.cli.study", "arms x seeds of stage configs, with a paired table", "StudyConfig"),
    "compare": Stage("grpo_experiments.compare", "compare finished evaluations, paired"),
    "report": Stage("mr3.cli.report", "write summary.json and report.html of a finished demo"),
    "languages": Stage("mr3.languages.main", "list, show and check the texts of the languages"),
    "config": Stage("mr3.cli.config_copy", "copy the configs of a profile"),
}


def find_stage(name: str) -> Stage:
    """The stage of that name.

    Raises:
        ValueError: for an unknown name, with the nearest one.
    """
    if name in STAGES:
        return STAGES[name]
    near = difflib.get_close_matches(name, STAGES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown stage {name!r}: {hint}Stages: {', '.join(STAGES)}")


def _said(found: Mapping[str, Any]) -> set[str]:
    """Keys, and `key=value` of those that hold a word."""
    return set(found) | {f"{key}={value}" for key, value in found.items() if isinstance(value, str)}


def _variant(stage: Stage, file: str | Path | None, words: Sequence[str] = ()) -> tuple[str, str | None]:
    """Module and config model of a stage for one config file (or the overrides beside it)."""
    if stage.variants:
        keys = {w.removeprefix("--").partition("=")[0].partition(".")[0] for w in words if w.startswith("--")}
        if file is not None and Path(file).is_file():
            found = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
            keys |= _said(found) if isinstance(found, dict) else set()
        for key, (module, model) in stage.variants.items():
            if key in keys:
                return module, model
    return stage.module, stage.config


def _config_file(words: Sequence[str]) -> str | None:
    """What follows --config on a command line."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name == "--config":
            return value if equals else following
    return None


def stage_main_of(name: str, words: Sequence[str] = ()) -> Callable[[Sequence[str] | None], int]:
    """Import the stage's module and return its `main`.

    Args:
        words: the rest of the command line: a stage with variants is chosen by its config file.
    """
    stage = find_stage(name)
    module, _ = _variant(stage, _config_file(words), words)
    main = getattr(importlib.import_module(module), stage.function)
    return cast("Callable[[Sequence[str] | None], int]", main)


def config_model_of(name: str, file: str | Path | None = None) -> type[StageConfig]:
    """The config model of a stage, for one of its config files.

    Raises:
        ValueError: for an unknown stage, or one that reads no YAML.
    """
    stage = find_stage(name)
    module, config = _variant(stage, file)
    if config is None:
        raise ValueError(f"stage {name!r} reads no config file")
    found: Any = getattr(importlib.import_module(module), config)
    assert issubclass(found, StageConfig), f"{config} of {name} must be a StageConfig"
    return cast("type[StageConfig]", found)
