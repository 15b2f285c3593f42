"""vLLM in this process, driven by its own step loop in one thread: the only module that imports vllm.

A new request enters for each finished one, so there is no barrier between batches; results cross to asyncio in
one hand-over per engine step.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mr3.inference.engine import (
    Completion,
    EngineConfig,
    EngineDead,
    Request,
    Sampling,
    TokenLogprobs,
    finish_of,
    time_limit,
)

log = logging.getLogger("mr3.inference")
# vLLM keeps the context of a forward pass in a global of the process: two engines in one process take turns.
_ONE_AT_A_TIME = threading.Lock()
_STALL_S = 600.0
"""A step that takes longer hangs: the process is given up."""
_LOOK_S = 5.0


def prepare_environment() -> None:
    """vLLM's switches for a CPU, before it is imported; what the user has set stays."""
    import torch

    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if not torch.cuda.is_available():
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        _use_threads()


def _use_threads() -> None:
    """On a CPU, in each thread that runs the model: OpenMP counts per thread, and vLLM checks that all agree.

    By torch's own function: vLLM (0.31) puts one that does nothing in the place of `torch.set_num_threads`.
    """
    import torch

    if not torch.cuda.is_available():
        torch._C.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # type: ignore[attr-defined]


def engine_arguments(config: EngineConfig) -> dict[str, Any]:
    """EngineArgs by name: CPU defaults under what the config says.

    Raises:
        ValueError: for a name that vLLM does not know.
    """
    import dataclasses

    import torch
    from vllm.engine.arg_utils import EngineArgs

    known = {f.name for f in dataclasses.fields(EngineArgs)}
    for name in config.engine:
        if name not in known:
            near = ", ".join(difflib.get_close_matches(name, known, n=3)) or "see vLLM's EngineArgs"
            raise ValueError(f"engine.{name} is not an engine argument of vLLM; near: {near}")
    arguments: dict[str, Any] = {"model": config.model, "disable_log_stats": True}
    if config.revision:
        arguments |= {"revision": config.revision, "tokenizer_revision": config.revision}
    if config.adapter:
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(Path(config.adapter))}
    if config.max_model_len:
        arguments["max_model_len"] = config.max_model_len
    if not torch.cuda.is_available():
        # Not by VLLM_CPU_KVCACHE_SPACE, which would override what a config says.
        arguments |= {"enforce_eager": True, "max_num_seqs": 64, "dtype": "float32", "kv_cache_memory_bytes": 1 << 30}
        if config.seeded:
            # Where a step's budget cuts a prompt of a request with a seed, vLLM (0.31) takes a draw back, which
            # generators on a CPU can't do: the engine dies, again and again. Whole prompts cost a few percent.
            arguments["enable_chunked_prefill"] = False
    return arguments | config.engine


def _rank(adapter: Path) -> int:
    """The smallest rank that vLLM has room for and the adapter fits in."""
    wanted = int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    return next((rank for rank in (8, 16, 32, 64, 128, 256) if rank >= wanted), wanted)


def _adapter(config: EngineConfig) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, config.adapter) if config.adapter else None


@dataclass
class _Waiting:
    request: Request
    future: asyncio.Future[Completion]
    loop: asyncio.AbstractEventLoop
    deadline: float = float("inf")


