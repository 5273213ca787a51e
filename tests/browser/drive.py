"""A person signs in with a browser: our service, two OAuth servers and Chromium, each a process of its own.

``run`` installs what this needs and starts it. It says what held and what did not, and where the screenshots are.
"""

import http.server
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright  # type: ignore[import-not-found]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SERVICE = "http://localhost:8000"
PROVIDERS = {"google": "http://127.0.0.1:9010", "github": "http://127.0.0.1:9030"}
PEOPLE = {"google": ("ana@example.com", "ana@example.com"), "github": ("octocat", "octocat@github.com")}
UNVERIFIED = {"google": "unverified@example.com", "github": "unverified"}
FOREIGN_PORT = 9999
FOREIGN = {f"http://127.0.0.1:{FOREIGN_PORT}": 401, f"http://localhost:{FOREIGN_PORT}": 403}
"""Another site, and another origin of the same site: only the latter's requests carry a cookie that is ``Lax``."""

LONGEST_RUN_S = 300
PATIENCE_S = 5.0
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
KEY = json.dumps({"name": "browser", "role": "viewer"})
FETCH = """async ([path, method, body]) => {
    const headers = body ? {'Content-Type': 'application/json'} : {};
    const response = await fetch(path, {method, body, headers, credentials: 'include'});
    return [response.status, await response.text()];
}"""
FOREIGN_FETCH = """async ([url, body, mode, type]) => {
    const sent = fetch(url, {method: 'POST', body, mode, headers: {'Content-Type': type}, credentials: 'include'});
    return sent.then((response) => response.text(), () => '').then((text) => text || 'unread');
}"""

log = logging.getLogger("browser")


