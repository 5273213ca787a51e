"""Configuration: readable refusals, and secrets that never have a default."""

import base64
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from app.errors import ConfigurationError, Unavailable
from app.factory import build
from app.settings import ROOT, Settings, generate_secrets, load_settings, master_keys, secret_keys
from tests.support.canaries import MASTER_KEY, PREVIOUS_SECRET_KEY, SECRET_KEY
from tests.support.process import SERVE

CANARY = "canary-7f3a"
ORIGIN = "must be an origin such as https://chat.example.com"
ONE = "must name one origin exactly, in lower case"
HTTPS = "must begin with https:// (http:// is for localhost only)"
ADDRESSES = "must be addresses or networks such as 10.0.0.0/8, separated by commas"
RATE = 'A limit is one number of requests for a time, like "60000/minute"'
STORAGE = "RATE_LIMIT_STORAGE_URL is wrong"
TOGETHER = "_CLIENT_ID and {0}_CLIENT_SECRET go together: set both or neither"
DIFFER = "MASTER_KEY and SECRET_KEY must differ: make one for each with `openssl rand -hex 32`"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("port", "70000", "PORT: "),
        ("database_pool_size", "many", "DATABASE_POOL_SIZE: "),
        ("master_key", CANARY, "MASTER_KEY: "),
        ("secret_key", CANARY * 4, "SECRET_KEY: "),
        ("previous_master_keys", f"{MASTER_KEY},{CANARY}", "PREVIOUS_MASTER_KEYS: "),
        ("log_level", "loud", "LOG_LEVEL: "),
        ("xai_model", "grok", "XAI_MODEL: "),
        ("llm_timeout_s", "inf", "LLM_TIMEOUT_S: "),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name.upper(), value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings(_env_file=None)
    assert says in str(refused.value)
    assert CANARY not in str(refused.value)


def test_a_missing_secret_is_refused(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, data_dir=tmp_path)
    with pytest.raises(ConfigurationError, match="MASTER_KEY is not set"):
        master_keys(settings)
    with pytest.raises(ConfigurationError, match="SECRET_KEY is not set"):
        secret_keys(settings)


def test_generated_secrets_are_private_and_stay(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, data_dir=tmp_path / "data")
    generate_secrets(settings)
    first = master_keys(settings), secret_keys(settings)
    generate_secrets(settings)
    assert (master_keys(settings), secret_keys(settings)) == first
    files = sorted((tmp_path / "data").iterdir())
    assert [(file.name, stat.S_IMODE(file.stat().st_mode)) for file in files] == [
        ("master_key", 0o600),
        ("secret_key", 0o600),
    ]


def test_a_secret_that_is_set_is_not_generated(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, data_dir=tmp_path, master_key=MASTER_KEY)
    generate_secrets(settings)
    assert [file.name for file in tmp_path.iterdir()] == ["secret_key"]
    assert master_keys(settings) == [bytes.fromhex(MASTER_KEY)]


def test_no_secret_is_generated_beside_a_database_that_needs_another(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, data_dir=tmp_path)
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("18")
    generate_secrets(settings)
    for read in (master_keys, secret_keys):
        with pytest.raises(ConfigurationError, match="from a backup"):
            read(settings)
    (tmp_path / ".initializing").touch()  # what was begun only is begun anew
    generate_secrets(settings)
    assert master_keys(settings) != secret_keys(settings)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, data_dir=tmp_path, master_key=MASTER_KEY, xai_api_key=CANARY)
    assert MASTER_KEY not in repr(settings)
    assert CANARY not in repr(settings)


