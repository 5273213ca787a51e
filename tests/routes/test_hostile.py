"""Any bytes may come in; no 500 ever goes out, nothing is echoed, nothing is stored."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.support.api import Workspace, message

SECRET = "hunter2hunter2"
JSON = "application/json"


def assert_problem(answer: httpx.Response, *statuses: int) -> None:
    body = answer.json()
    assert answer.status_code in statuses, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "code", "request_id"} <= body.keys()
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert SECRET not in answer.text
    assert len(answer.content) < 50_000


async def assert_nothing_stored(workspace: Workspace) -> None:
    assert (await workspace.viewer.get("/chats")).json()["data"] == []


def with_field(name: str, value: str) -> bytes:
    """Returns a message whose field has a value that is given as JSON source."""
    rest = {key: text for key, text in message().items() if key != name}
    return json.dumps(rest)[:-1].encode() + f', "{name}": {value}}}'.encode()


VALUES = {
    "nul": f'"{SECRET}\\u0000"',
    "lone surrogate": f'"{SECRET}\\ud800"',
    "reversed surrogates": f'"{SECRET}\\udc00\\ud800"',
    "nan": "NaN",
    "infinity": "-Infinity",
    "1e400": "1e400",
    "huge integer": "9" * 5_000,
    "integer": "1",
    "true": "true",
    "array": f'["{SECRET}"]',
    "object": f'{{"{SECRET}": 1}}',
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"a":' * 500 + "1" + "}" * 500,
    "empty": '""',
    "unclosed": f'"{SECRET}',
    "too long": f'"{SECRET * 80_000}"',
    "raw control": f'"{SECRET}\n"',
    "bad escape": f'"{SECRET}\\x41"',
}


async def test_a_bad_value_in_any_field_is_refused(workspace: Workspace) -> None:
    for name in message():
        for kind, value in VALUES.items():
            body = with_field(name, value)
            for sent in (body, b"[" + body + b"]"):
                answer = await workspace.editor.post("/chats", content=sent, headers={"Content-Type": JSON})
                assert_problem(answer, 400, 422)
                if answer.status_code == 422:
                    assert all(name in error["pointer"] for error in answer.json()["errors"]), kind
        await assert_nothing_stored(workspace)


BODIES = {
    "empty": b"",
    "null": b"null",
    "number": b"1",
    "text": b'"hunter2hunter2"',
    "nested arrays": b"[" * 200_000,
    "array of anything": b'[1, null, [], "hunter2hunter2", {}]',
    "unknown field": with_field(SECRET, "1"),
    "unknown field with a space": with_field(f"{SECRET} x", "1"),
    "very many unknown fields": b"{" + b",".join(b'"k%d":0' % n for n in range(300_000)) + b"}",
    "very many items": b"[" + b"0," * 1_000_000 + b"0]",
    "very many bad items": b"[" + b",".join([b'{"a":1}'] * 10_000) + b"]",
    "two documents": b"{} {}",
    "invalid utf-8": with_field("message_content", '"hunter2hunter2\u00ff"').decode().encode("latin-1"),
    "encoded surrogate": with_field("message_content", '"?"').replace(b"?", b"\xed\xa0\x80"),
    "overlong encoding": with_field("message_content", '"?"').replace(b"?", b"\xc0\xaf"),
    "utf-16": json.dumps(message()).encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(message()).encode(),
    "nul bytes": b"\0" * 100,
    "trailing nul": json.dumps(message()).encode() + b"\0",
    "comment": b"/* */ {}",
    "single quotes": b"{'a': 1}",
    "form": b"conversation_id=hunter2hunter2",
}


async def test_a_bad_body_is_refused_by_every_operation_that_takes_one(workspace: Workspace) -> None:
    for body in BODIES.values():
        for path in ("/chats", "/chats/summarize", "/chats/insights"):
            answer = await workspace.editor.post(path, content=body, headers={"Content-Type": JSON})
            shown = answer.text.replace(SECRET, "") if body.startswith(b'{"') else answer.text
            assert_problem(httpx.Response(answer.status_code, headers=answer.headers, text=shown), 400, 422)
        await assert_nothing_stored(workspace)


TIMES = [
    *(
        "2026-11-22T10:00:00",
        "2026-11-22",
        "2026-11-22T10:00:00.1234567Z",
        "2026-11-22T23:59:60Z",
        "2026-02-30T00:00:00Z",
    ),
    *("0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"),
    *("2026-11-22T24:00:00Z", "2026-11-22T10:00:00+24:00", "2026-11-22T10:00:00+0100", "2026-11-22T10:00:00.Z"),
    *("2026-11-22 10:00:00Z", "20261122T100000Z", "2026-W47-7T10:00:00Z", "1795341600", "now", "-001-01-01T00:00:00Z"),
    *("２026-11-22T10:00:00Z", "2026-11-22T10:00:00Z ", "2026-11-22T10:00:00Z\n", "2026-11-22T10:00:00+00:60", ""),
]
EXACT = {
    "0001-01-01T00:00:00Z": "0001-01-01T00:00:00.000000Z",
    "9999-12-31T23:59:59.999999Z": "9999-12-31T23:59:59.999999Z",
    "0001-01-01T23:59:00+23:59": "0001-01-01T00:00:00.000000Z",
    "9999-12-31T00:00:59.1-23:59": "9999-12-31T23:59:59.100000Z",
    "2026-11-22t10:00:00.12z": "2026-11-22T10:00:00.120000Z",
    "1899-12-31T23:59:59.000001-00:00": "1899-12-31T23:59:59.000001Z",
    "2024-02-29T12:00:00+05:45": "2024-02-29T06:15:00.000000Z",
}


async def test_times_are_exact_or_refused(workspace: Workspace) -> None:
    for time in TIMES:
        assert_problem(await workspace.editor.post("/chats", json=message(timestamp=time)), 422)
        for name in ("from", "to"):
            assert_problem(await workspace.viewer.get("/chats", params={name: time}), 422)
    await assert_nothing_stored(workspace)
    for n, (time, exact) in enumerate(EXACT.items()):
        stored = await workspace.editor.post("/chats", json=message(f"c{n}", timestamp=time))
        assert stored.status_code == 201, (time, stored.text)
        found = (await workspace.viewer.get(f"/chats/c{n}")).json()
        assert {found["messages"][0]["timestamp"], found["first_message_at"], found["last_message_at"]} == {exact}
        listed = await workspace.viewer.get("/chats", params={"from": time, "limit": 1})
        assert (listed.status_code, len(listed.json()["data"])) == (200, 1), time


QUERIES = [
    *(
        "limit=1&limit=2",
        "q=a&q=b",
        "from=x&from=x",
        "nonsense=1",
        "LIMIT=1",
        "limit[]=1",
        "=",
        "limit",
        "limit=",
        "q=%00",
    ),
    *("q=%ff", "q=%ed%a0%80", "user_id=%c0%af", "cursor=%00", "keyword=%00", "keyword=", "limit=99999999999999999999"),
    *(
        "limit=1e1",
        "limit=0x1",
        "limit=NaN",
        "q=" + "a" * 513,
        "q=" + "+".join("a" * 33),
        "x=" + "a" * 20_000,
        "&" * 17_000,
    ),
    *("sentiment=" + SECRET, "outcome=" + SECRET, "from=" + SECRET, "cursor=" + SECRET, "user_id=" + SECRET * 30),
    *(
        "api_key=" + SECRET,
        "access_token=" + SECRET,
        "token=" + SECRET,
        "Authorization=x",
        "X-API-Key=" + SECRET,
        "key=x",
    ),
    *("%61pi_key=" + SECRET, SECRET + "%20=1", SECRET + "%00=1", "a=%zz&a=%zz"),
]


async def test_a_bad_query_is_refused_and_never_a_defect(workspace: Workspace) -> None:
    for query in QUERIES:
        assert_problem(await workspace.viewer.get(f"/chats?{query}"), 400, 422)
        assert_problem(await workspace.admin.delete(f"/chats?max_delete_count=1&{query}"), 400, 422)
        for path in ("/chats/c1", "/users/ana/chats"):
            answer = await workspace.viewer.get(f"{path}?{query}")
            assert answer.status_code in (200, 400, 404, 422), query
            assert SECRET not in answer.text


MEDIA = [
    *(
        "",
        "text/plain",
        "application/xml",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
        "json",
        "*/*",
    ),
    *(
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "text/csv; charset=utf-16",
        "x" * 5_000,
    ),
    *("application/vnd.api+json", "application/jsonx", "text/csv, application/json", ";", "text/csv;charset=x"),
]


async def test_another_media_type_is_refused(workspace: Workspace) -> None:
    for media in MEDIA:
        for path in ("/chats", "/chats/summarize"):
            answer = await workspace.editor.post(path, content=json.dumps(message()), headers={"Content-Type": media})
            assert_problem(answer, 415)
        await assert_nothing_stored(workspace)


async def test_the_usual_spellings_of_json_are_taken(workspace: Workspace) -> None:
    for media in ("application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"'):
        for encoding in ("identity", "Identity"):
            headers = {"Content-Type": media, "Content-Encoding": encoding}
            answer = await workspace.editor.post("/chats", content=json.dumps(message()), headers=headers)
            assert answer.status_code == 201
    for encoding in ("gzip", "br", "x", "identity, gzip"):
        for media in ("application/json", "text/csv", "application/x-ndjson"):
            headers = {"Content-Type": media, "Content-Encoding": encoding}
            assert_problem(await workspace.editor.post("/chats", content=b"{}", headers=headers), 415)


async def test_a_body_over_the_limit_is_refused_with_and_without_its_length(
    workspace: Workspace, services: Any
) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 2**20
            yield b" " * 2**20

    limit = services.max_body_bytes
    for path in ("/chats", "/chats/summarize"):
        taken = 0
        headers = {"Content-Type": JSON}
        assert_problem(await workspace.editor.post(path, content=endless(), headers=headers), 413)
        assert limit < taken <= limit + 2 * 2**20
        headers["Content-Length"] = str(limit + 1)
        assert_problem(await workspace.editor.post(path, content=b"{}", headers=headers), 413)
    await assert_nothing_stored(workspace)


HEADERS: list[dict[bytes, bytes]] = [
    {b"X-Request-Id": SECRET.encode() + b"\xff"},
    {b"X-Request-Id": b"x" * 65},
    {b"X-Request-Id": b"a b"},
    {b"If-None-Match": b"\xff" * 5_000},
    {b"If-None-Match": b'W/"x",,,,"'},
    {b"Host": b"["},
    {b"Host": b"[::1"},
    {b"Host": b"a]b:99999"},
    {b"Host": b"\xff\xbd"},
    {b"Host": b""},
    {b"Content-Length": b"x"},
    {b"Content-Length": b"-1"},
    {b"Content-Length": b"9" * 100},
    {b"Accept": b"text/event-stream"},
    {b"Range": b"bytes=0-1"},
    {b"Cookie": b"\xff=\xfe"},
    {b"X-Forwarded-For": b"'; DROP TABLE messages"},
    {b"X-Forwarded-Proto": b"\xff"},
    {b"Origin": b"null"},
]


async def test_a_weird_header_does_no_harm(workspace: Workspace) -> None:
    for headers in HEADERS:
        await workspace.editor.post("/chats", json=message())
        for path in ("/chats/c1", "/users/ana/chats", "/chats?q=parcel", "/livez", "/none"):
            answer = await workspace.viewer.get(path, headers=headers)
            assert answer.status_code in (200, 404, 400, 413), answer.text
            assert SECRET not in str(answer.headers)
        assert (await workspace.viewer.get("/livez", headers={"X-Request-Id": "a-1.B_"})).headers[
            "X-Request-Id"
        ] == "a-1.B_"
