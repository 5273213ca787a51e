"""Alive, and ready."""

from fastapi import APIRouter, Request, Response

from app.routes.bodies import reply
from app.routes.deps import App
from app.routes.operations import Operation
from app.routes.problems import describe
from app.schemas.health import STOPPING, Health

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
    """Answers 200 when requests can be served and 503 otherwise, with the state of each dependency."""
    stopping = request.scope["state"].get(STOPPING)
    health = Health(status="unavailable", checks={"process": "stopping"}) if stopping else await app.health.ready()
    return reply(health, 200) if health.status == "ok" else reply(health, 503, {"Retry-After": "2"})
