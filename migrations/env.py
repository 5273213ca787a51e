"""Runs the migrations: one at a time, each in its own transaction, never waiting long for a lock."""

import time

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text
from sqlalchemy.exc import OperationalError

from app.errors import ConfigurationError
from app.factory import database_url
from app.models import Base
from app.settings import load_settings

ONE_MIGRATION_AT_A_TIME = 0x6368_6174
WAIT_FOR_OTHERS_S, LOOK_S = 600.0, 0.2
LOCK_TIMEOUT = "4s"


def migrate(connection: Connection) -> None:
    """Runs what the command line asked for; a second migrator waits until the first is done."""
    greeted = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]  # it is open
    if connection.scalar(text("SELECT pg_backend_pid()")) != greeted:
        raise ConfigurationError(
            "Between here and PostgreSQL is a pooler, whose sessions would keep a migration's locks. Migrate with a"
            " DATABASE_URL that goes past it."
        )
    # To build an index concurrently, the other one waits until no older transaction is left: none may wait for it here.
    until = time.monotonic() + WAIT_FOR_OTHERS_S
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": ONE_MIGRATION_AT_A_TIME}):
        connection.rollback()
        if time.monotonic() > until:
            raise ConfigurationError("Another migration has been running for ten minutes.")
        time.sleep(LOOK_S)
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.commit()
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """Migrates over the connection handed in, or the database of the settings, or the embedded one."""
    given: Connection | None = context.config.attributes.get("connection")
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
        return
    if given is not None:
        migrate(given)
        return
    with database_url(load_settings()) as url:
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=pool.NullPool)
        try:
            connection = engine.connect()
        except OperationalError:
            raise ConfigurationError("The database does not answer, or refuses the user of DATABASE_URL.") from None
        with connection:
            migrate(connection)


try:
    main()
except ConfigurationError as error:
    raise SystemExit(str(error)) from None
