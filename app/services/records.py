"""From a stream's bytes to messages, a bounded part at a time.

Both readers take chunks of any size and give, for each row, a message or a rejection, with the line it begins on.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from pydantic import ValidationError

from app.errors import FieldError, Invalid, Problem
from app.schemas.chats import MessageIn, Rejection
from app.schemas.problems import field_errors
from app.services.structure import check_json

JSON_ROW_BYTES = 6 * 2**20 + 2**16
"""The longest line of NDJSON: 1 MiB of text, every byte escaped, and its ids."""

CSV_ROW_BYTES = 2 * 2**20 + 2**16
"""The longest row of CSV: 1 MiB of text, every byte a doubled quote, and its ids."""

REREAD_BYTES = 8 * 2**20
"""How much more than the stream itself may be read again after unbalanced quotes."""

BOM = b"\xef\xbb\xbf"
FIELDS = MessageIn.model_fields
REQUIRED = frozenset(name for name, field in FIELDS.items() if field.is_required())

csv.field_size_limit(CSV_ROW_BYTES)


class Row(NamedTuple):
    """A row of a stream: the line it begins on, and what it is."""

    line: int
    content: MessageIn | Rejection


class Reader(Protocol):
    """Turns a stream's bytes into rows."""

    def feed(self, data: bytes, *, end: bool = False) -> Iterator[Row]:
        """Takes more bytes, the last ones with ``end``, and gives the rows that are complete by now."""
        ...


