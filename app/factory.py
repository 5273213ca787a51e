"""The only place where parts meet."""

import ipaddress
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from app import metrics
from app.bus import Bus
from app.db import Database
from app.errors import ConfigurationError
from app.llm.gateway import Gateway
from app.llm.hops import Hop
from app.llm.local.engine import LOCAL_MODEL
from app.llm.topics import TopicLabels
from app.logs import configure_logs
from app.reads import Reads
from app.schemas.enums import Provider
from app.security.cursors import CursorSigner
from app.security.encryption import MasterKeys, derive
from app.security.targets import Targets
from app.security.tokens import TokenSigner
from app.services.audit import AuditService
from app.services.auth import AuthService
from app.services.chats import ChatService
from app.services.deliveries import DeliveryService
from app.services.evaluation import EvaluationService
from app.services.feedback import FeedbackService
from app.services.health import HealthService, check_database
from app.services.idempotency import IdempotencyService
from app.services.imports import ImportService
from app.services.insights import InsightsService
from app.services.jobs import JobService
from app.services.keys import KeyService
from app.services.live import LiveService
from app.services.members import MemberService
from app.services.rate_limits import RateClass, RateLimits, parse_limit
from app.services.retention import RetentionService
from app.services.search import SearchService
from app.services.sign_in import SignInService
from app.services.summaries import SummaryService
from app.services.topics import TopicService
from app.services.trends import TrendService
from app.services.turns import Turns
from app.services.usage import UsageService
from app.services.webhooks import WebhookService
from app.services.workspaces import WorkspaceService
from app.settings import Settings, generate_secrets, master_keys, secret_keys
from app.telemetry import reporting, tracing

if TYPE_CHECKING:
    from app.security.oauth import SignInProvider


@dataclass(frozen=True, slots=True)
class Services:
    """Every use case, ready to be called."""

    audit: AuditService
    auth: AuthService
    chats: ChatService
    deliveries: DeliveryService
    evaluation: EvaluationService
    feedback: FeedbackService
    health: HealthService
    idempotency: IdempotencyService
    imports: ImportService
    insights: InsightsService
    jobs: JobService
    keys: KeyService
    large_writes: Turns
    live: LiveService
    members: MemberService
    rate_limits: RateLimits
    reads: Reads
    retention: RetentionService
    search: SearchService
    sign_in: SignInService
    summaries: SummaryService
    topics: TopicService
    trends: TrendService
    usage: UsageService
    webhooks: WebhookService
    workspaces: WorkspaceService
    queue_connection: Callable[[], AbstractAsyncContextManager[Any]]
    base_url: str
    ui_url: str
    cors_origins: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    max_body_bytes: int
    metrics_token: str | None


