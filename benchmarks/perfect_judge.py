"""A judge that is always right must score 1.0 on every metric: what it loses, the adapters or the metrics get wrong.

Over stand-in rows in the public columns (`benchmarks.public_rows`) the judge reads the truth in each prompt, in both
orders, and never sees a gold label. Over the real sets of MR3_DATA it repeats the gold label as the adapter read it.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.public_rows import SETS, write_real, write_set
from benchmarks.registry import Bar, Benchmark, Result
from mr3.evaluation.benchmarks import BENCHMARKS
from mr3.evaluation.loading import BenchmarkSource, load_benchmark
from mr3.evaluation.metrics import Judged, all_metrics
from mr3.evaluation.scores import helpsteer3_agreement
from mr3.evaluation.tasks import EvalTask
from mr3.inference.engine import Completion, Request
from mr3.judge_card import JudgeCard
from mr3.judging.judge import Judge, JudgeItem
from mr3.judging.messages import MessagesAsText
from mr3.judging.scale import mirrored
from mr3.records import PoolRow, Task
from mr3.sources import AdapterSource, Labelled, SetAside, SetSource, SourceSpec, Texts, known_sets, open_source
from mr3.sources.labelled import SetAsideShare
from mr3.sources.real import real_rubric
from rewards.sources import truthfulqa

_FOLDERS = {"pandalm": "pandalm_testset"}
_WORTH, _NUMBER = re.compile(r"worth (\d)"), re.compile(r"the number is (-?\d+)")
_LIMIT = 1_000_000
_ZERO = {"flip_rate", "rate", "before_repair", "mean_absolute_error"}
"""Metrics that are 0 for a perfect judge."""


def card(texts: str, folder: Path | None = None, strategy: str = "tgt-eng") -> JudgeCard:
    """A judge of a published layout, by default with instructions in the task's language."""
    return JudgeCard.model_validate(
        {
            "profile": "mr3-train",
            "strategy": strategy,
            "texts": texts,
            "templates_dir": folder,
            "modes": ["pointwise", "pairwise", "binary", "choice"],
            "max_prompt_tokens": _LIMIT,
            "max_output_tokens": _LIMIT,
        }
    )


def truth(user: str, labels: Sequence[str]) -> str:
    """What is right, as the user message of a prompt shows it (see `benchmarks.public_rows`)."""
    worths = [int(w) for w in _WORTH.findall(user)]
    if "A" in labels:
        (right,) = re.findall(r"([A-D])\. Option \d \(right\)", user)
        return str(right)
    number = _NUMBER.search(user)
    if number is not None:
        return str(number[1] in re.findall(r"^\s*(-?\d+)$", user, re.MULTILINE)).lower()
    if len(worths) == 2:
        first, second = worths
        if "4" in labels:
            return str(4 + second - first)
        if first == second:
            return "Tie" if first > 3 else "Both Bad" if "Both Bad" in labels else "Tie"
        return "Assistant A" if first > second else "Assistant B"
    (worth,) = worths
    return str(worth) if "1" in labels else str(worth > 3).lower()


class _Scribe:
    """Keeps the engine protocol: writes a well-formed answer with the score that `say` gives, prompt by prompt."""

    takes_text = True

    def __init__(self, say: Callable[[str], str]) -> None:
        self._say = say

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        answer = json.dumps({"explanation": "As it stands there.", "score": self._say(request.prompt or "")})
        return Completion(id=request.id, text=f"I looked at it.</think>\n\n{answer}", finish="stop")

    def close(self) -> None:
        """Nothing is held."""


def _items(task: EvalTask) -> list[JudgeItem]:
    orders = (False, True) if task.task.mode == "pairwise" else (False,)
    return [JudgeItem(task=task.task, swapped=swapped) for swapped in orders]