class _Lines:
    """The lines that were fed and not used yet; None stands for one that is too long to keep."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._tail = b""
        self._skipping = False
        self._first = True
        self.lines: list[bytes | None] = []
        self.number = 1
        self.size = 0

    def feed(self, data: bytes, *, end: bool) -> None:
        """Adds the lines that are complete."""
        if self._skipping:
            _, newline, data = data.partition(b"\n")
            self._skipping = not newline
        *whole, self._tail = (self._tail + data).split(b"\n")
        self.lines.extend(line + b"\n" for line in whole)
        if whole and self._first:
            self._first = False
            self.lines[0] = (whole[0] + b"\n").removeprefix(BOM)
        self.size += sum(map(len, whole)) + len(whole)
        if len(self._tail) > self._longest:
            self.lines.append(None)
            self._tail, self._skipping = b"", True
        if end and self._tail:
            self.lines.append(self._tail.removeprefix(BOM) if self._first else self._tail)
            self.size += len(self._tail)
            self._tail = b""

    def drop(self, count: int) -> None:
        """Forgets the first lines."""
        self.size -= sum(len(line or b"") for line in self.lines[:count])
        del self.lines[:count]
        self.number += count


class JsonLines:
    """Newline-delimited JSON: one message a line; blank lines are no rows."""

    def __init__(self) -> None:
        self._lines = _Lines(JSON_ROW_BYTES)

    def feed(self, data: bytes, *, end: bool = False) -> Iterator[Row]:
        """Takes more bytes and gives the rows that are complete."""
        self._lines.feed(data, end=end)
        for place, line in enumerate(self._lines.lines, self._lines.number):
            if line is None:
                yield _rejected(place, "too_large", "The line is too long.")
            elif line.strip():
                try:
                    check_json(line, messages=1)
                    yield Row(place, MessageIn.model_validate_json(line))
                except Problem as problem:
                    yield _rejected(place, "too_large", problem.detail)
                except ValidationError as error:
                    yield _invalid(place, error)
        self._lines.drop(len(self._lines.lines))


class CsvRows:
    """CSV with a header row (RFC 4180), separated by comma, semicolon or tab.

    A quote that is not balanced costs its own line and no other: the row is rejected where it begins, and reading goes
    on with the next line. ``columns`` maps the file's column names to the message's; with ``ignore_unknown`` columns
    that name no field are left out, otherwise they are refused.
    """

    def __init__(self, columns: Mapping[str, str] | None = None, *, ignore_unknown: bool = False) -> None:
        self._columns = columns or {}
        self._ignore_unknown = ignore_unknown
        self._lines = _Lines(CSV_ROW_BYTES)
        self._names: list[str] | None = None
        self._delimiter = ","
        self._retry_at = 0
        self._fed = 0
        self._reread = 0

    def feed(self, data: bytes, *, end: bool = False) -> Iterator[Row]:
        """Takes more bytes and gives the rows that are complete.

        Raises:
            Invalid: if the header is missing or does not name the message's fields.
        """
        self._fed += len(data)
        self._lines.feed(data, end=end)
        if self._names is None:
            if not self._lines.lines and not end:
                return
            self._names = self._read_header(self._lines.lines[0] if self._lines.lines else b"")
            self._lines.drop(1)
        if end or self._lines.size >= self._retry_at:
            yield from self._rows(self._names, end=end)

    def _rows(self, names: list[str], *, end: bool) -> Iterator[Row]:
        lines, source = self._lines, _Cursor(self._lines.lines)
        reader = csv.reader(source, delimiter=self._delimiter, strict=True)
        done = self._retry_at = 0
        while done < len(lines.lines):
            number = lines.number + done
            try:
                if self._reread > REREAD_BYTES + self._fed:
                    raise csv.Error("too much was read twice")
                cells = next(reader)
            except csv.Error:
                size = sum(len(line or b"") for line in lines.lines[done : source.place])
                if source.exhausted and not end and size <= CSV_ROW_BYTES:
                    # The row goes on in bytes that have not come; looking again at twice the size keeps this linear.
                    self._retry_at = min(2 * size, CSV_ROW_BYTES + 1)
                    break
                self._reread += size
                yield _rejected(number, "malformed_csv", "A quote is not balanced, or the row is too long.")
                done = source.place = done + 1
                continue
            done = source.place
            if cells:
                yield self._row(number, names, cells)
        lines.drop(done)

    def _row(self, number: int, names: list[str], cells: list[str]) -> Row:
        if len(cells) != len(names):
            return _rejected(number, "column_count", f"The row has {len(cells)} columns, the header {len(names)}.")
        fields = {name: cell for name, cell in zip(names, cells, strict=True) if name in FIELDS}
        try:
            return Row(number, MessageIn.model_validate({n: c for n, c in fields.items() if c or n in REQUIRED}))
        except ValidationError as error:
            return _invalid(number, error)

    def _read_header(self, line: bytes | None) -> list[str]:
        text = (line or b"").decode(errors="replace").strip("\r\n")
        names: list[str] = []
        for delimiter in ",;\t":
            found = [self._columns.get(name.strip(), name.strip()) for name in _cells(text, delimiter)]
            if len(found) > len(names):
                self._delimiter, names = delimiter, found
        missing = sorted(REQUIRED - set(names))
        if missing:
            raise _bad_header("missing_column", f"The header row does not name {', '.join(missing)}.")
        known = [name for name in names if name in FIELDS]
        if len(known) < len(names) and not self._ignore_unknown:
            raise _bad_header("unknown_column", f"The header row may only name {', '.join(FIELDS)}.")
        if len(set(known)) < len(known):
            raise _bad_header("duplicate_column", "The header row names a column twice.")
        return names


class _Cursor:
    """Gives lines to ``csv.reader`` and knows how far it has come."""

    def __init__(self, lines: list[bytes | None]) -> None:
        self._lines = lines
        self.place = 0
        self.exhausted = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.exhausted = self.place >= len(self._lines)
        if self.exhausted:
            raise StopIteration
        line = self._lines[self.place]
        self.place += 1
        if line is None:
            raise csv.Error("too long")
        # What is not UTF-8 becomes lone surrogates, which no field of a message accepts.
        return line.decode(errors="surrogateescape")


def _cells(text: str, delimiter: str) -> Iterable[str]:
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []


def _bad_header(code: str, detail: str) -> Invalid:
    return Invalid(detail, (FieldError("line 1", code, detail),))


def _rejected(line: int, code: str, detail: str) -> Row:
    return Row(line, Rejection(line=line, code=code, detail=detail))


def _invalid(line: int, error: ValidationError) -> Row:
    pointer, code, detail = field_errors(error.errors(include_input=False, include_url=False))[0]
    return _rejected(line, code, f"{pointer.lstrip('/')}: {detail}" if pointer else detail)
