"""Every setting, from the environment and ``.env``, checked at start."""

import base64
import binascii
import ipaddress
import os
import re
import secrets
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import ConfigurationError

ROOT = Path(__file__).parent.parent
SECRET_BYTES = 32
FEWEST_DIFFERENT = 8
"""How many of a secret's bytes are different at least: of random ones there are never fewer."""
SMALLEST_PREFIX = 8


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


_LABEL = r"(?!-)[\w*-]{1,63}(?<!-)"
_ORIGIN = re.compile(rf"(https?)://({_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::([0-9]{{1,5}}))?")


def check_origin(value: str) -> str:
    """Returns an origin (RFC 6454) without a slash at its end; raises ``ValueError`` for anything else."""
    value = value.removesuffix("/")
    found = _ORIGIN.fullmatch(value)
    if not found or not _has_host(value):
        raise ValueError("must be an origin such as https://chat.example.com: scheme, host and port, nothing else")
    scheme, host, port = found.groups()
    if "*" in host or value != value.lower() or not value.isascii():
        raise ValueError("must name one origin exactly, in lower case: * would let every website in")
    if port == {"http": "80", "https": "443"}[scheme]:
        raise ValueError("must leave out the port that goes without saying, as browsers do")
    return _check_scheme(value)


_PLACE = re.compile(r"(?:/[\w.~-]*[\w~-][\w.~-]*)*", re.ASCII)


def _check_place(value: str) -> str:
    value = value.rstrip("/")
    path = urlsplit(value).path
    if not _PLACE.fullmatch(path) or "?" in value or "#" in value:
        raise ValueError("must be an origin, or one with a plain path such as https://chat.example.com/ui")
    return check_origin(value.removesuffix(path)) + path


def _check_issuer(value: str) -> str:
    if not _has_host(value):
        raise ValueError("must be a URL such as https://accounts.google.com, without a name or a password")
    return _check_scheme(value)


def _has_host(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return bool(parts.hostname and parts.port != 0 and "@" not in parts.netloc)
    except ValueError:
        return False


def _check_scheme(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme == "https" or (parts.scheme == "http" and _loopback(parts.hostname or "")):
        return value
    raise ValueError("must begin with https:// (http:// is for localhost only): cookies and tokens would be readable")


def _check_proxy(value: str) -> str:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError("must be addresses or networks such as 10.0.0.0/8, separated by commas") from None
    if network.prefixlen < SMALLEST_PREFIX:
        raise ValueError("must name your proxies, not half of all addresses: whoever is named can invent an address")
    return str(network)


def _check_network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise ValueError("must be addresses or networks such as 10.1.0.0/16, separated by commas") from None


List = Annotated[tuple[str, ...], NoDecode]
Url = Annotated[str, AfterValidator(_check_issuer)]


class Settings(BaseSettings):
    """The service's configuration; ``.env.example`` says what each setting does."""

    model_config = SettingsConfigDict(env_file=ROOT / ".env", env_ignore_empty=True, extra="ignore", frozen=True)

    data_dir: Path = ROOT / ".data"
    database_url: SecretStr | None = None
    database_replica_url: SecretStr | None = None
    master_key: SecretStr | None = None
    previous_master_keys: SecretStr | None = None
    secret_key: SecretStr | None = None
    previous_secret_keys: SecretStr | None = None

    public_base_url: Annotated[str | None, AfterValidator(lambda value: value and check_origin(value))] = None
    cors_origins: List = ()
    trusted_proxies: List = ()
    webhook_allowed_networks: List = ()
    google_client_id: str | None = None
    google_client_secret: SecretStr | None = None
    google_issuer: Url = "https://accounts.google.com"
    github_client_id: str | None = None
    github_client_secret: SecretStr | None = None
    github_url: Url = "https://github.com"
    github_api_url: Url = "https://api.github.com"

    rate_limit_read: str = "60000/minute"
    rate_limit_write: str = "60000/minute"
    rate_limit_search: str = "6000/minute"
    rate_limit_llm: str = "600/minute"
    rate_limit_address: str = "600/minute"
    rate_limit_storage_url: SecretStr | None = None

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    web_concurrency: Annotated[int, Field(ge=1, le=256)] = 1
    shutdown_delay_s: Annotated[float, Field(ge=0, le=300)] = 5.0
    api_url: Annotated[str | None, Field(pattern=r"^https?://[^/?#@\s]+$")] = None
    ui_port: Annotated[int, Field(ge=1, le=65_535)] = 8501
    ui_url: Annotated[str | None, AfterValidator(lambda value: value and _check_place(value))] = None
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    metrics_token: Annotated[SecretStr | None, Field(min_length=16, max_length=255)] = None
    worker_metrics_port: Annotated[int | None, Field(ge=1, le=65_535)] = None
    otel_exporter_otlp_endpoint: Annotated[str | None, Field(pattern="^https?://[^@]+$")] = None
    sentry_dsn: SecretStr | None = None
    max_body_bytes: Annotated[int, Field(ge=1_024, le=2**30)] = 16 * 2**20

    retention_days: Annotated[int | None, Field(ge=1, le=36_500)] = None

    database_pool_size: Annotated[int, Field(ge=1, le=1_000)] = 10
    database_timeout_s: Annotated[float, Field(gt=0, le=600)] = 7.0

    xai_api_key: SecretStr | None = None
    xai_api_base: str | None = None
    xai_model: Annotated[str, Field(pattern="^xai/.+")] = "xai/grok-4.3"
    gemini_api_key: SecretStr | None = None
    gemini_api_base: str | None = None
    gemini_model: Annotated[str, Field(pattern="^gemini/.+")] = "gemini/gemini-2.5-flash"
    llm_timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    llm_deadline_s: Annotated[float, Field(gt=0, le=600)] = 60.0
    llm_max_input_chars: Annotated[int, Field(ge=1_000, le=2_000_000)] = 600_000

    @field_validator("data_dir")
    @classmethod
    def _anchor(cls, value: Path) -> Path:
        return ROOT / value.expanduser()

    @field_validator("database_url", "database_replica_url")
    @classmethod
    def _check_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        return value

    @field_validator("master_key", "secret_key")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value:
            decode_secret(value.get_secret_value())
        return value

    @field_validator("previous_master_keys", "previous_secret_keys")
    @classmethod
    def _check_secrets(cls, value: SecretStr | None) -> SecretStr | None:
        decode_secrets(value)
        return value

    @field_validator("cors_origins", "trusted_proxies", "webhook_allowed_networks", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_origin, value))

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_check_proxy, value))

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_check_network, value))

    @model_validator(mode="after")
    def _check_together(self) -> "Settings":
        for provider in ("google", "github"):
            if bool(getattr(self, f"{provider}_client_id")) != bool(getattr(self, f"{provider}_client_secret")):
                name = provider.upper()
                raise ValueError(f"{name}_CLIENT_ID and {name}_CLIENT_SECRET go together: set both or neither")
        if _all(self.master_key, self.previous_master_keys) & _all(self.secret_key, self.previous_secret_keys):
            raise ValueError("MASTER_KEY and SECRET_KEY must differ: make one for each with `openssl rand -hex 32`")
        return self

    @property
    def has_embedded_database(self) -> bool:
        """Whether the embedded PostgreSQL is the configured one and was set up."""
        begun, unfinished = self.data_dir / "postgres" / "PG_VERSION", self.data_dir / ".initializing"
        return self.database_url is None and begun.exists() and not unfinished.exists()

    @property
    def base_url(self) -> str:
        """Where browsers reach the service: an origin."""
        return self.public_base_url or f"http://localhost:{self.port}"

    @property
    def ui_base_url(self) -> str:
        """Where browsers reach the interface: an origin, and a path if it has one."""
        return self.ui_url or f"http://localhost:{self.ui_port}"


