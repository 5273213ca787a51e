"""What routes are handed: the services, who is asking, ids from the path."""

import ipaddress
import re
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Annotated, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Path, Request, Security
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BeforeValidator, WithJsonSchema
from starlette.requests import HTTPConnection

from app.errors import (
    CrossSite,
    Forbidden,
    Problem,
    TooManyRequests,
    Unauthenticated,
)
from app.factory import Services
from app.metrics import rate_limited
from app.schemas.base import Id
from app.schemas.enums import Role
from app.schemas.viewer import Viewer
from app.security.permissions import require
from app.services.auth import Door
from app.services.rate_limits import RateClass, Usage

T = TypeVar("T")

_ROW_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)

SESSION_COOKIE = "__Host-session"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

bearer_scheme = HTTPBearer(
    auto_error=False, bearerFormat="API key or JWT", description="An API key, or an access token."
)
key_scheme = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")
cookie_scheme = APIKeyCookie(
    name=SESSION_COOKIE, auto_error=False, description="What sign-in leaves in a browser; for pages of this service."
)


def services(request: Request) -> Services:
    """Returns the services of this application."""
    found: Services = request.app.state.services
    return found


App = Annotated[Services, Depends(services)]


def address(request: HTTPConnection) -> str:
    """Returns whose address the request is from: of IPv6 the network that one customer has."""
    try:
        found = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return "unknown"
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    if isinstance(found, ipaddress.IPv4Address) or mapped:
        return str(mapped or found)
    return str(ipaddress.ip_network((found, 64), strict=False).network_address)


async def spend(request: HTTPConnection, app: Services, kind: RateClass, who: tuple[int, str] | str) -> None:
    """Counts a request against a limit, which the response's headers tell; raises ``TooManyRequests``."""
    _tell(request, await app.rate_limits.hit(kind, who if isinstance(who, str) else "/".join(map(str, who))))


def _tell(request: HTTPConnection, usage: Usage) -> None:
    request.state.usage = usage
    if usage.exceeded:
        rate_limited.labels(usage.name).inc()
        detail = f"The limit is {usage.limit} requests in {usage.window_s} seconds. Wait as long as Retry-After says."
        raise TooManyRequests(detail, usage.reset_s)


async def authenticate(request: HTTPConnection, app: Services, door: Door, credential: str) -> Viewer:
    """Returns whose credential this is.

    An address that shows too many wrong ones is not listened to for a while, except with what is known to be ours:
    others may share the address.

    Raises:
        Unauthenticated: if it is nobody's.
        TooManyRequests: if the address has shown too many wrong ones.
    """
    request.state.shown = door, credential
    if known := app.auth.known(door, credential):
        return known
    acting = app.auth.viewer(door, credential)
    return await counted(request, app, acting, familiar=app.auth.familiar(door, credential))


async def counted(
    request: HTTPConnection, app: Services, acting: Coroutine[None, None, T], *, familiar: bool = False
) -> T:
    """Returns what comes of looking at a request without a known credential; what is wrong counts for its address.

    Raises:
        TooManyRequests: if the address has sent too much that is wrong.
    """
    try:
        if not familiar:
            _tell(request, await app.rate_limits.check(RateClass.ADDRESS, address(request)))
        try:
            return await acting
        except Problem as problem:
            if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                await spend(request, app, RateClass.ADDRESS, address(request))
            raise
    finally:
        acting.close()


def check_same_origin(request: Request, app: Services) -> None:
    """Raises ``CrossSite`` unless the browser says that a page of this service sent the request.

    A browser sends its cookies with foreign pages' requests too, but these headers no page can set (W3C Fetch Metadata,
    RFC 6454).
    """
    site = request.headers.get("sec-fetch-site")
    same = site == "same-origin" if site is not None else request.headers.get("origin") == app.base_url
    if not same:
        raise CrossSite("With the session cookie this works from this service's own pages only. Send a token instead.")


async def viewer_of(
    request: Request,
    app: App,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(bearer_scheme)],
    api_key: Annotated[str | None, Security(key_scheme)],
    cookie: Annotated[str | None, Security(cookie_scheme)],
) -> Viewer:
    """Returns who is asking; raises ``Unauthenticated``."""
    if bearer:
        return await authenticate(request, app, Door.BEARER, bearer.credentials)
    if api_key:
        return await authenticate(request, app, Door.API_KEY, api_key)
    if cookie:
        if request.method not in SAFE_METHODS:
            check_same_origin(request, app)
        return await authenticate(request, app, Door.COOKIE, cookie)
    await spend(request, app, RateClass.ADDRESS, address(request))
    raise Unauthenticated("Send a credential: `Authorization: Bearer <API key or token>` or `X-API-Key: <key>`.")


Asking = Annotated[Viewer, Depends(viewer_of)]


class AtLeast:
    """A guard: only viewers with a role or a stronger one pass, and as often as the class of operations allows."""

    def __init__(self, role: Role, kind: RateClass) -> None:
        self.role = role
        self._kind = kind

    async def __call__(self, request: Request, app: App, viewer: Asking) -> Viewer:
        """Returns the viewer; raises ``TooManyRequests`` or ``Forbidden``."""
        request.state.needed = self.role
        kind = self._kind
        if kind is RateClass.SEARCH and "q" not in request.state.query:
            kind = RateClass.READ
        await spend(request, app, kind, viewer.caller)
        try:
            require(viewer, self.role)
        except Forbidden:
            await app.audit.denied(viewer, request.scope["route"].operation_id, self.role)
            raise
        return viewer


Reader = Annotated[Viewer, Depends(AtLeast(Role.VIEWER, RateClass.READ))]
Searcher = Annotated[Viewer, Depends(AtLeast(Role.VIEWER, RateClass.SEARCH))]
Member = Annotated[Viewer, Depends(AtLeast(Role.VIEWER, RateClass.WRITE))]
Editor = Annotated[Viewer, Depends(AtLeast(Role.EDITOR, RateClass.WRITE))]
Analyst = Annotated[Viewer, Depends(AtLeast(Role.EDITOR, RateClass.LLM))]
Admin = Annotated[Viewer, Depends(AtLeast(Role.ADMIN, RateClass.WRITE))]
AdminReader = Annotated[Viewer, Depends(AtLeast(Role.ADMIN, RateClass.READ))]


def _decode_segment(segment: object) -> str:
    # The front door leaves the path encoded, so that a slash inside an id stays inside it.
    try:
        return unquote_to_bytes(str(segment)).decode()
    except UnicodeDecodeError:
        raise ValueError("must be percent-encoded UTF-8") from None


_PathId = Annotated[Id, BeforeValidator(_decode_segment)]
ConversationId = Annotated[_PathId, Path(examples=["order-1042"])]
BudgetScope = Annotated[_PathId, Path(examples=["workspace", "key:2893478923478923"])]
UserId = Annotated[_PathId, Path(examples=["ana"])]


def _row_id(segment: object) -> int:
    # What is no id of ours is as absent as one that was never given out.
    return int(text) if (text := str(segment)) and _ROW_ID.fullmatch(text) and int(text) < 2**63 else 0


RowId = Annotated[
    int, BeforeValidator(_row_id), WithJsonSchema({"type": "string"}), Path(examples=["2893478923478923"])
]
