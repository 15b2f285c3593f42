"""The formats in which pairs are written, each whole or not at all.

- `trl`: TRL's explicit conversational preference type (`prompt`, `chosen`, `rejected` as message lists).
- `kto`: TRL's unpaired preference type (`prompt`, `completion`, `label`).
- `ranked`: a prompt's responses from best to worst.
- `llamafactory`: LLaMA-Factory's sharegpt preference format, with the entry of dataset_info.json.
Provenance columns stand beside what trainers read; trainers leave them alone.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from mr3.artifacts import write_json
from rewards.selection.candidates import PAIRS
from rewards.selection.config import Format
from rewards.selection.merge import Merged
from rewards.selection.ranking import Ranking
from rewards.tables import TableWriter
from rewards.walk import Row

_MESSAGES = PAIRS.field("prompt").type
_TEXTS = pa.list_(pa.string())
UNPAIRED = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("completion", _MESSAGES),
        ("label", pa.bool_()),
        ("prompt_id", pa.string()),
        ("language", pa.string()),
        ("policy", pa.string()),
        ("response_id", pa.string()),
        ("labels", _TEXTS),
        ("pairs", pa.int32()),  # how many pairs say so
    ]
)
RANKED = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("responses", _TEXTS),  # best first
        ("scores", pa.list_(pa.float64())),
        ("policies", _TEXTS),
        ("response_ids", _TEXTS),
        ("prompt_id", pa.string()),
        ("language", pa.string()),
        ("labels", _TEXTS),
    ]
)
FILES: dict[Format, str] = {
    "trl": "preferences{}.parquet",
    "kto": "kto{}.parquet",
    "ranked": "ranked{}.parquet",
    "llamafactory": "llamafactory/preferences{}.json",
}
SPLITS = {"train": "", "heldout": "_heldout"}
_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}


class JsonWriter:
    """A JSON list of rows, in a file that appears, whole, when the `with` block ends cleanly."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._temporary = path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._out = self._temporary.open("w", encoding="utf-8")
        self._out.write("[")

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        for row in rows:
            self._out.write(",\n" if self.rows else "\n")
            self._out.write(json.dumps(row, ensure_ascii=False))
            self.rows += 1

    def __enter__(self) -> JsonWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._out as out:
            if kind is None:
                out.write("\n]\n")
                out.flush()
                os.fsync(out.fileno())
        if kind is None:
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink(missing_ok=True)


def unpaired(rows: Sequence[Row]) -> list[Row]:
    """The responses of one prompt's pairs with a label each; those that won one pair and lost another are left out."""
    about: dict[str, Row] = {}
    said: dict[str, Counter[bool]] = {}
    labels: dict[str, set[str]] = {}
    for row in rows:
        for side, label in (("chosen", True), ("rejected", False)):
            name = row[f"{side}_id"]
            about[name] = {
                "prompt": row["prompt"],
                "completion": row[side],
                "prompt_id": row["prompt_id"],
                "language": row["language"],
                "policy": row[f"{side}_policy"],
                "response_id": name,
            }
            said.setdefault(name, Counter())[label] += 1
            labels.setdefault(name, set()).update(row["labels"])
    return [
        {**about[name], "label": next(iter(said[name])), "labels": sorted(labels[name]), "pairs": said[name].total()}
        for name in sorted(about)
        if len(said[name]) == 1
    ]


def sharegpt(row: Row) -> Row | None:
    """A pair as LLaMA-Factory reads it; None where its turns can't be said in that format.

    After an optional system message, human and gpt must take turns, and the last turn is human.
    """
    turns = [{"from": _SPEAKERS[m["role"]], "value": m["content"]} for m in row["prompt"]]
    spoken = turns[1:] if turns and turns[0]["from"] == "system" else turns
    wanted = ["human" if i % 2 == 0 else "gpt" for i in range(len(spoken))]
    if not len(spoken) % 2 or [t["from"] for t in spoken] != wanted:
        return None
    [chosen], [rejected] = row["chosen"], row["rejected"]
    return {
        "conversations": turns,
        "chosen": {"from": "gpt", "value": chosen["content"]},
        "rejected": {"from": "gpt", "value": rejected["content"]},
        **{k: row[k] for k in ("prompt_id", "language", "chosen_policy", "rejected_policy", "labels", "margin")},
    }


