"""What tests talk to: the application's HTTP interface, with a client for each role."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from fastapi import FastAPI

from app.factory import Services
from app.schemas.accounts import KeyIn
from app.schemas.enums import Role
from app.schemas.viewer import Viewer


@dataclass(frozen=True)
class Workspace:
    """A workspace's clients, one for each role, and its keys."""

    viewer: httpx.AsyncClient
    editor: httpx.AsyncClient
    admin: httpx.AsyncClient
    keys: dict[Role, str]


@asynccontextmanager
async def open_workspace(app: FastAPI, services: Services, name: str) -> AsyncIterator[Workspace]:
    """Yields a new workspace with a client for each role."""
    row, _ = await services.workspaces.get_or_create(name)
    keys = {role: await create_key(services, row.workspace_id, role) for role in Role}
    clients = {role: client(app, key) for role, key in keys.items()}
    try:
        yield Workspace(clients[Role.VIEWER], clients[Role.EDITOR], clients[Role.ADMIN], keys)
    finally:
        for each in clients.values():
            await each.aclose()


async def create_key(services: Services, workspace_id: int, role: Role) -> str:
    """Returns a new API key."""
    operator = Viewer(workspace_id, Role.ADMIN)
    return (await services.keys.create(operator, KeyIn(name="test", role=role))).key


def client(app: FastAPI, key: str | None = None) -> httpx.AsyncClient:
    """Returns a client of the application, with an API key or without."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers)


def message(conversation_id: str = "c1", message_id: str = "m1", **more: str) -> dict[str, str]:
    """Returns a message as a client sends it."""
    return {
        "conversation_id": conversation_id,
        "message_id": message_id,
        "user_id": "ana",
        "user_type": "customer",
        "message_content": "My parcel has not arrived yet.",
        "timestamp": "2026-11-01T10:00:00.000000Z",
        **more,
    }
