"""The command line: ``python -m app --help``."""

import gc
import signal
from typing import NoReturn

import typer

from app.commands import data, doctor, keys, server, workspaces
from app.commands.common import err
from app.errors import ConfigurationError, Problem
from app.logs import configure_logs

cli = typer.Typer(help="Chat Summarization and Insights API.", no_args_is_help=True, pretty_exceptions_enable=False)
for command in (
    server.serve,
    server.work,
    server.ui,
    server.migrate,
    server.demo,
    data.seed,
    data.evaluate,
    doctor.doctor,
):
    cli.command()(command)
cli.add_typer(workspaces.group, name="workspaces")
cli.add_typer(keys.group, name="keys")


def main() -> None:
    """Runs a command; what goes wrong foreseeably is one message, not a traceback."""

    def stop(*_: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    # Without this the end of the process, or of its terminal, would leave the embedded PostgreSQL behind.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    configure_logs("warning")
    gc.set_threshold(10_000)  # imports leave little garbage: to look for it took a seventh of the start
    try:
        cli()
    except (ConfigurationError, Problem) as error:
        err.print(str(error), style="red", markup=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
