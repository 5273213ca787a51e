"""Errors as problem documents (RFC 9457)."""

import html
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.errors import Invalid, Malformed, MethodNotAllowed, NotFound, Problem, TooManyRequests, Unavailable
from app.metrics import problems
from app.schemas.problems import field_errors

MEDIA_TYPE = "application/problem+json"
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
EXAMPLE_ID = "1b320d1ac94b4fb7892ffc016f763a79"
_KINDS = {kind.status: kind for kind in Problem.__subclasses__()}
METHODS = ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT")


def problem_response(problem: Problem, request_id: str, headers: dict[str, str] | None = None) -> Response:
    """Returns a problem as a response."""
    problems.labels(problem.code).inc()
    headers = {"Cache-Control": "no-store", **(headers or {})}
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(problem, TooManyRequests | Unavailable):
        headers["Retry-After"] = str(problem.retry_after_seconds)
    return Response(orjson.dumps(problem_document(problem, request_id)), problem.status, headers, MEDIA_TYPE)


def problem_document(problem: Problem, request_id: str) -> dict[str, Any]:
    """Returns a problem as JSON."""
    document: dict[str, Any] = {
        "type": f"urn:chat-insights:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.errors:
        document["errors"] = [error._asdict() for error in problem.errors]
    return document


def describe(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the OpenAPI description of the problems that an operation can answer with."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/ProblemDocument"},
                    "example": problem_document(_KINDS[status](_KINDS[status].title + "."), EXAMPLE_ID),
                }
            },
        }
        for status in statuses
    }


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1rem }}
:root {{ color-scheme: light dark }} small {{ opacity: .7 }}</style>
<h1>{title}</h1>
<p>{detail}</p>
<p><small>{code} · {request_id}</small></p>
</html>
"""


def problem_page(problem: Problem, request: Request) -> Response:
    """Returns a problem as a page if a browser shows it to a person, or else as a document."""
    answer = problem_response(problem, request.state.request_id)
    if "text/html" not in request.headers.get("accept", ""):
        return answer
    shown = {
        name: html.escape(str(value)) for name, value in problem_document(problem, request.state.request_id).items()
    }
    headers = {**answer.headers, "Content-Security-Policy": PAGE_POLICY}
    del headers["content-length"], headers["content-type"]
    return Response(_PAGE.format(**shown), problem.status, headers, "text/html")


def add_handlers(app: FastAPI) -> None:
    """Makes an application answer with problem documents what no operation answers."""

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, WebSocketRequestValidationError)
        errors = tuple(
            found._replace(pointer=found.pointer.lstrip("/")) for found in field_errors(error.errors(), skip=1)
        )
        return problem_response(Invalid("A parameter is invalid.", errors), request.state.request_id)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            problem: Problem = MethodNotAllowed("This path does not take this method; see the Allow header.")
            return problem_response(problem, request.state.request_id, {"Allow": ", ".join(_methods(app, request))})
        if error.status_code == HTTPStatus.NOT_FOUND:
            return problem_response(NotFound("There is nothing at this path."), request.state.request_id)
        return problem_response(Malformed("The request cannot be read."), request.state.request_id)

    app.add_exception_handler(WebSocketRequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)


def _methods(app: FastAPI, request: Request) -> list[str]:
    documented = app.openapi()["paths"].get(request.scope["path"])
    if documented:
        return sorted(method.upper() for method in documented)

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(dict(scope))[0] is Match.FULL for route in app.routes)

    found = [method for method in METHODS if method != request.method and taken(method)]
    return [*found, "HEAD"] if "GET" in found else found
