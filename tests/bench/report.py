"""The figures as tables, Markdown and JSON."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from tests.bench.measure import Sample

MB = 2**20


@dataclass(frozen=True)
class Row:
    """An operation at some connections, on some amount of data: a sample of each round."""

    messages: int
    operation: str
    connections: int
    service: list[Sample]
    yardstick: list[Sample]


@dataclass(frozen=True)
class Bulk:
    """A stream, or COPY: a sample of each round."""

    messages: int
    operation: str
    samples: list[Sample]


@dataclass
class Findings:
    """All that was measured."""

    about: dict[str, object]
    rows: list[Row]
    bulks: list[Bulk]
    process: list[dict[str, object]]
    failures: list[str]


@dataclass(frozen=True)
class Grid:
    """A table, for the screen and for Markdown."""

    title: str
    columns: Sequence[str]
    cells: list[Sequence[str]]

    def rich(self) -> Table:
        """Returns it for the screen."""
        table = Table(title=self.title, title_justify="left")
        for place, column in enumerate(self.columns):
            table.add_column(column, justify="right" if place else "left")
        for row in self.cells:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Returns it for a file."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.cells]
        return f"### {self.title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def middle(samples: Sequence[Sample]) -> Sample:
    """Returns the median of each figure."""
    names = [each.name for each in dataclasses.fields(Sample)]
    return Sample(**{name: median(getattr(sample, name) for sample in samples) for name in names})


def total(sample: Sample) -> float:
    """Returns the CPU time of server and PostgreSQL, as far as it is known."""
    return sample.server_us + (0.0 if math.isnan(sample.database_us) else sample.database_us)


def grids(found: Findings) -> list[Grid]:
    """Returns the tables: one for each amount of data, streams, growth, processes."""
    sizes = sorted({*(row.messages for row in found.rows), *(bulk.messages for bulk in found.bulks)})
    tables = [table for size in sizes for table in (_operations(found, size), _bulk(found, size)) if table.cells]
    if len(sizes) > 1:
        tables.append(_growth(found, sizes))
    cells = [list(map(str, each.values())) for each in found.process]
    return [*tables, Grid("The service's processes", list(found.process[0]), list(cells))] if cells else tables


def _operations(found: Findings, size: int) -> Grid:
    cells: list[Sequence[str]] = []
    for row in found.rows:
        if row.messages == size:
            ours, bare = middle(row.service), middle(row.yardstick)
            cells.append(
                (
                    *(row.operation, str(row.connections)),
                    *(_us(ours.server_us), _us(ours.database_us), _us(bare.server_us), _us(bare.database_us)),
                    _ratio(total(ours), total(bare)),
                    *(_rate(ours.per_second), _rate(bare.per_second)),
                    *(f"{ours.p50_ms:.1f}", f"{ours.p99_ms:.1f}", _ratio(ours.p99_ms, ours.p50_ms, 1)),
                    _us(max(ours.client_us, bare.client_us)),
                )
            )
    columns = ("operation", "conn.", "server µs", "PG µs", "bare µs", "bare PG µs", "ratio", "req/s", "bare req/s")
    return Grid(f"{size:,} messages", (*columns, "p50 ms", "p99 ms", "p99/p50", "client µs"), cells)


def _bulk(found: Findings, size: int) -> Grid:
    bulks = {bulk.operation: middle(bulk.samples) for bulk in found.bulks if bulk.messages == size}
    cells: list[Sequence[str]] = []
    for name, sample in bulks.items():
        copied = bulks.get(
            "load copy" if name.startswith("load") else "copy", Sample(math.nan, math.nan, math.nan, math.nan)
        )
        cells.append(
            (
                *(name, f"{sample.server_us:.1f}", f"{sample.database_us:.1f}", _rate(sample.per_second)),
                *(_ratio(sample.per_second, copied.per_second), _ratio(total(sample), total(copied))),
                f"{sample.rss / MB:.0f}" if sample.rss else "",
            )
        )
    columns = ("streams", "server µs/row", "PG µs/row", "rows/s", "rate to COPY", "CPU to COPY", "peak RSS MB")
    return Grid(f"{size:,} messages, streams", columns, cells)


def _growth(found: Findings, sizes: Sequence[int]) -> Grid:
    sums = {
        (row.operation, row.connections, row.messages): (total(middle(row.service)), total(middle(row.yardstick)))
        for row in found.rows
    }
    cells: list[Sequence[str]] = []
    for operation, connections in dict.fromkeys((row.operation, row.connections) for row in found.rows):
        own = [sums.get((operation, connections, size), (math.nan, math.nan)) for size in sizes]
        grown = [_ratio(own[-1][side], own[0][side]) for side in (0, 1)]
        cells.append((operation, str(connections), *(_us(ours) for ours, _ in own), *grown))
    columns = ("CPU µs of a request", "conn.", *(f"{size:,}" for size in sizes), "growth", "bare growth")
    return Grid("Growth", columns, cells)


def _us(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.0f}"


def _ratio(value: float, base: float, digits: int = 2) -> str:
    """Returns a ratio, if there is one: CPU time is counted in steps of 10 ms."""
    return "-" if math.isnan(value) or math.isnan(base) or not base else f"{value / base:.{digits}f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def as_json(found: Findings) -> dict[str, object]:
    """Returns every sample."""
    return dataclasses.asdict(found)
