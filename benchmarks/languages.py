"""The languages with complete texts of their own, and those whose texts identifiers recognise.

A language counts as complete when its file is valid, every text is in the script that the file names, and no long text
is shared with another language.
"""

from __future__ import annotations

from benchmarks.registry import Bar, Benchmark, Result
from mr3.languages.check import examine_all
from mr3.languages.codes import ALL


def run() -> Result:
    """Every file is examined anew: nothing is taken from the stored result."""
    examined = examine_all()
    known = {code: examined.languages[code] for code in ALL if code in examined.languages}
    by_status: dict[str, list[str]] = {}
    for code, evidence in known.items():
        by_status.setdefault(evidence.status, []).append(code)
    complete = len(known) - len(by_status.get("faulty", []))
    return Result(
        {"complete": complete, "verified": len(by_status.get("verified", []))},
        n=len(ALL),
        bars={"complete": Bar("at_least", len(ALL))},
        details={
            "unverified": {status: codes for status, codes in by_status.items() if status != "verified"},
            "missing": sorted(set(ALL) - known.keys()),
            "tools": examined.tools,
        },
    )


BENCHMARK = Benchmark("languages", "languages with complete own texts; those that identifiers recognise", run)
