"""The look for secrets after each test finds each kind of them, wherever it comes out and however it is written."""

import asyncio
import base64
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from urllib.parse import quote

import asyncpg
import httpx2
import psycopg
import pytest
import structlog
from authlib.integrations.httpx_client import AsyncOAuth2Client
from fastapi import Response
from pydantic import SecretStr

from app import factory
from app.factory import Services
from app.main import create_app
from app.repositories.sessions import SESSION
from app.schemas.enums import Role
from app.settings import Settings
from tests.conftest import LOG, come_out
from tests.house.principals import House, bearer
from tests.support import canaries
from tests.support.api import Workspace, client, message
from tests.support.canaries import CANARIES, SETTINGS, Kind

PLANTED = {kind: f"planted/{kind.name.lower()}+canary=" for kind in Kind}
PLACES = {
    *("the output", "an error", "an error's headers", "a process's errors", "the database's log"),
    *("table audit_log", "table summaries"),
}
NO_LOG = PLACES - {"the database's log"}


@pytest.fixture(autouse=True)
def walls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Looks as after every other test, and must find every kind in every place where the test planted it."""
    database = request.getfixturevalue("postgresql") if "postgresql" in request.fixturenames else None
    CANARIES.begin()
    yield
    planted = {f"{kind} in {place}" for kind, place in request.node.user_properties}
    log = request.config.stash[LOG]
    found = come_out(request.node, log.new(), database)
    assert {each.partition(":")[0] for each in found} == planted


@pytest.mark.parametrize("form", ["raw", "hex", "HEX", "base64", "base64 in the middle", "base64 for URLs", "percent"])
def test_a_secret_is_found_however_it_is_written(form: str) -> None:
    secret = "s\xfc\xdfes Geheimnis ~~~???>>> 7"
    raw = secret.encode()
    written = {
        "raw": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "base64": base64.b64encode(raw),
        "base64 in the middle": base64.b64encode(b"x" + raw + b"yz"),
        "base64 for URLs": base64.urlsafe_b64encode(b"xy" + raw),
        "percent": quote(secret, safe="").encode(),
    }
    CANARIES.learn(Kind.TEXT, secret)
    [found] = CANARIES.found([("here", b"before " + written[form] + b" after"), ("there", b"nothing")])
    assert found.startswith("message text in here: ...")


def test_a_key_in_hexadecimal_is_found_as_its_bytes() -> None:
    assert CANARIES.found([("here", bytes.fromhex(canaries.MASTER_KEY))])
    assert CANARIES.found([("here", base64.b64encode(b"0123" + bytes.fromhex(canaries.SECRET_KEY)))])


async def test_every_kind_is_found_in_every_place(
    request: pytest.FixtureRequest,
    services: Services,
    workspace: Workspace,
    settings: Settings,
    postgresql: psycopg.Connection,
) -> None:
    for kind, secret in PLANTED.items():
        CANARIES.learn(kind, secret)
    secrets = " ".join(PLANTED.values())

    async def leak() -> Response:
        structlog.get_logger("app").warning("leak", secrets=secrets)
        return Response(secrets, 403, {"X-Leak": secrets})

    leaking = create_app(lambda: nullcontext(services))
    leaking.add_api_route("/leak", leak)
    async with leaking.router.lifespan_context(leaking), client(leaking, workspace.keys[Role.VIEWER]) as viewer:
        assert (await viewer.get("/leak")).status_code == 403
    assert settings.database_url
    connection = await asyncpg.connect(settings.database_url.get_secret_value(), server_settings=SESSION)
    await connection.execute(f"SELECT '{secrets}'")
    await connection.close()
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", f"import sys; sys.exit({secrets!r})"], capture_output=True, check=False
    )
    await workspace.editor.post("/chats", json=message())
    await workspace.editor.post("/chats/summarize", json={"conversation_id": "c1"})
    postgresql.execute("UPDATE summaries SET decisions = %s", [secrets.encode()])
    postgresql.execute(
        "INSERT INTO audit_log (workspace_id, actor, action, details)"
        " SELECT workspace_id, 'x', %s, '{}' FROM workspaces",
        [base64.b64encode(secrets.encode()).decode()],
    )
    postgresql.commit()
    places = PLACES if request.config.stash[LOG].file else NO_LOG
    request.node.user_properties += [(str(kind), place) for kind in Kind for place in places]


async def test_every_kind_is_known_from_where_it_is_made(house: House, settings: Settings) -> None:
    chosen = {name: name.encode().ljust(32, b"-").hex() for name in SETTINGS}
    urls = {name: f"scheme://user:{chosen[name]}%2Dcanary@host/1" for name in SETTINGS if name.endswith("_url")}
    given = {name: SecretStr(text) for name, text in {**chosen, **urls}.items()}
    factory.secret_keys(settings.model_copy(update=given))  # type: ignore[attr-defined]  # as build calls it
    assert given.keys() == {name for name, each in Settings.model_fields.items() if "SecretStr" in str(each.annotation)}
    key = await house.key(Role.VIEWER)
    tokens = await house.exchange(bearer(key))
    state, browser = await house.begin()
    shown = await house.sign_in("ana")
    hook = await house.act("POST", "/webhooks", json={"url": "https://x.example/", "events": ["job.finished"]})
    headers = {**house.admin, "Idempotency-Key": "idempotency-canary-4711"}
    await house.act("POST", "/chats", headers, json=message())
    answered = {name: f"{name}-canary-4711" for name in ("access_token", "id_token", "refresh_token")}
    AsyncOAuth2Client("id").parse_response_token(httpx2.Response(200, json=answered))
    made = {
        Kind.API_KEY: [key],
        Kind.ACCESS_TOKEN: [tokens.access],
        Kind.REFRESH_TOKEN: [tokens.refresh],
        Kind.SESSION_COOKIE: [shown["Cookie"].partition("=")[2]],
        Kind.SIGN_IN: [state, browser["Cookie"].partition("=")[2]],
        Kind.PROVIDER_TOKEN: ["code-of-ana-4711-canary", *answered.values()],
        Kind.TEXT: [message()["message_content"]],
        Kind.IDEMPOTENCY_KEY: [headers["Idempotency-Key"]],
        Kind.WEBHOOK: [hook["secret"]],
    }
    for name, kind in SETTINGS.items():
        made.setdefault(kind, []).append(f"{chosen[name]}-canary" if name in urls else chosen[name])
    assert set(made) == set(Kind)
    for kind, values in made.items():
        for value in values:
            assert CANARIES.found([("here", f"<{value}>".encode())])[0].startswith(f"{kind} in here"), value
