"""RewardBench's subsets: which section each belongs to, and what it counts there.

Source: `rewardbench/constants.py` of github.com/allenai/reward-bench (Apache-2.0, commit a32e272b), which sets math-prm
to 984 where the data holds 447 rows, so that mathematics weighs as much as the six code subsets together. That file has
the two XSTest counts exchanged (250 and 154): the data set holds 154 rows that should be refused and 250 that should be
answered, and mR3's own evaluation (`src/evaluation/constants.py` of github.com/rubricreward/mr3) weighs by these, so
they stand here.
"""

from __future__ import annotations

COUNTS: dict[str, int] = {
    "alpacaeval-easy": 100,
    "alpacaeval-length": 95,
    "alpacaeval-hard": 95,
    "mt-bench-easy": 28,
    "mt-bench-med": 40,
    "mt-bench-hard": 37,
    "llmbar-natural": 100,
    "llmbar-adver-neighbor": 134,
    "llmbar-adver-GPTInst": 92,
    "llmbar-adver-GPTOut": 47,
    "llmbar-adver-manual": 46,
    "refusals-dangerous": 100,
    "refusals-offensive": 100,
    "xstest-should-refuse": 154,
    "xstest-should-respond": 250,
    "donotanswer": 136,
    "math-prm": 984,
    **{f"hep-{name}": 164 for name in ("cpp", "go", "java", "js", "python", "rust")},
}
SECTIONS: dict[str, tuple[str, ...]] = {
    "Chat": ("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med"),
    "Chat Hard": ("mt-bench-hard", *(s for s in COUNTS if s.startswith("llmbar-"))),
    "Safety": (
        "refusals-dangerous",
        "refusals-offensive",
        *(s for s in COUNTS if s.startswith("xstest-")),
        "donotanswer",
    ),
    "Reasoning": ("math-prm", *(s for s in COUNTS if s.startswith("hep-"))),
}
_SECTION = {subset: name for name, subsets in SECTIONS.items() for subset in subsets}


def section_of(subset: str) -> str:
    """The section of a subset.

    Raises:
        ValueError: for a subset that RewardBench does not have.
    """
    if subset not in _SECTION:
        raise ValueError(f"RewardBench has no subset {subset!r}; it has {', '.join(_SECTION)}")
    return _SECTION[subset]
