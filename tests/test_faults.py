"""What the script of faults is made of, and its shortest faults."""

import asyncio
import json
import shutil
import subprocess
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from app.db import POOL_TIMEOUT_S, UNDO_S
from app.schemas.enums import Role
from app.settings import Settings
from tests.bench.load import Failed
from tests.faults import scene
from tests.faults.__main__ import COLUMNS, grid
from tests.faults.load import Load, Row, Tally
from tests.faults.proxy import Network
from tests.faults.run import ACTS, Finding, judged
from tests.support.api import Workspace, message
from tests.support.server import running_server

SOON, LONG, SLACK_S = 0.05, 20.0, 1.5


@asynccontextmanager
async def echo() -> AsyncIterator[Network]:
    """Yields a network before somebody who repeats what is said."""

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield Network(server.sockets[0].getsockname()[1])


async def test_a_network_is_slow_silent_or_broken() -> None:
    async with echo() as network, network.running() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        network.delay_s, began = SOON, time.monotonic()
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        assert time.monotonic() - began >= 2 * SOON
        network.delay_s = 0.0
        network.silence()
        writer.write(b"c")
        waiting = asyncio.ensure_future(reader.readexactly(1))
        assert not (await asyncio.wait({waiting}, timeout=SOON))[0]
        network.speak()
        assert await waiting == b"c"
        network.reset()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


@asynccontextmanager
async def behind(settings: Settings, postgresql: psycopg.Connection, **more: Any) -> AsyncIterator[tuple[str, Network]]:
    """Yields the service's URL and the network between it and PostgreSQL."""
    network = Network(f"{postgresql.info.host}/.s.PGSQL.{postgresql.info.port}")
    async with network.running() as port:
        url = f"postgresql://{postgresql.info.user}:x@127.0.0.1:{port}/{postgresql.info.dbname}"
        starting = running_server(settings.model_copy(update={"database_url": SecretStr(url), **more}))
        address = await asyncio.to_thread(starting.__enter__)
        try:
            yield address, network
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)


async def test_a_silent_database_is_told_in_time_and_found_again(
    settings: Settings, postgresql: psycopg.Connection, workspace: Workspace
) -> None:
    async with behind(settings, postgresql, database_timeout_s=4.0) as (address, network):
        headers = {"X-API-Key": workspace.keys[Role.EDITOR]}
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=LONG) as client:
            assert (await client.post("/chats", json=message())).status_code == 201
            network.silence()
            kinds: tuple[dict[str, Any], ...] = (
                {"json": message()},
                {"json": [message(message_id=f"m{number}") for number in range(20)]},
                {"json": message(), "headers": {"Idempotency-Key": "k"}},
            )
            answers = asyncio.gather(*(client.post("/chats", **kinds[number % 3]) for number in range(18)))
            alive = await client.get("/livez")
            assert (alive.status_code, alive.elapsed.total_seconds() < 1) == (200, True)
            assert {answer.status_code for answer in await answers} == {503}
            assert all("retry-after" in answer.headers for answer in await answers)
            longest = max(answer.elapsed.total_seconds() for answer in await answers)
            assert longest < 4.0 + POOL_TIMEOUT_S + UNDO_S + SLACK_S
            network.speak()
            async with asyncio.timeout(10):
                while (await client.post("/chats", json=message(message_id="m0"))).status_code != 201:
                    pass


async def test_a_caller_who_has_to_be_looked_up_is_told_in_time_too(
    settings: Settings, postgresql: psycopg.Connection, workspace: Workspace
) -> None:
    known, unknown = ({"X-API-Key": workspace.keys[role]} for role in (Role.EDITOR, Role.VIEWER))
    async with (
        behind(settings, postgresql, database_timeout_s=2.0) as (address, network),
        httpx.AsyncClient(base_url=address, timeout=LONG) as client,
    ):
        assert (await client.get("/chats", headers=known)).status_code == 200
        network.silence()
        answer = await client.get("/chats", headers=unknown)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert answer.elapsed.total_seconds() < 2.0 + SLACK_S
        network.speak()
        async with asyncio.timeout(LONG):
            while (await client.get("/chats", headers=unknown)).status_code != 200:
                pass


async def sent(load: Load, workspace: Workspace, *names: str) -> None:
    """Stores messages of a load as if it had sent them itself."""
    rows = [load._row("c1", name) for name in names]
    assert (await workspace.editor.post("/chats", json=rows)).status_code == 201
    load._acknowledged.update(row["message_content"] for row in rows)


async def sent_again(load: Load, rows: list[Row]) -> None:
    """Sends a batch as a load does."""
    async with httpx.AsyncClient(base_url=load.url, headers={"X-API-Key": load.key}) as load._client:
        await load._until_acknowledged("batches", rows, lambda: json.dumps(rows).encode())


async def test_a_load_counts_what_was_lost_doubled_and_torn(url: str, workspace: Workspace) -> None:
    load = Load(url, workspace.keys[Role.EDITOR], "x")
    await sent(load, workspace, "a", "b", "c")
    assert await load.tally() == Tally(acknowledged=3, stored=3, doubled=0, lost=0, torn=0)
    again = {**load._row("c1", "a"), "message_id": "another"}
    assert (await workspace.editor.post("/chats", json=again)).status_code == 201
    load._acknowledged.add(load._row("c1", "never came")["message_content"])
    # The whole of one batch, and the rest of another, is sent again.
    whole, rest = ([load._row("c1", name) for name in names] for names in (("b", "c"), ("b", "d")))
    await sent_again(load, whole)
    await sent_again(load, rest)
    assert await load.tally() == Tally(acknowledged=5, stored=4, doubled=1, lost=1, torn=1)
    load.statuses.update({"201": 3, "500": 1, "cut": 1})
    load.longest = (11.0, "read")
    finding = await judged(load, "kill API", 12.0, flawless=True)
    assert len(finding.broken) == 8
    assert finding.figures["lost"] == finding.figures["doubled"] == "1"


async def test_a_load_sends_every_kind_and_nothing_is_wrong_without_a_fault(url: str, workspace: Workspace) -> None:
    load = Load(url, workspace.keys[Role.EDITOR], "calm")
    async with load.running():
        assert await load.recovered(0.0) < float("inf")
    finding = await judged(load, "none", 0.0, alive=False, flawless=True)
    assert finding.broken == []
    assert (await load.tally()).acknowledged > 1_000


def test_findings_become_a_table_and_what_was_not_run_says_so() -> None:
    table = grid([Finding("kill API", {"lost": "0"}), Finding("full disk", not_run="no right to mount")])
    assert [row[-1] for row in table.cells] == ["held", "not run: no right to mount"]
    assert "| kill API |" in table.markdown()
    assert {*COLUMNS} >= {"acknowledged", "stored", "doubled", "lost"}
    assert all(act.__doc__ for act in ACTS.values())


def test_a_changed_configuration_of_nginx_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "nginx")
    (tmp_path / "other.conf").write_text("server { listen 81; }")
    monkeypatch.setattr(scene, "CONFIGURATION", tmp_path / "other.conf")
    with pytest.raises(Failed, match=r"other\.conf is not as expected"), scene.nginx([1, 2], tmp_path):
        pass


NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/bin")


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "nginx.conf"
    text = scene.CONFIGURATION.read_text().replace("listen 80;", f"listen unix:{tmp_path}/socket;")
    file.write_text(f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n{text}\n}}\n")
    done = subprocess.run([str(NGINX), "-t", "-p", str(tmp_path), "-c", str(file)], capture_output=True, text=True)
    assert "syntax is ok" in done.stderr, done.stderr
