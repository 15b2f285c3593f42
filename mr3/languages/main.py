"""`mr3 languages list | show CODE | check [--write]`: the languages, their texts, and whether those are what they say.

`check` examines every file anew and compares with the stored result; `--write` stores the new one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from mr3.artifacts import write_json
from mr3.languages.codes import ALL
from mr3.languages.registry import VERIFIED_FILE, Status, Verified, available, is_verified, language, verified


def _listed() -> str:
    rows = []
    for code in available():
        found = language(code)
        mark = "" if is_verified(code) else "unverified"
        rows.append(
            f"{code:<8} {found.name:<24} {found.script}  {found.direction}  {mark:<10} {found.endonym}".rstrip()
        )
    return "\n".join(rows)


def _shown(code: str) -> str:
    found = language(code)
    lines = [f"{found.code}: {found.name} ({found.script}, {found.direction})"]
    if found.notes:
        lines.append(found.notes)
    return "\n".join([*lines, *(f"{key}: {text}" for key, text in found.texts().items())])


def report(examined: Verified) -> str:
    """One line per language that is not verified, then the counts."""
    lines, counts = [], dict.fromkeys(get_args(Status), 0)
    for code, evidence in examined.languages.items():
        counts[evidence.status] += 1
        if evidence.status == "verified":
            continue
        told = [
            f"{tool} says " + ", ".join(f"{text}={answer}" for text, answer in answers.items() if answer != code)
            for tool, answers in evidence.identified.items()
            if set(answers.values()) != {code}
        ]
        lines.append(
            f"{code:<8} {evidence.status}: {'; '.join([*evidence.problems, *told]) or 'no identifier knows it'}"
        )
    missing = sorted(set(ALL) - examined.languages.keys())
    lines += [f"{code:<8} missing: there is no file" for code in missing]
    numbers = ", ".join(f"{n} {status}" for status, n in counts.items())
    return "\n".join([*lines, f"{len(examined.languages)} languages: {numbers}"])


def _check(write: bool) -> int:
    from mr3.languages.check import examine_all

    examined = examine_all()
    print(report(examined))
    if write:
        write_json(VERIFIED_FILE, examined.model_dump(mode="json"))
        print(f"written to {VERIFIED_FILE}")
    elif examined != verified():
        print(f"{VERIFIED_FILE.name} says otherwise: `mr3 languages check --write` stores this result", file=sys.stderr)
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 where the stored result is not what the check finds, 2 for a user's error."""
    parser = argparse.ArgumentParser(prog="mr3 languages", description=(__doc__ or "").strip())
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="one line per language")
    show = commands.add_parser("show", help="every text of one language")
    show.add_argument("code")
    check = commands.add_parser("check", help="examine script and language of every text")
    check.add_argument("--write", action="store_true", help="store the result in the package")
    given = parser.parse_args(argv)
    try:
        if given.command == "check":
            return _check(given.write)
        print(_shown(given.code) if given.command == "show" else _listed())
    except ValueError as error:
        print(f"mr3 languages: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
