"""What commands share: where they print, and the services they call."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console

from app.settings import Settings, load_settings

# What opens the services takes a second to import: a command does so itself, after what it can refuse at once.
if TYPE_CHECKING:
    from app.factory import Services

T = TypeVar("T")

WORKSPACE = "demo"
"""Where the sample conversations go."""

out = Console()
err = Console(stderr=True)


def check_name(text: str) -> str:
    """Returns a name that can be shown; raises ``BadParameter`` for another text."""
    if not 1 <= len(text) <= 255 or not text.isprintable():
        raise typer.BadParameter("1 to 255 printable characters")
    return text


WorkspaceName = Annotated[str, typer.Option("--workspace", "-w", help="Name of the workspace.", callback=check_name)]


async def with_services(settings: Settings, url: str, action: "Callable[[Services], Awaitable[T]]") -> T:
    """Does something with the services of a database."""
    from app.factory import build

    async with build(settings, url) as services:
        return await action(services)


def run(action: "Callable[[Services], Awaitable[T]]") -> T:
    """Does something with the services of the configured database."""
    from app.factory import database_url

    settings = load_settings()
    with database_url(settings) as url:
        return asyncio.run(with_services(settings, url, action))