ORIGINS: dict[str, list[str]] = {
    ORIGIN: [
        *("null", "chat.example.com", "//chat.example.com", "ftp://chat.example.com", "https:", "https://", "x"),
        *("https://chat.example.com/path", "https://chat.example.com//", "https://chat.example.com?x", "wss://x.org"),
        *(
            f"https://user:{CANARY}@chat.example.com",
            f"https://{CANARY}@chat.example.com",
            "https://chat.example.com#x",
        ),
        "https://a.example.com https://b.example.com",
    ],
    ONE: [
        "https://*.example.com",
        "https://*",
        "https://CHAT.example.com",
        "https://chät.de",
    ],
    "must leave out the port": ["https://chat.example.com:443", "http://localhost:80"],
    HTTPS: [
        *("http://chat.example.com", "http://localhost.example.com", "http://10.0.0.1:8000", "http://0.0.0.0:8000"),
        *("http://127.0.0.1.nip.io", "http://mylocalhost", "http://[::]:8000", "http://[2001:db8::1]"),
    ],
}
WRONG: list[tuple[dict[str, str], str]] = [
    *(
        ({name: value}, f"{name}: Value error, {says}")
        for says, values in ORIGINS.items()
        for value in values
        for name in ("PUBLIC_BASE_URL", "CORS_ORIGINS")
    ),
    *(
        ({"CORS_ORIGINS": value}, "CORS_ORIGINS: Value error, must ")
        for value in ("*", "https://a.example.com, *", "HTTPS://chat.example.com")
    ),
    ({"PUBLIC_BASE_URL": "https://a.example.com,https://b.example.com"}, f"PUBLIC_BASE_URL: Value error, {ORIGIN}"),
    *(
        ({"TRUSTED_PROXIES": value}, f"TRUSTED_PROXIES: Value error, {ADDRESSES}")
        for value in ("*", "localhost", "10.0.0.0/8,proxy", "10.0.0.0/33", "10.0.0", "10.0.0.1-10.0.0.9", CANARY)
    ),
    *(
        ({"TRUSTED_PROXIES": value}, "TRUSTED_PROXIES: Value error, must name your proxies")
        for value in ("0.0.0.0/0", "::/0", "10.0.0.0/8,::/0", "10.0.0.1/0", "0.0.0.0/1,128.0.0.0/1", "2000::/3")
    ),
    *(
        ({f"{name}_CLIENT_{part}": CANARY}, name + TOGETHER.format(name))
        for name in ("GOOGLE", "GITHUB")
        for part in ("ID", "SECRET")
    ),
    *(
        (given, DIFFER)
        for same in (MASTER_KEY, MASTER_KEY.upper(), base64.b64encode(bytes.fromhex(MASTER_KEY)).decode())
        for given in (
            {"SECRET_KEY": same},
            {"PREVIOUS_SECRET_KEYS": f"{SECRET_KEY},{same}"},
            {"MASTER_KEY": SECRET_KEY, "SECRET_KEY": PREVIOUS_SECRET_KEY, "PREVIOUS_MASTER_KEYS": PREVIOUS_SECRET_KEY},
        )
    ),
    *(
        ({name: weak}, f"{name}: Value error, must be random")
        for name in ("MASTER_KEY", "SECRET_KEY", "PREVIOUS_MASTER_KEYS", "PREVIOUS_SECRET_KEYS")
        for weak in ("00" * 32, "12" * 32, "0123456789ab0000" * 4)
    ),
    *(
        ({name: value}, f"{name}: Value error, must ")
        for name in ("GOOGLE_ISSUER", "GITHUB_URL", "GITHUB_API_URL")
        for value in ("http://example.com", "ftp://example.com", "example.com", "http://localhost.evil.com")
    ),
    *(
        ({name: value}, f"{name}: {RATE}")
        for name in (f"RATE_LIMIT_{kind}" for kind in ("READ", "WRITE", "SEARCH", "LLM", "ADDRESS"))
        for value in (
            "many",
            "0/minute",
            "-1/minute",
            "1/fortnight",
            "1/minute;2/hour",
            "1/minute, 2/hour",
            "1",
            " ",
            "1 per 0 minutes",
            "1.5/minute",
            "1e3/minute",
            "9999999999/second",
            "١/minute",
            CANARY,
        )
    ),
    *(
        ({"RATE_LIMIT_STORAGE_URL": f"{scheme}user:{CANARY}@localhost"}, STORAGE)
        for scheme in (
            "memcached://",
            "http://",
            "mongodb://",
            "memory://",
            "redis+cluster://",
            "",
            "valkey:",
            "redis//",
        )
    ),
    *(
        ({"RATE_LIMIT_STORAGE_URL": f"valkey://:{CANARY}@{rest}"}, STORAGE)
        for rest in ("localhost:port", "localhost:99999", "localhost/zero", "localhost/0?unknown=1")
    ),
    *(
        (
            {"DATABASE_URL": f"{scheme}://user:{CANARY}@localhost/x"},
            "DATABASE_URL: Value error, must begin with postgresql://",
        )
        for scheme in ("mysql", "sqlite", "postgresql+asyncpg", "http")
    ),
]
NO_ORIGINS = [
    *("https://[::1", "https://chat.example.com:99999", f"https://user:{CANARY}", "https://chat.example.com:"),
    *("https://chat .example.com", "https://chat;example", "https://chat.example.com\\evil", "https://.example.com"),
    *("https://chat..example.com", "https://-"),
]
WRONG += [
    *(
        ({"UI_URL": value}, "UI_URL: Value error, must ")
        for value in (
            *("http://chat.example.com/ui", "https://chat.example.com/a?b=c", "https://chat.example.com/a#b", "/ui"),
            *("https://chat.example.com/a b", "https://chat.example.com/..", "https://chat.example.com//evil.example"),
            *("https://chat.example.com/%2F", f"https://user:{CANARY}@example.com/ui", "javascript:alert(1)//x.org"),
        )
    ),
    *(
        ({name: value}, f"{name}: Value error, {ORIGIN}")
        for value in NO_ORIGINS
        for name in ("PUBLIC_BASE_URL", "CORS_ORIGINS")
    ),
    *(
        ({name: value}, f"{name}: Value error, must ")
        for name in ("GOOGLE_ISSUER", "GITHUB_URL", "GITHUB_API_URL")
        for value in ("https://", f"https://user:{CANARY}@example.com")
    ),
]

