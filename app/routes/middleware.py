"""The front door: what every request passes, before any route."""

import asyncio
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import parse_qsl

import structlog
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.errors import CredentialInUrl, Internal, Malformed, NotFound, Problem, TooLarge, Unavailable
from app.factory import Services
from app.metrics import observe_request, read_level, requests_in_flight
from app.routes.operations import Operation
from app.routes.problems import problem_response
from app.telemetry import traced

STREAMS = ("application/x-ndjson", "text/csv")
ACCOUNT_PATHS = ("/auth/", "/workspace")
ACCOUNT_BODY_BYTES = 2**16
CREDENTIAL_NAMES = {
    *("access_token", "api_key", "apikey", "authorization", "jwt", "key", "refresh_token", "token", "x-api-key"),
}
MAX_QUERY_BYTES = 16_384
SWITCHING_PROTOCOLS = HTTPStatus.SWITCHING_PROTOCOLS.value
CLOSE_DEFECT = 1011
"""The code that a socket is closed with after a defect (RFC 6455, section 7.4.1)."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
API_POLICY = b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"
NOT_STORED = b"cache-control", b"no-store"
REVALIDATED = b"cache-control", b"private, no-cache"
EXPOSED_HEADERS = (
    *("ETag", "Idempotency-Replayed", "Link", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id"),
)

CREDENTIAL_IN_URL = "Send the credential in a header: URLs end up in logs and histories."
# A JWT begins where a word does: to look for one everywhere in a long word would take that many times as long.
_CREDENTIAL = re.compile(
    rb"c[krs]_[a-z2-7]{64}|(?:(?<![\w-])|(?<=%[0-9A-Fa-f]{2}))eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"
)
_REQUEST_ID = re.compile(rb"[\w.-]{1,64}")


class FrontDoor:
    """Gives each request its id and its log line, refuses unreadable URLs and endless bodies, and lets no error out.

    The path stays percent-encoded for the routes, so that ids with a slash are one segment and no two ids alias.
    """

    def __init__(self, app: ASGIApp, operations: Iterable[Operation]) -> None:
        self._app = app
        self._operations: defaultdict[tuple[str, int], list[Operation]] = defaultdict(list)
        for operation in operations:
            for method in operation.methods or ():
                self._operations[method, operation.path.count("/")].append(operation)
        self._routes: ASGIApp | None = None
        self._in_flight = 0
        self._log = structlog.get_logger("app.requests")
        self._security_headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request, or the application's start and stop."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, _readable_failure(scope, send))
            return
        given = dict(reversed(scope["headers"]))  # of those that come twice, the first
        wanted = given.get(b"x-request-id", b"")
        request_id = wanted.decode() if _REQUEST_ID.fullmatch(wanted) else os.urandom(16).hex()
        scope.setdefault("state", {})["request_id"] = request_id
        scope["path"] = scope["raw_path"].decode("ascii", "replace")
        if b"cookie" in given:
            scope["headers"] = [
                (name, _plain(value) if name == b"cookie" else value) for name, value in scope["headers"]
            ]
        method = scope.get("method", "WEBSOCKET")
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves out the body
        started, status = time.perf_counter(), 499  # unless somebody is there to take an answer

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "websocket.accept":
                status = SWITCHING_PROTOCOLS
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            elif message["type"].endswith("http.response.start"):  # also that of a refused socket
                status = message["status"]
                headers = dict(message["headers"])
                more = [(b"x-request-id", request_id.encode()), *self._security_headers]
                if b"content-security-policy" not in headers:
                    more.append(API_POLICY)
                if usage := scope["state"].get("usage"):
                    more += [(b"ratelimit-policy", usage.policy.encode()), (b"ratelimit", usage.state.encode())]
                if b"cache-control" not in headers:
                    more.append(REVALIDATED if b"etag" in headers else NOT_STORED)
                message["headers"] = [*message["headers"], *more]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            routes = self._routes or self._open(scope["app"].state.services)
            self._in_flight += 1
            try:
                await routes(scope, receive, send_with_headers)
            finally:
                self._in_flight -= 1
                took_s = time.perf_counter() - started
                route = getattr(scope.get("route"), "path", None)
                if status != SWITCHING_PROTOCOLS:
                    observe_request(method, route or "", status, took_s)
                self._log.info(
                    "request", method=method, route=route, status=status, duration_ms=round(took_s * 1000, 2)
                )

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the routes answer, or says as a problem why they cannot."""
        answered = False

        async def note(message: Message) -> None:
            nonlocal answered
            if message["type"] == "websocket.close" and not answered:
                raise NotFound("There is nothing at this path.")  # which the router has no other way to say
            answered = True
            await send(message)

        problem: Problem | None = None
        try:
            scope["state"]["query"] = _query(scope["raw_path"], scope["query_string"])
            services: Services = scope["app"].state.services
            bounded = _bounded(scope, receive, services.max_body_bytes)
            path = scope["path"]
            for operation in self._operations.get((scope.get("method", ""), path.count("/")), ()):
                if await operation.answer(scope, bounded, note):
                    break
            else:
                await self._app(scope, bounded, note)
        except asyncio.CancelledError:
            # The server stops and waits no longer.
            problem = Unavailable("The service is stopping. Send the request again.")
        except (ClientDisconnect, WebSocketDisconnect):
            pass
        except Problem as error:
            problem = error
        except Exception as error:  # noqa: BLE001 — nothing of a defect may reach the client or, as text, the log
            self._log.error("defect", error=type(error).__name__, where=_where(error))
            problem = Internal("Something went wrong on our side; the request id names it in the log.")
        if problem and not answered:
            await problem_response(problem, scope["state"]["request_id"])(scope, receive, send)
        elif problem and scope["type"] == "websocket":
            with suppress(OSError, RuntimeError):  # it may be gone, or closed
                await send({"type": "websocket.close", "code": CLOSE_DEFECT})

    def _open(self, services: Services) -> ASGIApp:
        """Puts around the answers what the configuration asks for, which is known only now."""
        self._log = self._log.bind()  # by now it is configured
        read_level(requests_in_flight, lambda: self._in_flight)
        headers = dict(SECURITY_HEADERS)
        if services.base_url.startswith("https://"):
            headers["Strict-Transport-Security"] = "max-age=31536000"
        self._security_headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        routes: ASGIApp = self._answer
        if services.cors_origins:
            routes = _for_origins(routes, services.cors_origins)
        if services.trusted_proxies:
            routes = ProxyHeadersMiddleware(routes, list(services.trusted_proxies))  # type: ignore[arg-type, assignment]
        self._routes = traced(routes)
        return self._routes


