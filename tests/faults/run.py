"""The faults: what is done under load, and what must hold all the same."""

import asyncio
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg

from app.repositories.sessions import APP_ROLE
from tests.bench.load import Failed
from tests.bench.servers import pgbouncer
from tests.faults.load import Load
from tests.faults.node import Node, node
from tests.faults.proxy import Network
from tests.faults.scene import Instance, Service, alembic, nginx, service
from tests.support.providers import Providers, grok_reply, open_providers, summary_answer

WITHIN_S = 10.0
"""How long a request may take, and how soon the service must be back."""
LIVE_MS = 100.0
BEFORE_S = 1.5
AFTER_S = 0.5
ITEMS = 12
SMALL = "size=320m"
"""What the full disk holds: a cluster, its journal, and not much more."""


@dataclass
class Finding:
    """What a fault has shown: figures by column, and the promises that were broken."""

    fault: str
    figures: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    not_run: str = ""


@dataclass
class Scene:
    """The service with a network between it and PostgreSQL."""

    node: Node
    network: Network
    api: Instance
    service: Service
    seconds: float


Act = Callable[[Scene], Awaitable[float]]
"""Does something, and returns when it was over, by the monotonic clock."""


async def api(scene: Scene) -> float:
    """kill -9 of the API, three times."""
    began = 0.0
    for _ in range(3):
        scene.api.kill()
        began = time.monotonic()
        await asyncio.to_thread(scene.api.start)
        await asyncio.sleep(1)
    return began


async def backend(scene: Scene) -> float:
    """kill -9 of a process of PostgreSQL's in mid-statement, three times."""
    for _ in range(3):
        await asyncio.to_thread(scene.node.kill_one)
        await asyncio.sleep(1.5)
    await asyncio.to_thread(scene.node.kill_one)
    return time.monotonic()


async def postgresql(scene: Scene) -> float:
    """kill -9 of all of PostgreSQL, which is then away for some seconds."""
    scene.node.kill()
    await asyncio.sleep(scene.seconds)
    await asyncio.to_thread(scene.node.start)
    return time.monotonic()


async def slow(scene: Scene) -> float:
    """Every packet to and from PostgreSQL takes 300 ms."""
    scene.network.delay_s = 0.3
    await asyncio.sleep(scene.seconds)
    scene.network.delay_s = 0.0
    return time.monotonic()


async def silent(scene: Scene) -> float:
    """Nothing reaches PostgreSQL any more, and nobody is told."""
    scene.network.silence()
    await asyncio.sleep(3 * scene.seconds)
    scene.network.speak()
    return time.monotonic()


async def reset(scene: Scene) -> float:
    """Every connection is broken off, again and again."""
    until = time.monotonic() + scene.seconds
    while time.monotonic() < until:
        scene.network.reset()
        await asyncio.sleep(0.4)
    return time.monotonic()


async def pool(scene: Scene) -> float:
    """Somebody else locks the table of messages, and every connection of the pool waits for it."""
    async with await psycopg.AsyncConnection.connect(scene.node.url()) as other:
        await other.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
        await asyncio.sleep(3 * scene.seconds)
        await other.rollback()
    return time.monotonic()


async def slots(scene: Scene) -> float:
    """Others take every connection that PostgreSQL allows, and those of the service break."""
    others: list[psycopg.AsyncConnection] = []
    with suppress(psycopg.OperationalError):
        while True:
            others.append(await psycopg.AsyncConnection.connect(scene.node.url()))
    scene.network.reset()
    with suppress(psycopg.OperationalError):
        while True:
            others.append(await psycopg.AsyncConnection.connect(scene.node.url()))
    await asyncio.sleep(scene.seconds)
    for each in others:
        await each.close()
    return time.monotonic()


async def disk(scene: Scene) -> float:
    """The disk is full; then there is room again, and whoever looks after PostgreSQL starts it if it has ended."""
    ballast = scene.node.folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(2**16))
    await asyncio.sleep(3 * scene.seconds)
    ballast.unlink()
    if not scene.node.is_running():
        await asyncio.to_thread(scene.node.start)
    return time.monotonic()


ACTS: dict[str, Act] = {
    "kill API": api,
    "kill backend": backend,
    "kill PostgreSQL": postgresql,
    "slow database": slow,
    "silent database": silent,
    "broken connections": reset,
    "exhausted pool": pool,
    "no connection left": slots,
}


@asynccontextmanager
async def opened(folder: Path, running: Node, seconds: float) -> AsyncIterator[Scene]:
    """Yields a scene on a PostgreSQL."""
    network = Network(running.port)
    with ExitStack() as stack:
        async with network.running() as port:
            made = await asyncio.to_thread(service, running.url(), running.url(port=port), folder)
            started = made.instance()
            instance = await asyncio.to_thread(started.__enter__)
            stack.push(started)
            yield Scene(running, network, instance, made, seconds)
            stack.close()


