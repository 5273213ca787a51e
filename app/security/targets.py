"""Where requests may lead whose URL somebody else has chosen: to the public internet only."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import NamedTuple
from urllib.parse import urlsplit

ADDRESSES = 3
"""How many of a name's addresses are tried."""
URL_LENGTH = 2_048

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Iterable[str]]

# ``ipaddress.is_global`` lets multicast and the forms through by which IPv6 embeds addresses of IPv4. The registries:
# https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry
_PRIVATE = [
    ipaddress.ip_network(each)
    for each in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/3", "168.63.129.16/32"),  # the last is a cloud's own services
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
]
_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is given out; mapped, translated, local and multicast addresses are outside."""

_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*", re.ASCII)
_TEXT = re.compile(r"[!-~]+", re.ASCII)
_LOCAL_NAMES = ("localhost", "local", "internal", "localdomain", "home.arpa")


class Refused(Exception):
    """A request that was not answered; ``code`` is stable, and all that is told of the reason."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Target(NamedTuple):
    """Where a URL leads."""

    scheme: str
    host: str
    port: int
    path: str


def is_public(address: Address) -> bool:
    """Says whether an address belongs to the public internet, and to a single host there."""
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST:
        return False
    return not any(address in network for network in _PRIVATE if network.version == address.version)


def parse_target(url: str) -> Target:
    """Returns where a URL leads; raises ``ValueError`` with the complaint, which does not hold the URL."""
    if len(url) > URL_LENGTH or not _TEXT.fullmatch(url):
        raise ValueError(f"must be a URL of at most {URL_LENGTH} printable ASCII characters")
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").lower()
    except ValueError:
        raise ValueError("must be a URL such as https://example.com/hooks") from None
    if parts.scheme not in ("http", "https") or not host or "\\" in url:
        raise ValueError("must be a URL such as https://example.com/hooks")
    if "@" in parts.netloc or "#" in url:
        raise ValueError("must have neither a name, nor a password, nor a fragment")
    if port is not None and port not in (80, 443) and port < 1_024:
        raise ValueError("must have port 80, 443, or one from 1024 on")
    if not _NAME.fullmatch(host) and (literal(host) is None or "%" in host):
        raise ValueError("must have a host name or an address; an international name in its ASCII form")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or {"http": 80, "https": 443}[parts.scheme], path)


def literal(host: str) -> Address | None:
    """Returns the address that a host is in itself, without a look-up."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1, 0x7f000001
    except OSError:
        return None


def _is_local_name(host: str) -> bool:
    """Says whether a name never is one of the public internet."""
    return any(host == name or host.endswith(f".{name}") for name in _LOCAL_NAMES)


def _look_up(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Targets:
    """Public addresses, by TLS, and those of ``allowed`` networks, there also without.

    ``resolve`` returns a name's addresses; it runs in a thread, and is given nothing but names.

    A look-up cannot be called off, and takes long if a name's servers are silent. So each name has a thread of its own,
    for which no other name waits, nor the end of the process; who asks for the same name meanwhile shares it.
    """

    def __init__(self, allowed: Sequence[Network] = (), resolve: Resolve = _look_up) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._looked_up: dict[str, Future[list[str]]] = {}

    def check(self, url: str) -> None:
        """Raises ``ValueError`` for a URL that certainly leads to nowhere public, without looking a name up."""
        target = parse_target(url)
        if target.scheme == "http" and not self._allowed:
            raise ValueError("must begin with https://")
        address = literal(target.host)
        local = _is_local_name(target.host) and not self._allowed
        if local or (address and not self._may_reach(target.scheme, address)):
            raise ValueError("must lead to a public address")

    async def addresses(self, target: Target) -> list[str]:
        """Returns the addresses that may be connected to; raises ``Refused`` if there are none."""
        if address := literal(target.host):
            found = [address]
        else:
            try:
                names = await asyncio.wrap_future(self._look_up(target.host, target.port))
            except OSError:
                raise Refused("unknown_host") from None
            found = [ipaddress.ip_address(each.partition("%")[0]) for each in dict.fromkeys(names)]
        reached = [str(each) for each in found if self._may_reach(target.scheme, each)]
        if not reached:
            raise Refused("not_public")
        return reached[:ADDRESSES]

    def _look_up(self, host: str, port: int) -> Future[list[str]]:
        """Returns the look-up of a name that is going on, or begins one; whoever waits no longer does not end it."""
        if (going_on := self._looked_up.get(host)) is not None:
            return going_on
        found: Future[list[str]] = Future()
        found.set_running_or_notify_cancel()

        def look_up() -> None:
            try:
                found.set_result(list(self._resolve(host, port)))
            except BaseException as error:  # noqa: BLE001 — whatever it is, it is for who waits
                found.set_exception(error)

        Thread(target=look_up, name="name", daemon=True).start()
        self._looked_up[host] = found
        found.add_done_callback(lambda _: self._looked_up.pop(host))
        return found

    def _may_reach(self, scheme: str, address: Address) -> bool:
        if any(address in network for network in self._allowed if network.version == address.version):
            return True
        return scheme == "https" and is_public(address)