GOOD: list[dict[str, str]] = [
    *(
        {"UI_URL": value}
        for value in ("http://localhost:8501", "https://chat.example.com/ui", "https://chat.example.com:8443/a/b-c/")
    ),
    *(
        {"PUBLIC_BASE_URL": origin, "CORS_ORIGINS": f"{origin}, http://[::1]:3000"}
        for origin in (
            "https://chat.example.com",
            "https://chat.example.com/",
            "https://chat.example.com:8443",
            "http://localhost",
            "http://localhost:8000",
            "http://127.0.0.1:8000",
            "http://x.localhost",
            "https://xn--cht-qla.de",
            "https://10.0.0.1",
            "https://[2001:db8::1]:8443",
            "https://chat_1.internal",
        )
    ),
    *({"TRUSTED_PROXIES": value} for value in ("", "10.0.0.1", " 10.0.0.0/8 , ::1,2001:db8::/32,", "10.0.0.5/8")),
    {"GOOGLE_CLIENT_ID": "x", "GOOGLE_CLIENT_SECRET": "y", "GOOGLE_ISSUER": "http://127.0.0.1:1234/realm"},
    *({"RATE_LIMIT_READ": value} for value in ("1/second", "5 per 2 minutes", "60000/day")),
    *(
        {"RATE_LIMIT_STORAGE_URL": value}
        for value in ("valkey://localhost", "rediss://u:p@x.org:6380/1", "unix:///tmp/socket?db=2")
    ),
]


async def start(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    """Reads a configuration and puts the service together, up to where it needs a database."""
    usual = {"DATABASE_URL": "postgresql://127.0.0.1:9/x", "MASTER_KEY": MASTER_KEY, "SECRET_KEY": SECRET_KEY}
    for name, value in {**usual, **environment}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(_env_file=None)
    async with build(settings, usual["DATABASE_URL"]):
        raise AssertionError("there is no database")


@pytest.mark.parametrize(("environment", "says"), WRONG, ids=str)
async def test_a_dangerous_configuration_does_not_start(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await start(monkeypatch, environment)
    assert says in str(refused.value)
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize("environment", GOOD, ids=str)
async def test_a_sound_configuration_starts(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    with pytest.raises(Unavailable):  # the database is not there, and nothing else is wrong
        await start(monkeypatch, environment)


def test_the_command_line_names_every_wrong_setting_and_no_value(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])  # the usual one may be a running service's
    url = f"postgresql://u:{CANARY}@127.0.0.1:9/x"
    usual = {"DATABASE_URL": url, "DATA_DIR": str(tmp_path), "COLUMNS": "300", "PORT": port}
    several = {
        "CORS_ORIGINS": "*",
        "TRUSTED_PROXIES": "0.0.0.0/0",
        "MASTER_KEY": CANARY,
        "PUBLIC_BASE_URL": "http://x.org",
    }
    stored = {"MASTER_KEY": MASTER_KEY, "SECRET_KEY": SECRET_KEY, "RATE_LIMIT_STORAGE_URL": f"memcached://:{CANARY}@x"}
    for environment, named in ((several, several), (stored, ["RATE_LIMIT_STORAGE_URL"])):
        found = subprocess.run(
            SERVE,
            cwd=ROOT,
            env={**os.environ, **usual, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert found.returncode != 0
        assert all(name in found.stderr for name in named)
        assert "Traceback" not in found.stderr
        assert CANARY not in found.stderr + found.stdout
