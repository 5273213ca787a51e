"""The only place where parts meet."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from app.db import Database
from app.embedded import embedded_server
from app.llm.gateway import Gateway, Hop
from app.security.cursors import CursorSigner
from app.security.encryption import MasterKeys, derive
from app.services.analyses import InsightsService, SummaryService
from app.services.auth import AuthService
from app.services.chats import ChatService
from app.services.health import HealthService
from app.services.imports import ImportService
from app.services.search import SearchService
from app.services.workspaces import WorkspaceService
from app.settings import Settings, generate_secrets, master_keys, secret_key


@dataclass(frozen=True, slots=True)
class Services:
    """Every use case, ready to be called."""

    auth: AuthService
    chats: ChatService
    health: HealthService
    imports: ImportService
    insights: InsightsService
    search: SearchService
    summaries: SummaryService
    workspaces: WorkspaceService
    max_body_bytes: int


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """Yields the URL of the configured database, or of PostgreSQL in the data folder while it runs."""
    if settings.database_url:
        yield settings.database_url.get_secret_value().replace("postgres://", "postgresql://", 1)
        return
    generate_secrets(settings)
    with embedded_server(settings.data_dir / "postgres") as url:
        yield url


@asynccontextmanager
async def build(settings: Settings, url: str) -> AsyncIterator[Services]:
    """Yields the services on a database.

    Raises:
        ConfigurationError: if a secret is missing, or the database is not migrated or under another master key.
        Unavailable: if the database does not answer.
    """
    keys = MasterKeys(master_keys(settings))
    secret = secret_key(settings)
    db = Database(url, pool_size=settings.database_pool_size, timeout_s=settings.database_timeout_s)
    try:
        workspaces = WorkspaceService(db, keys)
        cursors = CursorSigner(derive(secret, "cursors"))
        chats = ChatService(db, workspaces, cursors)
        gateway = Gateway(_hops(settings))
        health = HealthService(db)
        await health.check()
        await workspaces.check_master_keys()
        yield Services(
            auth=AuthService(db, derive(secret, "api keys")),
            chats=chats,
            health=health,
            imports=ImportService(chats),
            insights=InsightsService(db, workspaces, gateway),
            search=SearchService(db, workspaces, cursors),
            summaries=SummaryService(db, workspaces, gateway),
            workspaces=workspaces,
            max_body_bytes=settings.max_body_bytes,
        )
    finally:
        await db.close()


def _hops(settings: Settings) -> list[Hop]:
    def hop(model: str, key: SecretStr | None, base: str | None) -> list[Hop]:
        if key is None:
            return []
        timeout_s, max_chars = settings.llm_timeout_s, settings.llm_max_input_chars
        return [Hop(model, timeout_s, max_chars, api_key=key.get_secret_value(), api_base=base)]

    return [
        *hop(settings.xai_model, settings.xai_api_key, settings.xai_api_base),
        *hop(settings.gemini_model, settings.gemini_api_key, settings.gemini_api_base),
    ]