def _plain(cookie: bytes) -> bytes:
    # Ours have none, and over 65,536 backslashes Python thinks for 12 seconds, up to 3.11.9 and 3.12.5 (CVE-2024-7592).
    return cookie.replace(b"\\", b"")


def _for_origins(routes: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    cors = CORSMiddleware(
        routes,
        allow_origins=origins,
        allow_methods=["*"],
        allow_headers=["*"],
        allow_credentials=True,
        expose_headers=EXPOSED_HEADERS,
    )

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        # To others nothing is said of it, not even that there is a list.
        listed = Headers(scope=scope).get("origin") in origins
        await (cors if listed else routes)(scope, receive, send)

    return choose


def _bounded(scope: Scope, receive: Receive, limit: int) -> Receive:
    if not {b"content-length", b"transfer-encoding"}.intersection(name for name, _ in scope["headers"]):
        return receive  # there is no body (RFC 9112, section 6.3)
    headers, path = Headers(scope=scope), scope["path"]
    if path == "/chats" and headers.get("content-type", "").partition(";")[0].strip().lower() in STREAMS:
        return receive
    if path.startswith(ACCOUNT_PATHS):
        limit = min(limit, ACCOUNT_BODY_BYTES)
    length = headers.get("content-length", "0")
    problem = TooLarge(f"The body may have {limit} bytes. Messages may also come as a stream of NDJSON or CSV.")
    if length.isdecimal() and int(length) > limit:
        raise problem
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise problem
        return message

    return bounded


def _readable_failure(scope: Scope, send: Send) -> Send:
    async def readable(message: Message) -> None:
        failure = getattr(scope["app"].state, "failure", None)
        if message["type"] == "lifespan.startup.failed" and failure:
            message["message"] = failure
        await send(message)

    return readable


def _query(path: bytes, query: bytes) -> dict[str, str]:
    """Returns the parameters of a URL that is readable and holds no credential."""
    if _CREDENTIAL.search(path) or _CREDENTIAL.search(query):
        raise CredentialInUrl(CREDENTIAL_IN_URL)
    if not path.isascii():
        raise Malformed("The path is not percent-encoded UTF-8.")
    if not query:
        return {}
    if len(query) > MAX_QUERY_BYTES:
        raise Malformed("The query is too long.")
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise Malformed("The query is not percent-encoded UTF-8.") from None
    found = dict(pairs)
    if CREDENTIAL_NAMES & {name.lower() for name in found}:
        raise CredentialInUrl(CREDENTIAL_IN_URL)
    if len(found) < len(pairs):
        raise Malformed("A query parameter is given twice.")
    return found


def _where(error: BaseException) -> list[str]:
    frames, trace = [], error.__traceback__
    while trace:
        frames.append(f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}")
        trace = trace.tb_next
    return frames[-5:]
