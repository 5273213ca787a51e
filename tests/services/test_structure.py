"""Bodies that would cost the parser a hundred times their size are refused before they are parsed."""

import json

import pytest

from app.errors import Invalid, Malformed
from app.schemas.chats import BATCH_SIZE
from app.services.structure import check_json
from tests.support.api import Workspace, message

MANY = 200_000


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":[' + b"{}," * MANY + b"{}]}",
        b"[" + b"1," * MANY + b"1]",
        b"[" + b"[]," * MANY + b"[]]",
        b"{" + b'"k":0,' * MANY + b'"k":0}',
        b'["' + b'","' * MANY * 4 + b'"]',
    ],
    ids=lambda body: body[:9].decode(),
)
async def test_a_body_of_very_many_parts_is_refused(workspace: Workspace, body: bytes) -> None:
    for path in ("/chats", "/chats/summarize"):
        answer = await workspace.editor.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["detail"][:12]) == (422, "The JSON has")


def test_nesting_ends_at_64() -> None:
    check_json(b"[" * 64 + b"]" * 64, messages=BATCH_SIZE)
    with pytest.raises(Malformed):
        check_json(b"[" * 65 + b"]" * 65, messages=BATCH_SIZE)


@pytest.mark.parametrize("text", ['{[,"\\' * 1_000, "\\" * 999, '"' * 50, "\n,[", "é,{" * 500])
def test_what_stands_in_strings_is_not_counted(text: str) -> None:
    check_json(json.dumps(message(message_content=text)).encode(), messages=1)


@pytest.mark.parametrize("tail", [b"\\", b'\\"', b"x", b""])
def test_a_string_that_is_not_closed_ends_with_the_body(tail: bytes) -> None:
    check_json(b'["' + b"[" * 1_000 + tail, messages=1)


def test_the_largest_batch_passes() -> None:
    check_json(json.dumps([message(message_id=str(n)) for n in range(BATCH_SIZE)]).encode(), messages=BATCH_SIZE)
    with pytest.raises(Invalid):
        check_json(json.dumps([message()] * BATCH_SIZE * 4).encode(), messages=BATCH_SIZE)
