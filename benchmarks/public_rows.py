"""Rows in the columns of the public sets, with every legal gold label, whose texts show what a perfect judge would say.

Each text says what it is worth ("worth 5"), so the truth is read from a prompt and owes nothing to the code that reads
gold labels. Golds are written as the public sets have them, in several cases of letters.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]
A, B = "Assistant A", "Assistant B"
LANGUAGES = ("en", "de", "ja")
_PAIRS = [(5, 1, A), (1, 5, B), (4, 3, "assistant a"), (0, 1, "ASSISTANT B")]
_ARENA = [*_PAIRS, (5, 5, "Tie"), (4, 4, "tie"), (0, 0, "Both Bad"), (1, 1, "both bad")]
_TRUE = [(5, True), (0, False), (4, "true"), (1, "False"), (5, "TRUE"), (0, "FALSE")]
_BORDERS = (10.0, 20.0, 39.9, 60.0, 80.0, 100.0, 0.0)
"""Mean ratings of translations, at the edges of the bands."""


def _worth(value: int, number: int = 0) -> str:
    return f"Text {number}, worth {value}."


def _rows(
    golds: Iterable[tuple[Any, ...]], make: Callable[..., Row], languages: Iterable[str] = LANGUAGES
) -> list[Row]:
    """Every gold in every language, `make` getting what stands before the gold."""
    found: list[Row] = []
    for language in languages:
        for *shown, gold in golds:
            number = len(found)
            found.append({"id": f"r{number}", "language": language, "actual_score": gold, **make(number, *shown)})
    return found


def _pair(number: int, first: int, second: int, **more: str) -> Row:
    return {"input": f"Asked {number}?", "response_1": _worth(first, 1), "response_2": _worth(second, 2), **more}


def _by_part(column: str, values: Iterable[str], languages: Iterable[str]) -> list[Row]:
    found = []
    for value in values:
        for row in _rows(_PAIRS, lambda n, a, b, v=value: _pair(n, a, b, **{column: v}), languages):
            found.append({**row, "id": f"{value}-{row['id']}"})
    return found


def _arena(number: int, first: int, second: int) -> Row:
    turns = 1 + number % 2
    row: Row = {"conv_metadata": {"turns": turns}}
    for column, value in (("conversation_a", first), ("conversation_b", second)):
        said = [("user", f"Asked {number}?"), ("assistant", "A first answer."), ("user", "And then?")][: 2 * turns - 1]
        said.append(("assistant", _worth(value)))
        row[column] = [{"role": role, "content": [{"text": text}]} for role, text in said]
    return row


def _helpsteer3(number: int, second_better_by: int) -> Row:
    first = max(0, -second_better_by) + 1
    context = [{"role": "user", "content": f"Asked {number}?"}]
    texts = {"response1": _worth(first), "response2": _worth(first + second_better_by)}
    return {"context": context, "domain": ("general", "code")[number % 2], **texts}


def _choice(number: int, right: int) -> Row:
    shown = [f"{letter}. Option {k}{' (right)' if k == right else ''}" for k, letter in enumerate("ABCD")]
    return {"question": f"Asked {number}?", "options_str": "\n".join(shown)}


_HELPSTEER3 = _rows([(g, g) for g in range(-3, 4)] + [(3, 3.0), (-3, "-3")], _helpsteer3)
_CHOICES = _rows([(k, letter) for k, text in enumerate("ABCD") for letter in (text, text.lower())], _choice)
_SUBSETS = ("alpacaeval-easy", "mt-bench-hard", "donotanswer", "xstest-should-refuse", "hep-go", "math-prm")


def _classified(ending: str) -> list[Row]:
    rows = _rows(_TRUE, lambda n, worth: {"input": _worth(worth, n)})
    return [{**row, "id": f"{row['id']}-{ending}"} for row in rows]


SETS: Mapping[str, list[Row]] = {
    "polyguardmix": _classified("prompt") + _classified("response"),
    "polyguardmix-filtered": _classified("prompt") + _classified("response"),
    "arena": _rows([g for g in _ARENA for _ in (1, 2, 3)], _arena),
    "helpsteer3": _HELPSTEER3,
    "helpsteer3-test": _HELPSTEER3,
    "mmmlu": _CHOICES,
    "math500": _rows(_TRUE, lambda n, worth: {"problem": f"Asked {n}?", "full_solution": _worth(worth)}, ("en", "fr")),
    "humanevalxl": _rows(
        _TRUE, lambda n, worth: {"input": f"Asked {n}?", "code_response": _worth(worth)}, ("en", "zh")
    ),
    "m-rewardbench": _by_part("source", _SUBSETS, LANGUAGES),
    "rewardbench": _by_part("source", _SUBSETS, ["en"]),
    "mm-eval": _by_part("subset", ("chat", "safety", "math", "language mixing"), LANGUAGES),
    "indopref": _by_part("domain", ("creative writing", "math", "open question"), ["id"]),
    "include": _CHOICES,
    "mgsm": _rows(_TRUE, lambda n, worth: {"question": f"Asked {n}?", "answer": _worth(worth)}),
    "rtp-lx": _classified("completion"),
}
"""Rows of every known set by its name."""


def write_set(name: str, folder: Path) -> Path:
    """A known set's rows as JSON lines."""
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in SETS[name]), encoding="utf-8")
    return file


