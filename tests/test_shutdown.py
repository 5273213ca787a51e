"""SIGTERM: nobody who comes before the service is gone is cut off."""

import asyncio
import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest
from pydantic import SecretStr

from app.schemas.enums import Role
from app.server import KEEP_ALIVE_S
from app.settings import ROOT, Settings
from tests.faults.proxy import Network
from tests.support.api import Workspace, message
from tests.support.live import bearer, following
from tests.support.process import SERVE, Serving, environment, serving

ENDED = 128 + signal.SIGTERM


@contextmanager
def read_along(running: Serving) -> Iterator[None]:
    """Reads what a service logs, so that it does not wait for somebody to do so."""
    assert running.process.stderr
    reading = threading.Thread(target=running.process.stderr.read)
    reading.start()
    try:
        yield
        running.process.wait(20)
    finally:
        running.kill()
        reading.join()


def until_it_serves(running: Serving) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(retries=10)) as first:  # it listens soon after it says so
        assert first.get(f"{running.url}/livez").status_code == 200


def test_a_service_that_stops_says_so_and_goes_on_for_a_while(settings: Settings, workspace: Workspace) -> None:
    headers = {"X-API-Key": workspace.keys[Role.EDITOR]}
    with (
        serving(settings, SHUTDOWN_DELAY_S="2") as running,
        read_along(running),
        httpx.Client(base_url=running.url, headers=headers) as idle,
        httpx.Client(base_url=running.url, headers=headers) as new,
    ):
        assert "connection" not in idle.get("/readyz").headers
        running.process.send_signal(signal.SIGTERM)
        while (answer := httpx.get(f"{running.url}/readyz")).status_code == 200:
            pass
        assert (answer.status_code, answer.json()["checks"]) == (503, {"process": "stopping"})
        assert answer.headers["retry-after"]
        for number, each in enumerate((idle, new)):
            answer = each.post("/chats", json=message(message_id=f"m{number}"))
            assert (answer.status_code, answer.headers["connection"]) == (201, "close")
        assert running.process.wait(20) == ENDED


async def test_a_silent_database_is_not_waited_for(
    settings: Settings, postgresql: psycopg.Connection, workspace: Workspace
) -> None:
    network = Network(f"{postgresql.info.host}/.s.PGSQL.{postgresql.info.port}")
    headers = {"X-API-Key": workspace.keys[Role.EDITOR]}
    async with network.running() as port:
        url = f"postgresql://{postgresql.info.user}:x@127.0.0.1:{port}/{postgresql.info.dbname}"
        own = settings.model_copy(update={"database_url": SecretStr(url)})
        starting = serving(own, SHUTDOWN_DELAY_S="0")
        running = await asyncio.to_thread(starting.__enter__)
        try:
            async with httpx.AsyncClient(base_url=running.url, headers=headers, timeout=20) as client:
                answers = await asyncio.gather(*(client.post("/chats", json=message(f"c{n}")) for n in range(20)))
                assert {answer.status_code for answer in answers} == {201}  # by several connections at once
            network.silence()
            running.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(running.process.wait, 12) == ENDED
        finally:
            starting.__exit__(None, None, None)


@contextmanager
def knocking(running: Serving) -> Iterator[None]:
    """Connects and asks, again and again, until nobody listens; whoever was let in must be answered."""
    until_it_serves(running)
    address = urlsplit(running.url).hostname or "", urlsplit(running.url).port or 0
    answered, cut = [0] * 4, list[Exception]()

    def knock(place: int) -> None:
        while True:
            try:
                opened = socket.create_connection(address, timeout=20)
            except ConnectionRefusedError:
                return
            connection = http.client.HTTPConnection(*address)
            connection.sock = opened
            try:
                connection.request("GET", "/livez")
                assert connection.getresponse().read()
                answered[place] += 1
            except (OSError, http.client.HTTPException) as error:
                cut.append(error)
            finally:
                connection.close()

    threads = [threading.Thread(target=knock, args=[place]) for place in range(len(answered))]
    for thread in threads:
        thread.start()
    while min(answered) < 10:
        time.sleep(0.01)
    try:
        yield
    except BaseException:
        running.kill()  # they would knock for ever
        raise
    finally:
        for thread in threads:
            thread.join()
    assert cut == []


@pytest.mark.parametrize("processes", ["1", "2"])
def test_who_can_connect_is_answered(settings: Settings, processes: str) -> None:
    with serving(settings, SHUTDOWN_DELAY_S="0.5", WEB_CONCURRENCY=processes) as running, read_along(running):
        with knocking(running):
            running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) in (0, ENDED)  # several processes have one above them, which ends in peace