def judge_tasks(tasks: Sequence[EvalTask], about: JudgeCard, reads_prompts: bool) -> list[Judged]:
    """All tasks, pairs in both orders, through the real renderer and parser.

    Args:
        reads_prompts: the truth is read in the prompts; else the gold label is repeated.
    """
    return asyncio.run(_judged(tasks, about, reads_prompts))


async def _judged(tasks: Sequence[EvalTask], about: JudgeCard, reads_prompts: bool) -> list[Judged]:
    found = []
    for task in tasks:
        labels, gold = task.task.labels, task.gold
        for_engine = iter([gold, mirrored(labels)[gold]] if task.task.mode == "pairwise" else [gold])

        def say(prompt: str, labels: tuple[str, ...] = labels, left: Iterator[str] = for_engine) -> str:
            if not reads_prompts:
                return next(left)
            messages, _ = json.JSONDecoder().raw_decode(prompt)  # the beginning of the answer stands behind them
            return truth(messages[-1]["content"], labels)

        judge = Judge(about, MessagesAsText(), _Scribe(say), "perfect")
        verdicts = await judge.judge(_items(task))
        found.append(Judged(task, verdicts[0], verdicts[1] if len(verdicts) > 1 else None))
    return found


def scores(judged: Sequence[Judged], name: str, wrong: Mapping[str, Any]) -> dict[str, float | None]:
    """Every metric of one entry by its path, as a share of what a perfect judge has."""
    found = all_metrics(judged, wrong={name: list(wrong.values())})["sets"][name]
    parts = {key: found[key] for key in ("accuracy", "by_mode", "by_language", "failed", "failed_by_language")}
    for key in ("order_consistency", "flip_rate", "right_in_both_orders", "benchmark"):
        if key in found:
            parts[key] = found[key]
    if name == "helpsteer3-train":
        parts["agreement"] = helpsteer3_agreement([j.answer for j in judged])
    return {path: _share(path, value) for path, value in _leaves(parts)}


def _share(path: str, value: float | None) -> float | None:
    if value is None:
        return None
    zero = path.startswith("failed") or bool(_ZERO & set(path.split("/")))
    share = 1.0 - value if zero else value
    return 1.0 if math.isclose(share, 1.0, abs_tol=1e-9) else share


_PLAIN = {"metric", "n", "contents", "interval", "gold", "missing", "outcomes", "reason"}


def _leaves(found: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float | None]]:
    for key, value in found.items():
        if key in _PLAIN:
            continue
        here = f"{path}/{key}" if path else key
        if isinstance(value, Mapping):
            yield from _leaves(value, here)
        else:
            yield here.removesuffix("/value"), value


def _of_source(name: str, spec: SourceSpec, about: JudgeCard) -> tuple[list[EvalTask], SetAsideShare]:
    """Rows of a source that is no benchmark: what is taught, and real sets beside the benchmarks."""
    texts = Texts(name=about.texts or "own", templates_dir=about.templates_dir)
    share, tasks = SetAsideShare(name), []
    for row in open_source(spec, texts):
        if isinstance(row, SetAside):
            share.aside(row)
            continue
        share.rows += 1
        assert isinstance(row, Labelled)
        task = row.prompt_task(own_language=True).model_copy(update={"id": row.key})
        tasks.append(EvalTask(task, row.gold, (name,)))
    share.check(allowed=False)
    return tasks, share


def _of_pool(folder: Path) -> list[EvalTask]:
    """The pool of TruthfulQA's responses with people's labels, joined as the audit joins them."""
    gold = {g.response_id: g.label for g in truthfulqa.read_gold(str(folder), _languages(folder)) if g.label}
    tasks = []
    for row in truthfulqa.read(str(folder), _languages(folder)):
        if not isinstance(row, PoolRow):
            continue
        for response in row.responses:
            if response.id in gold:
                task = Task(
                    id=response.id,
                    mode="binary",
                    input=str(row.prompt),
                    responses=[response.text],
                    rubric=real_rubric("truthfulqa"),
                    language=row.language,
                )
                tasks.append(EvalTask(task, gold[response.id], ("truthfulqa-pool",)))
    return tasks


