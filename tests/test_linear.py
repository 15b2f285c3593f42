"""Whatever a client or a model writes is read in time that grows as its length does.

No two times are compared here. Each case is so large that linear code needs a fraction of a second and quadratic code
many minutes; cases run in a process of their own, which is ended where one of them hangs.
"""

from __future__ import annotations

import faulthandler
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from benchmarks.hostile import TEXTS, heavy_bodies, odd_bodies, text
from mr3.parsing import FORMATS
from mr3.prompts import PROFILES, renderer
from mr3.prompts.render import needs_texts
from mr3.records import Task
from mr3.rubrics import Criterion, Rubric
from mr3.rubrics.reply import parse_reply
from rewards.serving.body import parse_body
from rewards.serving.chat_schema import ChatRequest
from rewards.serving.config import Limits
from rewards.serving.errors import ApiError
from rewards.serving.schema import JudgeRequest

_HANG_S = 120.0
_CHARS = 250_000
Case = tuple[str, Callable[[], Any]]
_ANSWERS = {
    "fences": "```\n",
    "open fences": "``` ",
    "quoted scores": '"score" ',
    "braces": "{ ",
    "objects": '{"a":',
    "pairs": "'a' : 1 , ",
    "colons": "score:",
    "results": "[ result",
    "boxes": "\\boxed{",
    "answers": "<answer>",
    "end tokens": "<|im_end|> ",
    **TEXTS,
}
_JSON = ('</think>{"explanation": "@", "score": "4"}', '</think>{"explanation": "x", @ "score": "4"}')
_FRAMES = {
    "mr3": _JSON,
    "r3": _JSON,
    "nemotron-genrm": (
        "[The Begin of Individual Scores]@[The End of Individual Scores]",
        "[The Begin of Individual Scores]\\boxed{4}@[The End of Individual Scores]",
    ),
    "rm-r1": ("<eval>@</eval><answer>[[A]]</answer>",),
    "prometheus": ("Feedback: @[RESULT]@4",),
}


def _rendering() -> Iterator[Case]:
    for profile in PROFILES:
        render = renderer(profile, texts="own" if needs_texts(profile) else None)
        for name in TEXTS:
            long = text(name, _CHARS)
            rubric = Rubric(criteria=[Criterion(name="a", description=f"{long}.")], levels={"true": long, "false": "x"})
            task = Task(
                id="t", mode="binary", input=long, responses=[long], rubric=rubric, language="en",
                reference=long, instruction=long,
            )  # fmt: skip
            yield f"{profile}, {name}", partial(render, task)


def _read(text: str, name: str, labels: tuple[str, ...]) -> None:
    FORMATS[name].parse(text, labels, "stop")


def _parsing() -> Iterator[Case]:
    for what, piece in _ANSWERS.items():
        for name in FORMATS:
            for frame in ("</think>@", *_FRAMES[name]):
                answer = frame.replace("@", piece * (_CHARS // len(piece)))
                yield f"{name}, {what} in {frame}", partial(_read, answer, name, ("1", "2", "3", "4", "5"))


def _refused(work: Callable[[], Any]) -> None:
    with suppress(ApiError, ValueError):
        work()


def _bodies() -> Iterator[Case]:
    limits = Limits()
    for name, body in odd_bodies(2_000_000):
        yield name, partial(_refused, partial(parse_body, body, JudgeRequest, limits))
    for path, name, body in heavy_bodies(2_000_000):
        model: Any = ChatRequest if "chat" in path else JudgeRequest
        yield name, partial(parse_body, body, model, limits)


def _rubrics() -> Iterator[Case]:
    criteria = [{"name": "a", "description": "b"}] * 80_000
    yield "equal criteria", partial(_refused, partial(Rubric.model_validate, {"criteria": criteria}))
    pairs = ",".join(f'"{i}": 1' for i in range(60_000))
    yield "keys of a reply", partial(parse_reply, f'{{{pairs}, "1": 1}}', "stop", "binary")
    for what, piece in _ANSWERS.items():
        yield f"reply of {what}", partial(parse_reply, piece * (_CHARS // len(piece)), "stop", "binary")


_GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    "rendering": _rendering,
    "parsing": _parsing,
    "bodies": _bodies,
    "rubrics": _rubrics,
}


@pytest.mark.parametrize("group", _GROUPS)
def test_nothing_takes_more_than_its_length(group: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_linear", group], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"at {done.stdout.splitlines()[-1:]}: {done.stderr[-2_000:]}"


if __name__ == "__main__":
    for case, work in _GROUPS[sys.argv[1]]():
        print(case, flush=True)
        faulthandler.dump_traceback_later(_HANG_S, exit=True)  # also ends a regular expression that runs for ever
        work()
        faulthandler.cancel_dump_traceback_later()
