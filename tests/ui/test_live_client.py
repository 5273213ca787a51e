"""Following a conversation from a program: what is told, and when it ends."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest
from websockets.sync.server import ServerConnection, serve

from app.client import ApiError, Client, Follower, View
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
        ends(follower)
        assert not follower.lapsed
    with followed(url, workspace.keys[Role.VIEWER]) as follower:
        view = until(follower, lambda view: view.state == "refused")
        assert view.error
        assert view.error.status == 404
    with followed(url, "ck_wrong") as follower:
        view = until(follower, lambda view: view.state == "refused")
        assert view.error
        assert view.error.status == 401
        ends(follower)
        assert not follower.lapsed


async def test_who_is_not_looked_at_ends(url: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    Client(url, {"Authorization": f"Bearer {workspace.keys[Role.EDITOR]}"}).send("c1", "ana", "customer", "Hello")
    monkeypatch.setattr(following, "LEASE_S", 0.5)
    monkeypatch.setattr(following, "TICK_S", 0.1)
    follower = Follower(url, "c1", lambda: {"Authorization": f"Bearer {workspace.keys[Role.VIEWER]}"})
    ends(follower)
    assert follower.lapsed


async def test_what_is_not_there_yet_is_followed_once_it_is(
    url: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LONGEST_PAUSE_S", 0.1)
    with followed(url, workspace.keys[Role.VIEWER]) as follower:
        until(follower, lambda view: view.state == "refused")
        Client(url, {"Authorization": f"Bearer {workspace.keys[Role.EDITOR]}"}).send("c1", "ana", "customer", "Hello")
        assert until(follower, lambda view: view.state == "live").error is None


@pytest.mark.parametrize("status", [0, 429, 503])
async def test_a_token_that_cannot_be_had_now_is_asked_for_again(
    url: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    Client(url, {"Authorization": f"Bearer {workspace.keys[Role.EDITOR]}"}).send("c1", "ana", "customer", "Hello")
    monkeypatch.setattr(following, "TOLD_S", 0.0)
    answers = iter([ApiError(status, "away", "Away.")])
    seen = threading.Event()

    def headers() -> dict[str, str]:
        if error := next(answers, None):
            raise error
        assert seen.wait(PATIENCE_S)
        return {"Authorization": f"Bearer {workspace.keys[Role.VIEWER]}"}

    follower = Follower(url, "c1", headers)
    try:
        view = until(follower, lambda view: view.trouble is not None)
        assert (view.state, view.loaded) == ("connecting", False)
        assert view.trouble
        assert view.trouble.status == status
        seen.set()
        assert until(follower, lambda view: view.state == "live").trouble is None
    finally:
        follower.close()
        ends(follower)


def test_why_there_is_no_connection_is_told_when_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "TOLD_S", 1.0)
    with followed("http://127.0.0.1:1", "ck_any") as follower:
        assert follower.look().trouble is None
        view = until(follower, lambda view: view.trouble is not None)
        assert view.trouble
        assert (view.trouble.status, view.state, view.loaded) == (0, "connecting", False)


TOLD = {"user_id": "ana", "user_type": "customer", "timestamp": "2026-11-22T10:00:00Z"}


@contextmanager
def talking(conversation: Callable[[ServerConnection], None]) -> Iterator[str]:
    """Runs an API that says what it is told to on its socket."""
    with serve(conversation, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


def tell(socket: ServerConnection, kind: str, **more: object) -> None:
    socket.send(orjson.dumps({"type": kind, **more}).decode())


def begin(socket: ServerConnection) -> None:
    """Tells of a conversation without messages."""
    time_of = {"first_message_at": TOLD["timestamp"], "last_message_at": TOLD["timestamp"]}
    known = {"conversation_id": "c1", "message_count": 0, "participants": [], "sentiment": None, "outcome": None}
    tell(socket, "snapshot", conversation={**known, **time_of}, messages=[], summary=None)


def test_a_message_that_comes_while_a_summary_is_asked_for_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def say(socket: ServerConnection) -> None:
        begin(socket)
        for _ in socket:
            tell(socket, "message", message={**TOLD, "message_id": "1", "message_content": "x"})

    with talking(say) as url, followed(url, "ck_any") as follower:
        until(follower, lambda view: view.state == "live")

        def interrupted(view: View, **what: Any) -> View:
            # The other thread gets time to bring the message in between, if it may.
            waiting = time.monotonic() + 0.3
            while what == {"error": None} and not follower.look().messages and time.monotonic() < waiting:
                time.sleep(0.01)
            return replace(view, **what)

        monkeypatch.setattr(following, "replace", interrupted)
        assert follower.summarize()
        assert until(follower, lambda view: bool(view.messages)).message_count == 1


def test_of_a_long_message_the_beginning_is_kept() -> None:
    def say(socket: ServerConnection) -> None:
        begin(socket)
        tell(socket, "message", message={**TOLD, "message_id": "1", "message_content": "x" * 2**20})
        tell(socket, "message", message={**TOLD, "message_id": "2", "message_content": "y" * following.KEPT_CHARS})
        for _ in socket:
            pass

    with talking(say) as url, followed(url, "ck_any") as follower:
        long, short = until(follower, lambda view: view.message_count == 2).messages
        assert long["message_content"] == "x" * following.KEPT_CHARS + " ... (1,028,576 more)"
        assert short["message_content"] == "y" * following.KEPT_CHARS


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
