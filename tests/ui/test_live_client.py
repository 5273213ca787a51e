"""Following a conversation from a program: what is told, and when it ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from app.client import Client, Follower, View
from app.client import live as following
from app.schemas.enums import Role
from app.settings import Settings
from tests.support.api import Workspace, message
from tests.support.process import serving

PATIENCE_S = 20.0


def until(follower: Follower, holds: Callable[[View], bool]) -> View:
    """Returns the view when something holds of it."""
    waiting = time.monotonic() + PATIENCE_S
    while not holds(view := follower.look()):
        assert time.monotonic() < waiting, view
        time.sleep(0.01)
    return view


def ends(follower: Follower) -> None:
    """Waits until it does not follow any more."""
    waiting = time.monotonic() + PATIENCE_S
    while follower.running:
        assert time.monotonic() < waiting
        time.sleep(0.01)


@contextmanager
def followed(url: str, key: str, conversation_id: str = "c1") -> Iterator[Follower]:
    follower = Follower(url, conversation_id, lambda: {"Authorization": f"Bearer {key}"})
    try:
        yield follower
    finally:
        follower.close()
        ends(follower)


async def test_a_snapshot_comes_first_then_messages_and_the_summary(url: str, workspace: Workspace) -> None:
    client = Client(url, {"Authorization": f"Bearer {workspace.keys[Role.EDITOR]}"})
    client.send("c1", "ana", "customer", "Can I get a refund?")
    with followed(url, workspace.keys[Role.EDITOR]) as follower:
        assert follower.wait(PATIENCE_S).state == "live"
        assert follower.look().summary is None
        client.send("c1", "bob", "support_agent", "I have refunded 25 dollars.")
        view = until(follower, lambda view: view.message_count == 2)
        assert [each["user_id"] for each in view.messages] == ["ana", "bob"]
        assert follower.summarize()
        view = until(follower, lambda view: view.summary is not None)
        assert view.summary
        assert view.summary.questions[0].text == "Can I get a refund?"
        client.request("POST", "/chats", json=message("c1", "old"))
        view = until(follower, lambda view: view.message_count == 3)
        assert view.messages[0]["message_id"] == "old"


async def test_deletion_and_refusal_end_it(url: str, workspace: Workspace) -> None:
    client = Client(url, {"Authorization": f"Bearer {workspace.keys[Role.ADMIN]}"})
    client.send("c1", "ana", "customer", "Hello")
    with followed(url, workspace.keys[Role.VIEWER]) as follower:
        follower.wait(PATIENCE_S)
        client.delete_conversation("c1")
        until(follower, lambda view: view.state == "deleted")
    with followed(url, workspace.keys[Role.VIEWER]) as follower:
        view = until(follower, lambda view: view.state == "refused")
        assert view.error
        assert view.error.status == 404
    with followed(url, "ck_wrong") as follower:
        view = until(follower, lambda view: view.state == "refused")
        assert view.error
        assert view.error.status == 401


async def test_who_is_not_looked_at_ends(url: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    Client(url, {"Authorization": f"Bearer {workspace.keys[Role.EDITOR]}"}).send("c1", "ana", "customer", "Hello")
    monkeypatch.setattr(following, "LEASE_S", 0.5)
    monkeypatch.setattr(following, "TICK_S", 0.1)
    follower = Follower(url, "c1", lambda: {"Authorization": f"Bearer {workspace.keys[Role.VIEWER]}"})
    ends(follower)


async def test_it_goes_on_when_the_service_was_killed(settings: Settings, workspace: Workspace) -> None:
    assert (await workspace.editor.post("/chats", json=message())).status_code == 201
    with serving(settings) as first:
        port = first.url.rpartition(":")[2]
        with followed(first.url, workspace.keys[Role.VIEWER]) as follower:
            assert follower.wait(PATIENCE_S).state == "live"
            first.kill()
            until(follower, lambda view: view.state == "connecting")
            assert (await workspace.editor.post("/chats", json=message("c1", "m2"))).status_code == 201
            with serving(settings, PORT=port):
                view = until(follower, lambda view: view.state == "live")
                assert [each["message_id"] for each in view.messages] == ["m1", "m2"]
