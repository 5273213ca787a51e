"""Every page, as people with each role see it: full, empty, refused."""

import pytest

from app.schemas.enums import Role
from tests.support.api import Workspace, message
from tests.ui.conftest import Visits

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
    seen.run()
    assert (await workspace.admin.get("/workspace")).json()["redact"] is False


def test_a_budget_is_set(visit: Visits) -> None:
    seen = visit(Role.ADMIN).open("usage")
    seen.at.number_input[0].set_value(2.5)
    seen.click("Set").run()
    assert "$2.50" in seen.text


def test_a_key_that_ends_leads_back_to_the_sign_in(visit: Visits, workspace: Workspace) -> None:
    seen = visit(Role.VIEWER).run()
    seen.at.session_state["credential"] = workspace.keys[Role.VIEWER][:-1] + "x"
    seen.run()
    assert "You are signed out: the key or session has ended." in seen.text
