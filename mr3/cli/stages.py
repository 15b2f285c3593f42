"""The stages by name: where each one's `main` and config live, as strings, so that nothing is imported before dispatch.

This table is the only place of the library that names upper packages (rewards, dpo, grpo_experiments).
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from mr3.config import StageConfig


@dataclass(frozen=True)
class Stage:
    """One subcommand. `config` is the model that its YAML parses into; None where a command reads no YAML."""

    module: str
    about: str
    config: str | None = None
    function: str = "main"


STAGES: dict[str, Stage] = {
    "demo": Stage("mr3.cli.demo", "the whole loop of a profile, resumable, with a report", "DemoConfig"),
    "data": Stage("mr3.nano.dataset", "make the tables of the nano world", "DataConfig"),
    "nano": Stage("mr3.nano.pretrain", "pretrain the nano base again", "PretrainConfig"),
    "sft": Stage("mr3.sft.stage", "fine-tune a judge or a policy on prompt-completion rows", "SftConfig"),
    "eval": Stage("mr3.evaluation.stage", "measure a judge on evaluation tasks with gold labels", "EvalConfig"),
    "judge": Stage("mr3.cli.judge_one", "one verdict in the terminal"),
    "render": Stage("mr3.cli.render", "print the prompts of rows, by profile, language and strategy"),
    "rubric": Stage("mr3.cli.rubric", "list, show, check and render rubrics; write and refine them"),
    "rubric-generate": Stage("mr3.rubrics.generate", "rubrics written by a teacher model", "RubricGenerateConfig"),
    "rubric-refine": Stage("mr3.refinement.stage", "improve a rubric on labelled tasks for a judge", "RefineConfig"),
    "pool": Stage("dpo.pool", "sample responses of several policies (off-policy)", "PoolConfig"),
    "label": Stage("rewards.label", "judge a pool and make preference pairs", "LabelConfig"),
    "pairs": Stage("rewards.selection.stage", "choose preference pairs from labels, with a funnel", "PairsConfig"),
    "audit": Stage("rewards.audit", "what can be said of labels: outcomes, biases, agreement, canaries", "AuditConfig"),
    "annotate": Stage("rewards.annotate", "blind sheets for people, and agreement with them", "AnnotateConfig"),
    "serve": Stage("rewards.serving.stage", "serve a judge over HTTP until it is stopped", "ServeConfig"),
    "dpo": Stage("dpo.train", "align a policy with preference pairs", "DpoConfig"),
    "policy-eval": Stage("dpo.policy_eval", "compare a policy with its start", "PolicyEvalConfig"),
    "grpo": Stage("grpo_experiments.train", "train a judge with rubric-aware rewards", "GrpoConfig"),
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


def stage_main_of(name: str) -> Callable[[Sequence[str] | None], int]:
    """Import the stage's module and return its `main`."""
    stage = find_stage(name)
    main = getattr(importlib.import_module(stage.module), stage.function)
    return cast("Callable[[Sequence[str] | None], int]", main)


def config_model_of(name: str) -> type[StageConfig]:
    """The config model of a stage.

    Raises:
        ValueError: for an unknown stage, or one that reads no YAML.
    """
    stage = find_stage(name)
    if stage.config is None:
        raise ValueError(f"stage {name!r} reads no config file")
    found: Any = getattr(importlib.import_module(stage.module), stage.config)
    assert issubclass(found, StageConfig), f"{stage.config} of {name} must be a StageConfig"
    return cast("type[StageConfig]", found)
