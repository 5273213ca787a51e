"""Every page, as people with each role see it: full, empty, refused."""

import time
from collections.abc import Callable
from datetime import date

import pytest

from app.client import ApiError, Client
from app.client import live as following
from app.schemas.enums import Role
from app.ui import history, ranges, session
from tests.support.api import Workspace, message
from tests.ui.conftest import UI_URL, Browser, Visit, Visits

PATIENCE_S = 20.0

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> ![i](https://evil.example/i.png) [l](https://evil.example)"
    " :material/bolt: $x^2$ :red[r] &lt;b&gt; javascript:alert(1) \u202egnp.exe\u200b"
)


async def fill(workspace: Workspace, conversation_id: str = "c1") -> None:
    said = [("m1", "ana", "customer", "My parcel has not arrived. Can I get a refund?")]
    said += [("m2", "bob", "support_agent", "I have refunded 25 dollars to your card.")]
    said += [("m3", "ana", "customer", "Perfect, thank you so much!")]
    batch = [
        message(conversation_id, number, user_id=who, user_type=side, message_content=text)
        for number, who, side, text in said
    ]
    assert (await workspace.editor.post("/chats", json=batch)).status_code == 201


def test_who_is_not_signed_in_sees_the_sign_in_wherever_they_go(visit: Visits) -> None:
    for page in ("conversations", "conversation", "imports", "keys"):
        seen = visit(None).open(page)
        assert [field.label for field in seen.at.text_input] == ["API key"]


def test_a_key_signs_in_and_stays_out_of_the_page(visit: Visits, workspace: Workspace) -> None:
    seen = visit(None).run()
    seen.at.text_input[0].input("ck_wrong")
    assert "This key does not work" in seen.click("Sign in").text
    seen.at.text_input[0].input(workspace.keys[Role.VIEWER])
    seen.click("Sign in").run()
    assert "No conversations yet" in seen.text
    assert workspace.keys[Role.VIEWER] not in seen.html
    seen.click("Sign out")
    assert "You are signed out." in seen.text
    assert "credential" not in seen.at.session_state
    assert "me" not in seen.at.session_state


async def test_the_list_is_searched_and_filtered(visit: Visits, workspace: Workspace) -> None:
    await fill(workspace)
    await workspace.editor.post("/chats/summarize", json={"conversation_id": "c1"})
    seen = visit(Role.VIEWER).run()
    assert all(part in seen.text for part in ("c1", "ana", "3 messages", "resolved"))
    assert sorted(seen.labels) == ["Open", "Sign out"]
    seen.at.text_input(key="f-q").input("refund -parcel")
    assert "have refunded 25 dollars" in seen.run().text
    seen.at.selectbox(key="f-outcome").select("no")
    assert "Nothing matches" in seen.run().text
    assert "3 messages" in seen.click("Clear the filters").text


async def test_a_conversation_is_a_chat_with_its_summary_beside_it(visit: Visits, workspace: Workspace) -> None:
    await fill(workspace)
    await workspace.editor.post("/chats/summarize", json={"conversation_id": "c1"})
    seen = visit(Role.EDITOR).open("conversation", id="c1")
    assert all(part in seen.text for part in ("live", "Perfect, thank you so much!", "Can I get a refund?", "answered"))
    [quote, *_] = [part.partition('"')[0] for part in seen.html.split('class="ci-quote" href="#')[1:]]
    assert f'id="{quote}"' in seen.html
    assert "No insights yet" in seen.text
    seen.click("Analyse")
    assert "By participant" in seen.text
    assert seen.at.get("vega_lite_chart")


async def test_what_is_written_appears_and_a_viewer_writes_nothing(visit: Visits, workspace: Workspace) -> None:
    seen = visit(Role.EDITOR).open("conversation", id="new/one")
    assert "It begins with the first message." in seen.text
    seen.at.chat_input[0].set_value("Hello?")
    assert "Hello?" in seen.run().text
    seen.at.chat_input[0].set_value("Anybody there?")
    assert "Anybody there?" in seen.run().text
    stored = (await workspace.viewer.get("/chats/new%2Fone")).json()
    assert [each["user_type"] for each in stored["messages"]] == ["customer", "customer"]
    reading = visit(Role.VIEWER).open("conversation", id="new/one")
    assert "Anybody there?" in reading.text
    assert not reading.at.chat_input
    assert "Summarise" not in reading.labels
    assert "There is nothing here" in visit(Role.VIEWER).open("conversation", id="none").text


