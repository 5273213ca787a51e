"""A house full of people, for the tests of the walls."""

from collections.abc import AsyncIterator

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from app import factory
from app.factory import Services, build
from app.main import create_app
from app.schemas.enums import Provider
from app.settings import Settings
from tests.house.principals import House, StandIn, open_house


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Returns settings with a provider that knows everybody, and no limit for wrong credentials."""
    monkeypatch.setattr(factory, "_providers", lambda _: {Provider.GITHUB: StandIn()})
    return settings.model_copy(update={"rate_limit_address": "1000000/minute"})


@pytest.fixture
async def house(
    app: FastAPI, services: Services, settings: Settings, postgresql: psycopg.Connection
) -> AsyncIterator[House]:
    async with open_house(app, services, settings, postgresql) as opened:
        yield opened


@pytest.fixture
async def fresh_instance(house: House, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client of another instance on the same database, which remembers no credential."""
    assert settings.database_url
    url = settings.database_url.get_secret_value()
    app = create_app(lambda: build(settings, url))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="https://x") as client:
        yield client
