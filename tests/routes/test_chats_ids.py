"""Ids of every shape: reachable in every path or refused, and never two for one."""

import itertools
from urllib.parse import quote

import httpx

from tests.support.api import Workspace, message

IDS = [
    *(
        "a/b",
        "a%2Fb",
        "a%2fb",
        "%",
        "%%",
        "%2",
        "%zz",
        "%00",
        "%25",
        "a b",
        " a",
        "a ",
        " ",
        "\t",
        "\n",
        "a\r\nb",
        "+",
        "a+b",
    ),
    *("...", ".a", "a.", "a/..", "../a", "/", "//", "/a", "a/", "\\", "a\\..", "~", "-", "_", "%2E", "%2e%2e", "./a"),
    *("?", "a?b=c", "#", "a#b", "&", "a&b", "=", ";", ",", ":", "@", "*", "'", '"', "<>", "{}", "[]", "|", "^", "`"),
    *(
        "é",
        "e\u0301",
        "É",
        "ﬁ",
        "fi",
        "ß",
        "日本",
        "😀",
        "👩‍👩‍👧",
        "\u202e",
        "\ufeff",
        "\u00a0",
        "\u2028",
        "\ufffd",
        "\ufffd\ufffd",
    ),
    *("\x01", "\x7f", "\x85", "A", "a", "null", "summarize", "insights", "summary", "0", "00", "-1", "NaN", "True"),
    *("x" * 255, "😀" * 255, "%2F" * 85, "/" * 255, "\U0010ffff" * 255),
]
REFUSED = [".", "..", "", "x" * 256, "😀" * 256, "a\0b", "\0"]


def segment(text: str) -> str:
    return quote(text, safe="")


async def test_every_id_is_reachable_and_stands_for_itself_alone(workspace: Workspace) -> None:
    assert len(set(IDS)) == len(IDS)
    messages = [message(each, each, user_id=each, message_content=f"Parcel {n}.") for n, each in enumerate(IDS)]
    answer = await workspace.editor.post("/chats", json=messages)
    assert (answer.status_code, answer.json()["stored"]) == (201, len(IDS))
    for n, each in enumerate(IDS):
        found = (await workspace.viewer.get(f"/chats/{segment(each)}")).json()
        assert (found["conversation_id"], found["message_count"]) == (each, 1)
        sent = found["messages"][0]
        assert (sent["message_id"], sent["user_id"], sent["message_content"]) == (each, each, f"Parcel {n}.")
        history = await workspace.viewer.get(f"/users/{segment(each)}/chats")
        assert [c["conversation_id"] for c in history.json()["data"]] == [each]
        assert httpx.URL(history.links["first"]["url"]).raw_path.startswith(f"/users/{segment(each)}/chats?".encode())
        listed = await workspace.viewer.get("/chats", params={"user_id": each})
        assert [c["conversation_id"] for c in listed.json()["data"]] == [each]
    for n, each in enumerate(IDS):
        gone = await workspace.admin.delete(f"/chats/{segment(each)}")
        assert (gone.status_code, gone.json()["conversation_id"]) == (200, each)
        assert (await workspace.viewer.get(f"/chats/{segment(each)}")).status_code == 404
        left = (await workspace.viewer.get("/chats", params={"limit": 1})).json()["data"]
        assert bool(left) == (n < len(IDS) - 1)


async def test_a_list_of_odd_ids_pages_through_every_one(workspace: Workspace) -> None:
    await workspace.editor.post("/chats", json=[message(each) for each in IDS])
    found: list[str] = []
    params: dict[str, str | int] = {"limit": 7}
    while True:
        page = (await workspace.viewer.get("/chats", params=params)).json()
        found += [each["conversation_id"] for each in page["data"]]
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]
    assert found == sorted(IDS, key=str.encode, reverse=True)


async def test_an_id_that_no_path_can_name_is_refused(workspace: Workspace) -> None:
    for name, value in itertools.product(("conversation_id", "message_id", "user_id"), REFUSED):
        answer = await workspace.editor.post("/chats", json={**message(), name: value})
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{name}"]
        if value and name != "message_id":
            row = {**message(), name: value}
            sent = f"{','.join(row)}\n{','.join(row.values())}"
            answer = await workspace.editor.post("/chats", content=sent, headers={"Content-Type": "text/csv"})
            assert (answer.json()["rejected"], answer.json()["stored"]) == (1, 0)
        assert (await workspace.viewer.get("/chats")).json()["data"] == []


ENCODED = ["%2E", "%2e%2E", "%FF", "%C3", "%ED%A0%80", "%F4%90%80%80", "%C0%AF", "a%00", "x" * 256]


async def test_a_path_that_names_no_possible_id_is_invalid(workspace: Workspace) -> None:
    for encoded in ENCODED:
        for path in (f"/chats/{encoded}", f"/users/{encoded}/chats", f"/chats/{encoded}/summary"):
            answer = await workspace.viewer.get(path)
            assert answer.status_code == 422, path
            assert answer.json()["errors"][0]["pointer"] in ("conversation_id", "user_id")
        assert (await workspace.admin.delete(f"/chats/{encoded}")).status_code == 422
