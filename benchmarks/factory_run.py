"""One run of the data factory in this process: `python -m benchmarks.factory_run CONFIG RESULT` writes what it took."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from mr3.artifacts import metrics_of
from mr3.config import load_config


def main(config_file: str, result: str) -> None:
    """Run it on one core; imports are not counted, the rest is."""
    import datasets  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    from transformers import AutoTokenizer  # noqa: F401  (the tokenizers alone bring torch with them)

    from benchmarks.oracle_engine import ToldEngine
    from mr3.factory.config import FactoryConfig
    from mr3.factory.stage import run

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    config = load_config(FactoryConfig, config_file)
    cpu, wall = time.process_time(), time.monotonic()
    run(config)
    engine = ToldEngine.seconds
    told = {"cpu_s": time.process_time() - cpu - engine, "engine_cpu_s": engine, "wall_s": time.monotonic() - wall}
    Path(result).write_text(json.dumps({**told, **metrics_of(config.output_dir)}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
