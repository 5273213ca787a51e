"""A run on one amount of data: prepare, start, load, measure."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psycopg
from rich.progress import Progress

from app.repositories.sessions import APP_ROLE
from tests.bench import cpu, servers
from tests.bench.data import Data, Message, Words, choose_words, generate, read, write
from tests.bench.load import Failed
from tests.bench.measure import Bench, Sample
from tests.bench.operations import COPY, STREAMS, Operation, check, operations, prepare_copy, take_over
from tests.bench.report import MB, Bulk, Findings, Row
from tests.bench.yardstick import WORKSPACE

STREAM_ROWS = 20_000
"""How many rows a stream has."""


@dataclass
class Run:
    """A run; what it finds is added to ``found``."""

    found: Findings
    progress: Progress
    folder: Path
    connections: list[int]
    rounds: int
    only: tuple[str, ...]
    data: Data = field(init=False)
    fresh: Data = field(init=False)
    bench: Bench = field(init=False)
    operations: list[Operation] = field(init=False)

    def prepare(self, size: int, csv: Path | None) -> None:
        """Writes the messages into files."""
        task = self.progress.add_task("Writing messages", total=size or None)

        def counted(messages: Iterable[Message]) -> Iterator[Message]:
            for message in messages:
                self.progress.advance(task)
                yield message

        def source(count: int, prefix: str) -> Iterator[Message]:
            return read(csv, count, prefix) if csv else generate(count, prefix, seed=len(prefix))

        @cache
        def fresh() -> list[Message]:
            return list(source(STREAM_ROWS, "new-"))

        self.data = write(counted(read(csv) if csv else source(size, "c-")), self.folder / "data", WORKSPACE)
        if not self.data.messages:
            raise Failed(f"{csv} has no messages.")
        self.progress.update(task, total=self.data.messages)
        self.fresh = write(source(STREAM_ROWS, "new-"), self.folder / "fresh", WORKSPACE)
        words = choose_words(read(csv)) if csv else Words()
        every = operations(self.data, words, fresh)
        self.operations = [each for each in every if each.name.startswith(self.only)]

    def start(self, stack: ExitStack, url: str | None, workers: int, seconds: int, *, pgbouncer: bool) -> None:
        """Starts PostgreSQL, with a database for each, and both servers."""
        server = stack.enter_context(servers.postgres(url, self.folder))
        if url is None:
            # Dead rows of one measurement would be vacuumed in another; they are between operations.
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET autovacuum = off")
                connection.execute("SELECT pg_reload_conf()")
        pooler, *pids = stack.enter_context(servers.pgbouncer(server, self.folder)) if pgbouncer else ("",)
        sides = []
        for make in (servers.service, servers.yardstick):
            direct = stack.enter_context(servers.database(server, make.__name__))
            through = pooler + servers.path_of(direct) if pooler else direct
            if pooler:
                with psycopg.connect(server, autocommit=True) as connection:
                    connection.execute(f"ALTER ROLE {APP_ROLE} LOGIN".encode())
            try:
                sides.append(stack.enter_context(make(direct, through, self.folder, workers)))
            except Failed as error:
                raise Failed(f"Through PgBouncer in transaction mode: {error}" if pooler else str(error)) from None
        postmaster = servers.postmaster(sides[0].database)
        self.bench = Bench(sides[0], sides[1], [postmaster, *pids] if postmaster else [], self.folder, seconds, workers)

    def load(self) -> None:
        """Stores the messages on both sides: the largest stream there is."""
        bench, data = self.bench, self.data
        task = self.progress.add_task("Loading the service", total=len(data.conversations))

        def look() -> None:
            row = bench.service.database.execute("SELECT count(*) FROM conversations").fetchone()
            self.progress.update(task, completed=row[0] if row else 0)

        loaded = bench.stream("stream ndjson", data.folder, data.messages, look)
        self.progress.update(task, completed=len(data.conversations), description="Loading the yardstick")
        prepare_copy(bench.yardstick)
        copied = bench.copy(data.folder, data.messages)
        take_over(bench.yardstick)
        self.found.bulks += [Bulk(data.messages, "load ndjson", [loaded]), Bulk(data.messages, "load copy", [copied])]
        for side in bench.sides:
            bench.clean(side)

    def measure(self) -> None:
        """Measures every operation, both sides in turn."""
        streams = {name: self._streaming(name) for name in (*STREAMS, COPY)}
        wanted = {each.name for each in self.operations} & streams.keys()
        runs = [each for each in self.operations if each.name not in streams and self._possible(each)]
        total = len(runs) * len(self.connections) * self.rounds * 2 + (len(streams) * self.rounds if wanted else 0)
        task = self.progress.add_task("", total=total)
        for operation in runs:
            self._measure(operation, lambda text: self.progress.update(task, advance=1, description=text))
        if wanted:
            self._stream(streams, lambda text: self.progress.update(task, advance=1, description=text))
        self._look_at_processes()

    def _possible(self, operation: Operation) -> bool:
        """Says whether there is something to send to both: a history need not give cursors, nor a file a batch."""
        with self._told(operation.name):
            if operation.doomed or all(operation.lines(side.get) for side in self.bench.sides):
                return True
            self.progress.console.print(f"{operation.name} is left out: the data has nothing to send for it.")
        return False

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Keeps a failure, so that the others' figures are not lost with it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            said = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            self.found.failures.append(f"{self.data.messages:,} messages, {what}: {said}")

    def _measure(self, operation: Operation, tell: Callable[[str], None]) -> None:
        bench, rows = self.bench, list[Row]()
        with self._told(operation.name):
            if operation.method == "GET":
                check(operation, bench.sides)
            for side in bench.sides:
                bench.warm(side, operation)
            rows = [Row(self.data.messages, operation.name, each, [], []) for each in self.connections]
        for row in rows:
            name = f"{operation.name}, {row.connections} connections"
            with self._told(name):
                for _ in range(self.rounds):
                    for side, samples in zip(bench.sides, (row.service, row.yardstick), strict=True):
                        tell(name)
                        samples.append(bench.measure(side, operation, row.connections))
                self.found.rows.append(row)
            self._clean(operation)
        if not rows:
            self._clean(operation)

    def _clean(self, operation: Operation) -> None:
        if operation.method != "GET":
            with self._told(f"{operation.name}, afterwards"):
                for side in self.bench.sides:
                    self.bench.clean(side)

    def _stream(self, streams: dict[str, Callable[[], Sample]], tell: Callable[[str], None]) -> None:
        bulks = {name: Bulk(self.data.messages, name, []) for name in streams}
        for _ in range(self.rounds):
            for name, stream in streams.items():
                tell(name)
                with self._told(name):
                    bulks[name].samples.append(stream())
        self.found.bulks += (each for each in bulks.values() if each.samples)

    def _streaming(self, name: str) -> Callable[[], Sample]:
        def run() -> Sample:
            rows, folder = self.fresh.messages, self.fresh.folder
            try:
                return self.bench.copy(folder, rows) if name == COPY else self.bench.stream(name, folder, rows)
            finally:
                self.bench.clean(self.bench.yardstick if name == COPY else self.bench.service)

        return run

    def _look_at_processes(self) -> None:
        for side in self.bench.sides:
            memory = cpu.largest(cpu.tree(side.process.pid))
            self.found.process.append(
                {
                    "process": side.name,
                    "messages": self.data.messages,
                    "RSS MB": round(memory.rss / MB),
                    "PSS MB": round(memory.pss / MB) if memory.pss else None,
                    "start s": round(side.start_s, 2),
                }
            )
