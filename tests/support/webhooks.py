"""What tests of webhooks share: making one, having something to tell, and sending what is due without a worker."""

from typing import Any, NamedTuple

import psycopg

from app.factory import Services
from tests.support.api import Workspace, message
from tests.support.canaries import CANARIES, Kind
from tests.support.receiver import Receiver

ALL = ["summary.created", "insights.created", "question.unanswered", "conversation.deleted", "job.finished"]
ASKED = "Where is my parcel? I have been waiting for two weeks."


class Hook(NamedTuple):
    """A webhook, and whom to ask about it."""

    workspace: Workspace
    workspace_id: int
    id: str
    secret: str

    async def log(self, limit: int = 10) -> list[dict[str, Any]]:
        answered = await self.workspace.admin.get(f"/webhooks/{self.id}/deliveries", params={"limit": limit})
        assert answered.status_code == 200, answered.text
        found: list[dict[str, Any]] = answered.json()["data"]
        return found

    async def shown(self) -> dict[str, Any]:
        listed = (await self.workspace.admin.get("/webhooks")).json()["data"]
        [found] = [each for each in listed if each["id"] == self.id]
        return dict(found)

    async def replay(self, delivery: str) -> Any:
        return await self.workspace.admin.post(f"/webhooks/{self.id}/deliveries/{delivery}/replay")


async def hook(workspace: Workspace, target: Receiver, *events: str) -> Hook:
    made = await workspace.admin.post("/webhooks", json={"url": target.url, "events": events or ALL})
    assert made.status_code == 201, made.text
    workspace_id = (await workspace.admin.get("/auth/me")).json()["workspace"]["id"]
    CANARIES.learn(Kind.WEBHOOK, target.url.partition("?")[2])
    return Hook(workspace, int(workspace_id), made.json()["id"], made.json()["secret"])


async def send_all(services: Services, *hooks: Hook) -> None:
    """Sends everything that is due."""
    for each in hooks:
        while await services.deliveries.deliver(each.workspace_id, int(each.id)):
            pass


def pass_time(database: psycopg.Connection) -> None:
    """Makes due what waits to be tried again."""
    database.execute("UPDATE webhook_deliveries SET due_at = now() WHERE due_at IS NOT NULL")
    database.commit()


async def summarize(workspace: Workspace, conversation_id: str = "c1", text: str = ASKED) -> None:
    sent = message(conversation_id, message_content=text)
    assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
    wanted = {"conversation_id": conversation_id, "force": True}
    assert (await workspace.editor.post("/chats/summarize", json=wanted)).status_code == 200
