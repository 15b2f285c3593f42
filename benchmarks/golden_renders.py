"""Prompts of the profile mr3-train against the golden cases, byte by byte; and every family in every language.

A language that a template file lacks must be refused with an error that names family and language; one that it holds
must render, in all strategies and in both profiles.
"""

from __future__ import annotations

from collections import Counter

from benchmarks.prompt_cases import golden_cases, is_named, published_families, published_templates, render_row, sweep
from benchmarks.registry import Bar, Benchmark, Result

NO_LANGUAGE = "qqq"
"""A code that no language has: it is refused wherever the prompt is not English."""


def run() -> Result:
    """Shares of cases that are equal and of renders that the templates hold, and errors that name nothing."""
    texts, cases = published_templates(), golden_cases()
    unequal = []
    for case in cases:
        found = render_row(
            case["row"],
            case["family"],
            texts,
            case["strategy"],
            rubric_index=case["rubric_index"],
            key_order=case["key_order"],
        ).model_dump()
        if found != {key: case[key] for key in found}:
            unequal.append(f"{case['family']} {case['language']} {case['strategy']} {case['rubric_index']}")
    counts: Counter[str] = Counter()
    for attempt in sweep(texts, [*texts.all_languages(), NO_LANGUAGE]):
        if attempt.prompt is not None:
            counts["rendered"] += 1
        elif not is_named(attempt.error):
            counts["unnamed"] += 1
        else:
            counts["held_but_refused" if attempt.held else "refused"] += 1
    return Result(
        {
            "equal_share": (len(cases) - len(unequal)) / len(cases),
            "unnamed_errors": counts["unnamed"],
            "held_but_refused": counts["held_but_refused"],
        },
        n=len(cases),
        bars={
            "equal_share": Bar("at_least", 1),
            "unnamed_errors": Bar("at_most", 0),
            "held_but_refused": Bar("at_most", 0),
        },
        details={
            "unequal": unequal[:20],
            "renders": counts["rendered"],
            "refused_by_name": counts["refused"],
            "family_language_pairs_held": sum(len(texts.languages(family)) for family in published_families()),
        },
    )


BENCHMARK = Benchmark("golden-renders", "golden prompts equal byte for byte, and errors that name nothing", run)
