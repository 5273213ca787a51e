from tests.support.api import Workspace, message


async def test_a_message_is_stored_and_read(workspace: Workspace) -> None:
    stored = await workspace.editor.post("/chats", json=message())
    assert stored.status_code == 201, stored.text
    read = await workspace.viewer.get("/chats/c1")
    assert read.json()["messages"][0]["message_content"] == message()["message_content"]
    found = await workspace.viewer.get("/chats", params={"q": "parcel arrive"})
    assert found.json()["data"][0]["matches"][0]["message_id"] == "m1"
