"""The readers: the same rows however the bytes are cut, bounded whatever they are."""

import csv
import io
import json
from collections.abc import Iterator
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Invalid
from app.schemas.chats import MessageIn, Rejection
from app.services import records
from app.services.records import CSV_ROW_BYTES, JSON_ROW_BYTES, CsvRows, JsonLines, Reader

HEADER = "conversation_id,message_id,user_id,user_type,timestamp,message_content\n"
GOOD = "c,m,u,customer,2026-11-22T10:00:00Z,hi\n"
BLOCK = 2**16


def read(reader: Reader, data: bytes, cuts: list[int] | None = None) -> Iterator[tuple[int, str]]:
    """Yields each row's line with the message's text or the rejection's code."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts or range(0, len(data), BLOCK)), len(data)]
    for start, end in pairwise(edges):
        yield from map(told, reader.feed(data[start:end]))
    yield from map(told, reader.feed(b"", end=True))


def told(row: records.Row) -> tuple[int, str]:
    return row.line, row.content.code if isinstance(row.content, Rejection) else row.content.message_content


def sent(text: str) -> list[tuple[int, str]]:
    return list(read(CsvRows(), (HEADER + text).encode(errors="surrogateescape")))


texts = st.text(st.sampled_from('ab \n\r\t",;é😀\u2028\x0b='), min_size=1, max_size=12)
good_cells = st.tuples(st.just("c"), st.just("m"), st.just("u"), st.just("customer"), st.just(""), texts)
bad_cells = st.sampled_from([["c"], ["c", "m", "u", "robot", "", "x"], ["", "m", "u", "customer", "", "x"], ["c"] * 7])
lines = st.one_of(good_cells.map(list), bad_cells, st.just([]), st.just(['c,m,u,customer,,"x" y']))


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(lines, max_size=12),
    dialect=st.sampled_from([(",", "\n"), (";", "\r\n"), ("\t", "\n"), (",", "\r\n")]),
    bom=st.booleans(),
    quote_all=st.booleans(),
    cuts=st.lists(st.integers(0, 5_000), max_size=20),
    last_newline=st.booleans(),
)
def test_every_row_is_given_once_wherever_the_bytes_are_cut(
    rows: list[list[str]],
    dialect: tuple[str, str],
    bom: bool,
    quote_all: bool,
    cuts: list[int],
    last_newline: bool,
) -> None:
    delimiter, newline = dialect
    file = HEADER.rstrip().replace(",", delimiter) + newline
    expected = []
    for cells in rows:
        line = 1 + file.count("\n")
        if len(cells) == 1 and '"' in cells[0]:
            file += cells[0].replace(",", delimiter) + newline
            expected.append((line, "malformed_csv"))
            continue
        out = io.StringIO(newline="")
        # The writer leaves a lone CR bare; a reader has to take it for half a line end.
        everything = quote_all or any("\r" in cell for cell in cells)
        csv.writer(
            out, delimiter=delimiter, lineterminator=newline, quoting=csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL
        ).writerow(cells)
        file += out.getvalue()
        if len(cells) == 6:
            bad = {"robot": "enum", "": "string_too_short"}
            expected.append((line, next((bad[c] for c in (cells[3], cells[0]) if c in bad), cells[5])))
        elif cells:
            expected.append((line, "column_count"))
    data = (b"\xef\xbb\xbf" if bom else b"") + file.encode()
    if not last_newline:
        data = data.removesuffix(newline.encode())
    assert list(read(CsvRows(), data, cuts)) == expected


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(
        st.one_of(texts, st.sampled_from(["\0blank", "\0spaces", "\0bad", "\0array", "\0extra"])), max_size=15
    ),
    cuts=st.lists(st.integers(0, 5_000), max_size=20),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_every_line_of_json_is_given_once_wherever_the_bytes_are_cut(
    rows: list[str], cuts: list[int], newline: str
) -> None:
    other = {
        "\0blank": ("", None),
        "\0spaces": ("  \t", None),
        "\0bad": ("{", "malformed_json"),
        "\0array": ("[]", "model_type"),
    }
    file, expected = "", []
    base = {"conversation_id": "c", "user_id": "u", "user_type": "customer"}
    for number, row in enumerate(rows, 1):
        extra = {"x": 1} if row == "\0extra" else {}
        plain = json.dumps({**base, "message_content": row.replace("\0", ""), **extra}, ensure_ascii=number % 2 == 0)
        text, told_as = other.get(row, (plain, "unknown_field" if extra else row))
        file += text + newline
        expected += [(number, told_as)] if told_as else []
    found = list(read(JsonLines(), file.encode(), cuts))
    assert found == [(n, code) for n, code in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n\r\n\n", []),
        (GOOD, [(2, "hi")]),
        (f"\n\n{GOOD}\r\n{GOOD}", [(4, "hi"), (6, "hi")]),
        (f'"{GOOD}{GOOD}', [(2, "malformed_csv"), (3, "hi")]),
        (f'{GOOD}c,m,u,customer,,"hi\n{GOOD}{GOOD}', [(2, "hi"), (3, "malformed_csv"), (4, "hi"), (5, "hi")]),
        (f'c,m,u,customer,,"a\nb\n"\n{GOOD}', [(2, "a\nb\n"), (5, "hi")]),
        ('c,m,u,customer,,"a\r\nb ""x"" \n"\r\n', [(2, 'a\r\nb "x" \n')]),
        ('c,m,u,customer,,say "hi"\n', [(2, 'say "hi"')]),
        (f'c,m,u,customer,,"a" b\n{GOOD}', [(2, "malformed_csv"), (3, "hi")]),
        ("c,m,u,customer,\n", [(2, "column_count")]),
        ("c,m,u,customer,,a,b\n", [(2, "column_count")]),
        ("c,m,u,customer,yesterday,hi\n", [(2, "value_error")]),
        ("c,m,u,customer,, hi \n", [(2, " hi ")]),
        ("c,,u,customer,,hi\n", [(2, "hi")]),
        ("c,m,,customer,,hi\n", [(2, "string_too_short")]),
        ("c,m,u,\udcff,,hi\n", [(2, "string_unicode")]),
        ("c,m,u,customer,\udcff,hi\n", [(2, "value_error")]),
        (f"c,m,u,customer,,h\udcffi\n{GOOD}", [(2, "string_unicode"), (3, "hi")]),
        (f"c,m,u,customer,,h\0i\n{GOOD}", [(2, "nul_character"), (3, "hi")]),
        (f"c,m,u,customer,,a\rb\n{GOOD}", [(2, "malformed_csv"), (3, "hi")]),
        (f'c,m,u,customer,,"{"x" * 2**20}"\n{GOOD}', [(2, "x" * 2**20), (3, "hi")]),
        ('c,m,u,customer,,"' + '""' * 2**20 + '"\n', [(2, '"' * 2**20)]),
        ('c,m,u,customer,,"' + "\n" * 2**20 + f'"\n{GOOD}', [(2, "\n" * 2**20), (3 + 2**20, "hi")]),
        ("c,m,u,customer,," + "x" * (2**20 + 1) + f"\n{GOOD}", [(2, "string_too_long"), (3, "hi")]),
        ("c,m,u,customer,," + "é" * (2**19 + 1) + f"\n{GOOD}", [(2, "value_error"), (3, "hi")]),
        ("x" * (CSV_ROW_BYTES + BLOCK) + f"\n{GOOD}", [(2, "malformed_csv"), (3, "hi")]),
    ],
    ids=range(27),
)
def test_a_row_of_csv_is_what_it_looks_like(text: str, expected: list[tuple[int, str]]) -> None:
    assert sent(text) == expected


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b"", "missing_column"),
        (b"\n", "missing_column"),
        (b"conversation_id,user_id,user_type\n", "missing_column"),
        (HEADER.replace("timestamp", "time").encode(), "unknown_column"),
        (HEADER.replace("timestamp", "user_id").encode(), "duplicate_column"),
        (HEADER.replace(",", "|").encode(), "missing_column"),
        (HEADER.encode("utf-16"), "missing_column"),
        (b"\xff\xfe" + HEADER.encode(), "missing_column"),
        (b'"' + HEADER.encode(), "missing_column"),
        (b"x" * (CSV_ROW_BYTES * 2), "missing_column"),
        (HEADER.replace("\n", ",\n").encode(), "unknown_column"),
    ],
)
def test_a_header_that_cannot_be_understood_is_refused(header: bytes, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        list(read(CsvRows(), header + GOOD.encode()))
    assert [error.code for error in caught.value.errors] == [code]


def test_other_column_names_can_be_mapped_and_others_ignored() -> None:
    reader = CsvRows({"tweet": "message_content", "who": "user_id"}, ignore_unknown=True)
    data = b"conversation_id;who;user_type;lang;tweet\nc;u;customer;en;hi\n"
    assert list(read(reader, data)) == [(2, "hi")]


def test_overlong_lines_of_json_cost_themselves_alone() -> None:
    good = MessageIn.model_validate(
        {"conversation_id": "c", "user_id": "u", "user_type": "customer", "message_content": "\x01" * 2**20}
    )
    line = good.model_dump_json(exclude_none=True).encode()
    assert 6 * 2**20 < len(line) < JSON_ROW_BYTES
    data = b"\n".join([line, b"x" * (JSON_ROW_BYTES + BLOCK), b'{"a":' * 10, b" " * (JSON_ROW_BYTES + BLOCK), line])
    codes = [(n, text if len(text) < 100 else len(text)) for n, text in read(JsonLines(), data)]
    assert codes == [(1, 2**20), (2, "too_large"), (3, "malformed_json"), (4, "too_large"), (5, 2**20)]


def test_a_line_with_very_many_fields_is_refused_unread() -> None:
    line = b"{" + b",".join(b'"k%d":0' % n for n in range(20_000)) + b"}"
    assert list(read(JsonLines(), line)) == [(1, "too_large")]


MEBIBYTE = 2**20
HOSTILE = {
    "no newline": b"x" * (50 * MEBIBYTE),
    "a quote and no newline": b'"' + b"x" * (20 * MEBIBYTE),
    "newlines": b"\n" * MEBIBYTE,
    "a quote and newlines": b'"' + b"\n" * MEBIBYTE,
    "a quote and rows": b'"' + GOOD.encode() * (MEBIBYTE // len(GOOD)),
    "open quotes": b'x","\n' * (MEBIBYTE // 5),
    "lone quotes": b'"\n' * (MEBIBYTE // 2),
    "pairs": b'"a\nb"c\n' * (MEBIBYTE // 8),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_take_bounded_memory_and_work(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    class Counted(records._Cursor):
        def __next__(self) -> str:
            nonlocal looked_at
            line = super().__next__()
            looked_at += len(line)
            return line

    row_bytes, reread_bytes = 2**16, 2**18
    monkeypatch.setattr(records, "_Cursor", Counted)
    monkeypatch.setattr(records, "CSV_ROW_BYTES", row_bytes)
    monkeypatch.setattr(records, "REREAD_BYTES", reread_bytes)
    reader, kept, rows = CsvRows(), 0, 0
    blocks = [HEADER.encode(), *(data[start : start + 2**12] for start in range(0, len(data), 2**12))]
    for block in blocks:
        rows += sum(1 for _ in reader.feed(block))
        kept = max(kept, reader._lines.size + len(reader._lines._tail))
    rows += sum(1 for _ in reader.feed(b"\n" + GOOD.encode(), end=True))
    assert kept <= 2 * row_bytes
    assert looked_at <= 4 * len(data) + reread_bytes + 2 * row_bytes
    assert rows <= data.count(b"\n") + 2


def test_rows_are_given_before_the_file_ends() -> None:
    reader = CsvRows()
    rows = reader.feed((HEADER + GOOD * 100).encode())
    assert len(list(islice(rows, 50))) == 50
    assert len(list(rows)) == 50
