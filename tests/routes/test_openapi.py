"""The API is what its OpenAPI document says."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from jsonschema import validate

from app.factory import build
from app.schemas.enums import Role
from app.settings import ROOT, Settings
from tests.support.api import Workspace, create_key, message
from tests.support.server import running_server


@pytest.fixture
def served(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yields the URL of a running server that holds a conversation, and an admin key."""

    async def make_key() -> str:
        assert settings.database_url
        async with build(settings, settings.database_url.get_secret_value()) as services:
            row, _ = await services.workspaces.get_or_create("ours")
            return await create_key(services, row.workspace_id, Role.ADMIN)

    key = asyncio.run(make_key())
    with running_server(settings) as url:
        httpx.post(f"{url}/chats", json=message(), headers={"X-API-Key": key}).raise_for_status()
        yield url, key


def test_schemathesis_finds_nothing(served: tuple[str, str], tmp_path: Path) -> None:
    url, key = served
    options = ["--seed=1", "--max-examples=10", "--no-color", "--generation-database=none"]
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            f"--config-file={ROOT / 'tests/support/schemathesis.toml'}",
            "run",
            f"{url}/openapi.json",
            "-H",
            f"Authorization: Bearer {key}",
            *options,
        ],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stdout.write(found.stdout)
    assert found.returncode == 0, found.stdout[-6_000:]
    assert re.search(r"(\d{3,}) generated, \1 passed", found.stdout), found.stdout[-2_000:]


async def test_the_examples_of_streams_work(app: FastAPI, workspace: Workspace) -> None:
    content = app.openapi()["paths"]["/chats"]["post"]["requestBody"]["content"]
    for media in ("text/csv", "application/x-ndjson"):
        sent = await workspace.editor.post("/chats", content=content[media]["example"], headers={"Content-Type": media})
        assert (sent.status_code, sent.json()["stored"], sent.json()["rejected"]) == (200, 1, 0)
        await workspace.admin.delete("/chats/order-1042")


async def test_every_body_has_an_example_that_fits_its_schema(app: FastAPI) -> None:
    document = app.openapi()
    shown = 0
    for path in document["paths"].values():
        for operation in path.values():
            answers = [answer.get("content", {}) for answer in operation["responses"].values()]
            for content in [operation.get("requestBody", {}).get("content", {}), *answers]:
                for media, body in content.items():
                    examples = [body["example"]] if "example" in body else examples_of(document, body["schema"])
                    assert examples, (operation["operationId"], media)
                    for example in examples:
                        validate(example, {**body["schema"], "components": document["components"]})
                        shown += 1
    assert shown > 60


def examples_of(document: dict[str, Any], schema: dict[str, Any]) -> list[Any]:
    """Returns the examples of a schema, or of the first that it offers."""
    while "anyOf" in schema or "$ref" in schema:
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        else:
            schema = schema["anyOf"][0]
    found: list[Any] = schema.get("examples", [])
    return found


async def test_the_document_is_complete(app: FastAPI) -> None:
    document = app.openapi()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        if operation["operationId"] == "getReadiness":
            continue
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (operation["operationId"], status)
