"""Commands about workspaces."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app.commands.common import check_name, out, run

group = typer.Typer(help="Make and list workspaces.", no_args_is_help=True)


@group.command("create")
def create_workspace(name: Annotated[str, typer.Argument(callback=check_name)]) -> None:
    """Make a workspace."""
    row, created = run(lambda services: services.workspaces.get_or_create(name))
    out.print(f"Workspace {row.name}: {'made' if created else 'exists already'}.", markup=False)


@group.command("list")
def list_workspaces() -> None:
    """List the workspaces."""
    table = Table("name", "id", "master key", "made at")
    for row in run(lambda services: services.workspaces.all()):
        table.add_row(escape(row.name), str(row.workspace_id), row.master_key_id, f"{row.created_at:%Y-%m-%d %H:%M}")
    out.print(table)
