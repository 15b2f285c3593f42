"""The judge as a Ray Serve deployment: a thin host around the application, one engine per replica."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ray import serve

from mr3.judging.opening import open_judge
from mr3.rubrics import Rubric
from rewards.serving.admission import Admission
from rewards.serving.app import Parts, build_app
from rewards.serving.chat import ChatService
from rewards.serving.config import ServeConfig
from rewards.serving.engine import ServedEngine
from rewards.serving.judging import JudgeService, ServedJudge
from rewards.serving.metrics import Families, ServerMetrics

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application

log = logging.getLogger("mr3.serving")
APPLICATION = "mr3"
DEPLOYMENT = "judge"
_METRICS_S = 5.0
# Not what limits the work (the admission does), but what Ray Serve hands over: whoever waits here waits for a body that
# comes slowly, and /health would wait with them.
_MOST_REQUESTS = 10_000
_QUEUED_REQUESTS = 1_024
_STARTS = 2


@serve.ingress()
class JudgeHost:
    """One replica: its engine, its counts, its application."""

    def __init__(
        self, config: dict[str, Any], identity: str, library: dict[str, dict[str, Any]], digests: Sequence[str]
    ) -> None:
        settings = ServeConfig.model_validate(config)
        rubrics = {name: Rubric.model_validate(rubric) for name, rubric in library.items()}
        opened, beside = open_judge(settings.judge, identity), ThreadPoolExecutor(1, thread_name_prefix="beside")
        self._engine = ServedEngine(opened.engine, settings.limits.timeout)
        judge = ServedJudge(opened, self._engine, beside)
        self._admission = Admission(settings.limits.tasks_in_flight)
        self._metrics = ServerMetrics()
        self._name: str = serve.get_replica_context().replica_id.unique_id
        self._parts = Parts(
            judging=JudgeService(judge, rubrics, settings.limits, self._admission, self._metrics),
            chat=ChatService(
                settings.model_name, judge.card, judge.tokenizer, self._engine, self._admission, self._metrics, beside
            ),
            admission=self._admission,
            metrics=self._metrics,
            all_families=self._all_families,
            digests=digests,
            limits=settings.limits,
            beside=beside,
            created=int(time.time()),
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_app(self._parts)

    async def check_health(self) -> None:
        """For Ray Serve. Asks nothing of the engine, so that a busy replica is a healthy one (ray#54070)."""
        self._engine.check()

    async def drain(self, seconds: float) -> int:
        """Refuse new requests and wait for those in flight; returns how many were left."""
        return await self._admission.drain(seconds)

    async def families(self) -> tuple[str, Families]:
        """This replica's name and metrics."""
        return self._name, self._metrics.families()

    async def _all_families(self) -> dict[str, Families]:
        handle = serve.get_deployment_handle(DEPLOYMENT, APPLICATION)
        try:
            found = await asyncio.wait_for(handle.broadcast("families").results_async(), _METRICS_S)
        except TimeoutError:
            log.warning("not every replica sent its metrics within %.0f s: the page holds this one only", _METRICS_S)
            found = []
        return dict([*found, await self.families()])


def judge_application(
    config: ServeConfig, identity: str, library: dict[str, Rubric], digests: Sequence[str]
) -> Application:
    """The application to run; everything that it needs of this machine's environment is in the arguments."""
    replicas, limits = config.replicas, config.limits
    deployment = serve.deployment(
        JudgeHost,
        name=DEPLOYMENT,
        max_ongoing_requests=_MOST_REQUESTS,
        max_queued_requests=_QUEUED_REQUESTS,
        backpressure_config={"status_code": 429, "retry_after_s": 2.0},
        autoscaling_config={
            "min_replicas": replicas.min,
            "initial_replicas": replicas.min,
            "max_replicas": replicas.max,
            "target_ongoing_requests": replicas.target_requests,
            "upscale_delay_s": replicas.upscale_delay_s,
            "downscale_delay_s": replicas.downscale_delay_s,
        },
        graceful_shutdown_timeout_s=limits.drain_s,
        graceful_shutdown_wait_loop_s=0.5,
        max_constructor_retry_count=_STARTS,
        health_check_timeout_s=replicas.health_check_timeout_s,
        ray_actor_options={
            "num_cpus": replicas.num_cpus,
            "num_gpus": replicas.num_gpus,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}},
        },
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    rubrics = {name: rubric.model_dump(mode="json") for name, rubric in library.items()}
    application: Application = deployment.bind(config.model_dump(mode="json"), identity, rubrics, list(digests))
    return application
