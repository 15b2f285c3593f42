"""Publishing pairs: the card, the refusal of unknown licences, the upload to a (fake) hub, once."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewards.audit import AuditConfig
from rewards.audit import run as run_audit
from rewards.selection.stage import main, run
from tests.selection_support import by_length, pairs_config, pool_row, write_label

ROOT = Path(__file__).resolve().parents[1]


class Hub:
    """What a fake hub was sent."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.commits: list[dict[str, bytes]] = []
        self.tokens: set[str] = set()
        self.url = ""


@contextmanager
def fake_hub() -> Iterator[Hub]:
    """A server with the four calls that an upload of small files makes."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.tokens.add(self.headers.get("Authorization", ""))
            path = self.path.split("?")[0]
            if path == "/api/repos/create":
                hub.made.append(json.loads(body))
                self._answer({"url": f"{hub.url}/datasets/people/pairs"})
            elif path == "/api/validate-yaml":
                content = json.loads(body)["content"]
                yaml.safe_load(content.split("---")[1])
                self._answer({"warnings": [], "errors": []})
            elif path == "/api/datasets/people/pairs/preupload/main":
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
                self._answer({"files": files})
            elif path == "/api/datasets/people/pairs/commit/main":
                rows = [json.loads(line)["value"] for line in body.splitlines() if b'"file"' in line]
                hub.commits.append({row["path"]: base64.b64decode(row["content"]) for row in rows})
                self._answer({"commitUrl": f"{hub.url}/datasets/people/pairs/commit/abc", "commitOid": "abc"})
            else:
                self._answer({"error": f"no {path}"}, 404)

        def do_GET(self) -> None:
            self._answer({"error": "not found"}, 404)

        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def _answer(self, value: dict[str, Any], status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _label(folder: Path, name: str = "label", seed: int = 0) -> Path:
    rows = [pool_row(f"p{i}", {"x": "4 | `4`", "y": "5"}, ("en", "zh-Hant")[i % 2], f"question {i}") for i in range(4)]
    return write_label(folder / name, rows, by_length, seed=seed)


def _pairs(hub: Hub, folder: Path, label: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mr3.cli.main", "pairs", "--output_dir", str(folder / "out")]
    command += ["--labels", f"[{{folder: {label}}}]", "--formats", "[trl, kto, llamafactory]", *words]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def test_an_upload_needs_the_licences_and_is_made_once(tmp_path: Path) -> None:
    label = _label(tmp_path)
    push = ["--push_to_hub", "people/pairs"]
    with fake_hub() as hub:
        done = _pairs(hub, tmp_path, label, *push, "--licences", "{p-x: apache-2.0}")
        assert done.returncode == 2 and "the licence of p-y is unknown" in done.stderr and not hub.made
        licences = ["--licences", "{p-x: apache-2.0, p-y: mit}", "--licence", "cc-by-4.0"]
        done = _pairs(hub, tmp_path, label, *push, *licences)
        assert done.returncode == 0, done.stderr
        assert "nothing to choose" in done.stderr, "a licence more needs no new selection"
        done = _pairs(hub, tmp_path, label, *push, *licences)
        assert done.returncode == 0 and "has these files already" in done.stderr
    assert len(hub.commits) == 1 and hub.tokens == {"Bearer hf_test"}
    assert [(m["name"], m["type"], m["visibility"]) for m in hub.made] == [("pairs", "dataset", "private")]
    out = tmp_path / "out"
    sent = hub.commits[0]
    assert set(sent) == {
        "README.md",
        "funnel.md",
        "preferences.parquet",
        "kto.parquet",
        "llamafactory/preferences.json",
        "llamafactory/dataset_info.json",
    }, "neither manifests, which name local paths, nor scratch"
    assert all(data == (out / name).read_bytes() for name, data in sent.items())
    assert not any(str(tmp_path).encode() in data for data in sent.values())
    front = yaml.safe_load(sent["README.md"].decode().split("---")[1])
    assert front["language"] == ["en", "zh"] and front["license"] == "cc-by-4.0" and "dpo" in front["tags"]
    assert front["configs"][0] == {
        "config_name": "trl",
        "data_files": [{"split": "train", "path": "preferences.parquet"}],
        "default": True,
    }


def test_the_card_says_where_the_pairs_come_from(tmp_path: Path) -> None:
    label = _label(tmp_path)
    audit = tmp_path / "audit"
    run_audit_folder(label, audit)
    config = pairs_config(
        tmp_path / "out", [label], audits=[audit / "audit.json"], licences={"p-x": "mit"}, title="Pairs\nof mine"
    )
    run(config)
    text = (config.output_dir / "README.md").read_text(encoding="utf-8")
    for said in (
        "# Pairs of mine\n",
        "4 preference pairs of 4 prompts",
        "| label | `org/judge@1` | pairwise |",
        "The number is right | `so`.",
        "| zh-Hant | 2 | 2 |",
        "| p-x | mit | 4 | 0 | 0 |",
        "| p-y | unknown | 0 | 4 | 0 |",
        "| verdicts.all.ok | 1.000 | 0.676 to 1.000 | 8 |",
        "| orders.all.flip_rate | 0.000 |",
        "Seed 0;",
    ):
        assert said in text, said
    run(config.model_copy(update={"licences": {"p-x": "mit", "p-y": "gpl-3.0"}}))
    text = (config.output_dir / "README.md").read_text(encoding="utf-8")
    assert "| p-y | gpl-3.0 |" in text and "unknown" not in text.split("## Source policies")[1]


def run_audit_folder(label: Path, folder: Path) -> None:
    """A finished audit of a label folder."""
    run_audit(AuditConfig(output_dir=folder, label=label))


def test_an_audit_of_other_labels_is_refused(tmp_path: Path) -> None:
    label, other = _label(tmp_path), _label(tmp_path, "other", 1)
    run_audit_folder(other, tmp_path / "audit")
    with pytest.raises(ValueError, match="audit of none of these labels"):
        run(pairs_config(tmp_path / "out", [label], audits=[tmp_path / "audit" / "audit.json"]))
    with pytest.raises(ValueError, match="no finished audit"):
        run(pairs_config(tmp_path / "out", [label], audits=[tmp_path / "absent.json"]))
    assert not (tmp_path / "out").exists(), "the folder is not taken by a run that can't be"


def test_other_choices_need_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = _label(tmp_path)
    words = ["--output_dir", str(tmp_path / "out"), "--labels", f"[{{folder: {label}}}]"]
    assert main(words) == 0 and main([*words, "--title", "Another"]) == 0
    assert main([*words, "--rule", "best_worst"]) == 2
    assert "changed: rule" in capsys.readouterr().err
    assert main([*words, "--min_margin", "0.5"]) == 2
    assert "every decided comparison of" in capsys.readouterr().err, "without logprobs all margins are 1"
