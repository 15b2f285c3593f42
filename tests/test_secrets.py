"""What a run leaves behind holds no secret, and what it opens is open to its own machine alone."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from pydantic import Field
from yaml import safe_dump

from mr3.artifacts import read_json, stage_run
from mr3.cli.state import is_current
from mr3.config import StageConfig, expand, load_config, without_secrets
from tests.rewards_support import judge_server, make_judge, scripted

SECRET = "planted-5ecret-7b1f"


class Work(StageConfig):
    incidental: ClassVar[frozenset[str]] = frozenset({"workers"})

    url: str = ""
    place: Path = Path()
    engine: dict[str, Any] = Field(default_factory=dict)
    workers: int = 1


def written(folder: Path, **changes: Any) -> Path:
    """A config file."""
    file = folder / "work.yaml"
    file.write_text(safe_dump({"output_dir": str(folder / "out"), **changes}))
    return file


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"hf_token": "abc"}, {"hf_token": "***"}),
        ({"engine": [{"api_key": "abc"}]}, {"engine": [{"api_key": "***"}]}),
        ({"headers": {"Authorization": "Bearer abc"}}, {"headers": {"Authorization": "***"}}),
        ({"db_password": "abc", "client-secret": "abc"}, {"db_password": "***", "client-secret": "***"}),
        ({"token": "abc", "key": "id"}, {"token": "***", "key": "id"}),
        ({"key": "sk1234567890abcdefghij"}, {"key": "***"}),
        ({"url": "https://me:pw@host/v1"}, {"url": "https://***@host/v1"}),
        ({"url": "https://host/v1?api_key=abc&n=1"}, {"url": "https://host/v1?api_key=***&n=1"}),
        ({"eos_token": "</s>", "max_tokens": 3}, {"eos_token": "</s>", "max_tokens": 3}),
        ({"hf_token": True, "api_key": ""}, {"hf_token": True, "api_key": ""}),
        ({"text": "mail me@host"}, {"text": "mail me@host"}),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_secrets_are_masked_and_nothing_else(data: Any, shown: Any) -> None:
    assert without_secrets(data) == shown
    assert without_secrets(shown) == shown


def test_a_manifest_names_variables_and_masks_what_was_written_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_PLACE", f"/data/{SECRET}/")
    monkeypatch.setenv("MY_TOKEN", SECRET)
    file = written(
        tmp_path,
        url="https://${MY_TOKEN}.example/v1",
        place="${MY_PLACE}/x",
        engine={"hf_token": "${MY_TOKEN}", "api_key": SECRET + "x", "dtype": "half"},
    )
    config = load_config(Work, file, ["--engine.password", f"{SECRET}y"])
    assert config.engine["hf_token"] == SECRET
    with stage_run("work", config.model_copy(update={"workers": 2})):
        pass
    for name in ("started.json", "manifest.json"):
        assert SECRET not in (tmp_path / "out" / name).read_text()
        recorded = read_json(tmp_path / "out" / name)["config"]
        assert recorded["url"] == "https://${MY_TOKEN}.example/v1" and recorded["place"] == "${MY_PLACE}/x"
        assert recorded["engine"] == {"hf_token": "${MY_TOKEN}", "api_key": "***", "password": "***", "dtype": "half"}
        assert expand(recorded, name)["url"] == config.url
    assert is_current(config)
    monkeypatch.setenv("MY_TOKEN", "another")
    renamed = written(tmp_path, url="https://${MY_TOKEN}.example/v1", place="${MY_PLACE}/x", engine={"dtype": "half"})
    assert not is_current(load_config(Work, renamed)), "values decide, not what they are called"


def test_a_new_token_goes_on_and_another_value_of_a_variable_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "one")
    monkeypatch.setenv("MY_HOST", "one")
    file = written(tmp_path, url="http://me:${MY_TOKEN}@${MY_HOST}/v1", engine={"hf_token": "${MY_TOKEN}"})
    with pytest.raises(KeyError), stage_run("work", load_config(Work, file)):
        raise KeyError
    monkeypatch.setenv("MY_TOKEN", "two")
    with stage_run("work", load_config(Work, file)) as run:
        assert run.resumed
    monkeypatch.setenv("MY_HOST", "two")
    with (
        pytest.raises(ValueError, match=r"another config.*what a variable in it says"),
        stage_run("work", load_config(Work, file)),
    ):
        raise AssertionError


def listening(process: psutil.Process) -> set[str]:
    """Addresses beyond this machine's own on which the processes of a run listen."""
    found = set()
    for one in (process, *process.children(recursive=True)):
        try:
            sockets = one.net_connections("inet")
        except psutil.Error:  # it ended meanwhile
            continue
        for connection in sockets:
            if connection.status != psutil.CONN_LISTEN:
                continue
            address = ipaddress.ip_address(connection.laddr.ip)
            if not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
                found.add(f"{' '.join(one.cmdline())[:80]}: {connection.laddr.ip}:{connection.laddr.port}")
    return found


