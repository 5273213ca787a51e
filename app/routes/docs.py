"""The docs page, which loads nothing from elsewhere, and the way to the interface."""

import base64
import hashlib
import re

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import RedirectResponse

from app.routes.deps import App
from app.routes.operations import Operation

TITLE = "Chat Summarization and Insights API"
_ASSETS = "/static-offline-docs"

router = APIRouter(route_class=Operation)

_page = bytes(
    get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=TITLE,
        swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{_ASSETS}/favicon.png",
    ).body
)
_script = re.findall(rb"<script>(.*?)</script>", _page, re.DOTALL)[0]
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline';"
    f" script-src 'self' 'sha256-{base64.b64encode(hashlib.sha256(_script).digest()).decode()}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/docs", include_in_schema=False)
async def get_docs() -> Response:
    """Returns the page that shows every operation and can try it."""
    return Response(_page, headers={"Content-Security-Policy": _POLICY}, media_type="text/html")


@router.get("/ui", include_in_schema=False)
async def go_to_ui(app: App) -> Response:
    """Leads to the interface, so that a sign-in may end there: `next` is a path here, and the rest is configured."""
    return RedirectResponse(app.ui_url, 303)
