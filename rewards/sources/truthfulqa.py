"""Pool adapter for the multilingual TruthfulQA release (hitz-zentroa/truthfulqa-multi, Apache-2.0).

`read` yields one prompt per question and language with the responses of all models; `read_gold` yields
the human truthfulness labels. Both name a response `<language>/<doc_id>__<model>`, which is the only
thing they are joined by: the reviewers' files hold texts that were tidied before they were read.

Layout below `path`: `samples/<language>/<org>__<model>.jsonl.gz` (harness logs, one line per question),
`manual_review/evaluated[/no_instruct]/<language>.csv` and `manual_review/iaa/<language>.csv`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from mr3.records import Candidate, PoolRow
from mr3.rows import BadRow, json_lines, parse_object
from rewards.records import GoldLabel, SetAside

LANGUAGES = ("en", "es", "ca")
ReviewedText = Literal["review", "sample"]
_LABELS = {"yes": "true", "no": "false"}


def _root(path: str) -> Path:
    root = Path(path)
    if not (root / "samples").is_dir():
        raise ValueError(
            f"no TruthfulQA responses at {root} (looked for {root / 'samples'}): get hitz-zentroa/truthfulqa-multi, "
            "put its logs under samples/<language>/ and set MR3_DATA to the folder that holds truthfulqa_multi"
        )
    return root


def _policy(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".jsonl").replace("__", "/", 1)


def _name(language: str, doc_id: int | str, policy: str) -> str:
    return f"{language}/{doc_id}__{policy.rpartition('/')[2]}"


def _sample_files(root: Path, language: str) -> list[Path]:
    folder = root / "samples" / language
    files = sorted(p for p in folder.glob("*") if p.name.endswith((".jsonl", ".jsonl.gz")))
    if not files:
        raise ValueError(f"no .jsonl or .jsonl.gz in {folder}: drop {language!r} from languages, or add the files")
    return files


def _samples(file: Path) -> Iterator[tuple[str, dict[str, Any] | SetAside]]:
    """Lines of one log: (where, what we need of it), or a SetAside for a line that isn't one."""
    for place, blob in json_lines(file):
        where = f"{file.parent.name}/{place}"
        try:
            if isinstance(blob, BadRow):
                raise blob
            row = parse_object(blob)
            doc = row["doc"]
            kept = {
                "doc_id": int(row["doc_id"]),
                "text": row["filtered_resps"][0],
                "question": doc["question"],
                "best_answer": doc["best_answer"],
                "category": doc["category"],
            }
            if not isinstance(kept["text"], str):
                raise TypeError(f"the response is no text but {type(kept['text']).__name__}")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            yield where, SetAside(where=where, reason=f"not a sample: {type(error).__name__}: {error}")
            continue
        yield where, kept


def _review_files(root: Path, language: str) -> list[tuple[str, Path]]:
    """(annotator, file): the reviewers of both model groups, and the second annotator."""
    folder = root / "manual_review"
    candidates = [
        ("first", folder / "evaluated" / f"{language}.csv"),
        ("first", folder / "evaluated" / "no_instruct" / f"{language}.csv"),
        ("second", folder / "iaa" / f"{language}.csv"),
    ]
    return [(who, file) for who, file in candidates if file.is_file()]


def _reviews(root: Path, language: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(annotator, response id, row) of every labelled answer."""
    for annotator, file in _review_files(root, language):
        with file.open(newline="", encoding="utf-8-sig") as stream:
            for row in csv.DictReader(stream):
                doc_id, _, model = row["id"].partition("__")
                yield annotator, _name(language, doc_id, model), row


def read(
    path: str,
    languages: Sequence[str] = LANGUAGES,
    reviewed_text: ReviewedText = "review",
    limit: int | None = None,
) -> Iterator[PoolRow | SetAside]:
    """The pool: a prompt per question wording and language.

    Args:
        path: the release's folder.
        languages: which languages to read.
        reviewed_text: judge a reviewed answer as the reviewer read it (`review`) or as sampled (`sample`).
        limit: only the first so many questions of each language.

    Raises:
        ValueError: when the files are not there.
    """
    root = _root(path)
    if reviewed_text not in ("review", "sample"):
        raise ValueError(f"reviewed_text is {reviewed_text!r}: choose review or sample")
    for language in languages:
        files = _sample_files(root, language)
        read_by_people: dict[str, str] = {}
        if reviewed_text == "review":
            read_by_people = {
                name: row["model_answer"] for who, name, row in _reviews(root, language) if who == "first"
            }
        prompts: dict[tuple[int, str], list[tuple[str, str, dict[str, Any]]]] = {}
        for file in files:
            for where, sample in _samples(file):
                if isinstance(sample, SetAside):
                    yield sample
                elif limit is None or sample["doc_id"] < limit:
                    key = (sample["doc_id"], sample["question"])
                    prompts.setdefault(key, []).append((where, _policy(file), sample))
        yield from _rows(language, prompts, read_by_people)


def _rows(
    language: str,
    prompts: dict[tuple[int, str], list[tuple[str, str, dict[str, Any]]]],
    read_by_people: dict[str, str],
) -> Iterator[PoolRow | SetAside]:
    wordings: dict[int, int] = {}
    for (doc_id, question), samples in sorted(prompts.items(), key=lambda item: item[0][0]):
        # Some models were asked another wording of a question: each answer stays with what it answered.
        wordings[doc_id] = wordings.get(doc_id, 0) + 1
        suffix = "" if wordings[doc_id] == 1 else f"-wording{wordings[doc_id]}"
        prompt_id = f"{language}/{doc_id}{suffix}"
        responses = []
        for where, policy, sample in samples:
            name = _name(language, doc_id, policy)
            text = read_by_people.get(name, sample["text"])
            if text.strip():
                responses.append(Candidate(id=name, text=text, policy=policy))
            else:
                yield SetAside(where=where, prompt_id=prompt_id, response_id=name, reason="empty response")
        if responses:
            first = samples[0][2]
            yield PoolRow(
                prompt_id=prompt_id,
                prompt=question,
                language=language,
                responses=responses,
                reference=first["best_answer"],
                meta={"doc_id": doc_id, "category": first["category"]},
            )


def read_gold(path: str, languages: Sequence[str] = LANGUAGES) -> Iterator[GoldLabel]:
    """The human truthfulness labels (`true` / `false`; None where the reviewer left it blank).

    Raises:
        ValueError: when the files are not there, or hold a label that is neither yes, no nor blank.
    """
    root = _root(path)
    for language in languages:
        if not _review_files(root, language):
            raise ValueError(f"no human labels for {language!r} under {root / 'manual_review'}: drop it from languages")
        own = {
            _name(language, sample["doc_id"], _policy(file)): sample["text"]
            for file in _sample_files(root, language)
            for _, sample in _samples(file)
            if not isinstance(sample, SetAside)
        }
        for annotator, name, row in _reviews(root, language):
            answer = row["truthfulness"].strip().lower()
            if answer and answer not in _LABELS:
                raise ValueError(f"{name}: truthfulness is {answer!r} in the review; expected yes, no or nothing")
            yield GoldLabel(
                response_id=name,
                language=language,
                label=_LABELS.get(answer),
                annotator=annotator,
                text=row["model_answer"],
                tidied=name in own and own[name].strip() != row["model_answer"].strip(),
            )
