"""Serves the interface: ``python -m app.ui ADDRESS PORT API_URL UI_URL``, as ``python -m app ui`` starts it."""

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import streamlit as st
from starlette.middleware import Middleware

from app.ui import session, uploads
from app.ui.front_door import FrontDoor

ACCENT, ACCENT_DARK = "#2f5fd0", "#8fb0ff"


def options(address: str, port: int, ui_url: str) -> dict[str, Any]:
    """Returns every option that matters, whatever the configuration files of the machine say."""
    place = urlsplit(ui_url)
    return {
        "server.address": address,
        "server.port": port,
        "server.baseUrlPath": place.path.strip("/"),
        "server.headless": True,
        "server.enableCORS": True,
        "server.corsAllowedOrigins": [f"{place.scheme}://{place.netloc}"],
        "server.enableXsrfProtection": True,
        "server.enableStaticServing": False,
        "server.enableAgentApi": False,
        "server.fileWatcherType": "none",
        "server.maxUploadSize": uploads.LONGEST_MB,
        "browser.gatherUsageStats": False,
        "browser.serverAddress": place.hostname or "localhost",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        "client.toolbarMode": "minimal",
        "client.allowedOrigins": [],
        "logger.level": "warning",
        "logger.hideWelcomeMessage": True,
        "runner.magicEnabled": False,
        "theme.baseRadius": "8px",
        "theme.showWidgetBorder": True,
        "theme.chartCategoricalColors": ["#3c6fe0", "#2e9e6b", "#d19a2a", "#d2524b", "#8a5fd0", "#2b9fb3", "#8a93a6"],
        "theme.light.primaryColor": ACCENT,
        "theme.light.secondaryBackgroundColor": "#f4f5f8",
        "theme.light.textColor": "#1c2333",
        "theme.dark.primaryColor": ACCENT_DARK,
        "theme.dark.backgroundColor": "#12151c",
        "theme.dark.secondaryBackgroundColor": "#1b202b",
        "theme.dark.textColor": "#e6e9f0",
    }


def main(address: str, port: str, api_url: str, ui_url: str) -> None:
    """Serves until it is told to stop."""
    session.configure(api_url, ui_url)
    script = Path(__file__).with_name("main.py")
    app = st.App(script, middleware=[Middleware(FrontDoor, ui_url=ui_url)])
    app.run(config=options(address, int(port), ui_url))


if __name__ == "__main__":
    main(*sys.argv[1:])
