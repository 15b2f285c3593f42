"""Publish a finished set of pairs: the data card, and the upload to a hub repository where one is named.

Apart from the data, so that a licence can be added, or an upload repeated, without choosing the pairs again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mr3.artifacts import hash_path, metrics_of, read_json, write_atomic, write_json
from rewards.selection.card import card, card_files, unknown_licences
from rewards.selection.config import PairsConfig

log = logging.getLogger(__name__)


def check_audits(config: PairsConfig) -> None:
    """Whether every audit is of one of the label runs.

    Raises:
        ValueError: for a missing file, or an audit of other labels.
    """
    labels = {hash_path(label.folder / "manifest.json") for label in config.labels}
    for file in config.audits:
        manifest = file.parent / "manifest.json"
        if not file.is_file() or not manifest.is_file():
            raise ValueError(f"no finished audit at {file}: give the audit.json in a folder that `mr3 audit` made")
        if not labels & set(read_json(manifest)["inputs"].values()):
            raise ValueError(f"{file} is an audit of none of these labels: run `mr3 audit` on one of them")


def publish(config: PairsConfig) -> None:
    """Write README.md; upload once per repository, content and card.

    Raises:
        ValueError: when a source policy's licence is unknown and that is not allowed, or the hub refuses.
    """
    folder = Path(config.output_dir)
    metrics, manifest = metrics_of(folder), read_json(folder / "manifest.json")
    text = card(config, metrics, manifest, [read_json(file) for file in config.audits])
    write_atomic(folder / "README.md", text.encode())
    if config.push_to_hub is None:
        return
    unknown = unknown_licences(config, metrics)
    if unknown and not config.allow_unknown_licences:
        raise ValueError(
            f"not uploaded: the licence of {', '.join(unknown)} is unknown. Name it under `licences:`, or set "
            "allow_unknown_licences (the pairs are written and need not be chosen again)"
        )
    _upload(config, folder, metrics)


def _upload(config: PairsConfig, folder: Path, metrics: dict[str, Any]) -> None:
    from httpx import HTTPError  # the base of the hub client's own errors
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    repository = config.push_to_hub
    assert repository is not None
    files = card_files(config.formats, folder)
    content = {name: hash_path(folder / name) for name in files}
    record = folder / "pushed.json"
    before = read_json(record) if record.is_file() else {}
    if before.get(repository, {}).get("files") == content:
        log.info("%s has these files already: %s", repository, before[repository]["commit"])
        return
    api = HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=config.private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            repo_type="dataset",
            allow_patterns=files,
            commit_message=f"{metrics['pairs']} preference pairs by mr3 pairs",
        )
    except (HTTPError, OfflineModeIsEnabled) as error:
        raise ValueError(f"no upload to {repository}: {error} (check HF_TOKEN, then run the same command)") from error
    write_json(record, {**before, repository: {"files": content, "commit": str(done.commit_url)}})
    log.info("uploaded %d files to %s: %s", len(files), repository, done.commit_url)
