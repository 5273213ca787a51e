"""Measurements of both servers in turn, and what they leave behind taken away."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.bench import cpu
from tests.bench.load import Failed, curl, wrk
from tests.bench.operations import STREAMS, Operation, copy, doom, existing
from tests.bench.servers import Side

WARM = 50, 3
"""How many requests come before those that count, of few messages and of many."""
CONNECTIONS_OF_WORKER = 8
AFTERMATH_S = 0.1
"""What a request leaves to do afterwards, notices say, counts too."""


class Cpu(NamedTuple):
    """CPU time so far, in microseconds; that of PostgreSQL is NaN where it runs on another machine."""

    server: float
    database: float


@dataclass(frozen=True)
class Sample:
    """A measurement: CPU microseconds of a request, or of a row of a stream, and what the client saw."""

    server_us: float
    database_us: float
    client_us: float
    per_second: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    rss: int = 0


@dataclass
class Bench:
    """Both servers under load; ``database`` are the processes of PostgreSQL that started all others, and PgBouncer."""

    service: Side
    yardstick: Side
    database: Sequence[int]
    folder: Path
    seconds: int
    workers: int
    _rates: dict[tuple[str, str], float] = field(default_factory=dict)
    _runs: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    @property
    def sides(self) -> list[Side]:
        """Both, the service first."""
        return [self.service, self.yardstick]

    def warm(self, side: Side, operation: Operation) -> None:
        """Sends an operation's first requests to a side, on so many connections that each of its processes has some."""
        self.measure(side, operation, 1 if self.workers == 1 else CONNECTIONS_OF_WORKER * self.workers)

    def measure(self, side: Side, operation: Operation, connections: int) -> Sample:
        """Sends an operation's requests to a side: as many as take ``seconds`` at the rate of the last time.

        Their number is fixed, so that the CPU time is that of the requests that were counted.
        """
        run, rate = f"{next(self._runs)}", self._rates.get((side.name, operation.name))
        count = round(rate * self.seconds) if rate else WARM[operation.batch + operation.doomed > 100] * self.workers
        count = max(count, connections)
        lines = doom(side, operation, count, run) if operation.doomed else operation.lines(side.get)
        lines = [line.replace("new-RUN-", f"new-{run}-") for line in lines]
        before_them = existing(run) if operation.batch == 1 else []
        if before_them:
            side.store(before_them)
        side.database.execute("CHECKPOINT")
        before = self._cpu(side)
        result = wrk(side.url, side.key, operation.method, lines, self.folder, connections, count)
        time.sleep(AFTERMATH_S)
        after = self._cpu(side)
        self._check(side, operation, len(before_them) + count * operation.batch, run)
        self._rates[side.name, operation.name] = count / result.seconds
        return Sample(
            (after.server - before.server) / count,
            (after.database - before.database) / count,
            result.client_us / count,
            count / result.seconds,
            result.p50_ms,
            result.p99_ms,
        )

    def stream(self, name: str, data: Path, rows: int, watch: Callable[[], None] = lambda: None) -> Sample:
        """Streams a file to the service."""
        side, (media, file) = self.service, STREAMS[name]
        largest = 0

        def look() -> None:
            nonlocal largest
            largest = max(largest, cpu.rss(side.process.pid))
            watch()

        side.database.execute("CHECKPOINT")
        before = self._cpu(side)
        seconds, answer = curl(side.url, side.key, media, data / file, look)
        time.sleep(AFTERMATH_S)
        after = self._cpu(side)
        if answer["stored"] != rows:
            raise Failed(f"{answer} instead of {rows}")
        used = (after.server - before.server) / rows, (after.database - before.database) / rows
        return Sample(*used, 0.0, rows / seconds, rss=largest)

    def copy(self, data: Path, rows: int) -> Sample:
        """Fills copies of the tables through COPY."""
        side = self.yardstick
        side.database.execute("CHECKPOINT")
        before, began = self._cpu(side), time.perf_counter()
        copy(side, data)
        seconds, after = time.perf_counter() - began, self._cpu(side)
        return Sample(0.0, (after.database - before.database) / rows, 0.0, rows / seconds)

    def clean(self, side: Side) -> None:
        """Takes away what was stored, and leaves nothing for a vacuum in the middle of the next measurement."""
        for table in ["conversations", "copy.conversations"] if side is self.yardstick else ["conversations"]:
            side.database.execute(
                f"DELETE FROM {table} WHERE workspace_id = %s"
                " AND (conversation_id LIKE 'new-%%' OR conversation_id LIKE 'del-%%')".encode(),
                [side.workspace_id],
            )
        side.database.execute("VACUUM (ANALYZE)")

    def _cpu(self, side: Side) -> Cpu:
        database = sum(map(cpu.tree_us, self.database)) if self.database else float("nan")
        return Cpu(cpu.tree_us(side.process.pid), database)

    def _check(self, side: Side, operation: Operation, wanted: int, run: str) -> None:
        """Counts what a measurement stored, or left."""
        if operation.method == "GET":
            return
        row = side.database.execute(
            "SELECT count(*) FROM messages WHERE workspace_id = %s AND (conversation_id LIKE %s OR"
            " conversation_id LIKE %s)",
            [side.workspace_id, f"new-{run}-%", f"del-{run}-%"],
        ).fetchone()
        if row != (wanted,):
            raise Failed(f"the {side.name} has {row} messages instead of {wanted}")
