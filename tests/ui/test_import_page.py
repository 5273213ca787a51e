"""Importing by the page: what fits, what is matched, what is rejected."""

from app.schemas.enums import Role
from app.ui import session
from tests.support.api import Workspace
from tests.ui.conftest import UI_URL, Visits

FITTING = (
    "conversation_id,message_id,user_id,user_type,message_content\nc1,m1,ana,customer,Hello\nc1,m2,bob,robot,beep\n"
)
OTHER = "thread;who;side;what;note\nt1;ana;customer;Hello;x\n"


async def test_a_file_that_fits_is_stored_and_its_errors_told(visit: Visits, workspace: Workspace) -> None:
    seen = visit(Role.EDITOR).open("imports")
    assert "message_content" in seen.html
    seen.at.file_uploader[0].set_value(("mine.csv", FITTING.encode(), "text/csv"))
    seen.run().click("Import")
    assert all(part in seen.text for part in ("2 rows read", "mine.csv", "Input should be 'customer'"))
    assert '<td class="ci-number">3</td>' in seen.html
    assert (await workspace.viewer.get("/chats/c1")).json()["message_count"] == 1
    assert seen.click("Import").text.partition("Duplicates")[2].split()[0] == "1"


async def test_columns_are_matched(visit: Visits, workspace: Workspace) -> None:
    seen = visit(Role.EDITOR).open("imports")
    seen.at.file_uploader[0].set_value(("other.csv", OTHER.encode(), "text/csv"))
    seen.run()
    assert "Columns are missing" in seen.text
    for field, column in {"conversation_id": "thread", "user_id": "who", "user_type": "side"}.items():
        seen.at.selectbox(key=f"column-{field}").select(column)
    seen.at.selectbox(key="column-message_content").select("what")
    assert "note" in seen.run().text
    assert "1 rows read" in seen.click("Import").text
    assert (await workspace.viewer.get("/chats/t1")).json()["messages"][0]["message_content"] == "Hello"


def test_a_cut_import_is_to_be_repeated_only_if_rows_have_ids(visit: Visits, url: str) -> None:
    for content, warned, told in (
        (FITTING, "goes on from there", "What was stored counts as duplicate then."),
        (FITTING.replace("message_id,", "").replace(",m1,", ",").replace(",m2,", ","), "stores that twice", "twice."),
    ):
        seen = visit(Role.EDITOR).open("imports")
        seen.at.file_uploader[0].set_value(("mine.csv", content.encode(), "text/csv"))
        assert "leaving the page stops it" in seen.run().text
        assert warned in seen.text
        session.configure("http://127.0.0.1:1", UI_URL)
        assert told in seen.click("Import").text
        session.configure(url, UI_URL)


def test_a_viewer_is_told_whom_to_ask(visit: Visits) -> None:
    assert "ask an admin" in visit(Role.VIEWER).open("imports").text


def test_what_is_no_csv_is_told(visit: Visits) -> None:
    seen = visit(Role.EDITOR).open("imports")
    seen.at.file_uploader[0].set_value(("mine.csv", b"\xff\xfe", "text/csv"))
    assert "This file cannot be read" in seen.run().text