async def test_evidence_far_back_is_a_button_that_leads_to_its_part(visit: Visits, workspace: Workspace) -> None:
    batch = [
        message("long", f"m{n}", message_content=f"Line {n}", timestamp=f"2026-11-01T10:{n // 60:02}:{n % 60:02}Z")
        for n in range(450)
    ]
    batch[3]["message_content"] = "Can I get a refund?"
    await workspace.editor.post("/chats", json=batch)
    await workspace.editor.post("/chats/summarize", json={"conversation_id": "long"})
    seen = visit(Role.VIEWER).open("conversation", id="long")
    assert "The newest 100 of 450 messages." in seen.text
    seen.click("Show")
    assert "ci-hit" in seen.html
    assert "Line 199" in seen.text
    assert "Line 449" not in seen.text
    assert "Line 200" in seen.click("Later").text
    assert "Line 449" in seen.click("Newest, live").text


async def test_a_conversation_is_deleted_by_admins_alone(visit: Visits, workspace: Workspace) -> None:
    await fill(workspace)
    assert "Delete the conversation" not in visit(Role.EDITOR).open("conversation", id="c1").labels
    visit(Role.ADMIN).open("conversation", id="c1").click("Delete the conversation")
    assert (await workspace.viewer.get("/chats/c1")).status_code == 404


async def test_text_is_text_everywhere(visit: Visits, workspace: Workspace) -> None:
    sent = message(HOSTILE, HOSTILE, user_id=HOSTILE, message_content=f"{HOSTILE} refund?")
    assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
    for path in ("/chats/summarize", "/chats/insights"):
        assert (await workspace.editor.post(path, json={"conversation_id": HOSTILE})).status_code == 200
    listed = visit(Role.ADMIN).run()
    listed.at.text_input(key="f-q").input("refund")
    for seen in (listed.run(), visit(Role.ADMIN).open("conversation", id=HOSTILE)):
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in seen.html
        assert "<script" not in seen.html
        assert "<img" not in seen.html
        assert 'href="https://evil' not in seen.html
        drawn = [*seen.at.markdown, *seen.at.caption, *seen.at.error, *seen.at.button, *seen.at.selectbox]
        assert not [each for each in drawn if "evil" in str(getattr(each, "label", "")) + str(each.value)]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("usage", "No model was asked"),
        ("keys", "last used"),
        ("members", "No members yet"),
        ("audit", "workspace.created"),
    ],
)
def test_an_admin_sees_the_workspace_and_a_viewer_what_is_needed(visit: Visits, page: str, said: str) -> None:
    assert said in visit(Role.ADMIN).open(page).text
    seen = visit(Role.VIEWER).open(page)
    if page != "usage":
        assert "Your role does not allow this" in seen.text
        assert "You are signed in as viewer." in seen.text
    else:
        assert said in seen.text


async def test_keys_are_made_shown_once_and_ended(visit: Visits, workspace: Workspace) -> None:
    seen = visit(Role.ADMIN).open("keys")
    next(field for field in seen.at.text_input if field.label == "What it is for").input("checkout")
    seen.click("Make the key").run()
    [made] = [code.value for code in seen.at.code]
    assert made.startswith("ck_")
    assert not seen.click("I have copied it").at.code
    before = len((await workspace.admin.get("/auth/keys?limit=100")).json()["data"])
    seen.click("Delete it")
    assert len((await workspace.admin.get("/auth/keys?limit=100")).json()["data"]) == before - 1


async def test_members_are_invited_and_removed(visit: Visits, workspace: Workspace) -> None:
    seen = visit(Role.ADMIN).open("members")
    next(field for field in seen.at.text_input if field.label == "E-mail address").input("bob@example.com")
    seen.click("Invite").run()
    assert "bob@example.com" in seen.text
    seen.click("Remove").run()
    assert "No members yet" in seen.text
    seen.at.toggle(key="redact").set_value(False)
    assert "It holds from the next call on." in seen.run().text
    assert (await workspace.admin.get("/workspace")).json()["redact"] is False


