"""A CSV on its way to the API: as it is, or with its columns matched, line by line."""

import io

import pytest

from app.client import Client
from app.schemas.enums import Role
from app.ui.csv_file import BLOCK_BYTES, blocks, read_header
from tests.support.api import Workspace

FITTING = b"conversation_id,user_id,user_type,message_content\nc1,ana,customer,Hello\n"
COLUMNS = {"thread": "conversation_id", "who": "user_id", "side": "user_type", "what": "message_content"}


def sent(content: bytes, columns: dict[str, str] | None = None) -> tuple[bytes, list[float]]:
    told: list[float] = []
    file = io.BytesIO(content)
    header = read_header(file)
    return b"".join(blocks(file, header, columns or {}, told.append)), told


def test_a_file_that_fits_goes_as_it_is_in_blocks() -> None:
    content = b"\xef\xbb\xbf" + FITTING + b"c1,ana,customer,Hi\n" * 40_000
    body, told = sent(content)
    assert body == content
    assert len(told) == -(-len(content) // BLOCK_BYTES)
    assert told == sorted(told)
    assert told[-1] == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"\n1,2\n", "empty"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b'"a,b\n', "quote"),
        (b"a,,b\n", "without a name"),
        (b"a,b,a\n", "two with the same"),
    ],
)
def test_what_is_no_csv_is_said_before_anything_is_sent(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_header(io.BytesIO(content))


def test_columns_are_guessed() -> None:
    header = read_header(io.BytesIO(b"Ticket ID;Sender;Role;Text;Created At;note\n"))
    assert header.delimiter == ";"
    guessed = [header.guess(field) for field in ("conversation_id", "user_id", "user_type", "message_content")]
    assert guessed == [None if name == "" else name for name in ("Ticket ID", "Sender", "Role", "Text")]
    assert header.guess("timestamp") == "Created At"


async def test_lines_of_matched_columns_stay_those_of_the_file(url: str, workspace: Workspace) -> None:
    rows = [
        "thread;what;who;note;side",
        't1;"first, and',
        'second ""line""";ana;"a note',
        "of three",
        'lines";customer',
        "t1;hello;bob;;robot",
        "",
        "t1;too few",
        "t1;hello;bob;;support_agent;too many",
        "t1;bye;bob;;support_agent",
    ]
    file = io.BytesIO("\r\n".join(rows).encode())
    told: list[float] = []
    client = Client(url, {"Authorization": f"Bearer {workspace.keys[Role.EDITOR]}"})
    report = client.import_csv(blocks(file, read_header(file), COLUMNS, told.append))
    assert (report.stored, report.duplicates, report.rejected) == (2, 0, 3)
    assert [(error.line, error.code) for error in report.errors] == [
        (6, "enum"),
        (8, "column_count"),
        (9, "column_count"),
    ]
    found = client.conversation("t1")["messages"]
    assert [each["message_content"] for each in found] == ['first, and\r\nsecond "line"', "bye"]
    assert not file.closed


def test_a_quote_that_is_not_balanced_is_named() -> None:
    with pytest.raises(ValueError, match="quote is not balanced"):
        sent(b'thread,who,side,what\nt1,ana,customer,"Hello\nt1,ana,customer,Hi\n', COLUMNS)
