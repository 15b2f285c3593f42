"""`mr3 serve` as users start it: a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.serving_support import HOUSE, KEY

ROOT = Path(__file__).resolve().parents[1]
TASK = {"mode": "binary", "input": "2 + 2?", "responses": ["4"], "rubric": HOUSE.model_dump(mode="json")}
HEADERS = {"authorization": f"Bearer {KEY}"}


def command(*words: str) -> list[str]:
    """The command line, with the example's config."""
    return [sys.executable, "-m", "mr3.cli.main", "serve", "--config", str(ROOT / "configs/nano/serve.yaml"), *words]


class Server:
    """A running server and what it wrote."""

    def __init__(self, folder: Path, model: Path, *more: str) -> None:
        self.folder, self.more = folder, more
        words = ["--output_dir", str(folder), "--judge.model", str(model), "--port", "0"]
        words += ["--api_keys_env", "MR3_TEST_KEYS", "--model_name", "tiny", *more]
        self.log = (folder / "server.log").open("w")
        environment = {**os.environ, "MR3_TEST_KEYS": KEY}
        self.process = subprocess.Popen(command(*words), stderr=self.log, cwd=ROOT, env=environment)

    def text(self) -> str:
        return (self.folder / "server.log").read_text()

    def wait_ready(self) -> str:
        for _ in range(900):
            assert self.process.poll() is None, self.text()
            if (self.folder / "server.json").is_file():
                url: str = json.loads((self.folder / "server.json").read_text())["url"]
                return url
            time.sleep(0.2)
        raise AssertionError(f"not ready: {self.text()}")

    def close(self) -> None:
        """However it went, no process is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