async def test_what_another_admin_changed_stays_so(visit: Visits, workspace: Workspace, url: str) -> None:
    seen = visit(Role.ADMIN).open("members")
    assert seen.at.toggle(key="redact").value is True
    await workspace.admin.patch("/workspace", json={"redact": False})
    assert seen.run().at.toggle(key="redact").value is False
    assert (await workspace.admin.get("/workspace")).json()["redact"] is False
    seen.at.session_state["credential"] = workspace.keys[Role.VIEWER]  # their role was changed meanwhile
    seen.at.toggle(key="redact").set_value(True)
    assert "Your role does not allow this" in seen.run().text
    seen.at.session_state["credential"] = workspace.keys[Role.ADMIN]
    assert seen.run().at.toggle(key="redact").value is False
    assert (await workspace.admin.get("/workspace")).json()["redact"] is False


def test_a_budget_is_set(visit: Visits) -> None:
    seen = visit(Role.ADMIN).open("usage")
    seen.at.number_input[0].set_value(2.5)
    seen.click("Set").run()
    assert "$2.50" in seen.text


def test_a_key_that_ends_leads_back_to_the_sign_in(visit: Visits, workspace: Workspace) -> None:
    seen = visit(Role.VIEWER).run()
    key = workspace.keys[Role.VIEWER]
    seen.at.session_state["credential"] = key[:-1] + ("y" if key.endswith("x") else "x")
    seen.run()
    assert "You are signed out: the key or session has ended." in seen.text


def until(seen: Visit, holds: Callable[[], bool]) -> None:
    """Draws the page until something holds."""
    waiting = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < waiting, seen.text
        seen.run()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.EDITOR])
async def test_a_deletion_is_told_and_stays_told(visit: Visits, workspace: Workspace, role: Role) -> None:
    await fill(workspace)
    seen = visit(role).open("conversation", id="c1")
    follower = seen.at.session_state["follower"]
    await workspace.admin.delete("/chats/c1")
    until(seen, lambda: "This conversation was deleted" in seen.text)
    until(seen, lambda: not follower.running)
    for _ in range(3):
        assert "This conversation was deleted" in seen.run().text
        assert not seen.at.chat_input
    assert seen.at.session_state["follower"] is follower


def test_what_is_refused_is_asked_for_again_by_hand(visit: Visits, workspace: Workspace) -> None:
    seen = visit(Role.VIEWER).open("conversation", id="none")
    follower = seen.at.session_state["follower"]
    for _ in range(3):
        assert "There is nothing here" in seen.run().text
    assert seen.at.session_state["follower"] is follower
    seen.click("Try again")
    assert seen.at.session_state["follower"] is not follower


