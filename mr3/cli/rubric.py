"""`mr3 rubric`: list, show, check and render the rubrics of a library; have them written and refined.

    mr3 rubric list --mode pointwise
    mr3 rubric show translation
    mr3 rubric check my-rubrics/ house.yaml
    mr3 rubric render general --profile compact --mode pairwise
    mr3 rubric generate --config configs/qwen3/rubric-generate.yaml
    mr3 rubric refine --config configs/nano/rubric-refine.yaml

A rubric is named by its id in the library (see `list`), or by the path of a YAML file. `--library DIR` adds a folder of
YAML files to the package's own library; an id of yours hides one of the package. What a file may hold: docs/rubrics.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from mr3.records import MAX_LISTED, Task
from mr3.rubrics.checks import mode_problems
from mr3.rubrics.entries import MODES, Entry, find_entry, load_entries, load_entry, rubric_files

_STAGES = ("generate", "refine")
_RESPONSES = {"pointwise": 1, "pairwise": 2, "binary": 1, "listwise": 3, "choice": 0}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mr3 rubric", description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    library = argparse.ArgumentParser(add_help=False)
    library.add_argument("--library", action="append", default=[], metavar="DIR", help="a folder of your rubrics")

    listing = commands.add_parser("list", parents=[library], help="name the rubrics of the library")
    listing.add_argument("--mode", choices=MODES, help="only those that can be used in this mode")
    listing.add_argument("--family", help="only those written for this task family")
    listing.add_argument("--json", action="store_true", help="one JSON object per line")

    show = commands.add_parser("show", parents=[library], help="one rubric in full")
    show.add_argument("rubric", help="id or YAML file")
    show.add_argument("--json", action="store_true", help="as JSON, as a config or a request takes it")

    check = commands.add_parser("check", help="validate YAML files or folders of them; 1 if one is not valid")
    check.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    check.add_argument("--mode", choices=MODES, help="it must be usable in this mode")

    render = commands.add_parser("render", parents=[library], help="the prompt that a judge gets with a rubric")
    render.add_argument("rubric", help="id or YAML file")
    render.add_argument("--profile", default="compact", help="prompt profile of the judge (judge.json names it)")
    render.add_argument("--mode", choices=MODES, help="default: the first mode of the rubric")
    render.add_argument("--input", default="(the input)", help="text of the input")
    render.add_argument("--response", action="append", default=[], help="text of a response; once or more")
    render.add_argument("--reference", help="text of a reference answer")
    render.add_argument("--language", default="en", help="language code of the input")
    render.add_argument("--family", help="task family, where the profile's headings depend on it")
    render.add_argument("--strategy", default="eng-eng", help="language strategy; default: %(default)s")
    render.add_argument("--texts", choices=["own", "published"], help="for profiles other than compact")
    render.add_argument("--templates", metavar="DIR", help="your copy of the published templates")
    for name in _STAGES:
        commands.add_parser(name, help=f"a stage with a config: mr3 rubric {name} --help", add_help=False)
    return parser


def _row(entry: Entry) -> dict[str, object]:
    return {
        "id": entry.id,
        "version": entry.header.version,
        "modes": list(entry.modes),
        "language": entry.rubric.language,
        "criteria": len(entry.rubric.criteria),
        "levels": list(entry.rubric.levels),
        "hash": entry.rubric.content_hash,
        "about": entry.header.about,
        "families": list(entry.header.families),
    }


def _list(given: argparse.Namespace) -> int:
    entries = list(load_entries(given.library).values())
    if given.mode:
        entries = [e for e in entries if given.mode in e.modes]
    if given.family:
        entries = [e for e in entries if given.family in e.header.families]
    if given.json:
        for entry in entries:
            print(json.dumps(_row(entry), ensure_ascii=False))
        return 0
    if not entries:
        raise ValueError("no rubric is for that mode and family; `mr3 rubric list` names all")
    width = max(len(e.id) for e in entries)
    for e in entries:
        scale = "/".join(e.rubric.levels) if len(e.rubric.levels) < MAX_LISTED else f"1-{len(e.rubric.levels)}"
        holds = [f"{len(e.rubric.criteria)} criteria"] if e.rubric.criteria else []
        holds += [f"levels {scale}"] if scale else []
        print(f"{e.id:<{width}}  v{e.header.version}  {e.rubric.content_hash}  {', '.join(holds)}")
        print(f"{'':<{width}}  {', '.join(e.modes)}: {e.header.about}" if e.header.about else f"  {', '.join(e.modes)}")
    return 0


def show_text(entry: Entry) -> str:
    """A rubric to read."""
    rubric, header = entry.rubric, entry.header
    lines = [f"{entry.id}  version {header.version}  hash {rubric.content_hash}  language {rubric.language}"]
    lines += [header.about] if header.about else []
    lines.append(f"modes: {', '.join(entry.modes)}")
    lines += [f"families: {', '.join(header.families)}"] if header.families else []
    lines.append(f"file: {entry.path}")
    if rubric.criteria:
        lines.append("criteria, the highest first:")
        lines += [f"  {i}. {c.name} (weight {c.weight:g}): {c.description}" for i, c in enumerate(rubric.criteria, 1)]
    if rubric.levels:
        lines.append("levels:")
        lines += [f"  {label}: {text}" for label, text in rubric.levels.items()]
    return "\n".join(lines)


def _show(given: argparse.Namespace) -> int:
    entry = find_entry(given.rubric, given.library)
    body = entry.rubric.model_dump(mode="json", exclude={"absent"})
    print(json.dumps(body, ensure_ascii=False, indent=2) if given.json else show_text(entry))
    return 0


def _check(given: argparse.Namespace) -> int:
    files = [file for path in given.paths for file in (rubric_files(path) if path.is_dir() else [path])]
    bad = 0
    for file in files:
        try:
            entry = load_entry(file)
            problems = mode_problems(entry.rubric, given.mode) if given.mode else []
            if problems:
                raise ValueError(f"{file} can't be used in mode {given.mode}:\n  " + "\n  ".join(problems))
        except ValueError as error:
            bad += 1
            print(error)
        else:
            print(f"{file}: ok, version {entry.header.version}, hash {entry.rubric.content_hash}")
    print(f"{len(files) - bad} of {len(files)} are valid")
    return 1 if bad else 0


def sample_task(entry: Entry, given: argparse.Namespace) -> Task:
    """The task that `render` shows: your texts, or stand-ins for them.

    Raises:
        ValueError: when the rubric can't be used in the mode, or responses don't suit it.
    """
    mode = given.mode or entry.modes[0]
    problems = mode_problems(entry.rubric, mode)
    if problems:
        raise ValueError(f"rubric {entry.id} can't be used in mode {mode}: {'; '.join(problems)}")
    stand_ins = [f"(response {chr(ord('A') + i)})" for i in range(_RESPONSES[mode])]
    return Task(
        id=entry.id,
        mode=mode,
        input=given.input,
        responses=given.response or stand_ins,
        rubric=entry.rubric,
        language=given.language,
        reference=given.reference,
        family=given.family,
    )


def _render(given: argparse.Namespace) -> int:
    from mr3.prompts import TextsName, renderer

    task = sample_task(find_entry(given.rubric, given.library), given)
    texts: TextsName | None = given.texts or ("published" if given.templates else None)
    rendered = renderer(given.profile, given.strategy, texts, given.templates)(task)
    for title, text in (("system", rendered.system), ("user", rendered.user), ("assistant", rendered.assistant_prefix)):
        print(f"----- {title}\n{text}")
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "show": _show,
    "check": _check,
    "render": _render,
}


def main(argv: Sequence[str] | None = None) -> int:
    """0; 1 when `check` finds a file that is not valid; 2 for a user's error."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in _STAGES:
        from mr3.cli.stages import stage_main_of

        return stage_main_of(f"rubric-{words[0]}")(words[1:])
    given = _parser().parse_args(words)
    try:
        return _COMMANDS[given.command](given)
    except ValidationError as error:
        print(f"mr3 rubric: error: {error.errors()[0]['msg']}", file=sys.stderr)
    except ValueError as error:
        print(f"mr3 rubric: error: {error}", file=sys.stderr)
    except BrokenPipeError:  # `| head`: what was wanted has been read
        sys.stderr.close()
        return 1
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
