"""Signing in, tokens, who am I, API keys."""

from collections.abc import Awaitable
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, Security
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import Field, TypeAdapter

from app.errors import CrossSite, Problem, Unauthenticated
from app.factory import Services
from app.routes.bodies import json_body, read_json, reference, reply
from app.routes.deps import (
    SESSION_COOKIE,
    Admin,
    AdminReader,
    App,
    Member,
    Reader,
    RowId,
    address,
    authenticate,
    bearer_scheme,
    cookie_scheme,
    counted,
    key_scheme,
    spend,
    viewer_of,
)
from app.routes.idempotency import Attempt, IdempotencyKey, once
from app.routes.operations import Operation
from app.routes.problems import describe, problem_page
from app.schemas.accounts import (
    KeyIn,
    KeyList,
    KeyRotation,
    Me,
    NewKey,
    PageQuery,
    Providers,
    SignInPlace,
    TokenRequest,
    Tokens,
)
from app.schemas.base import SafeText, matching
from app.schemas.enums import Provider
from app.services.auth import Door
from app.services.rate_limits import RateClass
from app.services.sign_in import SIGN_IN_LIFETIME, SignedIn

router = APIRouter(tags=["accounts"], route_class=Operation)

SIGN_IN_COOKIE = "__Host-sign-in"

_key_in = TypeAdapter(KeyIn)
_rotation = TypeAdapter(KeyRotation)
_token_request = TypeAdapter(TokenRequest)

# A browser takes "//host" and "/\\host" for another site, and leaves out tabs and line breaks.
NextPath = Annotated[
    SafeText,
    Field(max_length=2_000),
    *matching(r"/(?:[!-.0-\[\]-~][!-\[\]-~]*)?", "must be a path of this service, such as /docs"),
]
_Secret = Annotated[SafeText | None, Query(max_length=4_096)]


async def _page(request: Request, acting: Awaitable[Response]) -> Response:
    try:
        return await acting
    except Problem as problem:
        return problem_page(problem, request)


def _remember(response: Response, name: str, value: str, seconds: int) -> Response:
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")
    return response


@router.get(
    "/auth/providers",
    operation_id="listProviders",
    summary="With whom can people sign in?",
    response_model=Providers,
    responses=describe(400, 422),
)
async def list_providers(app: App) -> Response:
    """Returns the providers that are set up; `login_url` is for a browser."""
    places = app.sign_in.places().items()
    return reply(Providers(data=[SignInPlace(provider=name, login_url=url) for name, url in places]))


@router.get(
    "/auth/login/{provider}",
    operation_id="beginSignIn",
    summary="Sign in",
    status_code=303,
    response_class=RedirectResponse,
    responses={303: {"description": "To the provider."}, **describe(400, 403, 404, 422, 429, 503)},
)
async def begin_sign_in(
    request: Request,
    app: App,
    provider: Provider,
    next: Annotated[NextPath, Query(description="Where to go afterwards: a path of this service.")] = "/docs",  # noqa: A002 — the usual name
    workspace_id: Annotated[
        RowId | None, Query(description="The workspace to sign in to, if there are several.")
    ] = None,
) -> Response:
    """Sends the browser to Google or GitHub (authorization code, PKCE, state; with Google, nonce).

    With `workspace_id`, an invitation to that workspace is accepted.
    """

    async def begin() -> Response:
        await spend(request, app, RateClass.ADDRESS, address(request))
        if workspace_id is not None and request.headers.get("sec-fetch-site") not in ("same-origin", "none"):
            raise CrossSite(
                "Another site sent you here. To sign in to that workspace, paste the link into the address bar"
                " of a browser of 2023 or newer."
            )
        known = request.cookies.get(SIGN_IN_COOKIE, "")
        begun = await app.sign_in.begin(provider, next, workspace_id, known)
        response = RedirectResponse(begun.url, 303)
        return _remember(response, SIGN_IN_COOKIE, begun.browser_secret, int(SIGN_IN_LIFETIME.total_seconds()))

    return await _page(request, begin())


@router.get(
    "/auth/callback/{provider}",
    operation_id="finishSignIn",
    summary="Come back from the provider",
    status_code=303,
    response_class=RedirectResponse,
    responses={303: {"description": "Signed in, by cookie."}, **describe(400, 401, 403, 404, 422, 429, 503)},
)
async def finish_sign_in(
    request: Request, app: App, provider: Provider, code: _Secret = None, state: _Secret = None, error: _Secret = None
) -> Response:
    """Ends the sign-in: makes the account and its workspace on first sight, or joins the one that invited."""

    async def finish() -> Response:
        await spend(request, app, RateClass.ADDRESS, address(request))
        secret = request.cookies.get(SIGN_IN_COOKIE, "")
        old_cookie = request.cookies.get(SESSION_COOKIE, "")
        signed_in: SignedIn = await app.sign_in.finish(
            provider, state or "", None if error else code, secret, old_cookie
        )
        # The sign-in's cookie stays for its ten minutes: another tab may need it, and no sign-in ends twice.
        response = RedirectResponse(signed_in.next_path, 303)
        return _remember(response, SESSION_COOKIE, signed_in.cookie, int(signed_in.lifetime.total_seconds()))

    return await _page(request, finish())


