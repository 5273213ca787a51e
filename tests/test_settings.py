"""Configuration: readable refusals, and secrets that never have a default."""

import stat
from pathlib import Path

import pytest

from app.errors import ConfigurationError
from app.settings import generate_secrets, load_settings, master_keys, secret_keys

CANARY = "canary-7f3a"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("port", "70000", "PORT: "),
        ("database_pool_size", "many", "DATABASE_POOL_SIZE: "),
        ("master_key", CANARY, "MASTER_KEY: "),
        ("secret_key", CANARY * 4, "SECRET_KEY: "),
        ("previous_master_keys", f"{'11' * 32},{CANARY}", "PREVIOUS_MASTER_KEYS: "),
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
    settings = load_settings(_env_file=None, data_dir=tmp_path, master_key="11" * 32)
    generate_secrets(settings)
    assert [file.name for file in tmp_path.iterdir()] == ["secret_key"]
    assert master_keys(settings) == [bytes.fromhex("11" * 32)]


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, data_dir=tmp_path, master_key="ab" * 32, xai_api_key=CANARY)
    assert "abab" not in repr(settings)
    assert CANARY not in repr(settings)