class VLLMEngine:
    """An engine of `mr3.inference.engine.Engine`."""

    takes_text = False

    def __init__(self, config: EngineConfig) -> None:
        prepare_environment()
        from vllm import LLMEngine
        from vllm.engine.arg_utils import EngineArgs

        self.config = config
        with _ONE_AT_A_TIME:
            self._engine = LLMEngine.from_engine_args(EngineArgs(**engine_arguments(config)))
        self._adapter = _adapter(config)
        self._tokenizer = self._engine.get_tokenizer()
        self._limit: int = self._engine.model_config.max_model_len
        seqs: int = self._engine.vllm_config.scheduler_config.max_num_seqs
        self._most = max(seqs + 1, int(1.1 * seqs) + 1)
        self._queue: queue.Queue[_Waiting | None] = queue.Queue()
        self._flying: dict[str, _Waiting] = {}
        self._error: BaseException | None = None
        self._next = 0
        self._beat = self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name="vllm-step-loop", daemon=True)
        self._thread.start()

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Completions in the order of the requests.

        Raises:
            EngineDead: when the engine's loop broke, or hangs.
        """
        loop = asyncio.get_running_loop()
        futures = []
        for request in requests:
            if self._error is not None:
                raise EngineDead(str(self._error)) from self._error
            future: asyncio.Future[Completion] = loop.create_future()
            self._queue.put(_Waiting(request, future, loop))
            futures.append(future)
        try:
            await self._wait(set(futures))
        finally:  # a caller that gave up wants no more tokens
            for future in futures:
                future.cancel()
        return [future.result() for future in futures]

    async def _wait(self, waited: set[asyncio.Future[Completion]]) -> None:
        while waited:
            done, waited = await asyncio.wait(waited, timeout=_LOOK_S, return_when=asyncio.FIRST_EXCEPTION)
            for future in done:
                future.result()  # raises what the loop said
            if self._flying and time.monotonic() - self._beat > _STALL_S:
                raise EngineDead(f"a step of the engine has taken more than {_STALL_S:.0f} s")

    def close(self) -> None:
        """Stop the loop and free the cache; requests in flight are given up."""
        self._queue.put(None)
        self._thread.join(timeout=30)
        if not self._thread.is_alive():
            with _ONE_AT_A_TIME:
                self._engine.engine_core.shutdown()

    # The rest runs in the engine's own thread.

    def _loop(self) -> None:
        _use_threads()
        try:
            while self._admit():
                with _ONE_AT_A_TIME:
                    outputs = self._engine.step()
                self._beat = time.monotonic()
                self._deliver([o for o in outputs if o.finished])
                self._give_up_late()
        except Exception as error:  # every waiting caller must hear of it, whatever it was
            self._error = error
            log.exception("the engine's loop broke")
            self._fail_all(error)

    def _admit(self) -> bool:
        """Move waiting requests into the engine; block when there is nothing to do. False at the end."""
        while len(self._flying) < self._most:
            try:
                waiting = self._queue.get(block=not self._flying)
            except queue.Empty:
                return True
            if waiting is None:
                return False
            if not waiting.future.cancelled():
                self._add(waiting)
        return True

    def _add(self, waiting: _Waiting) -> None:
        from vllm.inputs import TokensPrompt

        request = waiting.request
        ids = request.prompt_ids
        if ids is None:
            ids = self._tokenizer.encode(request.prompt or "", add_special_tokens=False)
        if not ids or len(ids) + request.sampling.max_tokens > self._limit:
            room = self._limit - request.sampling.max_tokens
            error = f"prompt of {len(ids)} tokens; from 1 to {room} fit beside max_tokens={request.sampling.max_tokens}"
            self._answer([(waiting, Completion(id=request.id, finish="too_long", prompt_tokens=len(ids), error=error))])
            return
        key = str(self._next)
        self._next += 1
        now = time.monotonic()
        waiting.deadline = now + time_limit(self.config, len(ids), request.sampling)
        if not self._flying:
            self._beat = now
        self._flying[key] = waiting
        self._engine.add_request(
            key, TokensPrompt(prompt_token_ids=ids), _sampling(request.sampling), lora_request=self._adapter
        )

    def _deliver(self, outputs: Sequence[Any]) -> None:
        done = []
        for output in outputs:
            waiting = self._flying.pop(output.request_id, None)
            if waiting is not None:  # else it was given up just before
                done.append((waiting, _completion(waiting.request, output)))
        if done:
            self._answer(done)

    def _give_up_late(self) -> None:
        """Requests over their time limit end as `timed_out`, those that nobody waits for any more end; others go on."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        late = {key: w for key, w in self._flying.items() if w.deadline < now or w.future.cancelled()}
        if not late:
            return
        self._engine.abort_request(list(late))
        for key in late:
            del self._flying[key]
        error = "no answer within the time limit that follows from its tokens (see seconds_per_token)"
        self._answer([(w, Completion(id=w.request.id, finish="timed_out", error=error)) for w in late.values()])

    @staticmethod
    def _answer(done: list[tuple[_Waiting, Completion]]) -> None:
        def deliver(pairs: list[tuple[_Waiting, Completion]]) -> None:
            for waiting, completion in pairs:
                if not waiting.future.done():
                    waiting.future.set_result(completion)

        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Waiting, Completion]]] = {}
        for pair in done:
            by_loop.setdefault(pair[0].loop, []).append(pair)
        for loop, pairs in by_loop.items():
            loop.call_soon_threadsafe(deliver, pairs)

    def _fail_all(self, error: BaseException) -> None:
        left = list(self._flying.values())
        while True:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                break
            if waiting is not None:
                left.append(waiting)
        for waiting in left:
            waiting.loop.call_soon_threadsafe(_refuse, waiting.future, EngineDead(str(error)))


def _refuse(future: asyncio.Future[Completion], error: EngineDead) -> None:
    if not future.done():
        future.set_exception(error)


def _sampling(sampling: Sampling) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        logprobs=sampling.logprobs,
        seed=sampling.seed,
        ignore_eos=sampling.ignore_eos,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _completion(request: Request, output: Any) -> Completion:
    best = output.outputs[0]
    logprobs = None
    if best.logprobs is not None:
        logprobs = [
            TokenLogprobs(
                token=position[token].decoded_token or "",
                top={lp.decoded_token or "": lp.logprob for lp in position.values()},
            )
            for token, position in zip(best.token_ids, best.logprobs, strict=True)
        ]
    return Completion(
        id=request.id,
        text=best.text,
        **finish_of(best.finish_reason),
        prompt_tokens=len(output.prompt_token_ids or ()),
        output_tokens=len(best.token_ids),
        logprobs=logprobs,
    )
