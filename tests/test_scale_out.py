"""The examples of docs/scale-out.md: manifests parse, commands in them exist, nothing runs with a variable unset."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mr3.cli.stages import STAGES, config_model_of, find_stage
from mr3.config import load_config

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"
MANIFESTS = sorted((EXAMPLES / "kuberay").glob("*.yaml"))
CONFIGS = sorted(EXAMPLES.glob("*.yaml"))
SCRIPTS = sorted([*EXAMPLES.rglob("*.sh"), *EXAMPLES.rglob("*.sbatch")])
TEXTS = sorted(p for p in [ROOT / "docs" / "scale-out.md", *EXAMPLES.rglob("*")] if p.is_file() and p.suffix != ".pyc")
VALUES = {
    "MR3_IMAGE": "registry.example/mr3:1",
    "MR3_CLAIM": "claim",
    "MR3_JUDGE": "/shared/judge",
    "MR3_SHARED": "/shared",
    "MR3_SECRET": "keys",
    "HELPSTEER3_COMMIT": "0" * 40,
}
# Fields of ray.io/v1 that the manifests may use (KubeRay's API reference, 1.6 and 1.7).
RAY_CLUSTER = {
    "rayVersion",
    "authOptions",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headGroupSpec",
    "workerGroupSpecs",
}
HEAD_GROUP = {"rayStartParams", "template", "serviceType"}
WORKER_GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template", "numOfHosts"}
SPECS = {
    "RayJob": {
        *("entrypoint", "rayClusterSpec", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit"),
        *("submissionMode", "activeDeadlineSeconds", "runtimeEnvYAML"),
    },
    "RayCluster": RAY_CLUSTER,
    "RayService": {"serveConfigV2", "rayClusterConfig", "serveService"},
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def environment(**changes: str | None) -> dict[str, str]:
    """This process's environment without the examples' variables, and with `changes`."""
    drop = {"MR3_VENV", "SLURM_JOB_ID", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", *VALUES, *changes}
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    return kept | {key: value for key, value in changes.items() if value is not None}


def rendered(manifest: Path, **changes: str | None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "kuberay" / "render.py"), str(manifest)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment(**{**VALUES, **changes}), check=False
    )


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


@pytest.mark.parametrize("manifest", MANIFESTS, ids=name)
def test_manifests_are_of_kuberays_api(manifest: Path) -> None:
    done = rendered(manifest)
    assert done.returncode == 0, done.stderr
    (document,) = yaml.safe_load_all(done.stdout)
    assert document["apiVersion"] == "ray.io/v1" and document["metadata"]["name"]
    assert set(document["spec"]) <= SPECS[document["kind"]]
    cluster = cluster_of(document)
    assert set(cluster) <= RAY_CLUSTER
    lock = (ROOT / "requirements" / "gpu.lock").read_text()
    assert f"ray=={cluster['rayVersion']} \\\n" in lock, "Ray of the image and of the manifest must be one version"
    assert cluster["authOptions"] == {"mode": "token"}
    assert set(cluster["headGroupSpec"]) <= HEAD_GROUP
    groups = cluster["workerGroupSpecs"]
    for group in groups:
        assert set(group) <= WORKER_GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in [cluster["headGroupSpec"], *groups]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == VALUES["MR3_IMAGE"]
        assert container["resources"]["requests"] == container["resources"]["limits"], "Ray counts what it is given"
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
        assert {"name": "shared", "mountPath": "/shared"} in container["volumeMounts"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=name)
@pytest.mark.parametrize("value", [None, ""])
def test_a_manifest_is_never_applied_half_filled_in(manifest: Path, value: str | None) -> None:
    wanted = set(re.findall(r"\$\{(\w+)\}", manifest.read_text(encoding="utf-8")))
    assert "MR3_IMAGE" in wanted
    for variable in wanted:
        assert re.search(rf"^#\s+{variable}\s", manifest.read_text(encoding="utf-8"), re.MULTILINE), "say what it is"
        done = rendered(manifest, **{variable: value})
        assert done.returncode == 2 and variable in done.stderr and done.stdout == ""


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_configs_begin_with_their_command_and_are_valid(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = re.match(r"# mr3 ([\w-]+) --config (\S+)", config.read_text(encoding="utf-8"))
    assert command and command.group(2) == name(config)
    for variable, value in VALUES.items():
        monkeypatch.setenv(variable, value)
    loaded = load_config(config_model_of(command.group(1), config), config)
    assert str(loaded.output_dir).startswith("/shared/"), "every node must see it"


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_scripts_are_bash_and_stop_at_what_is_unset(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    needed = re.findall(r'^: "\$\{(\w+):\?', text, re.MULTILINE)
    assert {"MR3_SHARED", "MR3_JUDGE"} <= set(needed)
    given = dict.fromkeys(needed, "/nowhere")
    for variable in needed:
        done = subprocess.run(
            ["bash", str(script), "absent.yaml"],
            capture_output=True,
            text=True,
            env=environment(**{**given, variable: None}),
            check=False,
        )
        assert done.returncode != 0 and variable in done.stderr
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=environment(**given), check=False)
    assert done.returncode == 2 and "usage" in done.stderr


def test_a_job_is_not_submitted_without_a_token(tmp_path: Path) -> None:
    config = tmp_path / "label.yaml"
    config.touch()
    given = {
        **VALUES,
        "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1",
        "HOME": str(tmp_path),
        "RAY_AUTH_TOKEN_PATH": None,
    }
    command = ["bash", str(EXAMPLES / "ray-job" / "submit.sh"), str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**given), check=False)
    assert done.returncode == 2 and "ray get-auth-token" in done.stderr


def test_a_submitted_job_gets_its_config_and_variables(tmp_path: Path) -> None:
    """With a `ray` that only says how it was called."""
    fake = tmp_path / "bin" / "ray"
    fake.parent.mkdir()
    say = 'printf "%s\\n" "$@"; for a in "$@"; do if [ -d "$a" ]; then cat "$a/config.yaml"; fi; done'
    fake.write_text(f"#!/usr/bin/env bash\n{say}\n")
    fake.chmod(0o755)
    config = tmp_path / "label.yaml"
    config.write_text("output_dir: here\n")
    given = {**VALUES, "RAY_API_SERVER_ADDRESS": "http://head:8265", "RAY_AUTH_TOKEN": "secret", "OTHER": "no"}
    env = environment(**given) | {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    command = ["bash", str(EXAMPLES / "ray-job" / "submit.sh"), str(config), "--plan", "chain"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["job", "submit"] and lines[-1] == "output_dir: here"
    assert lines[lines.index("--") + 1 : -1] == ["mr3", "label", "--config", "config.yaml", "--plan", "chain"]
    sent = yaml.safe_load(lines[lines.index("--runtime-env-json") + 1])["env_vars"]
    assert (
        {k: v for k, v in sent.items() if k in VALUES} == VALUES
        and "RAY_AUTH_TOKEN" not in sent
        and "OTHER" not in sent
    )


def test_the_service_names_the_application_that_its_parts_look_for() -> None:
    from rewards.serving.builder import BuilderArguments, application
    from rewards.serving.deployment import APPLICATION

    document = yaml.safe_load(rendered(EXAMPLES / "kuberay" / "serve-rayservice.yaml").stdout)
    ((app,),) = [yaml.safe_load(document["spec"]["serveConfigV2"])["applications"]]
    assert app["name"] == APPLICATION, "replicas find each other by this name"
    module, _, function = app["import_path"].partition(":")
    assert getattr(importlib.import_module(module), function) is application
    assert BuilderArguments.model_validate(app["args"]).config.name == "serve.yaml"


def test_the_builder_takes_a_config_and_refuses_a_service_without_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as as_ray_does

    from rewards.serving.builder import application
    from tests.rewards_support import make_judge

    monkeypatch.setenv("MR3_SHARED", str(tmp_path))
    monkeypatch.setenv("MR3_JUDGE", str(make_judge(tmp_path / "judge")))
    given = {"config": str(EXAMPLES / "serve.yaml")}
    with pytest.raises(ValueError, match="unknown key"):
        application({**given, "port": 1})
    with pytest.raises(ValueError, match="MR3_API_KEYS, which holds no key"):
        application(given)
    monkeypatch.setenv("MR3_API_KEYS", "long-enough-key")
    assert as_ray_does(application, given)
    local = tmp_path / "serve.yaml"
    text = (
        (EXAMPLES / "serve.yaml").read_text().replace("api_keys_env: MR3_API_KEYS", "").replace("0.0.0.0", "localhost")
    )
    local.write_text(text)
    with pytest.raises(ValueError, match="can be reached by others"):
        application({"config": str(local)})


def commands() -> Iterator[tuple[str, list[str]]]:
    """(file, words) of every `mr3 STAGE ...` in the documents, manifests and scripts."""
    for file in TEXTS:
        for line in file.read_text(encoding="utf-8").splitlines():
            for found in re.finditer(r"(?<![\w/$.-])mr3 ([a-z][\w-]*)((?: +--?[\w.-]+(?:[ =][^\s`|&>]+)?)*)", line):
                if found.group(2):
                    yield name(file), shlex.split(f"{found.group(1)}{found.group(2)}")


def test_every_command_in_the_examples_exists() -> None:
    found = list(commands())
    assert len({file for file, _ in found}) >= 4
    for file, (stage, *words) in found:
        find_stage(stage)
        assert STAGES[stage].config is None or words[0] == "--config", (file, stage, words)


def test_the_document_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "scale-out.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:docs/examples|tests)/[\w./-]+\w", text))
    assert named and all((ROOT / path).exists() for path in named)
    tables = set(re.findall(r"^\| `([\w.-]+\.yaml)`", text, re.MULTILINE))
    assert tables == {m.name for m in MANIFESTS}


def test_the_image_holds_what_is_installed_and_nothing_else() -> None:
    docker = (EXAMPLES / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^FROM \$\{BASE\}$", docker, re.MULTILINE) and "python:3.11" in docker
    assert "requirements/gpu.lock" in docker
    for lock in ("cpu.lock", "torch-cpu.lock", "torch-cuda.lock"):
        assert f"$locked/{lock}" in docker and f"requirements/{lock}" in (ROOT / "Makefile").read_text()
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == {
        *("LICENSE", "README.md", "pyproject.toml", "requirements", "configs"),
        *("mr3", "rewards", "dpo", "grpo_experiments"),
    }
    assert all((ROOT / entry).exists() for entry in kept)
