"""The judge as an application that Ray Serve imports: `serve deploy`, KubeRay's RayService.

There the cluster belongs to others: address, port and proxies are Ray Serve's settings, and `host`, `port` and
`proxies` of the config are not used. Everything else is as with `mr3 serve`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from mr3.config import build_config, load_config
from rewards.serving.config import ServeConfig
from rewards.serving.keys import load_keys
from rewards.serving.library import load_library

if TYPE_CHECKING:
    from ray.serve import Application


class BuilderArguments(BaseModel):
    """`args:` of the application in Ray Serve's config."""

    model_config = ConfigDict(extra="forbid")

    config: Path = Field(description="YAML of `mr3 serve`, on a file system that the head node sees")


def application(args: dict[str, Any]) -> Application:
    """Build it; Ray Serve calls this with the `args:` of its config (see BuilderArguments).

    Raises:
        ValueError: for a config, judge, key source or rubric library that can't be used.
    """
    from rewards.serving.deployment import judge_application

    file = build_config(BuilderArguments, args, "args").config
    config = load_config(ServeConfig, file)
    config.judge.engine_config()
    digests = load_keys(config.api_keys_env, config.api_keys_file)
    if not digests and not config.open_to_all:
        raise ValueError(
            f"{file}: a service can be reached by others: set api_keys_env or api_keys_file, or open_to_all: true"
        )
    judge = config.judge.absolute()  # replicas may have another working directory
    # What was read here is not read again on the replicas' nodes, which may lack the file or the variable.
    read = {"judge": judge, "rubrics": {}, "api_keys_env": None, "api_keys_file": None, "open_to_all": True}
    return judge_application(
        config.model_copy(update=read), config.judge.identity(), load_library(config.rubrics), digests
    )
