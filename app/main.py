"""The ASGI application: ``uvicorn app.main:app``."""

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app.errors import ConfigurationError, Problem
from app.factory import Services, build, database_url, observed
from app.metrics import counted
from app.routes import (
    analyses,
    analytics,
    audit,
    auth,
    chats,
    docs,
    health,
    jobs,
    live,
    members,
    webhooks,
    workspaces,
)
from app.routes.bodies import documented_schemas
from app.routes.middleware import FrontDoor
from app.routes.operations import Operation
from app.routes.problems import add_handlers
from app.settings import load_settings

VERSION = "0.1.0"
DESCRIPTION = """
Stores customer-support conversations, finds them by user, date and keyword, and turns them into summaries and insights.

Authenticate with an API key, or with an access token that it was exchanged for: `Authorization: Bearer <key or token>`.
In a browser, [sign in with Google](/auth/login/google) or [GitHub](/auth/login/github).

Follow a conversation live at `WS /ws/chats/{conversation_id}`, with the same credentials, or from a page with the
subprotocols `bearer` and an access token: JSON events `snapshot`, `message`, `summary.delta` and `summary.restarted`
(while this instance asks a model), `summary.updated`, `conversation.deleted` and `error`; an editor may send
`{"type": "message", ...}` (the fields of a message but `conversation_id`) and `{"type": "summarize"}`.

Errors are `application/problem+json` (RFC 9457); look at their `code`.
"""


def create_app(open_services: Callable[[], AbstractAsyncContextManager[Services]]) -> FastAPI:
    """Returns the application; ``open_services`` opens what it needs when it starts and closes it when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with open_services() as services, services.reads.watched():
                app.state.services = services
                yield
        except (ConfigurationError, Problem) as error:
            app.state.failure = str(error)
            raise

    app: FastAPI = FastAPIOffline(
        title=docs.TITLE,
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    add_handlers(app)
    operations: list[Operation] = []
    for module in (chats, analyses, live, jobs, analytics, auth, members, workspaces, webhooks, audit, health, docs):
        app.include_router(module.router)
        operations += [route for route in module.router.routes if isinstance(route, Operation)]
    app.webhooks.include_router(webhooks.events)
    app.add_middleware(FrontDoor, operations=operations)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["components"]["schemas"].update(documented_schemas())
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
    return app


@asynccontextmanager
async def open_configured_services() -> AsyncIterator[Services]:
    """Yields the services that the environment and ``.env`` describe."""
    settings = load_settings()
    with observed(settings), database_url(settings) as url:
        async with build(settings, url) as services, counted():
            # What is here by now stays: a full collection would look through it, and hold up requests for 0.1 s.
            gc.collect()
            gc.freeze()
            gc.set_threshold(10_000)  # in a process that the command line did not start, too
            yield services


app = create_app(open_configured_services)