@router.post(
    "/auth/token",
    operation_id="createToken",
    summary="Get an access token",
    response_model=Tokens,
    responses=describe(400, 401, 403, 409, 413, 415, 422, 429, 503),
    openapi_extra=json_body(reference(TokenRequest), required=False),
)
async def create_token(
    request: Request,
    app: App,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(bearer_scheme)],
    api_key: Annotated[str | None, Security(key_scheme)],
    cookie: Annotated[str | None, Security(cookie_scheme)],
    key: IdempotencyKey = None,
) -> Response:
    """Turns an API key, a refresh token or a browser's session into an access token (JWT) of 15 minutes.

    It comes with a refresh token that works once, for the next ones. One that comes a second time was stolen or lost:
    the session ends. An API key can also stand in the header, with no body. A browser's session gets no refresh token:
    its cookie can be sent again.
    """
    wanted = await counted(request, app, read_json(request, _token_request, TokenRequest()), familiar=True)
    if wanted.refresh_token is not None:
        return await _refresh(request, app, wanted.refresh_token, key)
    if wanted.api_key is not None:
        viewer = await authenticate(request, app, Door.API_KEY, wanted.api_key)
    else:
        viewer = await viewer_of(request, app, bearer, api_key, cookie)
        if viewer.session_id is not None and (bearer or api_key):
            raise Unauthenticated("An access token gets no other one: send the refresh token, or the API key.")
    await spend(request, app, RateClass.WRITE, viewer.caller)

    async def act(_: Attempt) -> Response:
        return reply(await app.auth.open_session(viewer))

    return (await once(request, app, viewer.caller, key, act)).response


async def _refresh(request: Request, app: Services, refresh_token: str, key: str | None) -> Response:
    familiar = app.auth.familiar(Door.BEARER, refresh_token)
    token, viewer = await counted(request, app, app.auth.refreshed(refresh_token), familiar=familiar)
    await spend(request, app, RateClass.WRITE, viewer.caller)
    # Not the caller of the key's other requests: who holds an old refresh token is not who holds the key.
    caller = token.workspace_id, f"session:{token.session_id}"

    async def act(_: Attempt) -> Response:
        return reply(await app.auth.refresh(token))

    return (await once(request, app, caller, key, act)).response


@router.get(
    "/auth/me",
    operation_id="getMe",
    summary="Who am I?",
    response_model=Me,
    responses=describe(400, 401, 403, 422, 429, 503),
)
async def get_me(app: App, viewer: Reader) -> Response:
    """Tells who is asking: user, workspace, role, limits."""
    return reply(await app.auth.me(viewer, app.rate_limits.texts))


@router.post(
    "/auth/logout",
    operation_id="endSession",
    summary="Sign out",
    status_code=204,
    response_class=Response,
    responses=describe(400, 401, 403, 409, 422, 429, 503),
)
async def end_session(app: App, viewer: Member) -> Response:
    """Ends the session of the cookie or token that comes along, everywhere within five seconds."""
    await app.auth.sign_out(viewer)
    response = Response(status_code=204)
    response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    return response


@router.post(
    "/auth/keys",
    operation_id="createKey",
    summary="Make an API key",
    status_code=201,
    response_model=NewKey,
    responses=describe(400, 401, 403, 409, 413, 415, 422, 429, 503),
    openapi_extra=json_body(reference(KeyIn)),
)
async def create_key(request: Request, app: App, viewer: Admin, key: IdempotencyKey = None) -> Response:
    """Makes an API key and shows it, this once; only a keyed hash of it is stored.

    A key that a member makes goes with the member, and never does more than the member may.
    """
    wanted = await read_json(request, _key_in)

    async def act(_: Attempt) -> Response:
        return reply(await app.keys.create(viewer, wanted), 201)

    return (await once(request, app, viewer.caller, key, act)).response


@router.get(
    "/auth/keys",
    operation_id="listKeys",
    summary="List API keys",
    response_model=KeyList,
    responses=describe(400, 401, 403, 422, 429, 503),
)
async def list_keys(app: App, viewer: AdminReader, query: Annotated[PageQuery, Query()]) -> Response:
    """Lists the workspace's API keys, newest first, without the keys themselves."""
    return reply(await app.keys.page(viewer, query))


@router.post(
    "/auth/keys/{key_id}/rotate",
    operation_id="rotateKey",
    summary="Replace an API key",
    status_code=201,
    response_model=NewKey,
    responses=describe(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
    openapi_extra=json_body(reference(KeyRotation), required=False),
)
async def rotate_key(request: Request, app: App, viewer: Admin, key_id: RowId, key: IdempotencyKey = None) -> Response:
    """Makes a key of the same name, role and lifetime, which begins anew, and lets the old one end after an overlap."""
    wanted = await read_json(request, _rotation, KeyRotation())

    async def act(_: Attempt) -> Response:
        return reply(await app.keys.rotate(viewer, key_id, wanted), 201)

    return (await once(request, app, viewer.caller, key, act)).response


@router.delete(
    "/auth/keys/{key_id}",
    operation_id="deleteKey",
    summary="Delete an API key",
    status_code=204,
    response_class=Response,
    responses=describe(400, 401, 403, 404, 422, 429, 503),
)
async def delete_key(app: App, viewer: Admin, key_id: RowId) -> Response:
    """Deletes an API key and ends its sessions, everywhere within five seconds."""
    await app.keys.delete(viewer, key_id)
    return Response(status_code=204)
