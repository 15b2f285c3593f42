"""What decides the text that a model writes, as one id: stores keep answers under it, so nothing may be missing.

The id names the weights and the backend, and ends in a hash of all else: url, limits, engine arguments. An argument
decides unless it is known not to, so one that a new version brings makes another id, and never a mistaken answer.
Not in it: the machine's hardware, and the versions of its packages.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mr3.artifacts import hash_unchanged
from mr3.config import without_secrets
from mr3.inference.engine import EngineConfig
from mr3.records import stable_hash

log = logging.getLogger("mr3.inference")
ENDPOINTS = ("endpoint", "chat")
COMMIT = re.compile(r"[0-9a-f]{40}")

# Of a model folder; logs and optimizer states beside it decide nothing. A judge's card acts through the prompt, the
# sampling and the limits, which are in a verdict's id themselves.
_DECISIVE_FILES = (
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.index.json"),
    *("config.json", "generation_config.json", "adapter_config.json", "hf_quant_config.json", "quantize_config.json"),
    *("tokenizer*", "*.model", "*.tiktoken", "tekken.json", "vocab*", "merges*", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template*", "*.jinja", "*.py"),
)
_OF_A_TRAINER = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state)[._].*")

INCIDENTAL = frozenset(
    [
        # memory and batches
        *("gpu_memory_utilization", "kv_cache_memory_bytes", "max_num_seqs", "max_num_batched_tokens"),
        *("max_num_active_seqs", "max_num_queued_reqs", "max_num_queued_tokens", "max_num_scheduled_tokens"),
        *("num_gpu_blocks_override", "cpu_offload_gb", "kv_offloading_size", "enable_prefix_caching"),
        *("enable_chunked_prefill", "async_scheduling", "scheduling_policy", "max_cpu_loras", "max_loras"),
        # devices and processes
        *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "data_parallel_size_local"),
        *("data_parallel_backend", "distributed_executor_backend", "device_ids", "nnodes", "node_rank", "master_addr"),
        *("master_port", "numa_bind", "numa_bind_nodes", "numa_bind_cpus", "distributed_timeout_seconds"),
        # start, messages and measurements
        *("enforce_eager", "max_parallel_loading_workers", "use_tqdm_on_load", "download_dir", "served_model_name"),
        *("disable_log_stats", "disable_log_requests", "log_level", "logging_config", "log_config_file"),
        *("aggregate_engine_logging", "otlp_traces_endpoint", "collect_detailed_traces", "shutdown_timeout"),
    ]
)
"""Engine arguments (vLLM's names) that decide how answers are reached, and not which."""

_HOSTING = ("host", "seconds_per_token")  # an answer that is too late is not kept


def _files(folder: Path) -> Iterator[Path]:
    found = {file for pattern in _DECISIVE_FILES for file in folder.glob(pattern)}
    return (file for file in sorted(found) if file.is_file() and not _OF_A_TRAINER.fullmatch(file.name))


def folder_contents(folder: Path) -> str:
    """Hash of what decides in a model folder.

    Raises:
        ValueError: when there is no model in it.
    """
    hashes = {file.name: hash_unchanged(file) for file in _files(folder)}
    if not hashes:
        raise ValueError(f"{folder} holds no model: expected config.json and weights in it")
    return stable_hash(hashes, length=16)


@lru_cache(maxsize=256)
def hub_commit(model: str, revision: str | None) -> str | None:
    """The commit of a hub model's branch or tag: as the hub says, else as the cache of this machine holds it.

    None where neither knows it (no connection and no copy, or a name that is on no hub).
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from httpx import HTTPError  # the base of the hub client's own errors
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    try:
        return HfApi().model_info(model, revision=revision, timeout=10).sha
    except HFValidationError:
        return None
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        log.debug("the hub does not say which commit %s@%s is: %s", model, revision, error)
    copy = try_to_load_from_cache(model, "config.json", revision=revision)
    return Path(copy).parent.name if isinstance(copy, str) else None


@lru_cache(maxsize=256)
def _unresolved(model: str) -> None:
    log.warning(
        "neither the hub nor this machine's cache says which commit of %s is meant, and no revision is set: other "
        "weights under this name would get the answers of these. Set `revision`",
        model,
    )


def check_stated(model: str, backend: str, revision: str | None) -> None:
    """Refuse an endpoint whose weights have no name.

    Raises:
        ValueError: where `revision` must be set.
    """
    if backend in ENDPOINTS and not revision:
        raise ValueError(
            f"{model} is behind an endpoint, which does not say what it serves: set `revision` to a name of the "
            "weights that are served there (a commit, a date, a run), and change it whenever they change"
        )


def tokenizer_revision(backend: str, revision: str | None) -> str | None:
    """A tokenizer's revision on the hub: what is stated of an endpoint is one only where it is a commit."""
    stated = backend in ENDPOINTS and not (revision and COMMIT.fullmatch(revision))
    return None if stated else revision


def _weights(config: EngineConfig) -> str:
    folder = Path(config.model)
    check_stated(config.model, config.backend, config.revision)
    if config.backend in ENDPOINTS:
        name = f"model@{folder_contents(folder)}" if folder.is_dir() else config.model
        return f"{name}@{config.revision}"
    if folder.is_dir():
        return f"model@{folder_contents(folder)}"
    commit = hub_commit(config.model, config.revision)
    if commit is None and config.revision is None:
        _unresolved(config.model)
    return f"{config.model}@{commit or config.revision or 'main'}"


def decisive_settings(config: EngineConfig) -> dict[str, Any]:
    """All that decides beside weights and backend, without keys and passwords: a new key is no new model."""
    settings = config.model_dump(mode="json", exclude={*_HOSTING, "model", "revision", "adapter", "backend"})
    settings["engine"] = {name: value for name, value in settings["engine"].items() if name not in INCIDENTAL}
    if config.url:
        settings["url"] = config.url.rstrip("/")
    found: dict[str, Any] = without_secrets(settings)
    return found


def model_identity(config: EngineConfig) -> str:
    """What answers are kept under: `WEIGHTS by BACKEND #HASH`, the same on every machine and in every stage.

    WEIGHTS is `model@CONTENTS` of a folder, `ID@COMMIT` of a hub model (the stated revision where no commit can be
    had), `NAME@REVISION` behind an endpoint, or `adapter@CONTENTS on` one of these.

    Raises:
        ValueError: for an endpoint without a stated revision, or a folder without a model.
    """
    weights = _weights(config)
    if config.adapter:
        weights = f"adapter@{folder_contents(Path(config.adapter))} on {weights}"
    digest = stable_hash(weights, config.backend, decisive_settings(config), length=16)
    return f"{weights} by {config.backend} #{digest}"
