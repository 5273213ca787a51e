"""Requests to URLs that somebody else has chosen, within bounds.

A name is resolved once, and the connection goes to an address that was looked at: a name that means another address a
moment later gains nothing. Redirects are not followed, proxies of the environment not used.
"""

import asyncio
import functools
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpcore2
import httpx2

from app.security.targets import Refused, Targets, parse_target

DEADLINE_S = 15.0
"""How long a request may take, from the look-up of the name to the end of the answer."""
CONNECT_S = 5.0
"""How long one of a name's addresses may take to be connected to."""
ANSWER_BYTES = 64 * 1024
"""How much of an answer is read."""

_PORTS = {"http": 80, "https": 443}


class Answer(NamedTuple):
    """What came back: the status and the headers, their names in lower case."""

    status: int
    headers: Mapping[str, str]


async def post(targets: Targets, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Sends a body and returns the answer's status and headers, without its body; raises ``Refused``."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await _post(targets, url, headers, body)
    except (TimeoutError, httpcore2.TimeoutException):
        raise Refused("timeout") from None
    except (OSError, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        raise Refused("tls" if _is_tls(error) else "disconnected") from None
    except ValueError:
        raise Refused("invalid_url") from None


async def _post(targets: Targets, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
    target = parse_target(url)
    network = _Network(await targets.addresses(target))
    port = None if target.port == _PORTS[target.scheme] else target.port
    host = f"[{target.host}]" if ":" in target.host else target.host
    named = {"Host": host if port is None else f"{host}:{port}", "Connection": "close", **headers}
    where = httpcore2.URL(
        scheme=target.scheme.encode(), host=target.host.encode(), port=port, target=target.path.encode()
    )
    async with (
        httpcore2.AsyncConnectionPool(ssl_context=_tls(), network_backend=network) as pool,
        pool.stream(
            "POST", where, headers=[(name.encode(), value.encode()) for name, value in named.items()], content=body
        ) as response,
    ):
        read = 0
        async for part in response.aiter_stream():
            read += len(part)
            if read > ANSWER_BYTES:
                break
        found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return Answer(response.status, found)


class _Network(httpcore2.AsyncNetworkBackend):
    """Connects to given addresses, whatever the host's name is; TLS still asks for a certificate of the name."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        """Connects to the first address that answers; raises ``Refused``."""
        code = "refused"
        for address in self._addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout=CONNECT_S)
            except httpcore2.ConnectTimeout:
                code = "timeout"
            except (OSError, httpcore2.ConnectError):
                code = "refused"
        raise Refused(code)


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)


def _is_tls(error: BaseException | None) -> bool:
    while error:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