def ranked(prompt: Merged, ranking: Ranking) -> Row:
    """A prompt's responses from best to worst."""
    responses = [prompt.responses[name] for name in ranking.ids]
    return {
        "prompt": prompt.prompt,
        "responses": [r.text for r in responses],
        "scores": list(ranking.scores),
        "policies": [r.policy for r in responses],
        "response_ids": list(ranking.ids),
        "prompt_id": prompt.prompt_id,
        "language": prompt.language,
        "labels": list(ranking.labels),
    }


def dataset_info(splits: Sequence[str]) -> dict[str, Any]:
    """LLaMA-Factory's description of the files: lay it beside them, or copy the entries into its own."""
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    entries = {}
    for split in splits:
        file = Path(FILES["llamafactory"].format(SPLITS[split])).name
        entry = {"file_name": file, "formatting": "sharegpt", "ranking": True, "columns": columns}
        entries[Path(file).stem] = entry
    return entries


class Outputs:
    """Writers of the wanted formats and splits; files appear when the `with` block ends cleanly."""

    def __init__(self, folder: Path, formats: Sequence[Format], splits: Sequence[str]) -> None:
        self._folder = folder
        self._formats = formats
        self._splits = splits
        self._stack = ExitStack()
        self._writers: dict[tuple[str, str], TableWriter | JsonWriter] = {}
        self.left_out: dict[str, Counter[str]] = {
            name: Counter() for name in ("kto", "llamafactory") if name in formats
        }
        self.policies: dict[str, Counter[str]] = {}

    def __enter__(self) -> Outputs:
        schemas = {"trl": PAIRS, "kto": UNPAIRED, "ranked": RANKED}
        for name in self._formats:
            for split in self._splits:
                file = self._folder / FILES[name].format(SPLITS[split])
                if name == "llamafactory":
                    self._writers[name, split] = self._stack.enter_context(JsonWriter(file))
                else:
                    self._writers[name, split] = self._stack.enter_context(TableWriter(file, schemas[name]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if kind is None and "llamafactory" in self._formats:
            write_json(self._folder / "llamafactory" / "dataset_info.json", dataset_info(self._splits))

    def pairs(self, rows: Sequence[Row], heldout: bool) -> None:
        """Write the chosen pairs of one prompt."""
        split = "heldout" if heldout else "train"
        for row in rows:
            self._seen("chosen", row["chosen_policy"])
            self._seen("rejected", row["rejected_policy"])
        if "trl" in self._formats:
            self._writers["trl", split].write([{name: row[name] for name in PAIRS.names} for row in rows])
        if "kto" in self._formats:
            found = unpaired(rows)
            self.left_out["kto"]["chosen_and_rejected"] += len(
                {row[f"{side}_id"] for row in rows for side in ("chosen", "rejected")}
            ) - len(found)
            self._writers["kto", split].write(found)
        if "llamafactory" in self._formats:
            said = [sharegpt(row) for row in rows]
            self.left_out["llamafactory"]["turns_do_not_alternate"] += said.count(None)
            self._writers["llamafactory", split].write([row for row in said if row is not None])

    def ranking(self, prompt: Merged, ranking: Ranking, heldout: bool) -> None:
        """Write one ranked list."""
        for name in ranking.ids:
            self._seen("ranked", prompt.responses[name].policy)
        self._writers["ranked", "heldout" if heldout else "train"].write([ranked(prompt, ranking)])

    def _seen(self, side: str, policy: str) -> None:
        self.policies.setdefault(policy, Counter())[side] += 1

    def report(self) -> dict[str, Any]:
        """Rows per format and split (after the `with` block), and what a format could not hold, by reason."""
        found: dict[str, Any] = {name: {s: self._writers[name, s].rows for s in self._splits} for name in self._formats}
        for name, reasons in self.left_out.items():
            found[name]["left_out"] = {reason: n for reason, n in sorted(reasons.items()) if n}
        return found
