"""A sender's history: numbered pages, links, and the conversation's own time as order."""

import asyncio
import itertools
from typing import Any

import pytest

from app.factory import Services, build
from app.repositories import search as repository
from app.schemas.enums import Role
from app.schemas.search import UserQuery
from app.services import search
from app.services.auth import Door
from app.settings import Settings
from tests.support.api import Workspace, message


async def names(workspace: Workspace, user_id: str, **params: Any) -> list[str]:
    answer = await workspace.viewer.get(f"/users/{user_id}/chats", params=params)
    assert answer.status_code == 200, answer.text
    return [each["conversation_id"] for each in answer.json()["data"]]


async def fill(workspace: Workspace, count: int) -> list[str]:
    messages = [message(f"c{n:02}", timestamp=f"2026-11-01T10:00:0{n // 3 % 10}Z") for n in range(count)]
    assert (await workspace.editor.post("/chats", json=messages)).status_code == 201
    return sorted([f"c{n:02}" for n in range(count)], key=lambda name: (int(name[1:]) // 3 % 10, name), reverse=True)


async def test_the_links_lead_through_every_conversation_once(workspace: Workspace) -> None:
    for limit in (1, 4, 10, 23, 100):
        expected = await fill(workspace, 23)
        url = f"/users/ana/chats?q=parcel&limit={limit}&from=2026-01-01T00:00:00%2B02:00"
        found: list[str] = []
        page = 1
        while True:
            answer = await workspace.viewer.get(url)
            body = answer.json()
            found += [each["conversation_id"] for each in body["data"]]
            assert (body["page"], body["total"], body["pages"]) == (page, 23, -(-23 // limit))
            assert ("prev" in answer.links) == (page > 1)
            assert body["has_more"] == ("next" in answer.links) == (page < body["pages"])
            if not body["has_more"]:
                break
            url, page = answer.links["next"]["url"], page + 1
        assert found == expected
        assert (await workspace.viewer.get(answer.links["last"]["url"])).json() == body
        assert (await workspace.viewer.get(answer.links["first"]["url"])).json()["page"] == 1


async def test_pages_of_a_long_history_begin_where_it_is_remembered(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "KEPT", 20)
    monkeypatch.setattr(search, "STEP", 3)
    expected = await fill(workspace, 23)
    monkeypatch.setattr(repository, "FEW", {"q": -1})
    monkeypatch.setattr(repository, "SELDOM", {"q": -1})
    for limit, walked in ((1, 0), (2, 0), (3, 20), (5, 40), (10, 10_000)):
        monkeypatch.setattr(repository, "WALKED", walked)
        for params in ({}, {"q": "parcel"}, {"to": "2026-12-01T00:00:00Z"}):
            found = [
                await names(workspace, "ana", limit=limit, page=page, **params) for page in range(1, 25 // limit + 2)
            ]
            assert list(itertools.chain(*found)) == expected


async def test_the_number_of_a_long_history_may_be_remembered_but_not_its_newest(
    workspace: Workspace, services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "KEPT_S", 3_600)
    assert settings.database_url
    url = settings.database_url.get_secret_value()
    viewer = await services.auth.viewer(Door.API_KEY, workspace.keys[Role.VIEWER])
    expected = await fill(workspace, 23)
    async with build(settings, url) as one, build(settings, url) as other:
        for kept, total in ((26, 25), (23, 23)):
            monkeypatch.setattr(search, "KEPT", kept)
            assert (await one.search.history(viewer, "ana", UserQuery()))["total"] == 23
            await workspace.editor.post("/chats", json=message("new", timestamp="2026-11-03T00:00:00Z"))
            await workspace.editor.post("/chats", json=message("old", timestamp="2026-10-03T00:00:00Z"))
            found = await one.search.history(viewer, "ana", UserQuery())
            assert ([each["conversation_id"] for each in found["data"]], found["total"]) == (
                ["new", *expected[:9]],
                total,
            )
            assert (await other.search.history(viewer, "ana", UserQuery(page=3)))["data"][-1][
                "conversation_id"
            ] == "old"
            for name in ("new", "old"):
                await workspace.admin.delete(f"/chats/{name}")


async def test_pages_beyond_the_end_and_of_strangers_are_empty(workspace: Workspace) -> None:
    await fill(workspace, 3)
    empty = {"data": [], "has_more": False, "next_cursor": None, "page": 1_000_000, "total": 3, "pages": 1}
    beyond = await workspace.viewer.get("/users/ana/chats?page=1000000&limit=100")
    assert beyond.json() == empty
    assert "page=1&" in beyond.links["prev"]["url"]
    stranger = await workspace.viewer.get("/users/nobody/chats")
    assert stranger.json() == {**empty, "page": 1, "total": 0, "pages": 0}
    assert stranger.links.keys() == {"first", "last"}


ABSURD: list[dict[str, Any]] = [
    *({"page": value} for value in (0, -1, 10**30, "x", 1.5)),
    *({"limit": value} for value in (0, 101, 2**63)),
    *({name: "x"} for name in ("cursor", "user_id", "sort")),
]


async def test_absurd_pages_are_refused(workspace: Workspace) -> None:
    for params in ABSURD:
        answer = await workspace.viewer.get("/users/ana/chats", params=params)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, next(iter(params)))


async def test_the_other_sides_last_word_moves_the_conversation_up(workspace: Workspace) -> None:
    await fill(workspace, 3)
    assert (await names(workspace, "ana"))[-1] == "c00"
    reply = message("c00", "r", user_id="bo", user_type="support_agent", timestamp="2026-11-05T00:00:00Z")
    await workspace.editor.post("/chats", json=reply)
    assert await names(workspace, "ana") == ["c00", "c02", "c01"]
    assert await names(workspace, "bo") == ["c00"]
    await workspace.editor.post("/chats", json=message("c01", "m2", user_id="cy", timestamp="2026-11-04T00:00:00Z"))
    assert await names(workspace, "ana") == ["c00", "c01", "c02"]
    assert await names(workspace, "ana", limit=1, page=2) == ["c01"]
    late = {"from": "2026-11-04T00:00:00Z"}
    assert await names(workspace, "ana", **late) == ["c00", "c01"]


async def test_senders_who_write_at_once_see_the_same_order(workspace: Workspace) -> None:
    posts = [
        workspace.editor.post(
            "/chats",
            json=[
                message(f"c{c}", f"m{s}", user_id=f"s{s}", timestamp=f"2026-11-01T10:{(s * 7 + c * 13) % 60:02}:00Z")
                for c in (range(5) if s % 2 else reversed(range(5)))
            ],
        )
        for s in range(8)
    ]
    assert {answer.status_code for answer in await asyncio.gather(*posts)} == {201}
    listed = (await workspace.viewer.get("/chats")).json()["data"]
    expected = [each["conversation_id"] for each in listed]
    for s in range(8):
        assert await names(workspace, f"s{s}") == expected
        newest = listed[0]["last_message_at"]
        assert await names(workspace, f"s{s}", **{"from": newest}) == [
            each["conversation_id"] for each in listed if each["last_message_at"] == newest
        ]