def decode_secret(text: str) -> bytes:
    """Returns the 32 bytes behind 64 hexadecimal digits or base64; raises ``ValueError`` otherwise."""
    text = text.strip()
    try:
        raw = bytes.fromhex(text) if len(text) == 2 * SECRET_BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != SECRET_BYTES:
        raise ValueError("must be 32 random bytes as 64 hexadecimal digits or base64, as `openssl rand -hex 32` prints")
    if len(set(raw)) < FEWEST_DIFFERENT:
        raise ValueError("must be random: make one with `openssl rand -hex 32`")
    return raw


def decode_secrets(listed: SecretStr | None) -> list[bytes]:
    """Returns the secrets of a list separated by commas; raises ``ValueError`` for a wrong one."""
    parts = listed.get_secret_value().split(",") if listed else []
    return [decode_secret(part) for part in parts if part.strip()]


def _all(*listed: SecretStr | None) -> set[bytes]:
    return {secret for each in listed for secret in decode_secrets(each)}


def load_settings(**overrides: object) -> Settings:
    """Reads the settings; raises ``ConfigurationError`` with a line for each wrong one, never with its value."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        found = error.errors(include_input=False)
        lines = [f"  {str(e['loc'][0]).upper()}: {e['msg']}" if e["loc"] else f"  {e['msg']}" for e in found]
        raise ConfigurationError("\n".join(["The configuration is wrong:", *lines, "See .env.example."])) from None


def master_keys(settings: Settings) -> list[bytes]:
    """Returns the master keys, the current one first.

    Raises:
        ConfigurationError: if there is none.
    """
    return [_secret(settings, "master_key"), *decode_secrets(settings.previous_master_keys)]


def secret_keys(settings: Settings) -> list[bytes]:
    """Returns the keys under which API keys are hashed and tokens and cursors signed, the current one first.

    Raises:
        ConfigurationError: if there is none.
    """
    return [_secret(settings, "secret_key"), *decode_secrets(settings.previous_secret_keys)]


def _secret(settings: Settings, name: str) -> bytes:
    given: SecretStr | None = getattr(settings, name)
    file = settings.data_dir / name
    if given:
        return decode_secret(given.get_secret_value())
    try:
        return decode_secret(file.read_text())
    except FileNotFoundError:
        advice = f"Set {name.upper()} (`openssl rand -hex 32` makes one), or let ./scripts/run make {file}."
        if settings.has_embedded_database:
            advice = f"Set the one before, or restore {file} from a backup: the database beside it needs that one."
        raise ConfigurationError(f"{name.upper()} is not set. {advice}") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} cannot be used: {error}") from None


def generate_secrets(settings: Settings) -> None:
    """Makes the secrets that are neither set nor in the data folder yet, readable by their owner only.

    Beside a database none is made: what it holds is under those that it was made with.
    """
    if settings.has_embedded_database:
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    for name in ("master_key", "secret_key"):
        if getattr(settings, name) is None:
            write_secret(settings.data_dir / name, secrets.token_hex(SECRET_BYTES), replace=False)


def write_secret(file: Path, text: str, *, replace: bool) -> None:
    """Writes a file of mode 600 in one step; an existing one stays unless ``replace``."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text + "\n")
    if replace:
        draft.replace(file)
        return
    try:
        file.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
