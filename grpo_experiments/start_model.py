"""The model that a run began with, beside the one in training: for the KL to the start, and as a reader.

With LoRA it is the model with its adapter switched off; where TRL keeps a reference (beta > 0) it is that one; else it
is loaded for the time of an evaluation, whole in every process, and given back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from trl.trainer.utils import add_fused_lm_head, use_adapter

from mr3.compact_head import use_compact_head
from mr3.training import load_model


def frozen(path: str, dtype: str, attention: str | None, device: Any) -> Any:
    """A model that is not trained, on a device."""
    model = load_model(path, dtype=dtype, attention=attention).to(device).eval()  # type: ignore[arg-type]
    model.requires_grad_(False)
    return model


class StartModel:
    """See the module. `path`, `dtype` and `attention` as the run's config has them."""

    def __init__(self, path: str, dtype: str, attention: str | None) -> None:
        self._path, self._dtype, self._attention = path, dtype, attention
        self._model: Any = None

    @contextmanager
    def loaded(self, trainer: Any) -> Iterator[None]:
        """Keeps it in memory meanwhile, where it must be loaded."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        if not isinstance(model, PeftModel) and trainer.ref_model is None:
            self._model = frozen(self._path, self._dtype, self._attention, trainer.accelerator.device)
            add_fused_lm_head(self._model, temperature=trainer.temperature)
            use_compact_head(self._model, trainer.temperature)
        try:
            yield
        finally:
            self._model = None

    @contextmanager
    def use(self, trainer: Any) -> Iterator[Any]:
        """The model to call."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        if isinstance(model, PeftModel):
            with use_adapter(model, adapter_name=None):
                yield trainer.model
        else:
            yield self._model if self._model is not None else trainer.ref_model