def test_a_conversation_that_does_not_come_is_not_an_empty_one(
    browser: Browser, url: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.configure(url, UI_URL)
    seen = Visit(workspace.keys[Role.EDITOR]).run()
    session.configure("http://127.0.0.1:1", UI_URL)
    monkeypatch.setattr(following, "TOLD_S", 0.0)
    seen.open("conversation", id="c1")
    until(seen, lambda: "The API does not answer" in seen.text)
    assert "Loading ..." in seen.text
    assert not seen.at.chat_input
    assert not [word for word in ("0 messages", "No messages yet", "No summary yet") if word in seen.text]
    seen.at.session_state["follower"].close()


async def test_what_could_not_be_sent_is_kept_and_sent_once(
    visit: Visits, workspace: Workspace, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(workspace)
    seen = visit(Role.EDITOR).open("conversation", id="c1")
    session.configure("http://127.0.0.1:1", UI_URL)
    seen.at.chat_input[0].set_value("Do not lose <this>.")
    seen.run()
    assert all(part in seen.text for part in ("Not sent: The API does not answer", "Do not lose <this>."))
    assert "Do not lose <this>." in seen.click("Send again").text
    session.configure(url, UI_URL)
    # It is stored, but the answer does not get here.
    send = Client.send

    def stored_unheard(*sent: str) -> None:
        send(*sent)  # type: ignore[arg-type]
        raise ApiError.unreachable(url)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "send", stored_unheard)
        assert "Not sent" in seen.click("Send again").text
    assert "Not sent" not in seen.click("Send again").text
    said = [each["message_content"] for each in (await workspace.viewer.get("/chats/c1")).json()["messages"]]
    assert said.count("Do not lose <this>.") == 1
    assert len(said) == 4


async def test_the_last_one_of_a_page_leads_to_the_page_before(visit: Visits, workspace: Workspace) -> None:
    batch = [message(f"c{number}", "m1") for number in range(21)]
    await workspace.editor.post("/chats", json=batch)
    seen = visit(Role.ADMIN).run().click("Older")
    assert "Page 2" in seen.text
    [last] = [name for name in (f"c{number}" for number in range(21)) if f">{name}<" in seen.html]
    await workspace.admin.delete(f"/chats/{last}")
    assert "No conversations yet" not in seen.run().text
    assert seen.labels.count("Open") == 20


async def test_a_summary_that_cannot_be_asked_for_says_so(
    visit: Visits, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(workspace)
    seen = visit(Role.EDITOR).open("conversation", id="c1")
    monkeypatch.setattr(following.Follower, "summarize", lambda _: False)  # the socket was closed just now
    seen.click("Summarise")
    assert [each.value for each in seen.at.toast] == ["Not connected: try again."]


async def test_a_message_that_is_gone_is_looked_for_a_thousand_at_a_time(
    visit: Visits, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [
        message("long", f"m{n}", timestamp=f"2026-11-01T1{n // 3600}:{n // 60 % 60:02}:{n % 60:02}Z")
        for n in range(2_300)
    ]
    for first in range(0, len(batch), 500):
        assert (await workspace.editor.post("/chats", json=batch[first : first + 500])).status_code == 201
    seen = visit(Role.VIEWER).open("conversation", id="long")
    asked: list[object] = []
    conversation = Client.conversation

    def counted(self: Client, conversation_id: str, **query: object) -> object:
        asked.append(query["limit"])
        return conversation(self, conversation_id, **query)

    monkeypatch.setattr(Client, "conversation", counted)
    seen.at.session_state[history.STATE] = history.History("long", "gone")
    assert "The message is not there any more" in seen.run().text
    assert asked == [1_000, 1_000, 1_000]
    seen.at.session_state[history.STATE] = history.History("long", "m1250")
    assert "ci-hit" in seen.run().html
    assert asked[3:] == [1_000, 1_000]
    for label, place in (("Earlier", 1_000), ("Earlier", 800), ("Later", 1_000)):
        shown = seen.click(label).at.session_state[history.STATE]
        assert shown.first == place
        assert shown.load()[0]["message_id"] == f"m{place}"


async def test_a_job_tells_what_it_left_out_and_one_that_is_gone_can_be_left(
    visit: Visits, workspace: Workspace
) -> None:
    await fill(workspace)
    seen = visit(Role.EDITOR).run()
    seen.at.session_state["job"] = "9007199254740993"
    assert "There is nothing here" in seen.run().text
    assert "There is nothing here" not in seen.click("Show the list anew").run().text
    job = (await workspace.editor.post("/jobs/summarize", json={"filter": {}})).json()
    seen.at.session_state["job"] = job["id"]
    assert "Cancel" in seen.run().labels
    seen.click("Cancel")
    assert "The job has ended: cancelled" in seen.run().text


def test_days_are_offered_for_three_hundred_years_and_end_with_time(visit: Visits) -> None:
    seen = visit(Role.VIEWER).run()
    first, last = seen.at.date_input
    assert (first.min, last.max) == (date(1900, 1, 1), date(2199, 12, 31))
    seen.at.date_input[0].set_value(date(1900, 1, 1))
    seen.at.date_input[1].set_value(date(2199, 12, 31))
    assert "Nothing matches" in seen.run().text
    assert ranges.day(date.max, after=1) is None
    assert ranges.day(date(2026, 11, 22)) == "2026-11-21T23:00:00Z"
