"""`mr3 config copy PROFILE DIR`: put the configs of a profile where they can be edited; `mr3 config list` names them.

A path of the package's own data (the nano base) is made absolute where it does not exist below the working folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

BASE = "mr3/nano/base"


def profiles() -> dict[str, Path]:
    """Profile -> its folder in the installed package."""
    root = Path(str(resources.files("mr3"))) / "configs"
    return {p.name: p for p in sorted(root.iterdir()) if p.is_dir() and any(p.glob("*.yaml"))}


def copy_profile(profile: str, target: Path) -> list[Path]:
    """Copy all YAML files; nothing is overwritten.

    Raises:
        ValueError: for an unknown profile, or when a file is there already.
    """
    known = profiles()
    if profile not in known:
        raise ValueError(f"unknown profile {profile!r}: choose one of {', '.join(known)}")
    sources = sorted(known[profile].glob("*.yaml"))
    taken = [target / s.name for s in sources if (target / s.name).exists()]
    if taken:
        raise ValueError(f"{taken[0]} is there already: give another folder, or delete it")
    target.mkdir(parents=True, exist_ok=True)
    base = BASE if Path(BASE).is_dir() else str(Path(str(resources.files("mr3"))) / "nano" / "base")
    written = []
    for source in sources:
        text = source.read_text(encoding="utf-8")
        text = text.replace(f"configs/{profile}/{source.name}", str(target / source.name)).replace(BASE, base)
        (target / source.name).write_text(text, encoding="utf-8")
        written.append(target / source.name)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 config copy nano my-configs`."""
    parser = argparse.ArgumentParser(prog="mr3 config", description=(__doc__ or "").strip())
    commands = parser.add_subparsers(dest="command", required=True)
    copy = commands.add_parser("copy", help="copy a profile's configs into a folder")
    copy.add_argument("profile")
    copy.add_argument("folder", type=Path)
    commands.add_parser("list", help="name the profiles")
    given = parser.parse_args(argv)
    if given.command == "list":
        print("\n".join(profiles()))
        return 0
    try:
        written = copy_profile(given.profile, given.folder)
    except ValueError as error:
        print(f"mr3 config: error: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(str, written)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
