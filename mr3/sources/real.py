"""Adapters for labelled real sets in several languages: each a function of a folder, for configs and the evaluation.

`{adapter: "mr3.sources.real:tata", options: {path: ${MR3_DATA}/tata}}`. Labels are people's (or a rule checker's, for
m_ifeval). All prompt texts are English; rows whose label is no clear vote are set aside by name.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mr3.records import Mode, Task
from mr3.rubrics import Rubric
from mr3.sources.labelled import Labelled, SetAside

Rows = Iterator[Labelled | SetAside]
_YES_NO = {"yes": "true", "no": "false"}
_PAIR = ("Assistant A", "Assistant B")
_CUTS = (20.0, 40.0, 60.0, 80.0)
"""Bounds of five equal bands of the 0-100 scale on which translations were rated."""


@cache
def real_rubric(name: str) -> Rubric:
    """One of the rubrics in `rubrics.yaml`."""
    texts = yaml.safe_load((resources.files("mr3.sources") / "rubrics.yaml").read_text(encoding="utf-8"))
    return Rubric.model_validate(texts[name])


def _folder(path: str, inside: str) -> Path:
    root = Path(path)
    if not (root / inside).exists():
        raise ValueError(
            f"no {inside} in {root}: set MR3_DATA to the folder that holds the real sets, or give its path"
        )
    return root


def _row(source: str, identity: str, mode: Mode, rubric: str, gold: str, **fields: Any) -> Labelled:
    task = Task(id=identity, mode=mode, rubric=real_rubric(rubric), **fields)
    return Labelled(source=source, gold=gold, task=task)


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    opener: Any = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            yield f"{file.parent.name}/{file.name}:{number}", json.loads(line)


def _majority(votes: list[str]) -> str | None:
    """What more than half of the votes say."""
    vote, count = Counter(votes).most_common(1)[0]
    return vote if 2 * count > len(votes) else None


def truthfulqa_multi(path: str) -> Rows:
    """Reviewed answers (en, es, ca): binary, true where the reviewer found nothing false in the answer."""
    folder = _folder(path, "manual_review/evaluated")
    files = sorted((folder / "manual_review" / "evaluated").rglob("*.csv"))
    for file in files:
        with file.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                identity = f"{file.stem}/{row['id']}"
                gold = _YES_NO.get(row["truthfulness"].strip().lower())
                if gold is None:
                    yield SetAside(identity, f"truthfulness is {row['truthfulness']!r}", "unlabelled")
                    continue
                yield _row(
                    "truthfulqa_multi",
                    identity,
                    "binary",
                    "truthfulqa",
                    gold,
                    input=row["question"],
                    responses=[row["model_answer"]],
                    language=file.stem,
                )


def _tables(folder: Path) -> dict[str, str]:
    """Example id -> the table as text, with its title and unit."""
    found = {}
    for name in ("dev", "test", "ru"):
        with gzip.open(folder / f"{name}.json.gz", "rt", encoding="utf-8") as stream:
            for table in json.load(stream):
                cells = "\n".join(" | ".join(map(str, line)) for line in json.loads(table["table_data"]))
                found[table["example_id"]] = f"{table['title']}\n{table['unit_of_measure']}\n{cells}"
    return found


def tata(path: str) -> Rows:
    """Sentences about tables in nine languages: binary, true where all of it is read from the table.

    A sentence that can't be understood was not asked about further, and is false.
    """
    folder = _folder(path, "all_human_annotations.csv")
    tables, seen = _tables(folder), Counter[str]()
    with (folder / "all_human_annotations.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            name = f"{row['id']}/{row['model']}"
            seen[name] += 1
            identity = name if seen[name] == 1 else f"{name}/{seen[name]}"
            answers = {row["interpretable"], row["attributable"]}
            if row["id"] not in tables:
                yield SetAside(identity, "no such table", "incomplete")
            elif not row["interpretable"] or (float(row["interpretable"]) and not row["attributable"]):
                yield SetAside(identity, "not rated", "unlabelled")
            elif not row["output"].strip():
                yield SetAside(identity, "an empty sentence", "incomplete")
            else:
                yield _row(
                    "tata",
                    identity,
                    "binary",
                    "tata",
                    "true" if answers == {"1.0"} else "false",
                    input=tables[row["id"]],
                    responses=[row["output"]],
                    language=row["lang"],
                )


def _member(archive: Path, suffix: str) -> list[str]:
    with tarfile.open(archive) as bundle:
        inside = next(m for m in bundle.getmembers() if m.name.endswith(suffix) and "word-probas" not in m.name)
        stream = bundle.extractfile(inside)
        assert stream is not None, f"{inside.name} is no file"
        # Not splitlines: segments may hold other characters that end a line.
        return stream.read().decode("utf-8-sig").rstrip("\n").split("\n")


def mlqe_pe(path: str, part: str = "adequacy") -> Rows:
    """Machine translations. `part`: `adequacy` (1-5 from the mean rating), `post_edit` (the edited text against the
    machine's, in an order drawn by the row's number) or `catastrophic` (three votes on a harmful error).

    The language of a row is that of the translation.

    Raises:
        ValueError: for another part.
    """
    parts = {"adequacy": _adequacy, "post_edit": _post_edits, "catastrophic": _catastrophic}
    if part not in parts:
        raise ValueError(f"mlqe_pe has no part {part!r}: choose one of {', '.join(parts)}")
    return parts[part](_folder(path, "direct-assessments"))


def _pairs_of(folder: Path) -> Iterator[tuple[str, str, Path]]:
    for archive in sorted((folder / "dev").glob("*-dev.tar.gz")):
        _, target, _ = archive.name.split("-", 2)
        yield archive.name.removesuffix("-dev.tar.gz"), target, archive


def _adequacy(folder: Path) -> Rows:
    for pair, target, archive in _pairs_of(folder / "direct-assessments"):
        lines = _member(archive, ".df.short.tsv")
        head = lines[0].split("\t")
        for line in lines[1:]:
            row: Mapping[str, str] = dict(zip(head, line.split("\t"), strict=False))
            band = str(1 + sum(float(row["mean"]) >= cut for cut in _CUTS))
            yield _row(
                "mlqe_pe",
                f"adequacy/{pair}/{row[head[0]]}",
                "pointwise",
                "mlqe-adequacy",
                band,
                input=row["original"],
                responses=[row["translation"]],
                language=target,
            )


def _post_edits(folder: Path) -> Rows:
    for pair, target, archive in _pairs_of(folder / "post-editing"):
        columns = [_member(archive, f"/dev.{name}") for name in ("src", "mt", "pe", "hter")]
        for number, (source, machine, edited, hter) in enumerate(zip(*columns, strict=True)):
            identity = f"post_edit/{pair}/{number}"
            if float(hter) == 0 or machine == edited:
                yield SetAside(identity, "nothing was edited", "no_difference")
                continue
            better = number % 2
            yield _row(
                "mlqe_pe",
                identity,
                "pairwise",
                "mlqe-post-edit",
                _PAIR[better],
                input=source,
                responses=[machine, edited] if better else [edited, machine],
                language=target,
            )


def _catastrophic(folder: Path) -> Rows:
    for file in sorted((folder / "catastrophic_errors").glob("*_majority_dev.tsv")):
        pair, target = file.name[:4], file.name[2:4]
        for line in file.read_text(encoding="utf-8").rstrip("\n").split("\n"):
            number, source, translation, votes, label = line.split("\t")
            identity = f"catastrophic/{pair}/{number}"
            if label not in ("ERR", "NOT") or _majority(list(map(str, ast.literal_eval(votes)))) is None:
                yield SetAside(identity, f"votes {votes}", "no_majority")
                continue
            yield _row(
                "mlqe_pe",
                identity,
                "binary",
                "mlqe-catastrophic",
                "true" if label == "ERR" else "false",
                input=source,
                responses=[translation],
                language=target,
            )


def m_ifeval(path: str) -> Rows:
    """Responses of nine models to prompts about form (en, es, ja): binary, as the rule checker decided."""
    folder = _folder(path, "eval_results_strict")
    for file in sorted((folder / "eval_results_strict").rglob("*.jsonl.gz")):
        language, policy = file.parent.name, file.name.removesuffix(".jsonl.gz")
        for number, (where, row) in enumerate(_lines(file)):
            if not row["response"].strip():
                yield SetAside(where, "an empty response", "incomplete")
                continue
            yield _row(
                "m_ifeval",
                f"{language}/{number}/{policy}",
                "binary",
                "m-ifeval",
                str(bool(row["follow_all_instructions"])).lower(),
                input=row["prompt"],
                responses=[row["response"]],
                language=language,
            )


def xcopa(path: str) -> Rows:
    """Cause or effect of a premise in eleven languages: pairwise, the annotated choice is better."""
    folder = _folder(path, "val.et.jsonl")
    for file in sorted(folder.glob("val.*.jsonl")):
        language = file.name.split(".")[1]
        for _, row in _lines(file):
            yield _row(
                "xcopa",
                f"{language}/{row['idx']}",
                "pairwise",
                "xcopa",
                _PAIR[row["label"]],
                input=f"{row['premise']}\n({row['question']}?)",
                responses=[row["choice1"], row["choice2"]],
                language=language,
            )


def pandalm(path: str) -> Rows:
    """Pairs with three human votes (en): what at least two of them say; three different votes are set aside."""
    folder = _folder(path, "testset-v1.json")
    labels = {"0": "Tie", "1": _PAIR[0], "2": _PAIR[1]}
    for row in json.loads((folder / "testset-v1.json").read_text(encoding="utf-8")):
        identity = str(row["idx"])
        vote = _majority([str(row[f"annotator{i}"]) for i in (1, 2, 3)])
        if vote is None:
            yield SetAside(identity, "three different votes", "no_majority")
            continue
        asked = f"{row['instruction']}\n\n{row['input']}" if row["input"] else row["instruction"]
        yield _row(
            "pandalm",
            identity,
            "pairwise",
            "pandalm",
            labels[vote],
            input=asked,
            responses=[str(row["response1"]), str(row["response2"])],  # some answers were stored as true or false
            language="en",
        )


def mgsm(path: str) -> Rows:
    """Problems with their right number, and each with a wrong one: binary. A benchmark: never taught."""
    folder = _folder(path, "mgsm_en.tsv")
    for file in sorted(folder.glob("mgsm_*.tsv")):
        language = file.stem.removeprefix("mgsm_")
        for number, line in enumerate(file.read_text(encoding="utf-8").rstrip("\n").split("\n")):
            question, _, answer = line.rpartition("\t")
            value = answer.strip().replace(",", "")
            for gold, shown in (("true", value), ("false", str(int(float(value)) + 1 + number % 9))):
                yield _row(
                    "mgsm",
                    f"{language}/{number}/{gold}",
                    "binary",
                    "mgsm",
                    gold,
                    input=question,
                    responses=[shown],
                    language=language,
                )
