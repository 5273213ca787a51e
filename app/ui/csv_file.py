"""A CSV as it is sent: its header matched to a message's fields, its rows a block at a time."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

BLOCK_BYTES = 256 * 1024
HEADER_BYTES = 64 * 1024
ROW_BYTES = 4 * 2**20
BOM = b"\xef\xbb\xbf"
FIELDS = {
    "conversation_id": "Which conversation: made on first sight.",
    "user_id": "Who sent it.",
    "user_type": "customer or support_agent",
    "message_content": "What was written.",
    "message_id": "If you have one: it makes importing again safe.",
    "timestamp": "If you have one: 2026-11-22T10:00:00Z",
}
REQUIRED = ("conversation_id", "user_id", "user_type", "message_content")
KNOWN_AS = {
    "conversation_id": ("conversation", "chat_id", "dialogue_id", "ticket_id", "thread_id", "session_id"),
    "user_id": ("user", "sender", "author", "sender_id", "author_id", "from"),
    "user_type": ("role", "sender_type", "speaker", "type", "side", "author_type"),
    "message_content": ("text", "message", "content", "body", "utterance"),
    "message_id": ("id", "msg_id"),
    "timestamp": ("time", "created_at", "sent_at", "date", "datetime"),
}


@dataclass(frozen=True)
class Header:
    """The columns of a file; ``fits`` when the API takes them as they are."""

    names: tuple[str, ...]
    delimiter: str

    @property
    def fits(self) -> bool:
        """Says whether every column is a field, once, and the required ones are there."""
        return set(REQUIRED) <= set(self.names) <= set(FIELDS) and len(set(self.names)) == len(self.names)

    def guess(self, field: str) -> str | None:
        """Returns the column that a field probably is."""
        plain = {name.lower().replace(" ", "_"): name for name in reversed(self.names)}
        return next((plain[name] for name in (field, *KNOWN_AS[field]) if name in plain), None)


def read_header(file: BinaryIO) -> Header:
    """Returns the header of a file; raises ``ValueError`` with what is wrong with it."""
    file.seek(0)
    line = file.readline(HEADER_BYTES).removeprefix(BOM)
    try:
        text = line.decode().strip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("It is not UTF-8. Save it as CSV UTF-8.") from None
    if not text.strip():
        raise ValueError("It is empty, or its first line is.")
    found: list[tuple[int, Header]] = []
    for delimiter in ",;\t":
        try:
            names = tuple(name.strip() for name in next(csv.reader([text], delimiter=delimiter, strict=True)))
        except csv.Error:
            continue
        found.append((len(names), Header(names, delimiter)))
    if not found:
        raise ValueError("Its first line is no header row: a quote is not balanced.")
    header = max(found, key=lambda each: each[0])[1]
    if not all(header.names) or len(set(header.names)) < len(header.names):
        raise ValueError("Its header row has a column without a name, or two with the same.")
    return header


def blocks(
    file: BinaryIO, header: Header, columns: Mapping[str, str], tell: Callable[[float], None]
) -> Iterator[bytes]:
    """Gives a file's bytes to send, and tells how much of it was sent, from 0 to 1.

    A header that fits goes as it is. Otherwise rows are written anew with the columns that are used, and keep their
    lines: what the API says of a line holds for the file.
    """
    size = file.seek(0, io.SEEK_END) or 1
    file.seek(0)
    if header.fits:
        while block := file.read(BLOCK_BYTES):
            yield block
            tell(file.tell() / size)
        return
    csv.field_size_limit(ROW_BYTES)
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="\n")
    reader = csv.reader(text, delimiter=header.delimiter, strict=True)
    try:
        for rows in _rewritten(reader, header, columns):
            yield rows.encode("utf-8", "surrogateescape")
            tell(file.tell() / size)
    except csv.Error:
        raise ValueError(f"Line {reader.line_num}: a quote is not balanced, or the row is too long.") from None
    finally:
        text.detach()  # the file outlives this


def _rewritten(reader: Any, header: Header, columns: Mapping[str, str]) -> Iterator[str]:
    places = [place for place, name in enumerate(header.names) if name in columns]
    out, line = io.StringIO(newline=""), 1
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([columns[header.names[place]] for place in places])
    next(reader, None)
    for row in reader:
        cells = [row[place] for place in places] if len(row) == len(header.names) else _misfit(len(row), len(places))
        if row:
            writer.writerow(cells)
            line += 1 + sum(cell.count("\n") for cell in cells)
        # Lines that went with a column that is left out; the API takes an empty line for no row.
        out.write("\n" * (reader.line_num - line))
        line = max(line, reader.line_num)
        if out.tell() >= BLOCK_BYTES:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


def _misfit(found: int, wanted: int) -> list[str]:
    """Returns a row that the API rejects for its number of columns, as the row of the file would be."""
    return [""] * (found if found != wanted else found + 1)
