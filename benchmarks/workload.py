"""What the benchmarks of labelling share: pools of any size, judges that need no training, label runs as commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.instant import NAME as INSTANT
from mr3.artifacts import read_json
from mr3.inference.engine import Sampling
from mr3.judge_card import JudgeCard, write_card

BASE = Path("mr3/nano/base")
RUBRIC = {
    "name": "house",
    "criteria": [
        {"name": "language", "description": "The response is in the language of the question."},
        {"name": "polite", "description": "The response thanks the user."},
    ],
}


def write_pool(file: Path, prompts: int, responses: int, first: int = 0, mark: str = "") -> Path:
    """A JSONL pool of short prompts, each of its own text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as out:
        for i in range(first, first + prompts):
            answers = [
                {"id": f"p{i}-{k}", "text": f"The answer is {i + k}. Thank you for asking.", "policy": f"m{k}"}
                for k in range(responses)
            ]
            row = {"prompt_id": f"p{i}", "prompt": f"cats: {i}, dogs: 5. How many in total?{mark}", "language": "en"}
            out.write(json.dumps({**row, "responses": answers}) + "\n")
    return file


def card(max_prompt_tokens: int = 1_500, max_output_tokens: int = 160) -> JudgeCard:
    """The nano judge's limits."""
    return JudgeCard(
        profile="compact",
        max_prompt_tokens=max_prompt_tokens,
        max_output_tokens=max_output_tokens,
        sampling=Sampling(max_tokens=max_output_tokens),
    )


def base_judge(folder: Path) -> Path:
    """The committed base with a judge's card: its tokenizer is real, and an instant engine needs no more."""
    if not (folder / "judge.json").is_file():
        shutil.copytree(BASE, folder, dirs_exist_ok=True)
        write_card(folder, card())
    return folder


def label_config(folder: Path, pool: Path | list[Path], model: Path, **more: Any) -> Path:
    """A config file of `mr3 label` with the instant engine; `more` replaces keys."""
    pools = [str(p) for p in ([pool] if isinstance(pool, Path) else pool)]
    config: dict[str, Any] = {
        "output_dir": str(folder / "label"),
        "store": str(folder / "store"),
        "pool": pools,
        "judge": {"model": str(model), "backend": INSTANT},
        "rubric": RUBRIC,
        "plan": "circular",
        "canaries": {"per_language": 0},
    }
    file = folder / "label.json"  # JSON is YAML
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**config, **more}))
    return file


def label_command(config: Path) -> list[str]:
    """The command line of a label run."""
    return [sys.executable, "-m", "mr3.cli.main", "label", "--config", str(config)]


def environment(address: str | None = None) -> dict[str, str]:
    """One thread, this package importable in Ray's workers, and the Ray session to join, if there is one."""
    here = str(Path.cwd())
    known = os.environ.get("PYTHONPATH")
    ray = {"RAY_ADDRESS": address} if address else {}
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{here}:{known}" if known else here, **ray}


def label(config: Path, address: str | None = None) -> dict[str, Any]:
    """Run `mr3 label` to its end, in a Ray session of its own or the one at `address`; its metrics."""
    subprocess.run(label_command(config), check=True, env=environment(address))
    folder = Path(json.loads(config.read_text())["output_dir"])
    found: dict[str, Any] = read_json(folder / "metrics.json")
    return found