@pytest.mark.timeout(1_500)
def test_a_labelling_run_leaves_no_secret_and_opens_nothing_to_others(tmp_path: Path) -> None:
    """The whole loop of commands, its files and messages; and what listens while the judge is asked."""
    rows = [
        {"prompt_id": n, "prompt": "2+2?", "language": "en", "meta": {"answer": 4}}
        | {"responses": [{"id": f"{n}{t}", "text": t, "policy": f"p{t}"} for t in ("4", "5")]}
        for n in ("a", "b")
    ]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    home = tmp_path / "home"
    open_to_others: set[str] = set()
    running: list[psutil.Process] = []
    sessions = 0

    def answer(prompt: str) -> str:
        nonlocal sessions
        sessions += len(running[0].children(recursive=True)) > 2
        open_to_others.update(listening(running[0]))
        return scripted(prompt)

    with judge_server(answer) as (url, _):
        label = {
            "output_dir": str(tmp_path / "label"),
            "pool": str(tmp_path / "pool.jsonl"),
            "rubric": {"name": "house", "criteria": [{"name": "correct", "description": "The number is right."}]},
            "canaries": {"per_language": 0},
            "judge": {
                "model": str(make_judge(tmp_path / "judge")),
                "backend": "endpoint",
                "url": url.replace("://", "://me:${PLANTED}@"),
                "revision": "1",
                "engine": {"hf_token": "${PLANTED}", "api_key": SECRET},
            },
        }
        audit = {"output_dir": str(tmp_path / "audit"), "label": str(tmp_path / "label")}
        pairs = {"output_dir": str(tmp_path / "pairs"), "labels": [{"folder": str(tmp_path / "label")}]}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        environment |= {"PLANTED": SECRET, "OPENAI_API_KEY": SECRET, "HOME": str(home)}
        home.mkdir()
        for stage, config in (("label", label), ("audit", audit), ("pairs", pairs)):
            (tmp_path / f"{stage}.yaml").write_text(safe_dump(config))
            command = [sys.executable, "-m", "mr3.cli.main", stage, "--config", str(tmp_path / f"{stage}.yaml")]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            )
            running[:] = [psutil.Process(process.pid)]
            try:
                said, _ = process.communicate(timeout=600)
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
            assert process.returncode == 0, said
            assert SECRET not in said
    assert read_json(tmp_path / "label" / "metrics.json")["outcomes"] == {"ok": 4}
    left = [p for f in ("label", "audit", "pairs", "home") for p in (tmp_path / f).rglob("*") if p.is_file()]
    assert not [p for p in left if SECRET.encode() in p.read_bytes()], "a file holds the secret"
    assert len(left) > 15 and sessions, "there was something to look at"
    assert not open_to_others
    token = home / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o077 == 0 and token.parent.stat().st_mode & 0o077 == 0