class Foreign(http.server.BaseHTTPRequestHandler):
    """Another origin's page, with a form that says it is JSON as far as a form can."""

    def do_GET(self) -> None:
        # name=value of a text/plain form makes {"name":"browser","role":"viewer","x":"="}.
        start = KEY[:-1] + ', "x": "'
        page = f"""<!doctype html><title>Elsewhere</title><form method="post" enctype="text/plain"
            action="{SERVICE}/auth/keys"><input name='{start}' value='"}}'><button>Win a prize</button></form>"""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def process(command: list[str], url: str, output: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program from when its URL answers until it is ended by its id."""
    with output.open("ab") as stream:
        started = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        wait_for(url, started)
        yield started
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGCONT)
            started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_for(url: str, started: subprocess.Popen[bytes]) -> None:
    """Returns when a program answers."""
    for _ in range(600):
        assert started.poll() is None, f"{url} ended at once; see its log"
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(url)


def provider_process(name: str, folder: Path) -> Any:
    """Runs a provider."""
    return process(["node", str(HERE / "providers.mjs"), name], PROVIDERS[name], folder / f"{name}.log")


def service_process(folder: Path) -> Any:
    """Runs our service on a database of its own."""
    python = os.environ.get("SERVICE_PYTHON", sys.executable)
    environment = {
        "DATA_DIR": str(folder / "data"),
        "HOST": "127.0.0.1",
        "PORT": "8000",
        "PUBLIC_BASE_URL": SERVICE,
        "GOOGLE_ISSUER": PROVIDERS["google"],
        "GITHUB_URL": PROVIDERS["github"],
        "GITHUB_API_URL": f"{PROVIDERS['github']}/api",
    }
    for name in PROVIDERS:
        environment |= {
            f"{name.upper()}_CLIENT_ID": f"{name}-client",
            f"{name.upper()}_CLIENT_SECRET": f"{name}-secret",
        }
    output = folder / "service.log"
    with output.open("ab") as stream:
        command = [python, "-m", "app", "migrate"]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, stdout=stream, stderr=stream, check=True)
    return process([python, "-m", "app", "serve"], f"{SERVICE}/livez", output, **environment)


class Person:
    """Somebody with a browser of their own."""

    def __init__(self, browser: Any, folder: Path, provider: str) -> None:
        self.context = browser.new_context()
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.folder = folder
        self.provider = provider
        self.callbacks: list[str] = []
        self.context.on("request", self._note)

    def _note(self, request: Any) -> None:
        if request.url.startswith(f"{SERVICE}/auth/callback/"):
            self.callbacks.append(request.url)

    def show(self, title: str) -> None:
        """Takes a screenshot."""
        self.page.screenshot(path=str(self.folder / f"{self.provider}-{title}.png"))

    def begin(self, query: str = "") -> Any:
        """Opens our sign-in URL, which leads to the provider's page."""
        return self.page.goto(f"{SERVICE}/auth/login/{self.provider}{query}")

    def log_in(self, login: str) -> None:
        """Logs in at the provider."""
        self.page.fill("input[name=login]", login)
        self.page.fill("input[name=password]", "any")
        self.page.click("button[type=submit]")
        self.page.wait_for_selector("text=Authorize")

    def agree(self, login: str) -> None:
        """Logs in at the provider and agrees to what we ask for."""
        self.log_in(login)
        self.show("consent")
        self.page.click("button[type=submit]")
        self.page.wait_for_url(re.compile(re.escape(SERVICE)))

    def sign_in(self, login: str, query: str = "") -> None:
        """Does all of it."""
        self.begin(query)
        self.agree(login)

    def hold_callback(self, login: str) -> str:
        """Agrees, but does not come back to us; returns where the provider sends the browser."""
        self.begin()
        self.log_in(login)
        form = self.page.locator("form")
        fields = {each.get_attribute("name"): each.get_attribute("value") for each in form.locator("input").all()}
        response = self.context.request.post(form.get_attribute("action"), form=fields, max_redirects=0)
        url: str = response.headers["location"]
        while not url.startswith(SERVICE):
            url = self.context.request.get(url, max_redirects=0).headers["location"]
        return url

    def fetch(self, path: str, method: str = "GET", body: str | None = None) -> tuple[int, Any]:
        """Sends a request from the page that is open."""
        status, text = self.page.evaluate(FETCH, [path, method, body])
        return status, json.loads(text)

    @property
    def cookies(self) -> dict[str, Any]:
        """The cookies of our service."""
        return {cookie["name"]: cookie for cookie in self.context.cookies(SERVICE)}

    def sees_problem(self, response: Any, status: int, words: str) -> None:
        """Checks that the page says what is wrong, to a person."""
        assert response.status == status, (response.status, self.page.content())
        assert response.headers["content-type"].startswith("text/html")
        text = self.page.inner_text("body")
        assert words in text, text


def signs_in(person: Person) -> None:
    login, email = PEOPLE[person.provider]
    person.sign_in(login)
    assert person.page.url == f"{SERVICE}/docs"
    person.page.wait_for_selector("#operations-accounts-getMe")
    person.show("docs")
    assert set(person.cookies) == {"__Host-session", "__Host-sign-in"}
    cookie = person.cookies["__Host-session"]
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"], cookie["path"]) == (True, True, "Lax", "/")
    assert person.page.evaluate("document.cookie") == ""
    status, me = person.fetch("/auth/me")
    assert (status, me["user"]["email"], me["user"]["provider"]) == (200, email, person.provider)
    assert person.fetch("/auth/keys", "POST", KEY)[0] == 201
    assert len(person.fetch("/auth/keys")[1]["data"]) == 1


def signs_in_again_to_the_same_account(person: Person) -> None:
    person.sign_in(PEOPLE[person.provider][0], "?next=/auth/me")
    assert person.page.url == f"{SERVICE}/auth/me"
    assert json.loads(person.page.inner_text("pre"))["user"]["email"] == PEOPLE[person.provider][1]
    person.page.goto(f"{SERVICE}/docs")
    assert len(person.fetch("/auth/keys")[1]["data"]) == 1


def elsewhere_nothing_works(person: Person) -> None:
    person.sign_in(PEOPLE[person.provider][0])
    before = person.fetch("/auth/keys")[1]
    for foreign, refused in FOREIGN.items():
        person.page.goto(foreign)
        with person.page.expect_response(f"{SERVICE}/auth/keys") as caught:
            person.page.click("button")
        assert caught.value.status == refused, caught.value.status
        person.page.wait_for_load_state()
        person.show(f"form-of-another-page-{refused}")
        for mode, content_type in (("cors", "application/json"), ("cors", "text/plain"), ("no-cors", "text/plain")):
            person.page.goto(foreign)
            assert person.page.evaluate(FOREIGN_FETCH, [f"{SERVICE}/auth/keys", KEY, mode, content_type]) == "unread"
    person.page.goto(f"{SERVICE}/docs")
    assert person.fetch("/auth/keys")[1] == before
    assert person.fetch("/auth/me")[0] == 200


def comes_back_twice(person: Person) -> None:
    person.sign_in(PEOPLE[person.provider][0])
    [callback] = person.callbacks
    session = person.cookies["__Host-session"]["value"]
    person.sees_problem(person.page.goto(callback), 400, "finished already")
    person.show("twice")
    assert person.cookies["__Host-session"]["value"] == session
    person.page.goto(f"{SERVICE}/docs")
    assert person.fetch("/auth/me")[0] == 200


def another_browser_gets_the_callback(person: Person) -> None:
    callback = person.hold_callback(PEOPLE[person.provider][0])
    victim = Person(person.context.browser, person.folder, person.provider)
    victim.sees_problem(victim.page.goto(callback), 400, "not begun in this browser")
    victim.show("other-browser")
    assert "__Host-session" not in victim.cookies
    victim.begin()
    victim.sees_problem(victim.page.goto(callback), 400, "not begun in this browser")
    assert "__Host-session" not in victim.cookies
    victim.context.close()


def is_not_verified(person: Person) -> None:
    with person.page.expect_response(re.compile("/auth/callback/")) as caught:
        person.sign_in(UNVERIFIED[person.provider])
    person.sees_problem(caught.value, 403, "vouches for no e-mail address")
    person.show("unverified")
    assert "__Host-session" not in person.cookies


def calls_it_off(person: Person) -> None:
    person.begin()
    with person.page.expect_response(re.compile("/auth/callback/")) as caught:
        person.page.click("text=Cancel")
    person.page.wait_for_load_state()
    person.sees_problem(caught.value, 400, "called it off")
    person.show("called-off")


def wants_to_go_elsewhere(person: Person) -> None:
    for target in ("//evil.example/", "https://evil.example/", "/\\evil.example/", "/%09/evil.example"):
        response = person.begin(f"?next={target}")
        if response.url.startswith(SERVICE):
            assert response.status == 422, (target, response.status)
        else:
            person.agree(PEOPLE[person.provider][0])
            assert person.page.url.startswith(SERVICE), person.page.url


def provider_is_down_at_first(person: Person) -> None:
    started = time.monotonic()
    response = person.begin()
    assert time.monotonic() - started < PATIENCE_S
    person.sees_problem(response, 503, "does not answer")
    person.show("down")


def provider_fails_half_way(person: Person, fail: Callable[[], None]) -> None:
    callback = person.hold_callback(PEOPLE[person.provider][0])
    fail()
    started = time.monotonic()
    response = person.page.goto(callback)
    assert time.monotonic() - started < PATIENCE_S
    person.sees_problem(response, 503, "does not answer")
    person.show("failed-half-way")
    assert "__Host-session" not in person.cookies


SCENARIOS = [
    signs_in,
    signs_in_again_to_the_same_account,
    elsewhere_nothing_works,
    comes_back_twice,
    another_browser_gets_the_callback,
    is_not_verified,
    calls_it_off,
    wants_to_go_elsewhere,
]


class Report:
    """What held and what did not."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self.failures = 0
        self._browser = browser
        self._folder = folder

    def check(self, scenario: Callable[..., None], provider: str, *more: Any) -> None:
        """Runs a scenario in a fresh browser."""
        person = Person(self._browser, self._folder, provider)
        name = f"{provider}: {scenario.__name__.replace('_', ' ')}"
        started = time.monotonic()
        try:
            scenario(person, *more)
        except Exception:
            self.failures += 1
            person.show(f"FAILED-{scenario.__name__}")
            log.exception("FAILED  %s", name)
        else:
            log.info("passed  %s (%.1f s)", name, time.monotonic() - started)
        finally:
            person.context.close()


def main(shots: Path) -> int:
    """Returns how many scenarios failed."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="browser-")))
        foreign = http.server.ThreadingHTTPServer(("127.0.0.1", FOREIGN_PORT), Foreign)
        stack.callback(foreign.shutdown)
        threading.Thread(target=foreign.serve_forever, daemon=True).start()
        playwright = stack.enter_context(sync_playwright())
        chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        stack.callback(browser.close)
        report = Report(browser, shots)
        for log_file in ("service", "google", "github"):
            stack.callback(keep, folder / f"{log_file}.log", shots)
        stack.enter_context(service_process(folder))
        report.check(provider_is_down_at_first, "google")
        google = stack.enter_context(provider_process("google", folder))
        github = stack.enter_context(provider_process("github", folder))
        for provider in PROVIDERS:
            for scenario in SCENARIOS:
                report.check(scenario, provider)
        report.check(provider_fails_half_way, "google", lambda: google.send_signal(signal.SIGSTOP))
        report.check(provider_fails_half_way, "github", github.kill)
        return report.failures


def keep(file: Path, shots: Path) -> None:
    """Copies a log to the screenshots."""
    if file.exists():
        (shots / file.name).write_bytes(file.read_bytes())


def stop(*_: object) -> None:
    """Ends the run, and with it what it started."""
    raise SystemExit("stopped, or longer than five minutes")


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, stop)
    signal.alarm(LONGEST_RUN_S)
    target = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="screenshots-"))
    target.mkdir(parents=True, exist_ok=True)
    failed = main(target)
    log.info("%s failed; screenshots and logs: %s", failed or "none", target)
    sys.exit(bool(failed))
