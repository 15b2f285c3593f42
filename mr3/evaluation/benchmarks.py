"""The benchmarks by name: where their rows come from, which rows count, and what is reported as their figure.

The eight of the mR3 paper (arXiv 2510.01146, section 5) with the metrics of its public evaluation script, and labelled
real sets that are read from a folder. `docs/evaluation.md` says how to add one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mr3.evaluation import scores
from mr3.evaluation.scores import Answer, Strata, Stratify

_MGSM = frozenset({"bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh"})
_REAL = "mr3.sources.real"


Keep = Callable[[Mapping[str, Any]], bool]


def _everything(row: Mapping[str, Any]) -> bool:
    return True


def _where(column: str, test: Callable[[str], bool]) -> Keep:
    """Rows whose column passes; a row without it stays, to be set aside and counted."""
    return lambda row: row.get(column) is None or test(str(row[column]))


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        metric: what the figure is called.
        stratify: which weighted mean of accuracies the figure is.
        set: a known set of `mr3.sources`; or
        adapter: `package.module:function` of a local one, called with `path` and `options`.
        part: column of the subset or domain that is counted by.
        keep: which raw rows belong to it.
        more: further figures, from all answers.
    """

    name: str
    metric: str
    stratify: Stratify = scores.all_alike
    set: str | None = None
    adapter: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    part: str | None = None
    keep: Keep = _everything
    more: Mapping[str, Callable[[Sequence[Answer]], dict[str, Any]]] = field(default_factory=dict)

    def strata(self, rows: Sequence[Answer]) -> Strata:
        """The strata of some of its rows."""
        return self.stratify(rows)

    def score(self, rows: Sequence[Answer]) -> dict[str, Any]:
        """`metric`, `value`, `n`, `interval`, and the further figures."""
        further = {name: figure(rows) for name, figure in self.more.items()}
        return {"metric": self.metric, **scores.weighted_mean(rows, self.stratify), **further}


def _real(name: str, adapter: str | None = None, **more: Any) -> Benchmark:
    return Benchmark(name, "accuracy", adapter=f"{_REAL}:{adapter or name}", **more)


_SECTIONS = {"sections": scores.section_scores}
_PARTS = {"parts": scores.part_scores}
_SCALE = {"agreement": scores.agreement}

BENCHMARKS: dict[str, Benchmark] = {
    b.name: b
    for b in (
        Benchmark(
            "m-rewardbench",
            "mean over languages of 4 section scores",
            scores.by_section,
            set="m-rewardbench",
            part="source",
            more=_SECTIONS,
        ),
        Benchmark(
            "rewardbench",
            "mean of 4 section scores",
            scores.by_section,
            set="rewardbench",
            part="source",
            more=_SECTIONS,
        ),
        Benchmark(
            "mm-eval",
            "macro mean over subsets",
            scores.by_part,
            set="mm-eval",
            part="subset",
            keep=_where("subset", lambda subset: subset != "lang_res"),
            more=_PARTS,
        ),
        Benchmark("indopref", "macro mean over domains", scores.by_part, set="indopref", part="domain", more=_PARTS),
        Benchmark("include", "accuracy", set="include"),
        Benchmark("mgsm", "accuracy", set="mgsm", keep=_where("language", _MGSM.__contains__)),
        Benchmark(
            "rtp-lx",
            "F1 micro",
            set="rtp-lx",
            keep=_where("id", lambda name: name.endswith("completion")),
            more={"f1": scores.f1},
        ),
        Benchmark(
            "helpsteer3",
            "exact accuracy",
            set="helpsteer3-test",
            part="domain",
            more={"agreement": scores.helpsteer3_agreement, "parts": scores.part_scores},
        ),
        _real("truthfulqa_multi"),
        _real("tata"),
        _real("mlqe_pe_adequacy", "mlqe_pe", options={"part": "adequacy"}, more=_SCALE),
        _real("mlqe_pe_post_edit", "mlqe_pe", options={"part": "post_edit"}),
        _real("mlqe_pe_catastrophic", "mlqe_pe", options={"part": "catastrophic"}, more={"f1": scores.f1}),
        _real("m_ifeval"),
        _real("xcopa"),
        _real("pandalm"),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by name.

    Raises:
        ValueError: for another name, with the nearest one.
    """
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown benchmark {name!r}: {hint}Known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
