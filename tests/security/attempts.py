"""Signing in as the application does, and as a browser does its part."""

import secrets
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from structlog.testing import capture_logs

from app.errors import Problem, ProviderUnavailable, SignInFailed, SignInRefused
from app.security.oauth import OUR_MISTAKES, GitHub, Google, Identity, SignInProvider
from tests.support.oauth import BASE_URL, LEAK, OAuthProviders


def google(providers: OAuthProviders, *, deadline_s: float = 30.0) -> Google:
    side = providers.google
    return Google(side.url, side.client_id, side.client_secret, deadline_s=deadline_s)


def github(providers: OAuthProviders, *, deadline_s: float = 30.0) -> GitHub:
    side = providers.github
    return GitHub(side.url, f"{side.url}/api", side.client_id, side.client_secret, deadline_s=deadline_s)


class Attempt:
    """One sign-in: what the application keeps of it between the two requests."""

    def __init__(self, provider: SignInProvider) -> None:
        self.provider = provider
        self.redirect_uri = f"{BASE_URL}/auth/callback/{provider.name}"
        self.state, self.nonce, self.verifier = (secrets.token_urlsafe(32) for _ in range(3))

    async def url(self) -> str:
        return await self.provider.authorization_url(
            redirect_uri=self.redirect_uri, state=self.state, nonce=self.nonce, verifier=self.verifier
        )

    async def code(self, providers: OAuthProviders) -> str:
        query = parse_qs(urlsplit(providers.approve(await self.url())).query)
        assert query["state"] == [self.state]
        return query["code"][0]

    async def identity(self, code: str) -> Identity:
        return await self.provider.identity(
            code=code, redirect_uri=self.redirect_uri, nonce=self.nonce, verifier=self.verifier
        )


async def sign_in(providers: OAuthProviders, provider: SignInProvider) -> Identity:
    attempt = Attempt(provider)
    return await attempt.identity(await attempt.code(providers))


Make = Callable[..., SignInProvider]


async def problem_of(providers: OAuthProviders, provider: SignInProvider) -> Problem:
    """Returns what a sign-in ends in, after seeing that nothing but our own words gets out."""
    with capture_logs() as logs, pytest.raises(Problem) as caught:
        await sign_in(providers, provider)
    problem = caught.value
    assert type(problem) in (ProviderUnavailable, SignInFailed, SignInRefused)
    assert problem.__suppress_context__ or problem.__context__ is None
    assert LEAK.lower() not in f"{problem!r} {problem.detail} {logs}".lower()
    if isinstance(problem, ProviderUnavailable):
        [entry] = logs
        assert entry.pop("error").isidentifier()
        assert entry.pop("reason") in (None, *OUR_MISTAKES)
        assert entry == {"event": "sign_in_provider_failed", "log_level": "warning", "provider": provider.name}
    else:
        assert not logs
    return problem
