"""The real engine: late requests are given up alone, and a LoRA adapter judges as its merged weights do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mr3.inference.engine import EngineConfig, Request, Sampling
from mr3.judge_card import JudgeCard, write_card
from mr3.judging.config import JudgeConfig
from mr3.judging.opening import open_judge
from tests.judging_support import item, pair

BASE = Path("mr3/nano/base")
CACHE = {"kv_cache_memory_bytes": 64 << 20}

pytestmark = pytest.mark.slow


def test_a_late_request_is_given_up_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from mr3.inference.vllm_engine import VLLMEngine

    monkeypatch.setattr("mr3.inference.engine.GRACE_S", 0.0)
    monkeypatch.setattr("mr3.inference.vllm_engine._LOOK_S", 0.0)
    config = EngineConfig(model=str(BASE), engine=CACHE, max_model_len=2048, seconds_per_token=1e-4)
    engine = VLLMEngine(config)

    def ask(name: str, tokens: int) -> list[Request]:
        return [Request(id=name, prompt_ids=[7] * 20, sampling=Sampling(max_tokens=tokens, ignore_eos=True))]

    try:
        [late] = asyncio.run(engine.generate(ask("late", 1_900)))  # 0.19 s for 1,900 steps
        engine.config = config.model_copy(update={"seconds_per_token": 1.0})
        [later] = asyncio.run(engine.generate(ask("later", 8)))
    finally:
        engine.close()
    assert (late.finish, late.text) == ("timed_out", "") and "seconds_per_token" in (late.error or "")
    assert (later.finish, later.output_tokens) == ("length", 8)


def test_an_adapter_judges_as_its_merged_weights_do(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(BASE)
    lora = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, weights in lora.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.3)
    lora.save_pretrained(tmp_path / "adapter")
    lora.merge_and_unload().save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path / "merged")
    card = JudgeCard(profile="compact", sampling=Sampling(max_tokens=24), max_prompt_tokens=900, max_output_tokens=24)
    traces, names = [], []
    for folder in ("adapter", "merged"):
        write_card(tmp_path / folder, card)
        config = JudgeConfig(model=str(tmp_path / folder), engine=CACHE)
        assert config.is_adapter is (folder == "adapter")
        judge = open_judge(config)
        verdicts = asyncio.run(judge.judge([item(pair()), item(pair("ten", "six"), swapped=True)]))
        traces.append([(v.trace, v.reason) for v in verdicts])
        names.append(judge.judge_id)
        judge.engine.close()
    plain = open_judge(
        JudgeConfig(model=str(BASE), engine=CACHE, profile="compact", max_prompt_tokens=900, max_output_tokens=24)
    )
    untouched = asyncio.run(plain.judge([item(pair()), item(pair("ten", "six"), swapped=True)]))
    plain.engine.close()
    assert traces[0] == traces[1] != [(v.trace, v.reason) for v in untouched]
    assert names[0].startswith("adapter@") and " on model@" in names[0] and names[1].startswith("model@")


def test_who_gives_up_leaves_no_work_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    from mr3.inference.vllm_engine import VLLMEngine

    monkeypatch.setattr("mr3.inference.vllm_engine._LOOK_S", 0.0)
    engine = VLLMEngine(EngineConfig(model=str(BASE), engine=CACHE, max_model_len=2048))
    long = Request(id="long", prompt_ids=[7] * 20, sampling=Sampling(max_tokens=1_900, ignore_eos=True))
    short = Request(id="short", prompt_ids=[7] * 20, sampling=Sampling(max_tokens=8, ignore_eos=True))

    async def give_up() -> int:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.generate([long]), 0.3)
        await engine.generate([short])
        return len(engine._flying)

    try:
        assert asyncio.run(give_up()) == 0
    finally:
        engine.close()


def test_prompts_of_seeded_requests_are_not_cut_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM takes back the draw of a cut prompt, which a CPU's generator can't do: the engine would die for ever."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    pytest.importorskip("vllm")
    from mr3.inference.vllm_engine import engine_arguments

    plain, seeded = (engine_arguments(EngineConfig(model="m", seeded=s)) for s in (False, True))
    assert "enable_chunked_prefill" not in plain and seeded["enable_chunked_prefill"] is False
    chosen = EngineConfig(model="m", seeded=True, engine={"enable_chunked_prefill": True})
    assert engine_arguments(chosen)["enable_chunked_prefill"] is True
