"""Writers that remember what was acknowledged, and the count of what became of it."""

import asyncio
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import httpx

from app.settings import ROOT

SINGLES, KEYED, BATCHES, STREAMS, READERS = 5, 2, 2, 2, 3
BATCH = 50
STREAM = 1_000
PARTS = 10
PAUSE_S = 0.1
READ_PAUSE_S = 0.02
DRIP_S = 0.03
PATIENCE_S = 30.0
"""How long an answer is waited for; each should have come long before."""
TEXT = "Said: "
JSON = "application/json"
NDJSON = "application/x-ndjson"

Row = dict[str, str]


@dataclass
class Tally:
    """What became of the messages of a load: torn are batches of which a part was stored."""

    acknowledged: int
    stored: int
    doubled: int
    lost: int
    torn: int


@dataclass
class Load:
    """Requests of every kind at once to the service at ``url``, and what was said to each.

    A message's text has its name, so that it is known wherever it turns up.
    """

    url: str
    key: str
    name: str
    statuses: Counter[str] = field(default_factory=Counter)
    longest: tuple[float, str] = (0.0, "")
    unexplained: int = 0
    lives_ms: list[float] = field(default_factory=list)
    _sent: dict[str, str] = field(default_factory=dict)
    _acknowledged: set[str] = field(default_factory=set)
    _known: list[str] = field(default_factory=list)
    _torn: int = 0
    _successes: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _stopping: bool = False

    @property
    def requests(self) -> int:
        """How many there were, those that were sent again included."""
        return self.statuses.total()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends until the end, and then until everything that was begun is acknowledged."""
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=PATIENCE_S,
            limits=httpx.Limits(max_keepalive_connections=None),
        )
        address = urlsplit(self.url)
        probe = [sys.executable, "-m", "tests.faults.probe", address.hostname or "", str(address.port)]
        kinds: list[tuple[int, Callable[[str], Coroutine[None, None, None]]]] = [
            (SINGLES, self._write_singly),
            (KEYED, self._write_by_key),
            (BATCHES, self._write_batches),
            (STREAMS, self._write_streams),
            (READERS, self._read),
        ]
        async with self._client:
            with subprocess.Popen(probe, cwd=ROOT, stdout=subprocess.PIPE, text=True) as probing:  # noqa: ASYNC220
                tasks = [
                    asyncio.create_task(act(f"{self.name}-{act.__name__.rpartition('_')[2]}-{number}"))
                    for count, act in kinds
                    for number in range(count)
                ]
                try:
                    yield
                    self._stopping = True
                    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    probing.kill()
                    assert probing.stdout
                    self.lives_ms = [float(line) for line in probing.stdout if line.endswith("\n")]

    async def recovered(self, since: float, patience_s: float = 25.0) -> float:
        """Waits until every kind of request has succeeded again; returns how long that took since a time."""
        kinds = ("singly", "key", "batches", "streams", "read")
        until = time.monotonic() + patience_s
        while time.monotonic() < until and any(self._successes[kind][-1:] <= [since] for kind in kinds):  # noqa: ASYNC110
            await asyncio.sleep(READ_PAUSE_S)
        return max(self._first_since(kind, since) for kind in kinds) - since

    def _first_since(self, kind: str, since: float) -> float:
        return next((at for at in self._successes[kind] if at > since), float("inf"))

    async def _write_singly(self, name: str) -> None:
        for number in itertools.count():
            if self._stopping:
                return
            row = self._row(f"{name}-{number // 200}", f"{name}-{number}")
            await self._until_acknowledged("singly", [row], lambda row=row: json.dumps(row).encode())  # type: ignore[misc]

    async def _write_by_key(self, name: str) -> None:
        for number in itertools.count():
            if self._stopping:
                return
            row = self._row(f"{name}-{number // 200}", f"{name}-{number}")
            nameless = json.dumps({key: value for key, value in row.items() if key != "message_id"}).encode()
            headers = {"Idempotency-Key": row["message_id"]}
            await self._until_acknowledged("key", [row], lambda body=nameless: body, **headers)  # type: ignore[misc]

    async def _write_batches(self, name: str) -> None:
        for number in itertools.count():
            if self._stopping:
                return
            rows = [self._row(f"{name}-{number // 20}-{each % 4}", f"{name}-{number}-{each}") for each in range(BATCH)]
            await self._until_acknowledged("batches", rows, lambda rows=rows: json.dumps(rows).encode())  # type: ignore[misc]

    async def _write_streams(self, name: str) -> None:
        for number in itertools.count():
            if self._stopping:
                return
            rows = [self._row(f"{name}-{number}-{each % 4}", f"{name}-{number}-{each}") for each in range(STREAM)]
            await self._until_acknowledged("streams", rows, lambda rows=rows: _dripping(rows), media=NDJSON)  # type: ignore[misc]

    async def _read(self, name: str) -> None:
        choose = random.Random(name)
        while not self._stopping:
            await asyncio.sleep(READ_PAUSE_S)
            if self._known:
                one = f"/chats/{quote(choose.choice(self._known), safe='')}?limit=20"
                answer = await self._ask("read", "GET", choose.choice((one, "/chats?limit=10", "/users/ana/chats")))
                await asyncio.sleep(0 if answer else PAUSE_S)

    def _row(self, conversation: str, name: str) -> Row:
        self._sent[said := TEXT + name] = conversation
        return {
            "conversation_id": conversation,
            "message_id": name,
            "user_id": "ana",
            "user_type": "customer",
            "timestamp": "2026-11-22T10:00:00Z",
            "message_content": said,
        }

    async def _until_acknowledged(
        self,
        kind: str,
        rows: list[Row],
        body: Callable[[], bytes | AsyncIterator[bytes]],
        media: str = JSON,
        **headers: str,
    ) -> None:
        while True:
            headers["Content-Type"] = media
            answer = await self._ask(kind, "POST", "/chats", content=body(), headers=headers)
            if answer is not None and answer.is_success:
                said = answer.json()
                if said["stored"] + said["duplicates"] == len(rows):
                    self._acknowledged.update(row["message_content"] for row in rows)
                    self._known.append(rows[0]["conversation_id"])
                    # An attempt before this one left a part of it; of a stream it may.
                    self._torn += kind == "batches" and 0 < said["duplicates"] < len(rows)
                    return
                self.unexplained += 1
            if answer is not None and answer.status_code == 409 and kind == "key":
                return  # what became of the first request is known only when its key is free again
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, kind: str, method: str, path: str, **more: object) -> httpx.Response | None:
        began = time.monotonic()
        answer: httpx.Response | None = None
        try:
            answer = await self._client.request(method, path, **more)  # type: ignore[arg-type]
        except httpx.TimeoutException:
            status = "none"
        except httpx.TransportError:
            status = "cut"
        else:
            status = str(answer.status_code)
            self.unexplained += status == "503" and "retry-after" not in answer.headers
        now = time.monotonic()
        self.statuses[status] += 1
        self.longest = max(self.longest, (now - began, kind))
        if answer is not None and answer.is_success:
            self._successes[kind].append(now)
        return answer

    async def tally(self) -> Tally:
        """Reads every conversation back and counts."""
        found: Counter[str] = Counter()
        strange = 0
        async with httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=PATIENCE_S
        ) as client:
            for conversation in dict.fromkeys(self._sent.values()):
                path, cursor, rows, count = f"/chats/{quote(conversation, safe='')}", "", 0, 0
                while True:
                    answer = await client.get(path, params={"limit": 1_000, **({"cursor": cursor} if cursor else {})})
                    if answer.status_code == 404:
                        break
                    page = answer.raise_for_status().json()
                    count, cursor = page["message_count"], page["next_cursor"]
                    rows += len(page["messages"])
                    for message in page["messages"]:
                        found[message["message_content"]] += self._sent.get(message["message_content"]) == conversation
                    if not cursor:
                        break
                strange += abs(count - rows)
        doubled = sum(count - 1 for count in found.values() if count > 1) + strange
        lost = len(self._acknowledged - found.keys())
        return Tally(len(self._acknowledged), len(found), doubled, lost, self._torn)

    def live_p99_ms(self) -> float:
        """Returns how long ``/livez`` took, but for one in a hundred."""
        return statistics.quantiles(self.lives_ms, n=100)[98] if len(self.lives_ms) > 1 else 0.0


async def _dripping(rows: list[Row]) -> AsyncIterator[bytes]:
    """Yields rows in parts, so that a fault finds some of them stored and some on the way."""
    size = len(rows) // PARTS
    for start in range(0, len(rows), size):
        yield b"".join(json.dumps(row).encode() + b"\n" for row in rows[start : start + size])
        await asyncio.sleep(DRIP_S)