@contextmanager
def observed(settings: Settings) -> Iterator[None]:
    """Writes the log, and sends traces and reports of defects if they are wanted, until the block ends."""
    with tracing(settings.otel_exporter_otlp_endpoint), reporting(_plain(settings.sentry_dsn)) as processors:
        configure_logs(settings.log_level, processors)
        yield


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """Yields the URL of the configured database, or of PostgreSQL in the data folder while it runs."""
    if settings.database_url:
        yield _url(settings.database_url)
        return
    from app.embedded import embedded_server

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
    secrets = secret_keys(settings)
    async with AsyncExitStack() as stack:
        db = Database(url, pool_size=settings.database_pool_size, timeout_s=settings.database_timeout_s)
        stack.push_async_callback(db.close)
        replica = replica_of(settings)
        if replica:
            stack.push_async_callback(replica.close)
        beside = Database(url, pool_size=1, timeout_s=settings.database_timeout_s, server=None)
        stack.push_async_callback(beside.close)
        reads = Reads(db, beside, replica)
        bus = Bus(db.connect)
        db.on_commit = bus.tell
        stack.push_async_callback(bus.close)
        rate_limits = limits_of(settings, derive(secrets[0], "rate limits"))
        stack.push_async_callback(rate_limits.close)
        workspaces = WorkspaceService(db, keys)
        cursors = CursorSigner([derive(secret, "cursors") for secret in secrets])
        peppers = [derive(secret, "api keys") for secret in secrets]
        signer = TokenSigner(secrets)
        chats = ChatService(db, workspaces, cursors)
        large_writes = Turns(max(1, settings.database_pool_size // 3))
        usage = UsageService(db)
        hops = [_told(hop(settings, model)) for model in configured_models(settings)]
        gateway = Gateway(hops, deadline_s=settings.llm_deadline_s)
        feedback = FeedbackService(db, workspaces)
        trends = TrendService(db, workspaces)
        stack.push_async_callback(trends.close)
        search = SearchService(db, reads, workspaces, cursors, trends)
        summaries = SummaryService(db, workspaces, usage, gateway)
        await check_database(beside)
        await workspaces.check_master_keys()
        targets = Targets([ipaddress.ip_network(each) for each in settings.webhook_allowed_networks])
        auth = AuthService(db, signer, peppers)
        sign_in = SignInService(db, workspaces, signer, _providers(settings), settings.base_url)
        yield Services(
            audit=AuditService(db, workspaces, cursors),
            auth=auth,
            chats=chats,
            deliveries=DeliveryService(db, workspaces, targets, settings.base_url),
            evaluation=EvaluationService(chats, feedback, workspaces),
            feedback=feedback,
            health=HealthService(beside, reads, rate_limits, hops),
            idempotency=IdempotencyService(db, workspaces),
            imports=ImportService(chats, large_writes),
            insights=InsightsService(db, workspaces, usage, gateway),
            jobs=JobService(db, search, summaries, hops[0].model if hops else LOCAL_MODEL),
            keys=KeyService(db, cursors, peppers[0]),
            large_writes=large_writes,
            live=LiveService(db, bus, auth, workspaces, summaries),
            members=MemberService(db, cursors),
            rate_limits=rate_limits,
            reads=reads,
            retention=RetentionService(workspaces, search, settings.retention_days),
            search=search,
            sign_in=sign_in,
            summaries=summaries,
            topics=TopicService(db, workspaces, usage, TopicLabels(hops, settings.llm_deadline_s)),
            trends=trends,
            usage=usage,
            webhooks=WebhookService(db, workspaces, cursors, targets),
            workspaces=workspaces,
            queue_connection=db.alone,
            base_url=settings.base_url,
            ui_url=settings.ui_base_url,
            cors_origins=settings.cors_origins,
            trusted_proxies=settings.trusted_proxies,
            max_body_bytes=settings.max_body_bytes,
            metrics_token=_plain(settings.metrics_token),
        )


def _told(hop: Hop) -> Hop:
    """Returns a model that metrics are to tell of."""
    metrics.read_level(metrics.breaker_open.labels(hop.model), lambda: hop.breaker.is_open)
    return hop


def replica_of(settings: Settings) -> Database | None:
    """Returns the replica, if one is configured."""
    if settings.database_replica_url is None:
        return None
    url = _url(settings.database_replica_url)
    return Database(url, pool_size=settings.database_pool_size, timeout_s=settings.database_timeout_s, server="replica")


def limits_of(settings: Settings, key: bytes = b"") -> RateLimits:
    """Returns the rate limits; raises ``ConfigurationError`` for one that is none."""
    texts: dict[RateClass, str] = {kind: getattr(settings, f"rate_limit_{kind}") for kind in RateClass}
    for kind, text in texts.items():
        try:
            parse_limit(text)
        except ValueError as error:
            raise ConfigurationError(f"RATE_LIMIT_{kind.upper()}: {error}") from None
    return RateLimits(texts, _plain(settings.rate_limit_storage_url), key=key)


def _url(database: SecretStr) -> str:
    return database.get_secret_value().replace("postgres://", "postgresql://", 1)


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _providers(settings: Settings) -> "dict[Provider, SignInProvider]":
    found: dict[Provider, SignInProvider] = {}
    if not (settings.google_client_id or settings.github_client_id):
        return found
    from app.security.oauth import GitHub, Google  # 4 MB and a tenth of a second, which many do without

    if settings.google_client_id and settings.google_client_secret:
        secret = settings.google_client_secret.get_secret_value()
        found[Provider.GOOGLE] = Google(settings.google_issuer, settings.google_client_id, secret)
    if settings.github_client_id and settings.github_client_secret:
        secret = settings.github_client_secret.get_secret_value()
        urls = settings.github_url.rstrip("/"), settings.github_api_url.rstrip("/")
        found[Provider.GITHUB] = GitHub(*urls, settings.github_client_id, secret)
    return found


def configured_models(settings: Settings) -> list[str]:
    """Returns the models of the providers that have a key, in the order they are asked."""
    listed = [(settings.xai_model, settings.xai_api_key), (settings.gemini_model, settings.gemini_api_key)]
    return [model for model, key in listed if key]


def hop(settings: Settings, model: str) -> Hop:
    """Returns the way to a model; raises ``ConfigurationError`` without its provider's key.

    Keys of other providers than Grok's and Gemini's are litellm's business.
    """
    provider = model.partition("/")[0]
    timeout_s, max_chars = settings.llm_timeout_s, settings.llm_max_input_chars
    if provider not in ("xai", "gemini"):
        return Hop(model, timeout_s, max_chars)
    key: SecretStr | None = getattr(settings, f"{provider}_api_key")
    if key is None:
        raise ConfigurationError(f"{model} cannot be asked: {provider.upper()}_API_KEY is not set.")
    return Hop(model, timeout_s, max_chars, key.get_secret_value(), getattr(settings, f"{provider}_api_base"))
