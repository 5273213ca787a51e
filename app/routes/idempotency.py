"""Requests that may be sent again (``Idempotency-Key``)."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, NamedTuple

import anyio
import orjson
from fastapi import Header, Request, Response

from app.errors import Problem
from app.factory import Services
from app.routes.problems import problem_response
from app.services.idempotency import check_same

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The first answer to a request with this key is given again for 24 hours. Make it random.",
    ),
]
UNDECIDED = (401, 403, 429)
KEPT_HEADERS = ("content-type", "location")
RELEASE_S = 0.3
"""For how long an answer waits until its key is free again; with a silent database that may go on after it."""


class Attempt(NamedTuple):
    """A request that is carried out; ``seed`` is the same each time that it is, None without an idempotency key."""

    seed: bytes | None
    stream: AsyncIterator[bytes]


class Answer(NamedTuple):
    """A response, the first or the first again."""

    response: Response
    seed: bytes | None


async def once(
    request: Request,
    app: Services,
    caller: tuple[int, str],
    key: str | None,
    act: Callable[[Attempt], Awaitable[Response]],
    *,
    streamed: bool = False,
    conversation_id: str | None = None,
) -> Answer:
    """Carries a request out, unless that was done before; then returns the first answer.

    ``caller`` are workspace and actor. An answer that holds what was written about ``conversation_id`` is forgotten
    with the conversation.

    Raises:
        StillRunning: if the first request has not been answered.
        IdempotencyKeyReused: if the first request was another one.
    """
    if key is None:
        return Answer(await act(Attempt(None, request.stream())), None)
    digest = hashlib.sha256(f"{request.url.path}?{request.url.query} {request.headers.get('content-type')} ".encode())
    if not streamed:
        digest.update(await request.body())
    claim, earlier = await app.idempotency.claim(*caller, key, None if streamed else digest.digest())
    stream = _digested(request, digest.update)
    if earlier:
        if streamed:
            await _read_out(stream)
            check_same(claim.mark(digest.digest()), earlier.mark)
        return Answer(_unpacked(earlier.answer), claim.seed)
    try:
        async with app.idempotency.running(claim):
            response = await _answered(request, act(Attempt(claim.seed, stream)))
            if streamed:
                await _read_out(stream)  # the request is known again by all of it
    except BaseException:
        with anyio.CancelScope(shield=True):
            await asyncio.wait({app.idempotency.release(claim)}, timeout=RELEASE_S)
        raise
    linked = conversation_id if response.status_code < HTTPStatus.MULTIPLE_CHOICES else None
    # Done is done: without a note of it, the request would only be carried out again.
    with suppress(Problem):
        await app.idempotency.finish(claim, digest.digest(), _packed(response), linked)
    return Answer(response, claim.seed)


async def _digested(request: Request, update: Callable[[bytes], None]) -> AsyncIterator[bytes]:
    async for data in request.stream():
        update(data)
        yield data


async def _read_out(stream: AsyncIterator[bytes]) -> None:
    async for _ in stream:
        pass


async def _answered(request: Request, acting: Awaitable[Response]) -> Response:
    try:
        return await acting
    except Problem as problem:
        if problem.status in UNDECIDED or problem.status >= 500:
            raise
        return problem_response(problem, request.state.request_id)


def _packed(response: Response) -> bytes:
    headers = {name: value for name, value in response.headers.items() if name in KEPT_HEADERS}
    return orjson.dumps([response.status_code, headers, bytes(response.body).decode()])


def _unpacked(answer: bytes) -> Response:
    status, headers, body = orjson.loads(answer)
    return Response(body, status, {**headers, "Idempotency-Replayed": "true"})
