"""Streams of CSV and NDJSON: every row accounted for, however the bytes arrive."""

import csv
import io
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.schemas.enums import Role
from app.services import imports
from tests.support.api import Workspace, message

CSV, NDJSON = "text/csv", "application/x-ndjson"
COLUMNS = ["conversation_id", "message_id", "user_id", "user_type", "timestamp", "message_content"]
Row = dict[str, str]


def csv_file(rows: list[Row], delimiter: str = ",", newline: str = "\n") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(
        out, COLUMNS, restval="", delimiter=delimiter, lineterminator=newline, quoting=csv.QUOTE_ALL
    )
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def ndjson_file(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


async def cut(data: bytes, chance: random.Random) -> AsyncIterator[bytes]:
    while data:
        size = chance.choice([1, 2, 7, 100, 1_000])
        yield data[:size]
        data = data[size:]


async def send(workspace: Workspace, data: bytes | AsyncIterator[bytes], media: str = CSV) -> httpx.Response:
    return await workspace.editor.post("/chats", content=data, headers={"Content-Type": media})


async def result(workspace: Workspace, data: bytes | AsyncIterator[bytes], media: str = CSV) -> dict[str, Any]:
    answer = await send(workspace, data, media)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def random_rows(chance: random.Random) -> list[Row]:
    def row() -> Row:
        number = chance.randrange(30)
        made = message(
            f"c{number % 4}", f"m{number}", message_content=f'Line\n"{number}", {chance.choice("ab" * 4 + "c")};\t😀'
        )
        wrong = chance.choice([{}] * 8 + [{"user_type": "robot"}, {"conversation_id": "."}, {"timestamp": "now"}])
        return {**made, **wrong}

    return [row() for _ in range(chance.randrange(40))]


class Model:
    """What was stored, and what a file ought to add to it."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], str] = {}

    def take(self, rows: list[Row]) -> dict[str, Any]:
        told: dict[str, Any] = {"stored": 0, "duplicates": 0, "rejected": []}
        for place, row in enumerate(rows):
            key, text = (row["conversation_id"], row["message_id"]), row["message_content"]
            if row["user_type"] == "robot" or key[0] == "." or row["timestamp"] == "now":
                told["rejected"].append(place)
            elif key not in self.known:
                self.known[key] = text
                told["stored"] += 1
            elif self.known[key] == text:
                told["duplicates"] += 1
            else:
                told["rejected"].append(place)
        return told


@pytest.mark.parametrize("kind", ["comma", "semicolon", "tab", "ndjson"])
async def test_stored_duplicates_and_rejected_add_up_over_random_files(
    workspace: Workspace, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK_ROWS", 7)
    monkeypatch.setattr(imports, "BLOCK_BYTES", 300)
    chance, model = random.Random(kind), Model()
    for _ in range(25):
        rows = random_rows(chance)
        expected = model.take(rows)
        if kind == "ndjson":
            data, media, lines = ndjson_file(rows), NDJSON, [place + 1 for place in range(len(rows))]
        else:
            delimiter = {"comma": ",", "semicolon": ";", "tab": "\t"}[kind]
            data, media = csv_file(rows, delimiter, chance.choice(["\n", "\r\n"])), CSV
            lines = [2 + 2 * place for place in range(len(rows))]
        told = await result(workspace, cut(data, chance), media)
        assert {**told, "errors": [error["line"] for error in told["errors"]]} == {
            **expected,
            "rejected": len(expected["rejected"]),
            "errors": [lines[place] for place in expected["rejected"]],
        }
    found: dict[tuple[str, str], str] = {}
    for name in ("c0", "c1", "c2", "c3"):
        body = (await workspace.viewer.get(f"/chats/{name}")).json()
        found |= {(name, m["message_id"]): m["message_content"] for m in body["messages"]}
        assert body["message_count"] == len(body["messages"])
    assert found == model.known


@pytest.mark.parametrize("media", [CSV, f"{CSV}; charset=UTF-8; header=present", NDJSON, f"{NDJSON};charset=utf-8"])
async def test_a_stream_sent_again_changes_nothing(workspace: Workspace, media: str) -> None:
    rows = [message(f"c{n % 3}", f"m{n}") for n in range(2_500)]
    data = csv_file(rows) if CSV in media else ndjson_file(rows)
    assert await result(workspace, data, media) == {"stored": 2_500, "duplicates": 0, "rejected": 0, "errors": []}
    assert await result(workspace, data, media) == {"stored": 0, "duplicates": 2_500, "rejected": 0, "errors": []}


async def test_a_cut_stream_keeps_what_was_committed_and_goes_through_when_sent_again(
    app: FastAPI, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK_ROWS", 10)
    rows = [message(message_id=f"m{n}") for n in range(95)]
    data = csv_file(rows)
    events: list[Any] = [
        {"type": "http.request", "body": data[: len(data) // 2], "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return events.pop(0) if len(events) > 1 else events[0]

    async def collect(event: Any) -> None:
        sent.append(event)

    key = workspace.keys[Role.EDITOR].encode()
    headers = [(b"content-type", b"text/csv"), (b"authorization", b"Bearer " + key)]
    scope = {"type": "http", "method": "POST", "raw_path": b"/chats", "query_string": b"", "headers": headers}
    await app(scope, receive, collect)
    assert sent == []
    kept = (await workspace.viewer.get("/chats/c1")).json()["message_count"]
    assert 0 < kept < 95
    assert kept % 10 == 0
    assert await result(workspace, data) == {"stored": 95 - kept, "duplicates": kept, "rejected": 0, "errors": []}
    assert (await workspace.viewer.get("/chats/c1")).json()["message_count"] == 95


async def test_a_conflict_is_told_by_line_and_costs_no_other_row(workspace: Workspace) -> None:
    await workspace.editor.post("/chats", json=message())
    rows = [message(message_id="m0"), message(message_content="Other."), message(message_id="m2"), message()]
    for data, media, line in ((csv_file(rows), CSV, 3), (ndjson_file(rows), NDJSON, 2)):
        told = await result(workspace, data, media)
        assert (told["rejected"], told["stored"] + told["duplicates"]) == (1, 3)
        assert [(error["line"], error["code"]) for error in told["errors"]] == [(line, "message_conflict")]
    [kept] = [m for m in (await workspace.viewer.get("/chats/c1")).json()["messages"] if m["message_id"] == "m1"]
    assert kept["message_content"] == message()["message_content"]


async def test_generated_ids_and_times_are_given_to_rows_without(workspace: Workspace) -> None:
    data = b"conversation_id,user_id,user_type,message_content\nc1,ana,customer,Hi\nc1,ana,customer,Hi\n"
    assert (await result(workspace, data))["stored"] == 2
    found = (await workspace.viewer.get("/chats/c1")).json()["messages"]
    assert len({m["message_id"] for m in found}) == 2
    assert found[0]["timestamp"] == found[1]["timestamp"]


async def test_only_a_thousand_errors_are_told_and_all_are_counted(workspace: Workspace) -> None:
    told = await result(workspace, b"{\n" * 3_000, NDJSON)
    assert (told["rejected"], len(told["errors"])) == (3_000, 1_000)
    assert [error["line"] for error in told["errors"]] == list(range(1, 1_001))


@pytest.mark.parametrize("data", [b"", b"\n\n", b" \n\t\n"])
async def test_an_empty_stream_of_json_holds_no_rows(workspace: Workspace, data: bytes) -> None:
    assert await result(workspace, data, NDJSON) == {"stored": 0, "duplicates": 0, "rejected": 0, "errors": []}


@pytest.mark.parametrize("data", [b"", b"\n", b"a,b\n1,2\n", b"\xff\xfe\x00", b"{}"])
async def test_a_file_without_the_right_header_is_invalid_as_a_whole(workspace: Workspace, data: bytes) -> None:
    answer = await send(workspace, data)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "line 1")


async def test_a_mebibyte_cell_with_line_breaks_is_stored_verbatim(workspace: Workspace) -> None:
    content = ('He said "no",\r\n' * 80_000)[: 2**20]
    rows = [message(message_content=content), message(message_id="m2")]
    assert (await result(workspace, b"\xef\xbb\xbf" + csv_file(rows, newline="\r\n")))["stored"] == 2
    found = (await workspace.viewer.get("/chats/c1")).json()["messages"]
    assert found[0]["message_content"] == content


async def test_a_rejection_never_repeats_what_was_sent(workspace: Workspace) -> None:
    secret = "hunter2hunter2"
    rows = [{**message(), name: secret + "\0"} for name in COLUMNS]
    header = csv_file([]) + f'"{secret}\n{secret}\n'.encode()
    for data, media in ((csv_file(rows), CSV), (ndjson_file(rows), NDJSON), (header, CSV)):
        answer = await send(workspace, data, media)
        assert (answer.json()["stored"], secret in answer.text) == (0, False)
    for data in (csv_file([]).replace(b"timestamp", secret.encode()), f'{{"{secret} {secret}":1}}'.encode()):
        for media in (CSV, NDJSON):
            assert secret not in (await send(workspace, data, media)).text