async def tried(scene: Scene, fault: str, act: Act) -> Finding:
    """Does something to a service under load, and counts."""
    load = Load(scene.api.url, scene.service.key, fault.replace(" ", "-"))
    async with load.running():
        await asyncio.sleep(BEFORE_S)
        over = await act(scene)
        back = await load.recovered(over)
        await asyncio.sleep(AFTER_S)
    return await judged(load, fault, back, alive=act is not api)


async def judged(load: Load, fault: str, back: float | None, *, alive: bool = True, flawless: bool = False) -> Finding:
    """Returns what a load shows of a fault; ``flawless`` if not one request may fail."""
    tally = await load.tally()
    statuses = load.statuses
    checks = {
        "a message was lost": tally.lost,
        "a message was doubled": tally.doubled,
        "a part of a batch was stored": tally.torn,
        "a 5xx other than 503": _count(statuses, lambda code: 500 <= code != 503),
        "an unexpected 4xx": _count(statuses, lambda code: 400 <= code < 500 and code != 409),
        "an answer that says too little": load.unexplained,
        "a connection was cut": alive and statuses["cut"],
        f"a request took longer than {WITHIN_S:.0f} s ({load.longest[1]})": load.longest[0] > WITHIN_S,
        f"not back within {WITHIN_S:.0f} s": back is not None and back > WITHIN_S,
        f"/livez took more than {LIVE_MS:.0f} ms": alive and load.live_p99_ms() > LIVE_MS,
        "a request failed": flawless and load.requests > _count(statuses, lambda code: code < 300),
    }
    figures = {
        "requests": f"{load.requests:,}",
        "acknowledged": f"{tally.acknowledged:,}",
        "stored": f"{tally.stored:,}",
        "doubled": str(tally.doubled),
        "lost": str(tally.lost),
        "answers": " ".join(f"{status}×{count:,}" for status, count in sorted(statuses.items())),
        "longest s": f"{load.longest[0]:.1f}",
        "back s": "" if back is None else f"{back:.1f}",
        "livez ms": f"{load.live_p99_ms():.0f}" if alive else "",
    }
    return Finding(fault, figures, [name for name, found in checks.items() if found])


def _count(statuses: Counter[str], of: Callable[[int], bool]) -> int:
    return sum(count for status, count in statuses.items() if status.isdecimal() and of(int(status)))


async def full_disk(folder: Path, seconds: float) -> Finding:
    """Runs the service on a PostgreSQL whose disk fills up."""
    place = folder / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(place)]
    done = await asyncio.to_thread(subprocess.run, mount, capture_output=True, text=True)
    if done.returncode:
        return Finding("full disk", not_run=f"no file system of its own: {done.stderr.strip()}")
    try:
        with node(place / "pg", max_wal_size="64MB", min_wal_size="32MB") as running:
            async with opened(folder, running, seconds) as scene:
                return await tried(scene, "full disk", disk)
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "-l", str(place)], capture_output=True)


async def kill_worker(folder: Path, running: Node) -> Finding:
    """kill -9 of the worker in the middle of a job, which another one carries on."""
    async with open_providers() as providers:
        providers.grok.reply = grok_reply(summary_answer())
        given = {"XAI_API_KEY": "xai-faults", "XAI_API_BASE": f"{providers.url}/xai/v1"}
        made = await asyncio.to_thread(service, running.url(), running.url(), folder, **given)
        with ExitStack() as stack:
            instance = made.instance()
            opened_instance = await asyncio.to_thread(instance.__enter__)
            stack.push(instance)
            async with httpx.AsyncClient(
                base_url=opened_instance.url, headers={"Authorization": f"Bearer {made.key}"}, timeout=20
            ) as client:
                finding = await _kill_worker(client, made, providers)
            await asyncio.to_thread(stack.close)
    return finding


