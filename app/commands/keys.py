"""Commands about API keys and the master key."""

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from app.commands.common import WorkspaceName, check_name, err, out, run
from app.schemas.accounts import KeyIn, PageQuery
from app.schemas.chats import PAGE_SIZE
from app.schemas.enums import Role
from app.schemas.viewer import Viewer

if TYPE_CHECKING:
    from app.factory import Services

group = typer.Typer(help="Make, list and revoke API keys; rotate the master key.", no_args_is_help=True)


@group.command("create")
def create_key(
    workspace: WorkspaceName,
    role: Annotated[Role, typer.Option(help="What the key may do.")],
    name: Annotated[str, typer.Option(help="What the key is for.", callback=check_name)] = "-",
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=36_500)] = None,
) -> None:
    """Make an API key and print it, and nothing else; it is never shown again. A new workspace is made if needed."""

    async def create(services: "Services") -> str:
        row, created = await services.workspaces.get_or_create(workspace)
        if created:
            err.print(f"Workspace {row.name} made.", markup=False)
        expires_at = datetime.now(UTC) + timedelta(days=expires_in_days) if expires_in_days else None
        wanted = KeyIn(name=name, role=role, expires_at=expires_at)
        return (await services.keys.create(Viewer(row.workspace_id, Role.ADMIN), wanted)).key

    sys.stdout.write(run(create) + "\n")


@group.command("list")
def list_keys(workspace: WorkspaceName) -> None:
    """List a workspace's API keys, without the keys themselves."""

    async def find(services: "Services") -> Table:
        table = Table(Column("id", no_wrap=True, min_width=19), "name", "role", "made at", "expires at", "last used at")
        row = await services.workspaces.named(workspace)
        viewer, query = Viewer(row.workspace_id, Role.ADMIN), PageQuery(limit=PAGE_SIZE)
        while True:
            page = await services.keys.page(viewer, query)
            for key in page.data:
                times = (key.created_at, key.expires_at, key.last_used_at)
                shown = (f"{time:%Y-%m-%d %H:%M}" if time else "" for time in times)
                table.add_row(key.id, escape(key.name), key.role, *shown)
            if page.next_cursor is None:
                return table
            query = PageQuery(limit=PAGE_SIZE, cursor=page.next_cursor)

    out.print(run(find))


@group.command("revoke")
def revoke_key(workspace: WorkspaceName, key_id: Annotated[int, typer.Argument(min=1, max=2**63 - 1)]) -> None:
    """Delete an API key; every instance refuses it within 5 seconds."""

    async def revoke(services: "Services") -> None:
        row = await services.workspaces.named(workspace)
        await services.keys.delete(Viewer(row.workspace_id, Role.ADMIN), key_id)

    run(revoke)
    out.print(f"Key {key_id} revoked.")


@group.command("rotate-master")
def rotate_master() -> None:
    """Put every workspace's data key under MASTER_KEY; those in PREVIOUS_MASTER_KEYS are not needed afterwards."""
    with err.status("Wrapping ...") as status:
        changed = run(
            lambda services: services.workspaces.rewrap(lambda done, total: status.update(f"{done} of {total} ..."))
        )
    out.print(f"{changed} data keys wrapped anew.")
