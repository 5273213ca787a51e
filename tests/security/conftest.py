from collections.abc import AsyncIterator

import pytest

from tests.support.oauth import OAuthProviders, open_oauth_providers


@pytest.fixture
async def providers() -> AsyncIterator[OAuthProviders]:
    async with open_oauth_providers() as opened:
        yield opened
