"""GRPO configs of a policy, walked: those of Qwen3-4B at tiny size, with reward actors in Ray; a server's trainer."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import standins
from grpo_experiments.policy.config import PolicyGrpoConfig
from grpo_experiments.policy.sources import LengthSource
from grpo_experiments.policy.stage import run
from grpo_experiments.policy.training import build_trainer, grpo_arguments
from mr3.config import load_config
from mr3.judge_card import JudgeCard, write_card
from tests.prompts_support import write_templates

ENGINE = "tests.test_tiny:Recorder"
CONFIGS = [f"configs/qwen3-4b/policy-grpo-{name}.yaml" for name in ("colocate", "server")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published texts, a random policy and a judge's card beside the same weights, prompts."""
    root = tmp_path_factory.mktemp("walk")
    write_templates(root / "templates", languages=(*standins.LANGUAGES, "id"))
    tokenizer = standins._tokenizer(["which of two numbers is larger, and why is it so"] * 9)
    for name in ("qwen3", "judge-tgt-eng"):
        standins._model(tokenizer, "<|im_end|>", 0).save_pretrained(root / "models" / name)
        tokenizer.save_pretrained(root / "models" / name)
    card = JudgeCard(
        profile="mr3-train", strategy="tgt-eng", texts="published", modes=("pairwise", "binary"),
        max_prompt_tokens=2_048, max_output_tokens=64,
    )  # fmt: skip
    write_card(root / "models" / "judge-tgt-eng", card)
    rows = [
        {
            "prompt_id": f"p{i}",
            "prompt": json.dumps([{"role": "user", "content": f"which is larger, {i} or 5?"}]),
            "language": "de",
            "meta": "{}",
        }
        for i in range(8)
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / "prompts.parquet")
    return root


def load(file: str, home: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> PolicyGrpoConfig:
    variables = {"TINY": home / "models", "MR3_TEMPLATES": home / "templates", "PROMPTS": home / "prompts.parquet"}
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    words = ["--overlay", "configs/tiny.yaml", "--output_dir", str(out), "--reward.judge.backend", ENGINE, *more]
    return load_config(PolicyGrpoConfig, file, words)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", CONFIGS)
def test_a_4b_config_trains_at_tiny_size(
    file: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(load(file, home, tmp_path / "run", monkeypatch))
    lines = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    metrics: dict[str, Any] = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [line["step"] for line in lines] == [1, 2] and metrics["steps"] == 2
    # Whoever is shown first wins: in both orders that is one half each, so nobody does.
    assert {line["reward"] for line in lines} <= {0.5, None}
    judged = [line["judge"] for line in lines if line["judge"]["tasks"]]
    assert judged and all(j["verdicts"] == 2 * j["tasks"] == j["flips"] * 2 and not j["failed"] for j in judged)
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_a_trainer_for_a_vllm_server_is_built_up_to_the_connection(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    more = ["--trl.use_vllm", "true", "--trl.vllm_server_port", str(port), "--trl.vllm_server_timeout", "0.1"]
    config = load(CONFIGS[1], home, tmp_path, monkeypatch, *more)
    arguments = grpo_arguments(config, tmp_path)
    assert arguments.use_vllm and arguments.vllm_mode == "server"
    with pytest.raises(OSError, match="server can.t be reached at http://127.0.0.1"):
        build_trainer(config, tmp_path, arguments, LengthSource(16))
