"""Rules about the house itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.routes import analyses, chats, health
from app.routes.deps import AtLeast
from app.schemas.enums import Role
from app.settings import ROOT, Settings

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
PUBLIC = {"getLiveness", "getReadiness"}
NEEDED = {
    "analyzeConversation": Role.EDITOR,
    "deleteConversation": Role.ADMIN,
    "deleteConversations": Role.ADMIN,
    "findConversations": Role.VIEWER,
    "getConversation": Role.VIEWER,
    "getInsights": Role.VIEWER,
    "getSummary": Role.VIEWER,
    "listUserConversations": Role.VIEWER,
    "storeMessages": Role.EDITOR,
    "summarizeConversation": Role.EDITOR,
}


def test_imports_go_down_the_stair_only() -> None:
    found = subprocess.run([LINT_IMPORTS, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert ", 0 broken." in found.stdout


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


async def test_every_operation_says_who_may_call_it(app: FastAPI) -> None:
    def roles(dependant: Dependant) -> set[Role]:
        own = {dependant.call.role} if isinstance(dependant.call, AtLeast) else set()
        return own.union(*(roles(part) for part in dependant.dependencies))

    found = {
        route.operation_id: roles(route.dependant)
        for module in (analyses, chats, health)
        for route in module.router.routes
        if isinstance(route, APIRoute)
    }
    documented = {operation["operationId"] for path in app.openapi()["paths"].values() for operation in path.values()}
    assert set(found) == documented
    assert found == {**{name: {role} for name, role in NEEDED.items()}, **{name: set() for name in PUBLIC}}


@pytest.mark.parametrize("tool", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]])
def test_style_and_types_are_clean(tool: list[str]) -> None:
    found = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
