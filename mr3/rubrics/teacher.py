"""A teacher that writes rubrics: any engine or endpoint of `mr3/inference`, with its answers in a store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from mr3.inference.engine import Completion, EngineConfig, Request, Sampling
from mr3.inference.identity import model_identity, tokenizer_revision
from mr3.inference.stated import StatedModel
from mr3.inference.stream import StreamSettings
from mr3.records import stable_hash


class TeacherConfig(StatedModel):
    """Which model writes, and how it is sampled."""

    model_config = ConfigDict(frozen=True)

    host: str | None = Field(None, description="name of a Ray actor that holds the engine")
    tokenizer: str | None = Field(None, description="where the chat template is; default: the model")
    thinking: bool = Field(True, description="`enable_thinking` of the chat template")
    max_model_len: int = 16_384
    sampling: Sampling = Sampling(temperature=0.7, top_p=0.95, max_tokens=8_192)
    stream: StreamSettings = Field(default_factory=StreamSettings)

    def engine_config(self) -> EngineConfig:
        """The engine that hosts the teacher."""
        return super().engine_config().model_copy(update={"host": self.host})

    def provenance(self) -> dict[str, Any]:
        """What a rubric's record says of its teacher."""
        return {
            "model": self.model,
            "revision": self.revision,
            "backend": self.backend,
            "sampling": self.sampling.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that the teacher is asked, `samples` times."""

    id: str
    messages: tuple[dict[str, str], ...]
    samples: int = 1


class Teacher:
    """Asks through the generation stream. What was answered before comes from the store."""

    def __init__(self, config: TeacherConfig, store: str | Path, seed: int) -> None:
        self.config, self._store, self._seed = config, Path(store).resolve(), seed
        self._tokenizer: Any = None

    def _prompt(self, messages: Sequence[dict[str, str]]) -> str:
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            place = self.config.tokenizer or self.config.model
            revision = tokenizer_revision(self.config.backend, self.config.revision)
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(place, revision=revision)
            except OSError as error:
                raise ValueError(f"no tokenizer at {place}: set teacher.tokenizer to a folder or hub id") from error
        text: str = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, enable_thinking=self.config.thinking
        )
        return text

    def requests(self, question: Question) -> list[Request]:
        """One request per sample, each with a seed of its own."""
        prompt = self._prompt(question.messages)
        found = []
        for sample in range(question.samples):
            seed = int(stable_hash("teacher", self._seed, question.id, sample)[:7], 16)
            sampling = self.config.sampling.model_copy(update={"seed": seed})
            found.append(Request(id=f"{question.id}#{sample}", prompt=prompt, sampling=sampling))
        return found

    def row(self, question: Question) -> dict[str, str]:
        """A question as a row of the generation stream."""
        payload = {"requests": [r.model_dump(mode="json") for r in self.requests(question)]}
        return {"group": question.id, "payload": json.dumps(payload, ensure_ascii=False)}

    def stream(self, rows: Path | Sequence[dict[str, str]]) -> Iterator[tuple[str, list[Completion]]]:
        """(question id, completions) as they come, in any order; `rows` may be a Parquet file of them.

        Raises:
            ValueError: when the teacher can't be run as configured.
        """
        from mr3.inference.generate_worker import GenerateWorker
        from mr3.inference.session import ray_session
        from mr3.inference.store import Store
        from mr3.inference.stream import stream_groups

        source = str(rows.resolve()) if isinstance(rows, Path) else rows
        with Store(self._store) as stored, ray_session():
            run = stored.open_run()
            stored.refresh()
            engine = self.config.engine_config()
            worker = {
                "engine": engine,
                "model_key": model_identity(engine),
                "store": str(self._store),
                "run": run,
            }
            for group, text in stream_groups(source, GenerateWorker, worker, self.config.stream):
                yield group, [Completion.model_validate(c) for c in json.loads(text)["completions"]]

    def ask(self, questions: Sequence[Question]) -> dict[str, list[Completion]]:
        """The completions of every question, in the order of its samples.

        Raises:
            ValueError: when the teacher can't be run as configured.
        """
        return dict(self.stream([self.row(q) for q in questions]))
