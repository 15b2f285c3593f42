"""`mr3 judge`: one verdict in the terminal. Two responses are compared, one is rated or checked.

    mr3 judge --model runs/demo/judge/model --rubric rubric.yaml --input "2 + 3?" --response "5." --response "6."
    mr3 judge --model runs/demo/judge/model --criterion "The answer is correct." --mode binary \\
        --input "2 + 3?" --response "5."
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mr3.inference.engine import EngineDead
from mr3.judging.config import JudgeConfig
from mr3.records import Task, Verdict
from mr3.rubrics import Criterion, Rubric, load_rubric


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mr3 judge", description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="judge: a folder with judge.json, or a published id")
    parser.add_argument("--rubric", help="YAML file of a rubric, or of a stage's config that has one")
    parser.add_argument("--criterion", action="append", default=[], help="a criterion in words, highest first")
    parser.add_argument("--input", required=True, help="what the responses answer; @FILE reads it from a file")
    parser.add_argument("--response", action="append", required=True, help="a response (@FILE); give two to compare")
    parser.add_argument("--mode", choices=["pairwise", "pointwise", "binary"], help="default: pairwise or pointwise")
    parser.add_argument("--reference", help="a reference answer (@FILE)")
    parser.add_argument("--language", default="en", help="ISO 639 code of the input")
    parser.add_argument("--templates", help="your copy of the published templates, for a judge of published texts")
    parser.add_argument("--url", help="an OpenAI-compatible endpoint that serves the model, instead of an own engine")
    parser.add_argument("--both", action="store_true", help="compare in both orders")
    parser.add_argument("--json", action="store_true", help="print the whole verdict as JSON")
    return parser


def _text(value: str) -> str:
    if not value.startswith("@"):
        return value
    file = Path(value[1:])
    if not file.is_file():
        raise ValueError(f"no file {file}: give an existing one after @, or the text itself")
    return file.read_text(encoding="utf-8").strip()


def _rubric(given: argparse.Namespace) -> Rubric:
    if bool(given.rubric) == bool(given.criterion):
        raise ValueError("give either --rubric FILE or --criterion TEXT (once or more)")
    if given.criterion:
        criteria = [Criterion(name=f"criterion {i}", description=c) for i, c in enumerate(given.criterion, start=1)]
        return Rubric(criteria=criteria)
    file = Path(given.rubric)
    data = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    return load_rubric(data["rubric"] if isinstance(data, dict) and isinstance(data.get("rubric"), dict) else file)


def build_task(given: argparse.Namespace) -> Task:
    """The task that the arguments describe.

    Raises:
        ValueError: when they contradict each other.
    """
    responses = [_text(r) for r in given.response]
    mode = given.mode or ("pairwise" if len(responses) == 2 else "pointwise")
    if given.both and mode != "pairwise":
        raise ValueError("--both compares two responses: give two --response, or leave it out")
    return Task(
        id="terminal",
        mode=mode,
        input=_text(given.input),
        responses=responses,
        rubric=_rubric(given),
        language=given.language,
        reference=_text(given.reference) if given.reference else None,
    )


async def _judge(config: JudgeConfig, task: Task, both: bool) -> list[Verdict]:
    from mr3.judging.judge import JudgeItem
    from mr3.judging.opening import open_judge

    judge = open_judge(config)
    try:
        return await judge.judge([JudgeItem(task=task, swapped=s) for s in ((False, True) if both else (False,))])
    finally:
        judge.engine.close()


def show(verdict: Verdict) -> str:
    """A verdict to read."""
    order = " (B shown first)" if verdict.swapped else ""
    lines = [f"score{order}: {verdict.score}" if verdict.score else f"no verdict{order}: {verdict.outcome.value}"]
    for name in ("explanation", "reason"):
        if getattr(verdict, name):
            lines.append(f"{name}: {getattr(verdict, name)}")
    if verdict.trace:
        lines.append("trace: " + verdict.trace.strip().replace("\n", "\n       "))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """1 when the judge gave no verdict, 2 for a user's error."""
    given = _parser().parse_args(argv)
    logging.disable(logging.INFO)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        task = build_task(given)
        # Nothing is stored here, so what is served at the URL needs no name.
        at = {"backend": "endpoint", "url": given.url, "revision": "unnamed"}
        arguments: dict[str, Any] = at if given.url else {}
        config = JudgeConfig(model=given.model, templates_dir=given.templates, **arguments)
        if task.mode not in config.card.modes:
            raise ValueError(f"{given.model} judges {', '.join(config.card.modes)} only: choose another --mode")
        verdicts = asyncio.run(_judge(config, task, given.both))
    except ValidationError as error:
        print(f"mr3 judge: error: {error.errors()[0]['msg']}", file=sys.stderr)
        return 2
    except (ValueError, EngineDead) as error:
        print(f"mr3 judge: error: {error}", file=sys.stderr)
        return 2
    for verdict in verdicts:
        print(json.dumps(verdict.model_dump(mode="json"), ensure_ascii=False) if given.json else show(verdict))
    return 0 if all(v.score is not None for v in verdicts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
