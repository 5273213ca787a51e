"""The command that looks whether everything is as it has to be."""

import asyncio
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from app.commands.common import out
from app.settings import load_settings

STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}


def doctor(
    call: Annotated[
        bool, typer.Option("--call", help="Ask each configured model one word, which costs a little.")
    ] = False,
) -> None:
    """Look whether everything is as it has to be, and say what to do about what is not."""
    from app.doctor import State, examine

    settings = load_settings()
    table = Table(Column("check", no_wrap=True), Column("state", no_wrap=True), "found", "what to do")
    failed = False
    for finding in asyncio.run(examine(settings, call=call)):
        shown = f"[{STYLES[finding.state]}]{finding.state}[/]"
        table.add_row(escape(finding.check), shown, escape(finding.found), escape(finding.action))
        failed = failed or finding.state is State.FAILED
    out.print(table)
    if failed:
        raise typer.Exit(1)
