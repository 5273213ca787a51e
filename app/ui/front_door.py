"""What every request to the interface passes: what a page may load, whose page may ask, who may bring a file."""

import base64
import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit

import streamlit
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.ui import uploads
from app.ui.session import SESSION_COOKIE

# Styles are written into the page by Streamlit's own library of components; nothing else is loaded from elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self' {script}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:;"
    " font-src 'self' data:; connect-src 'self' {socket}; media-src 'self'; worker-src 'self' blob:;"
    " manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FORBIDDEN, ABSENT = 403, 404
POLICY_VIOLATION = 1008
UPLOAD, METRICS = "/_stcore/upload_file/", "/_stcore/metrics"
INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def _inline_scripts() -> str:
    page = (Path(streamlit.__file__).parent / "static" / "index.html").read_bytes()
    hashes = (base64.b64encode(hashlib.sha256(script).digest()).decode() for script in INLINE.findall(page))
    return " ".join(f"'sha256-{each}'" for each in hashes)


class FrontDoor:
    """Answers with a policy, and lets neither other websites' pages in nor files of those who may not import.

    It takes the session's cookie from sockets that no page of this interface opened.
    A browser sends cookies along with the sockets of other ports' pages too, but it names the page's origin, which no
    page can change (RFC 6455, section 10.2). So a cookie that is let through is proof that this interface's own page
    asks, and the API may be told so.
    """

    def __init__(self, app: ASGIApp, ui_url: str) -> None:
        self._app = app
        place = urlsplit(ui_url)
        self._origin = f"{place.scheme}://{place.netloc}".encode()
        socket = f"ws{place.scheme.removeprefix('http')}://{place.netloc}"
        self._headers = [
            (b"content-security-policy", POLICY.format(script=_inline_scripts(), socket=socket).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] == "websocket":
            if self._is_foreign(scope):
                await send({"type": "websocket.close", "code": POLICY_VIOLATION})
                return
            if dict(scope["headers"]).get(b"origin") != self._origin:
                scope["headers"] = [(name, _without_session(name, value)) for name, value in scope["headers"]]

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        path = scope.get("path", "")
        if scope["type"] == "http" and path.rstrip("/").endswith(METRICS):  # of everybody's sessions
            await Response(status_code=ABSENT)(scope, receive, answer)
        elif scope["type"] == "http" and UPLOAD in path and scope["method"] != "OPTIONS":
            await self._upload(scope, receive, answer)
        else:
            await self._app(scope, receive, answer)

    def _is_foreign(self, scope: Scope) -> bool:
        # Streamlit would ask a host on the Internet for its own address to find that out.
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        return origin not in (None, self._origin) and origin.partition(b"://")[2] != headers.get(b"host")

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        session_id = scope["path"].partition(UPLOAD)[2].partition("/")[0]
        headers = dict(scope["headers"])
        told = None if b"transfer-encoding" in headers else headers.get(b"content-length")
        length = told if scope["method"] == "PUT" else b"0"
        status = FORBIDDEN if self._is_foreign(scope) else uploads.refusal(session_id, length)
        if status:
            await Response(status_code=status)(scope, receive, send)
            return
        with uploads.coming(session_id, int(length or 0)):
            await self._app(scope, receive, send)


def _without_session(name: bytes, value: bytes) -> bytes:
    if name != b"cookie":
        return value
    pairs = (pair.strip() for pair in value.split(b";"))
    return b"; ".join(pair for pair in pairs if pair.partition(b"=")[0].strip() != SESSION_COOKIE.encode())
