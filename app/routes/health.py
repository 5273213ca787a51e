"""Alive, ready, and counted."""

import asyncio
import hmac

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.errors import Unauthenticated
from app.metrics import exposition, levels
from app.routes.bodies import reply
from app.routes.deps import App, address, spend
from app.routes.operations import Operation
from app.routes.problems import describe
from app.schemas import examples
from app.schemas.health import STOPPING, Health
from app.services.rate_limits import RateClass

router = APIRouter(tags=["operations"], route_class=Operation)


@router.get("/livez", operation_id="getLiveness", summary="Alive?", response_model=Health, responses=describe(400))
async def get_liveness() -> Response:
    """Answers while the process runs, whatever happens around it."""
    return reply(Health(status="ok", checks={}))


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Ready?",
    response_model=Health,
    responses={**describe(400), 503: {"model": Health, "description": "Not ready: `checks` says why."}},
)
async def get_readiness(request: Request, app: App) -> Response:
    """Answers 200 when requests can be served and 503 otherwise, with the state of each dependency.

    A `degraded` one does not hinder: without a model the built-in engine answers, without the storage of rate limits
    each instance counts alone, and without a worker jobs and webhooks wait.
    """
    stopping = request.scope["state"].get(STOPPING)
    health = Health(status="unavailable", checks={"process": "stopping"}) if stopping else await app.health.ready()
    return reply(health, 503, {"Retry-After": "2"}) if health.status == "unavailable" else reply(health, 200)


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Metrics",
    response_class=Response,
    responses={
        **describe(400, 401, 429),
        200: {
            "description": "Prometheus's text format.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": examples.METRICS}},
        },
    },
)
async def get_metrics(request: Request, app: App) -> Response:
    """Returns what this service has counted since it started, in Prometheus's text format.

    With METRICS_TOKEN only for `Authorization: Bearer <METRICS_TOKEN>`.
    """
    shown = request.headers.get("authorization", "")
    if app.metrics_token and not hmac.compare_digest(shown.encode(), f"Bearer {app.metrics_token}".encode()):
        await spend(request, app, RateClass.ADDRESS, address(request))
        raise Unauthenticated("Send `Authorization: Bearer <METRICS_TOKEN>`.")
    report = await app.health.report()
    given = [levels("dependency_health", "1 is well, 0.5 degraded, 0 unavailable.", "dependency", report.levels)]
    if queue := report.queue:
        jobs = {"waiting": queue.waiting, "running": queue.running}
        given += [
            levels("queue_jobs", "Jobs in the queue that all instances share.", "state", jobs),
            levels(
                "queue_oldest_job_seconds",
                "How long the first of those that wait has waited.",
                "",
                {"": queue.oldest_s},
            ),
            levels(
                "webhook_oldest_delivery_seconds",
                "How long the first event that is due has waited, of webhooks that are not failing.",
                "",
                {"": queue.delivery_oldest_s},
            ),
        ]
    return Response(await asyncio.to_thread(exposition, given), media_type=CONTENT_TYPE_LATEST)