def _languages(folder: Path) -> list[str]:
    return sorted(place.name for place in (folder / "samples").iterdir())


def _entry(name: str, place: Path, about: JudgeCard, reads_prompts: bool) -> dict[str, float | None]:
    """One benchmark over local files."""
    loaded = load_benchmark(BenchmarkSource(benchmark=name, path=str(place)), about)
    return scores(judge_tasks(loaded.tasks, about, reads_prompts), name, loaded.wrong)


def _real_folder(name: str) -> str:
    return "mlqe_pe" if name.startswith("mlqe_pe") else _FOLDERS.get(name, name)


def stand_ins(folder: Path, about: JudgeCard) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Every entry over stand-in rows: benchmarks, the sets that are taught, real sets, the pool with gold labels."""
    for name, known in BENCHMARKS.items():
        place = write_set(known.set, folder) if known.set else write_real(_real_folder(name), folder)
        yield name, _entry(name, place, about, reads_prompts=True)
    for name, known_set in known_sets().items():
        if known_set.use == "train":
            assert name in SETS, f"no stand-in rows of the set {name}"
            tasks, _ = _of_source(f"{name}-train", SetSource(set=name, path=str(write_set(name, folder))), about)
            yield f"{name}-train", scores(judge_tasks(tasks, about, True), f"{name}-train", {})
    yield from _beside(folder / "real", about, True, lambda name: write_real(name, folder))


def _beside(
    root: Path, about: JudgeCard, reads_prompts: bool, make: Callable[[str], Path]
) -> Iterator[tuple[str, dict[str, float | None]]]:
    spec = AdapterSource(adapter="mr3.sources.real:mgsm", options={"path": str(make("mgsm"))})
    tasks, _ = _of_source("mgsm-real", spec, about)
    yield "mgsm-real", scores(judge_tasks(tasks, about, reads_prompts), "mgsm-real", {})
    pool = _of_pool(make("truthfulqa_multi"))
    yield "truthfulqa-pool", scores(judge_tasks(pool, about, reads_prompts), "truthfulqa-pool", {})


def real_sets(data: Path, about: JudgeCard) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Every labelled real set at hand."""
    for name, known in BENCHMARKS.items():
        place = data / _real_folder(name)
        if known.adapter and place.is_dir():
            yield name, _entry(name, place, about, reads_prompts=False)
    if all((data / name).is_dir() for name in ("mgsm", "truthfulqa_multi")):
        yield from _beside(data, about, False, lambda name: data / name)


def run() -> Result:
    """The lowest metric of all entries."""
    data = Path(os.environ["MR3_DATA"]) if os.environ.get("MR3_DATA") else None
    found: dict[str, dict[str, float | None]] = {}
    with tempfile.TemporaryDirectory() as folder:
        found |= {f"stand-in, own texts: {n}": s for n, s in stand_ins(Path(folder), card("own"))}
        if data is not None and (data / "mr3_rubrics").is_dir():
            about = card("published", data / "mr3_rubrics")
            found |= {f"stand-in, published texts: {n}": s for n, s in stand_ins(Path(folder), about)}
    if data is not None:
        found |= {f"real rows: {n}": s for n, s in real_sets(data, card("own", strategy="eng-eng"))}
    values = [value for entry in found.values() for value in entry.values()]
    below = {f"{name}: {path}": v for name, entry in found.items() for path, v in entry.items() if v != 1.0}
    return Result(
        0.0 if None in values else min(v for v in values if v is not None),
        n=len(values),
        bars={"": Bar("at_least", 1.0)},
        details={
            "entries": dict(Counter(name.partition(":")[0] for name in found)),
            "metrics_per_entry": {name: len(entry) for name, entry in found.items()},
            "below": dict(list(below.items())[:50]),
        },
    )


BENCHMARK = Benchmark("perfect-judge", "lowest metric of a judge that is always right, over all entries", run)