def _file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _zipped(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _table(columns: list[str], rows: Iterable[Iterable[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def _archive(path: Path, files: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as bundle:
        for name, text in files.items():
            blob = text.encode()
            about = tarfile.TarInfo(name)
            about.size = len(blob)
            bundle.addfile(about, io.BytesIO(blob))


def _truthfulqa(folder: Path) -> None:
    models = ("m1", "m2", "m3", "m4")
    worths = {model: (5, 0)[k % 2] for k, model in enumerate(models)}
    columns = ["id", "question", "model_answer", "truthfulness", "informativeness"]
    said = {"m1": "Yes", "m2": "No", "m3": "YES ", "m4": "no"}
    for language in ("en", "es"):
        shown = [(f"{n}__{m}", f"Asked {n}?", _worth(worths[m], n), said[m], "yes") for n in range(3) for m in models]
        _file(folder / "manual_review" / "evaluated" / f"{language}.csv", _table(columns, shown))
        for model in models:
            lines = [
                {
                    "doc_id": n,
                    "doc": {"question": f"Asked {n}?", "best_answer": "The best.", "category": "Any"},
                    "filtered_resps": [_worth(worths[model], n)],
                }
                for n in range(3)
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            _zipped(folder / "samples" / language / f"org__{model}.jsonl.gz", text)


def _tata(folder: Path) -> None:
    for name in ("dev", "test", "ru"):
        table = {"table_data": '[["a", "b"]]', "title": "Table", "unit_of_measure": "none"}
        _zipped(folder / f"{name}.json.gz", json.dumps([{"example_id": f"{name}-en-1", **table}]))
    # Interpretable and attributable; what can't be understood was not asked about further.
    votes = [(5, "1.0", "1.0"), (0, "1.0", "0.0"), (0, "0.0", "")]
    columns = ["id", "model", "output", "interpretable", "attributable", "lang"]
    rows = [
        (f"{name}-en-1", f"m{k}", _worth(worth, k), understood, supported, "en")
        for name in ("dev", "test", "ru")
        for k, (worth, understood, supported) in enumerate(votes)
    ]
    _file(folder / "all_human_annotations.csv", _table(columns, rows))


def _mlqe(folder: Path) -> None:
    band = {mean: 1 + int(mean >= 20) + int(mean >= 40) + int(mean >= 60) + int(mean >= 80) for mean in _BORDERS}
    rated = [f"{n}\tSource {n}\t{_worth(band[m], n)}\t{m}" for n, m in enumerate(_BORDERS)]
    text = "\n".join(["index\toriginal\ttranslation\tmean", *rated]) + "\n"
    _archive(folder / "direct-assessments" / "dev" / "en-de-dev.tar.gz", {"en-de-dev/dev.ende.df.short.tsv": text})
    edits = [(f"Source {n}", _worth(1, n), _worth(5, n), "0.5") for n in range(6)]
    edits.append(("Source", "Same.", "Same.", "0.0"))  # nothing was edited: no pair
    columns = dict(zip(("src", "mt", "pe", "hter"), zip(*edits, strict=True), strict=True))
    files = {f"en-de-dev/dev.{name}": "\n".join(lines) + "\n" for name, lines in columns.items()}
    _archive(folder / "post-editing" / "dev" / "en-de-dev.tar.gz", files)
    votes = [(5, "[1, 1, 0]", "ERR"), (0, "[0, 0, 0]", "NOT"), (5, "[1, 1, 1]", "ERR"), (0, "[0, 0, 1]", "NOT")]
    lines = [f"{n}\tSource {n}\t{_worth(w, n)}\t{v}\t{label}" for n, (w, v, label) in enumerate(votes)]
    _file(folder / "catastrophic_errors" / "ende_majority_dev.tsv", "\n".join(lines) + "\n")


def _m_ifeval(folder: Path) -> None:
    for language in ("en", "ja"):
        rows = [
            {"prompt": f"Asked {n}?", "response": _worth(w, n), "follow_all_instructions": kept}
            for n, (w, kept) in enumerate(((5, True), (0, False), (5, 1), (0, 0)))
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        _zipped(folder / "eval_results_strict" / language / "policy.jsonl.gz", text)


def _xcopa(folder: Path) -> None:
    rows = [
        {"premise": f"It was {n}.", "question": "cause", "label": label, "idx": n, "choice1": a, "choice2": b}
        for n, (a, b, label) in enumerate(((_worth(5), _worth(0), 0), (_worth(0), _worth(5), 1)))
    ]
    _file(folder / "val.et.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _pandalm(folder: Path) -> None:
    rows = []
    for n, (first, second, votes) in enumerate(((5, 5, "002"), (5, 0, "112"), (0, 5, "222"), (0, 0, "000"))):
        texts = {"response1": _worth(first), "response2": _worth(second), "instruction": f"Asked {n}?", "input": ""}
        rows.append({"idx": n, **texts, **{f"annotator{k}": int(v) for k, v in enumerate(votes, start=1)}})
    _file(folder / "testset-v1.json", json.dumps(rows))


def _mgsm(folder: Path) -> None:
    for language in ("en", "th"):
        numbers = ("18", "1,000", "-3", "0")
        lines = [f"Asked {n}; the number is {number.replace(',', '')}.\t{number}" for n, number in enumerate(numbers)]
        _file(folder / f"mgsm_{language}.tsv", "\n".join(lines) + "\n")


REAL: Mapping[str, Callable[[Path], None]] = {
    "truthfulqa_multi": _truthfulqa,
    "tata": _tata,
    "mlqe_pe": _mlqe,
    "m_ifeval": _m_ifeval,
    "xcopa": _xcopa,
    "pandalm_testset": _pandalm,
    "mgsm": _mgsm,
}
"""Folder of a labelled real set -> what writes small files in its form."""


def write_real(name: str, folder: Path) -> Path:
    """Small files in the form of a labelled real set."""
    place = folder / "real" / name
    REAL[name](place)
    return place
