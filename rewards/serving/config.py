"""The config of `mr3 serve`: which judge, which rubrics, where, for whom and how much at once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.config import StageConfig
from mr3.judging.config import JudgeConfig
from mr3.rubrics import Rubric
from rewards.serving.ingress import Ingress
from rewards.serving.schema import MOST_TASKS

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Limits(_Section):
    """How much one request may ask, and how much one replica takes on."""

    body_bytes: int = Field(4 << 20, ge=1_024, description="larger bodies are answered with 413")
    body_s: float = Field(30.0, gt=0, description="seconds for a whole body to arrive, else it is answered with 408")
    body_values: int = Field(20_000, ge=100, description="of a body's JSON: objects, lists and what they hold")
    tasks_per_request: int = Field(64, ge=1, le=MOST_TASKS, description="of /v1/judge")
    samples: int = Field(16, ge=1, description="judgements per order that a request may ask for")
    tasks_in_flight: int = Field(
        256, ge=1, description="per replica, chat completions included; what comes above it is answered with 429"
    )
    timeout_s: float = Field(60.0, gt=0, description="seconds that any generation may take, before its tokens")
    timeout_s_per_token: float = Field(0.5, ge=0, description="and for each token that it may write")
    drain_s: float = Field(120.0, ge=0, description="seconds that requests in flight get when the server stops")

    @model_validator(mode="after")
    def _a_batch_fits(self) -> Limits:
        if self.tasks_per_request > self.tasks_in_flight:
            raise ValueError(
                f"tasks_per_request {self.tasks_per_request} is over tasks_in_flight {self.tasks_in_flight}: such a "
                "request could never be taken; lower one or raise the other"
            )
        return self

    def timeout(self, tokens: int) -> float:
        """Seconds that a generation of up to so many tokens may take."""
        return self.timeout_s + self.timeout_s_per_token * tokens


class Replicas(_Section):
    """Copies of the judge; Ray Serve starts and stops them between `min` and `max` by the requests in flight."""

    min: int = Field(1, ge=1)
    max: int = Field(1, ge=1)
    target_requests: float = Field(32.0, gt=0, description="requests in flight per replica that are aimed at")
    upscale_delay_s: float = Field(10.0, ge=0)
    downscale_delay_s: float = Field(300.0, ge=0)
    num_cpus: float = Field(1.0, ge=0, description="of each replica")
    num_gpus: float = Field(0.0, ge=0)
    health_check_timeout_s: float = Field(60.0, gt=0, description="a replica that is busy for so long is not replaced")

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.max < self.min:
            raise ValueError(f"replicas.max {self.max} is below replicas.min {self.min}")
        return self


class ServeConfig(StageConfig):
    """Config of `mr3 serve`. `output_dir` holds server.json (address, process, judge) while the server runs."""

    judge: JudgeConfig
    model_name: str = Field("judge", min_length=1, description="the name in /v1/models and chat requests")
    rubrics: Path | dict[str, Rubric] = Field(
        default_factory=dict, description="rubric library: a folder of YAML files (the name is the id), or {id: rubric}"
    )
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535, description="0 takes a free one")
    ingress: Ingress = Field(
        "auto",
        description="what passes requests to replicas: proxy (Ray Serve's own), haproxy (cheaper per request), or auto "
        "(haproxy where this machine has it and Ray is started here, else proxy)",
    )
    proxies: Literal["head", "every"] = Field("every", description="listen on the head node, or on every node")
    api_keys_env: str | None = Field(None, description="environment variable with keys, separated by commas")
    api_keys_file: Path | None = Field(None, description="file with one key per line (# begins a comment)")
    open_to_all: bool = Field(False, description="allow a host that others can reach without API keys")
    limits: Limits = Limits()
    replicas: Replicas = Replicas()

    @model_validator(mode="after")
    def _keys_or_loopback(self) -> ServeConfig:
        keys = self.api_keys_env is not None or self.api_keys_file is not None
        if not keys and self.host not in _LOOPBACK and not self.open_to_all:
            raise ValueError(
                f"host {self.host} can be reached by others: set api_keys_env or api_keys_file, or open_to_all: true"
            )
        return self
