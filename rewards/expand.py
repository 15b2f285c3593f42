"""Pool parts to the judge's work, in the stream's own tasks (never in the driver)."""

from __future__ import annotations

import json
from typing import Any

from mr3.records import PoolRow
from rewards.tasks import TaskSettings, judgements, units


class ExpandPool:
    """A batch of pool parts (`group`, `payload` = a pool row) to groups of judgements, one group per prompt.

    A prompt without anything to judge (one distinct response, pairwise) gives no group.
    """

    def __init__(self, settings: TaskSettings) -> None:
        self._settings = settings

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        groups: list[str] = []
        payloads: list[str] = []
        for group, payload in zip(batch["group"], batch["payload"], strict=True):
            items = [
                {"task": unit.task.model_dump(mode="json"), "swapped": swapped, "sample": sample}
                for unit in units(PoolRow.model_validate_json(payload), self._settings)
                for swapped, sample in judgements(self._settings)
            ]
            if items:
                groups.append(str(group))
                payloads.append(json.dumps({"items": items}, ensure_ascii=False))
        return {"group": np.array(groups, dtype=object), "payload": np.array(payloads, dtype=object)}