async def _kill_worker(client: httpx.AsyncClient, made: Service, providers: Providers) -> Finding:
    names = [f"job-{number}" for number in range(ITEMS)]
    rows = [
        {
            "conversation_id": name,
            "message_id": "m1",
            "user_id": "ana",
            "user_type": "customer",
            "message_content": "Hi",
        }
        for name in names
    ]
    (await client.post("/chats", json=rows)).raise_for_status()
    accepted = (await client.post("/jobs/summarize", json={"conversation_ids": names})).raise_for_status()
    providers.grok.hold()
    with made.worker() as first:
        async with asyncio.timeout(30):
            while not providers.grok.requests:  # noqa: ASYNC110 — that is all it tells
                await asyncio.sleep(0.05)
        first.kill()
    began = time.monotonic()
    providers.grok.gate.set()
    requests, job = 2, accepted.json()
    with made.worker():
        while job["status"] in ("queued", "running") and time.monotonic() < began + 60:
            await asyncio.sleep(0.25)
            job = (await client.get(accepted.headers["location"])).raise_for_status().json()
            requests += 1
    summaries = [await client.get(f"/chats/{name}/summary") for name in names]
    stored = sum(each.status_code == 200 for each in summaries)
    doubled, lost = max(0, job["done"] - job["total"]), ITEMS - stored
    figures = {
        "requests": str(requests + len(names)),
        "acknowledged": f"{ITEMS} conversations of a job",
        "stored": f"{stored} summaries",
        "doubled": str(doubled),
        "lost": str(lost),
        "answers": f"{len(providers.grok.requests)} calls of a model",
        "back s": f"{time.monotonic() - began:.1f}",
    }
    wrong = {
        "a result was lost": lost,
        "a result was doubled": doubled,
        "the job did not end well": (job["status"], job["done"], job["failed"]) != ("completed", ITEMS, 0),
    }
    return Finding("kill worker", figures, [name for name, found in wrong.items() if found])


async def migrations(running: Node) -> Finding:
    """Two migrations of an empty database at once; and one that is killed in the middle, and run again."""
    with psycopg.connect(running.url(), autocommit=True) as connection:
        for name in ("twice", "cut"):
            connection.execute(f"CREATE DATABASE {name}".encode())
    both = await asyncio.gather(*(alembic(running.url("twice")) for _ in range(2)))
    codes = await asyncio.gather(*(each.wait() for each in both))
    kills = 0
    with psycopg.connect(running.url("cut"), autocommit=True) as connection:
        for least in (1, 3, 6):
            process = await alembic(running.url("cut"))
            query = "SELECT version_num FROM alembic_version"
            while process.returncode is None:
                with suppress(psycopg.Error):
                    row = connection.execute(query).fetchone()
                    if row and int(row[0]) >= least:
                        process.send_signal(signal.SIGKILL)
                        kills += 1
                        break
                await asyncio.sleep(0.005)
            await process.wait()
    codes.append(await (await alembic(running.url("cut"))).wait())
    dumps = [_schema(running, name) for name in ("twice", "cut")]
    wrong = {
        "a migration failed": any(codes),
        "the schemas differ": dumps[0] != dumps[1],
        "no migration was killed in the middle": not kills,
    }
    figures = {
        "requests": f"{2 + kills + 1} migrations",
        "answers": f"2 at once, then {kills} killed: exit codes {' '.join(map(str, codes))}",
    }
    return Finding("two migrations", figures, [name for name, found in wrong.items() if found])


def _schema(running: Node, database: str) -> str:
    dump = running.run("pg_dump", "--schema-only", "--restrict-key=x", running.url(database))
    return "\n".join(line for line in dump.splitlines() if not line.startswith("--"))


async def rolling(folder: Path, running: Node, seconds: float) -> Finding:
    """Two processes of the API behind nginx, on PgBouncer in transaction mode, restarted in turn, twice."""
    with ExitStack() as stack:
        try:
            pooler, _ = stack.enter_context(pgbouncer(f"postgresql:///?host={running.folder}", folder, running.port))
            with psycopg.connect(running.url(), autocommit=True) as connection:
                connection.execute("CREATE DATABASE rolling")
                made = await asyncio.to_thread(service, running.url("rolling"), f"{pooler}/rolling", folder)
                connection.execute(f"ALTER ROLE {APP_ROLE} LOGIN".encode())
            delayed = {"SHUTDOWN_DELAY_S": str(max(5.0, seconds)), "TRUSTED_PROXIES": "127.0.0.1"}
            instances = [stack.enter_context(made.instance(**delayed)) for _ in range(2)]
            url = stack.enter_context(nginx([each.port for each in instances], folder))
        except Failed as failure:
            return Finding("rolling restart", not_run=str(failure))
        load = Load(url, made.key, "rolling-restart")
        restarts = 0
        async with load.running():
            await asyncio.sleep(BEFORE_S)
            for _ in range(2):
                for instance in instances:
                    await asyncio.to_thread(instance.stop)
                    await asyncio.to_thread(instance.start)
                    restarts += 1
                    await asyncio.sleep(AFTER_S)
        finding = await judged(load, f"rolling restart ×{restarts}", None, alive=False, flawless=True)
        await asyncio.to_thread(stack.close)
        return finding
