"""Which rows reach each optimizer step, seen at the model's own input: a callback for `mr3 sft`, and a worker for
`torchrun` (`-m benchmarks.step_rows CONFIG.yaml OUT_DIR`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mr3.artifacts import read_json, write_json
from mr3.config import load_config
from mr3.records import stable_hash

Step = list[list[str]]
"""The forward passes of one optimizer step, each with the rows in it, by the hash of their tokens."""


def row_key(ids: Iterable[int]) -> str:
    """A row by its tokens."""
    return stable_hash([int(i) for i in ids], length=16)


def _rows_of(inputs: dict[str, Any], pad: int) -> list[str]:
    """The rows in one batch: cut where positions begin anew, or by the attention mask; padding is none of them."""
    found = []
    ids, positions, mask = (inputs.get(name) for name in ("input_ids", "position_ids", "attention_mask"))
    assert ids is not None
    for i, line in enumerate(ids.tolist()):
        if mask is not None:
            parts = [line[: int(mask[i].sum())]]
        else:
            assert positions is not None
            starts = [k for k, place in enumerate(positions[i].tolist()) if place == 0]
            parts = [line[a:b] for a, b in zip(starts, [*starts[1:], len(line)], strict=True)]
        found += [row_key(part) for part in parts if any(token != pad for token in part)]
    return found


def recorder(folder: Path, pad: int) -> Any:
    """A TrainerCallback that writes `folder/rank-N.json` when training ends."""
    from transformers import TrainerCallback

    class StepRows(TrainerCallback):  # type: ignore[misc]
        """Counts what goes into the model between two optimizer steps."""

        def __init__(self) -> None:
            self.steps: list[Step] = []
            self.passes: Step = []

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            """Watch the model's input."""
            model.register_forward_pre_hook(
                lambda module, given, inputs: self.passes.append(_rows_of(inputs, pad)), with_kwargs=True
            )

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """One step is over."""
            self.steps.append(self.passes)
            self.passes = []

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Keep what was seen."""
            write_json(folder / f"rank-{os.environ.get('RANK', '0')}.json", self.steps)

    return StepRows()


def merged(folder: Path) -> list[list[str]]:
    """Rows per optimizer step, of all processes: pass by pass, in each the processes in order."""
    ranks: list[list[Step]] = [read_json(file) for file in sorted(folder.glob("rank-*.json"))]
    assert ranks, f"nobody recorded anything in {folder}"
    steps = []
    for of_ranks in zip(*ranks, strict=True):
        passes = zip(*of_ranks, strict=True)
        steps.append([row for one_pass in passes for rows in one_pass for row in rows])
    return steps


def in_order(seen: Sequence[str], wanted: Sequence[str]) -> int:
    """How many rows stand where the order puts them."""
    return sum(a == b for a, b in zip(seen, wanted, strict=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one SFT config with the recorder."""
    from mr3.sft.stage import SftConfig, run
    from mr3.training import load_tokenizer

    config_file, out = (Path(word) for word in (sys.argv[1:] if argv is None else argv))
    config = load_config(SftConfig, config_file)
    run(config, [recorder(out, int(load_tokenizer(config.model).pad_token_id))])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
