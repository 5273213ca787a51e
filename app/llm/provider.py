"""litellm, loaded on first use.

Loading it takes seconds and about 180 MB, so nothing imports it before a provider is asked.
"""

import asyncio
import functools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

ANSWER_BYTES = 2**20
ERROR_BYTES = 2**14
"""The longest error that is read: litellm searches it for secrets, at seven seconds a megabyte."""
STREAM_BYTES = 2**23
"""The longest answer that is read in a stream, where each token has a few hundred bytes around it."""


@functools.cache
def _load() -> Any:
    # Read by litellm at import: no price list from the network, no .env of its own.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    # Else it rebuilds each stream for loggers that nobody has set, which takes a third as long again.
    litellm.disable_streaming_logging = True
    return litellm


async def litellm() -> Any:
    """Returns litellm without holding up the event loop; who does not wait for it to be loaded finds it later."""
    if _load.cache_info().currsize:
        return _load()
    return await asyncio.shield(asyncio.to_thread(_load))


@asynccontextmanager
async def http_client(timeout_s: float) -> AsyncIterator[Any]:
    """Yields a client for one call, which reads no endless body and follows no redirect.

    litellm's own takes the Gemini key and the conversation to any host that a redirect names.
    """
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    client = AsyncHTTPHandler(timeout=timeout_s, event_hooks={"response": [_bound]}, follow_redirects=False)
    client.client.headers["accept-encoding"] = "identity"
    try:
        yield client
    finally:
        await client.close()


async def _bound(response: Any) -> None:
    """Replaces a body that is too long, or compressed though nobody asked for it, by an empty one; checks a stream."""
    import httpx

    media = response.headers.get("content-type", "") if response.status_code == httpx.codes.OK else ""
    limit = ANSWER_BYTES if "json" in media else ERROR_BYTES
    if response.headers.pop("content-encoding", "identity") != "identity":
        limit = -1
    elif "event-stream" in media:
        response.stream = _checked(response.stream)
        return
    body, stream = b"", response.stream
    async for chunk in stream:
        body += chunk
        if len(body) > limit:
            body = b""
            break
    await stream.aclose()
    response.stream = httpx.ByteStream(body)


def _checked(stream: Any) -> Any:
    """Returns a stream of server-sent events that breaks where litellm would leave out what it cannot read."""
    import httpx

    class Checked(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            read, rest = 0, b""
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                read += len(chunk)
                if read > STREAM_BYTES or len(rest) > ANSWER_BYTES or not all(map(_readable, lines)):
                    raise httpx.ReadError("This is no stream of ours.")
                yield chunk

        async def aclose(self) -> None:
            await stream.aclose()

    return Checked()


def _readable(line: bytes) -> bool:
    name, _, data = line.partition(b":")
    if name != b"data" or data.strip() == b"[DONE]":
        return True
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True