def children(running: Serving) -> set[int]:
    """Returns the processes that serve."""
    found = set()
    for each in psutil.Process(running.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # it ends meanwhile
            if "spawn_main" in str(each.cmdline()):
                found.add(each.pid)
    return found


def test_several_processes_are_replaced_one_after_another(settings: Settings) -> None:
    with serving(settings, SHUTDOWN_DELAY_S="0.5", WEB_CONCURRENCY="2") as running, read_along(running):
        with knocking(running):
            before = children(running)
            running.process.send_signal(signal.SIGHUP)
            while len(now := children(running)) != len(before) or now & before:
                time.sleep(0.05)
            running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0


def test_processes_end_at_the_same_time_even_while_they_are_replaced(settings: Settings) -> None:
    with serving(settings, SHUTDOWN_DELAY_S="10", WEB_CONCURRENCY="2") as running, read_along(running):
        until_it_serves(running)
        running.process.send_signal(signal.SIGHUP)
        while len(children(running)) < 3:
            time.sleep(0.05)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(25) == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_second_signal_does_without_the_delay(settings: Settings, processes: str) -> None:
    with serving(settings, SHUTDOWN_DELAY_S="300", WEB_CONCURRENCY=processes) as running, read_along(running):
        until_it_serves(running)
        running.process.send_signal(signal.SIGTERM)
        while httpx.get(f"{running.url}/readyz").status_code == 200:
            pass
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) in (0, ENDED)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_signals_that_come_together_are_two(settings: Settings, processes: str) -> None:
    with serving(settings, SHUTDOWN_DELAY_S="300", WEB_CONCURRENCY=processes) as running, read_along(running):
        until_it_serves(running)
        running.process.send_signal(signal.SIGTERM)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(20) in (0, ENDED)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_start_that_fails_says_so_with_its_exit_code(settings: Settings, processes: str) -> None:
    nowhere = environment(settings, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none", WEB_CONCURRENCY=processes)
    done = subprocess.run(SERVE, cwd=ROOT, env=nowhere, capture_output=True, timeout=60)
    assert (done.returncode, b"does not answer" in done.stderr) == (3, True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_several_processes_end_with_the_one_above_them_and_leave_the_port(settings: Settings) -> None:
    with serving(settings, SHUTDOWN_DELAY_S="300", WEB_CONCURRENCY="2") as running, read_along(running):
        until_it_serves(running)
        orphans = [psutil.Process(pid) for pid in children(running)]
        assert len(orphans) == 2
        running.kill()
        assert psutil.wait_procs(orphans, timeout=20)[1] == []
        with socket.create_server(("127.0.0.1", urlsplit(running.url).port or 0)):
            pass


def test_what_is_in_flight_ends_and_ctrl_c_does_not_wait(
    settings: Settings, postgresql: psycopg.Connection, workspace: Workspace
) -> None:
    headers = {"X-API-Key": workspace.keys[Role.EDITOR]}
    with serving(settings, SHUTDOWN_DELAY_S="300") as running, read_along(running):
        postgresql.execute("LOCK TABLE messages")
        said: list[httpx.Response] = []
        sending = threading.Thread(
            target=lambda: said.append(httpx.post(f"{running.url}/chats", json=message(), headers=headers, timeout=20))
        )
        sending.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while postgresql.execute(waiting).fetchone() == (0,):
            pass
        running.process.send_signal(signal.SIGINT)
        with suppress(httpx.TransportError):  # Ctrl-C cuts off who has just connected
            while True:
                httpx.get(f"{running.url}/livez")
        postgresql.rollback()
        sending.join()
        assert said[0].status_code == 201
        assert said[0].headers["connection"] == "close"


async def test_a_socket_is_closed_when_another_process_can_take_it(settings: Settings, workspace: Workspace) -> None:
    await workspace.editor.post("/chats", json=message())
    with serving(settings, SHUTDOWN_DELAY_S="1") as running, read_along(running):
        async with following(running.url, bearer(workspace.keys[Role.VIEWER])) as reader:
            await reader.next()
            running.process.send_signal(signal.SIGTERM)
            await workspace.editor.post("/chats", json=message(message_id="m2"))
            assert await reader.messages(1) == ["m2"]
            assert await reader.closed() == 1012


def test_a_server_listens_as_long_as_an_idle_connection_is_kept() -> None:
    assert Settings.model_fields["shutdown_delay_s"].default >= KEEP_ALIVE_S
