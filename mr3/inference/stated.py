"""A model that writes, as a config block names it: what a teacher of rubrics and a translator of traces share."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mr3.inference.engine import EngineConfig, known_backend
from mr3.inference.identity import check_stated


class StatedModel(BaseModel):
    """Which weights, and which engine runs them. Requests bring seeds.

    Raises:
        ValueError: for an unknown backend, and for an endpoint whose weights have no name.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="folder or hub id; for an endpoint the name that the server knows")
    revision: str | None = Field(None, description="hub revision, or a name of the weights behind an endpoint")
    backend: str = Field("vllm", description="vllm, endpoint, or package.module:Class of an engine of your own")
    url: str | None = Field(None, description="base URL of an OpenAI-compatible endpoint")
    engine: dict[str, Any] = Field(default_factory=dict, description="vLLM EngineArgs by name")
    max_model_len: int

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, backend: str) -> str:
        return known_backend(backend)

    @model_validator(mode="after")
    def _named_weights(self) -> Self:
        check_stated(self.model, self.backend, self.revision)
        return self

    def engine_config(self) -> EngineConfig:
        """The engine that runs the model."""
        return EngineConfig(
            model=self.model,
            revision=self.revision,
            backend=self.backend,
            url=self.url,
            engine=self.engine,
            max_model_len=self.max_model_len,
            seeded=True,
        )
