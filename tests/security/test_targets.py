"""Requests lead to public addresses only, whatever a URL, a name or an answer says, and within their bounds."""

import asyncio
import ipaddress
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.security import outbound
from app.security.outbound import Answer, post
from app.security.targets import Refused, Targets, is_public, parse_target
from app.settings import ROOT
from tests.support.receiver import Receiver, answer, open_receiver

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]

PRIVATE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254"),
    *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
    *("192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255"),
    *("240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b::7f00:1"),
    *("64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:10::1", "2001:20::1"),
    *("2001:db8::1", "2002:7f00:1::1", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254"),
    *("fe80::1", "fec0::1", "ff02::1", "ff0e::1"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "223.255.255.255"),
    *("2606:4700::1111", "2a00:1450:4001::1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_a_public_host_is_known(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_host_is_let_through(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


WRONG = {
    "another scheme": "ftp://example.com/",
    "a file": "file:///etc/passwd",
    "no scheme": "hooks.example.org/a",
    "no host": "https:///hooks",
    "a password": "https://user:secret@example.com/",
    "a name": "https://user@example.com/",
    "a fragment": "https://example.com/#x",
    "a backslash": "https://example.com\\@10.0.0.1/",
    "a space": "https://example.com/a b",
    "a line break": "https://example.com/\r\nHost: x",
    "not ASCII": "https://bücher.example/",
    "a port of mail": "https://example.com:25/",
    "port zero": "https://example.com:0/",
    "a port that is none": "https://example.com:99999/",
    "a port that is no number": "https://example.com:x/",
    "too long": "https://example.com/" + "a" * 2_048,
    "an empty label": "https://example..com/",
    "a long label": f"https://{'a' * 64}.com/",
    "a zone": "https://[fe80::1%25eth0]/",
    "half an address": "https://[::1/",
    "a percent sign": "https://%6c%6f/",
}
NOWHERE = {
    "plain HTTP": "http://example.com/",
    "loopback": "https://127.0.0.1/",
    "loopback in short": "https://127.1/",
    "loopback as a number": "https://2130706433/",
    "loopback in hexadecimal": "https://0x7f000001/",
    "loopback in octal": "https://0177.0.0.1/",
    "loopback of IPv6": "https://[::1]/",
    "a mapped address": "https://[::ffff:10.0.0.1]/",
    "NAT64": "https://[64:ff9b::a00:1]/",
    "metadata": "https://169.254.169.254/latest/meta-data/",
    "localhost": "https://localhost/",
    "below localhost": "https://a.localhost:8443/",
    "a name of a private network": "https://db.internal/",
}


@pytest.mark.parametrize("url", WRONG.values(), ids=WRONG)
def test_what_is_no_url_of_a_target_is_refused(url: str) -> None:
    for targets in (Targets(), Targets(LOOPBACK)):
        with pytest.raises(ValueError, match="must") as error:
            targets.check(url)
        assert url not in str(error.value)


@pytest.mark.parametrize("url", NOWHERE.values(), ids=NOWHERE)
def test_what_certainly_leads_to_nowhere_public_is_refused(url: str) -> None:
    parse_target(url)
    with pytest.raises(ValueError, match=r"must (lead to a public address|begin with https)"):
        Targets().check(url)


def test_what_may_lead_to_a_public_address_is_taken() -> None:
    for url in (
        "https://example.com/hooks?a=b",
        "https://8.8.8.8:8443/",
        "https://xn--bcher-kva.example",
        "https://a_b.x/",
    ):
        Targets().check(url)
    Targets(LOOPBACK).check("http://localhost:8080/")
    with pytest.raises(ValueError, match="public"):
        Targets(LOOPBACK).check("http://10.0.0.1/")


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened


async def refused(targets: Targets, url: str) -> str:
    with pytest.raises(Refused) as error:
        await post(targets, url, {}, b"{}")
    return error.value.code


def named(target: Receiver, name: str = "hooks.example.com", scheme: str = "http") -> str:
    return f"{scheme}://{name}:{target.url.partition('127.0.0.1:')[2]}"


async def test_a_request_arrives_as_it_was_sent(target: Receiver) -> None:
    target.replies = [answer(202, "X-Y: z", body=b"thanks")]
    targets = Targets(LOOPBACK, lambda host, port: ["127.0.0.1"])
    got = await post(targets, named(target), {"webhook-id": "1"}, b'{"a": 1}')
    assert (got.status, got.headers["x-y"]) == (202, "z")
    [request] = target.requests
    assert (request.body, request.headers["webhook-id"]) == (b'{"a": 1}', "1")
    assert request.headers["host"] == named(target).removeprefix("http://").partition("/")[0]


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_means_a_private_address_is_not_connected_to(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "_Network", None)  # whatever would connect fails otherwise
    targets = Targets((), lambda host, port: [address])
    assert await refused(targets, "https://hooks.example.com/") == "not_public"


async def test_a_name_that_changes_its_meaning_gains_nothing(target: Receiver) -> None:
    meanings = iter([["192.168.0.1", "127.0.0.1"], ["10.0.0.1"]])
    targets = Targets(LOOPBACK, lambda host, port: next(meanings))
    assert (await post(targets, named(target), {}, b"{}")).status == 204
    assert await refused(targets, named(target)) == "not_public"
    assert len(target.requests) == 1


async def test_plain_http_is_for_allowed_networks_only() -> None:
    assert await refused(Targets(LOOPBACK, lambda host, port: ["8.8.8.8"]), "http://example.com/") == "not_public"


async def test_a_redirect_is_not_followed(target: Receiver) -> None:
    target.replies = [answer(307, f"Location: {target.url}")]
    assert (await post(Targets(LOOPBACK), target.url, {}, b"{}")).status == 307
    assert len(target.requests) == 1


async def test_proxies_of_the_environment_are_not_used(target: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await post(Targets(LOOPBACK), target.url, {}, b"{}")).status == 204


async def test_no_more_than_64_kib_of_an_answer_are_read(target: Receiver) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    target.replies = [endless]
    assert (await post(Targets(LOOPBACK), target.url, {}, b"{}")).status == 200
    assert sent < 16 * 2**20  # what the sockets' buffers hold


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def drip_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while not writer.is_closing():
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(5)


@pytest.mark.parametrize("reply", [drip, drip_headers, silent])
async def test_an_answer_that_takes_too_long_is_given_up(
    target: Receiver, reply: Callable[[asyncio.StreamWriter], asyncio.Future[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "DEADLINE_S", 0.3)
    target.replies = [reply]
    assert await refused(Targets(LOOPBACK), target.url) == "timeout"


async def test_a_name_whose_servers_do_not_answer_takes_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "DEADLINE_S", 0.2)
    answered = threading.Event()
    targets = Targets(LOOPBACK, lambda host, port: [str(answered.wait(10))])
    assert await refused(targets, "https://hooks.example.com/") == "timeout"
    answered.set()


async def test_who_asks_for_the_same_name_meanwhile_shares_the_look_up(target: Receiver) -> None:
    asked = 0
    began, answered = threading.Event(), threading.Event()

    def late(host: str, port: int) -> list[str]:
        nonlocal asked
        asked += 1
        began.set()
        answered.wait()
        return ["127.0.0.1"]

    targets = Targets(LOOPBACK, late)
    async with asyncio.TaskGroup() as requests:
        for _ in range(5):
            requests.create_task(post(targets, named(target), {}, b"{}"))
        gone = requests.create_task(post(targets, named(target), {}, b"{}"))
        await asyncio.to_thread(began.wait)
        gone.cancel()
        answered.set()
    assert (len(target.requests), asked) == (5, 1)
    assert (await post(targets, named(target), {}, b"{}")).status == 204
    assert asked == 2, "an answer is not kept"


def test_a_process_ends_while_names_are_looked_up() -> None:
    code = """
import asyncio, threading
from app.security import outbound
from app.security.targets import Refused, Targets
async def main():
    outbound.DEADLINE_S = 0.01
    try:
        await outbound.post(Targets((), lambda host, port: threading.Event().wait()), "https://a.example/", {}, b"")
    except Refused as refused:
        print(refused.code)
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert (ended.stdout, ended.stderr) == ("timeout\n", "")


@pytest.mark.parametrize("garbage", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000])
async def test_what_is_no_answer_is_told_so(target: Receiver, garbage: bytes) -> None:
    target.replies = [garbage]
    assert await refused(Targets(LOOPBACK), target.url) == "disconnected"


async def test_nobody_there_and_no_such_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert await refused(Targets(LOOPBACK), f"http://127.0.0.1:{port}/") == "refused"

    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror

    assert await refused(Targets(LOOPBACK, unknown), "https://hooks.example.com/") == "unknown_host"


@asynccontextmanager
async def tls_target(tmp_path: Path, name: str) -> AsyncIterator[tuple[int, Path]]:
    """Yields the port of a target with a certificate of a name, and the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "target.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    receiver = Receiver("")
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], pem


async def test_tls_asks_for_a_certificate_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = Targets(LOOPBACK, lambda host, port: ["127.0.0.1"])

    async def ask(port: int, name: str) -> Answer:
        return await post(targets, f"https://{name}:{port}/", {}, b"{}")

    async with tls_target(tmp_path, "hooks.example.com") as (port, pem):
        assert await refused(targets, f"https://hooks.example.com:{port}/") == "tls"
        trusting = ssl.create_default_context(cafile=str(pem))
        monkeypatch.setattr(outbound, "_tls", lambda: trusting)
        assert (await ask(port, "hooks.example.com")).status == 204
        assert await refused(targets, f"https://other.example.com:{port}/") == "tls"
