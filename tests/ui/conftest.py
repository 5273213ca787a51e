"""The interface's pages, run as for a browser, against a real API on a loopback port."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from re import sub

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.schemas.enums import Role
from app.ui import session
from tests.support.api import Workspace

MAIN = Path(session.__file__).with_name("main.py")
UI_URL = "http://localhost:8501"


@dataclass
class Browser:
    """What a browser tells with its connection."""

    cookies: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    ip_address: str | None = None
    timezone: str | None = "Europe/Berlin"
    url: str = UI_URL


class Visit:
    """Somebody at the interface."""

    def __init__(self, key: str | None = None) -> None:
        self.at = AppTest.from_file(MAIN, default_timeout=20)
        if key:
            self.at.session_state["credential"] = key

    def open(self, page: str, **query: str) -> "Visit":
        """Goes to a page."""
        self.at.run()
        self.at.switch_page(f"views/{page}.py")
        for name, value in query.items():
            self.at.query_params[name] = value
        return self.run()

    def run(self) -> "Visit":
        """Draws the page again; nothing may go wrong that is not told."""
        self.at.run()
        assert not self.at.exception, self.at.exception[0].message
        return self

    def click(self, label: str) -> "Visit":
        """Clicks the first button with a label."""
        next(button for button in self.at.button if button.label == label).click()
        return self.run()

    @property
    def html(self) -> str:
        """The HTML that pages draw themselves, without the sheet of styles."""
        return "\n".join(each.proto.body for each in self.at.get("html") if not each.proto.body.startswith("<style"))

    @property
    def text(self) -> str:
        """What it says."""
        return unescape(sub(r"<[^>]*>", " ", self.html))

    @property
    def labels(self) -> list[str]:
        """What the buttons say."""
        return [button.label for button in self.at.button]


Visits = Callable[..., Visit]


def quiet() -> None:
    """Undoes what Streamlit does to others' loggers: servers of other tests would write down every URL."""
    for name in ("uvicorn", "uvicorn.access", "uvicorn.asgi", "uvicorn.error", "websockets"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


quiet()


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    yield
    quiet()


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Browser:
    found = Browser()
    monkeypatch.setattr(st, "context", found)
    return found


@pytest.fixture
def visit(url: str, workspace: Workspace, browser: Browser) -> Iterator[Visits]:
    """Opens the interface, with the key of a role or with none."""
    session.configure(url, UI_URL)
    visits: list[Visit] = []

    def open_one(role: Role | None = Role.ADMIN) -> Visit:
        visits.append(Visit(workspace.keys[role] if role else None))
        return visits[-1]

    yield open_one
    for each in visits:
        if "follower" in each.at.session_state:
            each.at.session_state["follower"].close()
