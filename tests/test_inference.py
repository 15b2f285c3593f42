"""Real vLLM in real Ray on the committed base: the stream answers every group, and twice is free."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mr3.inference.engine import EngineConfig, Request, Sampling
from mr3.inference.stream import StreamSettings

BASE = str(Path(__file__).parent.parent / "mr3" / "nano" / "base")


def _groups(n: int) -> list[dict[str, str]]:
    rows = []
    for i in range(n):
        text = "cats: 7, dogs: 5. How many in total?\n" * (400 if i == 3 else 1) + str(i)
        request = Request(id=str(i), prompt=text, sampling=Sampling(max_tokens=12))
        rows.append({"group": f"g{i}", "payload": json.dumps({"requests": [request.model_dump(mode="json")]})})
    return rows


def test_unknown_engine_argument_names_the_near_one() -> None:
    from mr3.inference.vllm_engine import engine_arguments

    with pytest.raises(ValueError, match="max_num_seqs"):
        engine_arguments(EngineConfig(model=BASE, engine={"max_num_seq": 3}))


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("stop", "stop"), ("length", "length"), *((r, "failed") for r in ("error", "abort", "content_filter", None))],
)
def test_what_an_engine_breaks_off_is_no_answer(reason: str | None, finish: str, monkeypatch: Any) -> None:
    from mr3.inference.endpoint_engine import EndpointEngine
    from mr3.inference.vllm_engine import _completion

    request = Request(id="r", prompt="p", sampling=Sampling(max_tokens=9))
    said = SimpleNamespace(text='t</think>{"explanation": "x", "score": "4"}', finish_reason=reason)
    output = SimpleNamespace(logprobs=None, token_ids=[1], **vars(said))
    own = _completion(request, SimpleNamespace(outputs=[output], prompt_token_ids=[1]))

    async def create(**_: Any) -> Any:
        return SimpleNamespace(choices=[said], usage=None)

    engine = EndpointEngine(EngineConfig(model="m", backend="endpoint", url="http://127.0.0.1:9/v1"))
    monkeypatch.setattr(engine._client.completions, "create", create)
    (served,) = asyncio.run(engine.generate([request]))
    for completion in (own, served):
        assert completion.finish == finish
        assert (completion.error is None) == (finish != "failed")


def test_stream_answers_every_group_once_and_equals_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from mr3.inference.generate_worker import GenerateWorker
    from mr3.inference.session import ray_session
    from mr3.inference.store import Store
    from mr3.inference.stream import stream_groups

    rows = _groups(40)
    worker = {
        "engine": EngineConfig(model=BASE, max_model_len=512),
        "model_key": "base",
        "store": str(tmp_path / "store"),
    }
    with ray_session():
        made = stream_groups(rows, GenerateWorker, worker, StreamSettings(batch_groups=8))
        first = [(group, json.loads(payload)) for group, payload in made]
        count = Store(tmp_path / "store").refresh()
        again = stream_groups(rows, GenerateWorker, worker, StreamSettings(batch_groups=8))
        second = {group: json.loads(payload) for group, payload in again}
    assert len(first) == len({g for g, _ in first}) == 40
    assert second == dict(first) and count == 40 == Store(tmp_path / "store").refresh()
    finish = {g: p["completions"][0]["finish"] for g, p in first}
    assert finish.pop("g3") == "too_long" and set(finish.values()) <= {"stop", "length"}

    tokenizer = PreTrainedTokenizerFast.from_pretrained(BASE)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    texts = dict(first)
    for i in (0, 7, 21):
        ids = tokenizer("cats: 7, dogs: 5. How many in total?\n" + str(i), return_tensors="pt").input_ids
        out = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.size(1) :]
        assert texts[f"g{i}"]["completions"][0]["text"] == tokenizer.decode(out, skip_special_tokens=True)


@pytest.mark.slow
def test_a_request_that_kills_engines_fails_alone(tmp_path: Path) -> None:
    from mr3.inference.generate_worker import GenerateWorker
    from mr3.inference.session import ray_session
    from mr3.inference.stream import stream_groups

    groups = {f"g{i}": "POISON" if i == 5 else f"prompt {i}" for i in range(12)}
    rows = [
        {"group": g, "payload": json.dumps({"requests": [{"id": g, "prompt": p, "sampling": {}}]})}
        for g, p in groups.items()
    ]
    engine = EngineConfig(model="m", backend="benchmarks.instant:InstantEngine", engine={"poison": "POISON"})
    worker = {"engine": engine, "model_key": "m", "store": str(tmp_path / "store")}
    with ray_session():
        made = dict(stream_groups(rows, GenerateWorker, worker, StreamSettings(batch_groups=4)))
    finish = {g: json.loads(p)["completions"][0]["finish"] for g, p in made.items()}
    assert finish.pop("g5") == "failed" and sorted(finish) == sorted(set(groups) - {"g5"})
    assert set(finish.values()) == {"stop"}
