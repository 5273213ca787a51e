"""People use the interface with a browser: our service, its worker, the interface, two OAuth servers and Chromium.

``run ui`` installs what this needs and starts it. It says what held and what did not, and leaves screenshots.
"""

import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import drive  # type: ignore[import-not-found]
from playwright.sync_api import expect, sync_playwright  # type: ignore[import-not-found]

UI = "http://localhost:8501"
LONGEST_RUN_S = 600
EVIL = "evil.example"
HOSTILE = (
    "<script>window.hacked=1</script><img src=https://evil.example/a.png onerror=window.hacked=2>"
    "<iframe src=https://evil.example></iframe><svg onload=window.hacked=3><style>@import url(//evil.example/c)</style>"
    " ![x](https://evil.example/b.png) [click](javascript:window.hacked=4) https://evil.example www.evil.example"
    " <a href='data:text/html,<script>1</script>'>d</a> :material/bolt: :red[red] :smile: $\\frac{a}{b}$ `code` # head"
    " &lt;img src=x&gt; &#60;b&#62; {{constructor.constructor('window.hacked=5')()}} datum.x; \u202egnp.exe\u2069\u200b"
    " </div></bdi><h1>out</h1>"
)
TALES = [
    [
        "My parcel has not arrived. Can I get a refund?",
        "I have refunded 25 dollars to your card.",
        "Perfect, thank you!",
    ],
    ["The shoes are the wrong size.", "I have sent you a new pair, it arrives on Friday.", "Great, thanks a lot!"],
    ["I was charged twice, this is unacceptable!", "I am sorry, I cannot refund that.", "Terrible. I want to cancel."],
    ["My invoice shows the wrong address.", "I will check with billing and let you know tomorrow.", "OK, please do."],
    ["Do you deliver to Norway?", "Yes, we deliver to Norway within five days.", "Good to know."],
]
"""What customers and agents say in the last thirty days, for pages about time."""
ADMIN_PAGES = ("Usage and cost", "API keys", "Members", "Audit log")

log = logging.getLogger("browser")
python = os.environ.get("SERVICE_PYTHON", sys.executable)


class Api:
    """The API as a program uses it."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(drive.SERVICE + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def say(self, conversation_id: str, text: str, side: str = "customer", user_id: str = "ana", **more: str) -> None:
        """Stores a message."""
        message = {"conversation_id": conversation_id, "user_id": user_id, "user_type": side, "message_content": text}
        self("POST", "/chats", {**message, **more})


class Visitor:
    """Somebody with a browser of their own; what it asks of other hosts than ours is noted."""

    def __init__(self, browser: Any, api: Api, shots: Path, **context: Any) -> None:
        self.api = api
        self.shots = shots
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **context})
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.foreign: list[str] = []
        self.wrong: list[str] = []
        self.context.on("request", self._note)
        self.page.on("dialog", self._refuse)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def _note(self, request: Any) -> None:
        ours = request.frame.url.startswith(UI)
        if ours and not request.url.startswith((UI, drive.SERVICE, "data:", "blob:", *drive.PROVIDERS.values())):
            self.foreign.append(request.url)

    def _refuse(self, dialog: Any) -> None:
        self.wrong.append("dialog")
        dialog.dismiss()

    def see(self, text: str) -> Any:
        """Waits until a text is to be seen."""
        found = self.page.get_by_text(text).first
        found.wait_for()
        return found

    def sign_in(self, path: str = "/") -> None:
        """Signs in with the key."""
        self.page.goto(UI + path)
        self.page.get_by_label("API key").fill(self.api.key)
        self.page.keyboard.press("Enter")
        self.page.get_by_role("button", name="Sign out").wait_for(state="attached")

    def menu(self, name: str) -> None:
        """Goes to a page by the menu."""
        self.page.get_by_role("link", name=name, exact=True).click()
        self.page.locator(".ci-title", has_text=name).wait_for()
        self.rest()

    def rest(self) -> None:
        """Waits until nothing is being drawn."""
        expect(self.page.locator('[data-testid="stApp"]')).to_have_attribute("data-test-script-state", "notRunning")
        self.page.wait_for_timeout(400)

    def show(self, name: str) -> None:
        """Takes a screenshot."""
        self.page.screenshot(path=str(self.shots / f"ui-{name}.png"))

    def is_safe(self) -> None:
        """Checks that nothing of what people wrote ran, was loaded or became a link."""
        assert self.page.evaluate("window.hacked") is None
        selector = f"a[href*='{EVIL}'], img[src*='{EVIL}'], iframe, a[href^='javascript:'], a[href^='data:'], .katex"
        assert self.page.locator(selector).count() == 0, self.page.locator(selector).first.evaluate("e => e.outerHTML")
        assert not self.foreign, self.foreign
        assert not self.wrong, self.wrong


def tell_tales(api: Api) -> None:
    """Stores conversations of the last thirty days, the same ones for every run of a day."""
    chance = random.Random(1)
    now = datetime.now(UTC)
    messages = []
    for number in range(150):
        begun = now - timedelta(days=chance.triangular(0, 29, 4), hours=1)
        tale = chance.choices(TALES, (8, 6, 3, 3, 4))[0]
        for place, text in enumerate(tale):
            sender = ("bob", "support_agent") if place == 1 else (f"customer-{number % 40}", "customer")
            sent = begun + timedelta(minutes=place)
            message = {"conversation_id": f"order-{1000 + number}", "message_content": text}
            message |= {"user_id": sender[0], "user_type": sender[1], "timestamp": f"{sent:%Y-%m-%dT%H:%M:%SZ}"}
            messages.append(message)
    api("POST", "/chats", messages)


def signs_in_and_out(visitor: Visitor) -> None:
    visitor.page.goto(UI)
    visitor.page.get_by_role("link", name="Sign in with Google").wait_for()
    visitor.rest()
    visitor.show("sign-in")
    visitor.page.get_by_label("API key").fill("ck_nonsense")
    visitor.page.keyboard.press("Enter")
    visitor.see("This key does not work")
    visitor.sign_in("/keys")
    visitor.page.locator(".ci-title", has_text="API keys").wait_for()
    assert visitor.api.key not in visitor.page.content()
    visitor.page.get_by_role("button", name="Sign out").click()
    visitor.see("You are signed out.")
    visitor.page.reload()
    visitor.page.get_by_label("API key").wait_for()


def searches_and_filters(visitor: Visitor) -> None:
    visitor.sign_in()
    visitor.page.locator(".st-key-open-0").wait_for()
    visitor.page.get_by_label("Search").fill('"wrong size" or refund')
    visitor.page.keyboard.press("Enter")
    visitor.page.locator(".ci-snippet", has_text="refund").first.wait_for()
    visitor.rest()
    visitor.show("conversations")
    visitor.page.get_by_label("Person").fill("nobody")
    visitor.page.keyboard.press("Enter")
    visitor.see("Nothing matches")
    visitor.page.get_by_role("button", name="Clear the filters").click()
    visitor.page.get_by_role("button", name="Older").click()
    visitor.see("Page 2")


def follows_evidence(visitor: Visitor) -> None:
    visitor.sign_in("/conversation?id=abcd-3592")
    quote = visitor.page.locator("a.ci-quote").first
    quote.wait_for()
    visitor.rest()
    quote.click()
    visitor.page.wait_for_timeout(500)
    target = visitor.page.locator(".ci-msg:target")
    said = quote.inner_text().strip("“”")
    assert said in target.inner_text(), (said, target.inner_text())
    box, message = visitor.page.locator(".st-key-chat").bounding_box(), target.bounding_box()
    assert box["y"] <= message["y"] <= box["y"] + box["height"], (box, message)
    visitor.show("conversation")


def writes_as_both_sides(visitor: Visitor) -> None:
    visitor.sign_in("/conversation?id=live-1")
    visitor.see("It begins with the first message.")
    box = visitor.page.get_by_placeholder("Write a message")
    box.fill("Hi, my parcel has not arrived. Can I get a refund?")
    box.press("Enter")
    visitor.page.locator(".ci-customer", has_text="my parcel has not arrived").wait_for()
    visitor.page.get_by_role("radio", name="Agent").or_(visitor.page.get_by_role("button", name="Agent")).first.click()
    visitor.rest()
    box.fill("I am sorry. It is lost, so I have refunded 25 dollars to your card.")
    box.press("Enter")
    visitor.page.locator(".ci-agent", has_text="refunded 25 dollars").wait_for()
    # The summary is made while looking.
    expect(visitor.page.locator(".ci-points .ci-badge", has_text=re.compile("^answered$"))).to_be_visible()
    visitor.api.say("live-1", "Perfect, thank you so much!")
    visitor.page.locator(".ci-customer", has_text="Perfect, thank you").wait_for()
    visitor.see("resolved")
    visitor.rest()
    visitor.page.get_by_role("tab", name="Insights").click()
    visitor.page.get_by_role("button", name="Analyse", exact=True).click()
    visitor.see("By participant")
    visitor.page.locator('[data-testid="stVegaLiteChart"] .marks').wait_for()
    visitor.rest()
    visitor.show("insights")


def sees_a_deletion(visitor: Visitor) -> None:
    visitor.api.say("gone-1", "Forget me, please.")
    visitor.sign_in("/conversation?id=gone-1")
    visitor.page.locator(".ci-msg", has_text="Forget me").wait_for()
    visitor.api("DELETE", "/chats/gone-1")
    visitor.see("This conversation was deleted")
    visitor.page.wait_for_timeout(2_500)
    assert visitor.page.get_by_text("This conversation was deleted").count() == 1
    assert visitor.page.get_by_placeholder("Write a message").count() == 0


def outlives_a_restart(visitor: Visitor, restart: Callable[[], None]) -> None:
    visitor.sign_in("/conversation?id=abcd-3592")
    visitor.page.locator(".ci-msg").first.wait_for()
    restart()
    visitor.api.say("abcd-3592", "Are you back?", user_id="cust-cminh730")
    visitor.page.locator(".ci-msg", has_text="Are you back?").wait_for()
    visitor.page.locator(".ci-badge", has_text=re.compile("^live$")).wait_for()


def drops_a_file(visitor: Visitor) -> None:
    rows = ["thread;who;side;what;note", 't1;ana;customer;"first, and', 'second line";x']
    rows += ["t1;bob;support_agent;hello;y", "t1;bob;robot;beep;z"]
    visitor.sign_in("/import")
    visitor.page.locator('[data-testid="stFileUploaderDropzone"]').wait_for()
    dropped = visitor.page.evaluate_handle(
        """text => { const moved = new DataTransfer();
            moved.items.add(new File([text], 'mine.csv', {type: 'text/csv'})); return moved }""",
        "\n".join(rows),
    )
    visitor.page.dispatch_event('[data-testid="stFileUploaderDropzone"]', "drop", {"dataTransfer": dropped})
    visitor.see("Which column is what?")
    for field, column in {"conversation_id": "thread", "user_id": "who", "user_type": "side"}.items():
        choose(visitor, field, column)
    choose(visitor, "message_content", "what")
    visitor.rest()
    visitor.page.get_by_role("button", name="Import", exact=True).click()
    visitor.see("3 rows read")
    visitor.see("Input should be 'customer' or 'support_agent'")
    assert visitor.page.locator(".ci-table td.ci-number").inner_text() == "5"
    visitor.page.set_viewport_size({"width": 1280, "height": 1060})
    visitor.rest()
    visitor.show("import")
    stored = visitor.api("GET", "/chats/t1")["messages"]
    assert [each["message_content"] for each in stored] == ["first, and\nsecond line", "hello"], stored


def choose(visitor: Visitor, field: str, column: str) -> None:
    """Chooses a column for a field."""
    visitor.page.locator(f".st-key-column-{field} [role=combobox]").first.click()
    visitor.page.get_by_role("option", name=column, exact=True).click()


def sees_hostile_text_as_text(visitor: Visitor) -> None:
    name = HOSTILE[:255]
    visitor.api.say(name, HOSTILE + " refund?", user_id=name, message_id=name)
    visitor.api("POST", "/chats/summarize", {"conversation_id": name})
    visitor.api("POST", "/chats/insights", {"conversation_id": name})
    visitor.api("POST", "/auth/keys", {"name": re.sub(r"[\x00-\x1f]", "", name), "role": "viewer"})
    visitor.sign_in()
    visitor.page.get_by_label("Search").fill("refund click")
    visitor.page.keyboard.press("Enter")
    visitor.page.locator(".ci-snippet", has_text="click").first.wait_for()
    visitor.rest()
    visitor.is_safe()
    visitor.page.locator(".st-key-open-0 button").click()
    visitor.page.locator(".ci-msg-text", has_text="window.hacked=1").wait_for()
    visitor.rest()
    visitor.is_safe()
    visitor.page.get_by_role("tab", name="Insights").click()
    visitor.see("By participant")
    chart = visitor.page.locator('[data-testid="stVegaLiteChart"] .marks')
    chart.hover()
    visitor.page.wait_for_timeout(500)
    visitor.is_safe()
    visitor.page.get_by_placeholder("Write a message").fill(HOSTILE)
    visitor.page.get_by_placeholder("Write a message").press("Enter")
    visitor.page.wait_for_timeout(3_500)
    visitor.is_safe()
    for page in ADMIN_PAGES:
        visitor.menu(page)
        visitor.is_safe()
    # What the policy says holds even for a page of ours that would try.
    inline = "const s = document.createElement('script'); s.textContent = 'window.hacked = 6'; document.body.append(s)"
    assert visitor.page.evaluate(f"() => {{ {inline}; return window.hacked }}") is None
    load = f"""() => new Promise(done => {{ const i = new Image(); i.onload = () => done('loaded');
        i.onerror = () => done('refused'); i.src = 'https://{EVIL}/x.png' }})"""
    assert visitor.page.evaluate(load) == "refused"


def looks_at_the_workspace(visitor: Visitor) -> None:
    visitor.api("POST", "/auth/keys", {"name": "checkout service", "role": "editor"})
    visitor.api("POST", "/workspace/members", {"email": "bob@example.com", "role": "editor"})
    visitor.api(
        "POST", "/webhooks", {"url": "https://example.com/hooks", "events": ["summary.created", "job.finished"]}
    )
    visitor.api("PUT", "/analytics/budgets/workspace", {"day_usd": 5, "month_usd": 100})
    visitor.sign_in()
    for page in ("Topics", *ADMIN_PAGES, "Webhooks"):
        visitor.menu(page)
        assert visitor.page.get_by_text("went wrong on our side").count() == 0
        visitor.show(page.removeprefix("API ").split()[0].lower())


def looks_at_trends(visitor: Visitor) -> None:
    visitor.sign_in("/trends")
    visitor.see("Share analysed")
    visitor.page.get_by_text("Outcome", exact=True).click()
    visitor.see("In the whole range")
    visitor.page.set_viewport_size({"width": 1280, "height": 1060})
    visitor.rest()
    visitor.show("trends")


def makes_a_key(visitor: Visitor) -> None:
    visitor.sign_in("/keys")
    visitor.page.get_by_role("button", name="New key").click()
    visitor.page.get_by_label("What it is for").fill("checkout")
    visitor.page.get_by_role("button", name="Make the key").click()
    visitor.see("Copy it now")
    made = visitor.page.locator("code").first.inner_text()
    assert Api(made)("GET", "/auth/me")["role"] == "viewer"
    visitor.page.get_by_role("button", name="I have copied it").click()
    visitor.page.get_by_text("Copy it now").wait_for(state="detached")
    visitor.rest()
    assert made not in visitor.page.content()


def in_the_dark(visitor: Visitor) -> None:
    visitor.sign_in("/conversation?id=abcd-3592")
    visitor.page.locator("a.ci-quote").first.wait_for()
    visitor.rest()
    dark = "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
    assert visitor.page.evaluate(dark) == "rgb(18, 21, 28)", visitor.page.evaluate(dark)
    visitor.show("dark")
    visitor.menu("Usage and cost")
    visitor.show("dark-usage")


def on_a_phone(visitor: Visitor) -> None:
    visitor.sign_in("/conversation?id=abcd-3592")
    visitor.page.locator(".ci-msg").first.wait_for()
    visitor.rest()
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert visitor.page.evaluate(wide) <= 0
    visitor.show("phone")
    visitor.page.goto(UI)
    visitor.page.get_by_label("API key").fill(visitor.api.key)
    visitor.page.keyboard.press("Enter")
    visitor.page.locator(".st-key-open-0").wait_for()
    visitor.rest()
    assert visitor.page.evaluate(wide) <= 0
    visitor.show("phone-list")


def signs_in_with(provider: str) -> Callable[..., None]:
    """Returns the scenario of a sign-in with a provider, and of a restart of the API while the page is open."""
    login, email = drive.PEOPLE[provider]

    def scenario(visitor: Visitor, restart: Callable[[], None]) -> None:
        page = visitor.page
        page.goto(UI)
        page.get_by_role("link", name=f"Sign in with {'GitHub' if provider == 'github' else 'Google'}").click()
        page.fill("input[name=login]", login)
        page.fill("input[name=password]", "any")
        page.click("button[type=submit]")
        page.wait_for_selector("text=Authorize")
        page.click("button[type=submit]")
        page.wait_for_url(re.compile(f"^{UI}"))
        visitor.see(email)
        assert page.url.rstrip("/") == UI, page.url
        assert page.evaluate("document.cookie").count("session") == 0
        page.goto(f"{UI}/conversation?id=mine-{provider}")
        visitor.see("It begins with the first message.")
        box = page.get_by_placeholder("Write a message")
        box.fill("By cookie, and told live?")
        box.press("Enter")
        page.locator(".ci-msg", has_text="told live").wait_for()
        restart()
        assert page.locator(".ci-msg", has_text="told live").count() == 1
        page.locator(".ci-badge", has_text=re.compile("^live$")).wait_for()
        page.get_by_role("button", name="Sign out").click()
        visitor.see("You are signed out.")
        page.reload()
        page.get_by_label("API key").wait_for()

    scenario.__name__ = f"signs_in_with_{provider}"
    return scenario


class Report:
    """What held and what did not."""

    def __init__(self, browser: Any, api: Api, shots: Path) -> None:
        self.failures = 0
        self._visitor = partial(Visitor, browser, api, shots)

    def check(self, scenario: Callable[..., None], *more: Any, **context: Any) -> None:
        """Runs a scenario in a fresh browser, which may ask nothing of anybody else."""
        visitor = self._visitor(**context)
        name = scenario.__name__.replace("_", " ")
        started = time.monotonic()
        try:
            scenario(visitor, *more)
            assert not visitor.foreign or scenario is sees_hostile_text_as_text, visitor.foreign
            assert not visitor.wrong, visitor.wrong
        except Exception:
            self.failures += 1
            visitor.show(f"FAILED-{scenario.__name__}")
            log.exception("FAILED  %s", name)
        else:
            log.info("passed  %s (%.1f s)", name, time.monotonic() - started)
        finally:
            visitor.context.close()


def prepare(folder: Path) -> str:
    """Stores the sample conversations and returns an admin's key."""
    environment = {**os.environ, "DATA_DIR": str(folder / "data")}
    run = [python, "-m", "app"]
    with (folder / "prepare.log").open("ab") as stream:
        for command in (["migrate"], ["seed"]):
            subprocess.run([*run, *command], cwd=drive.ROOT, env=environment, stdout=stream, stderr=stream, check=True)
        command = ["keys", "create", "--workspace", "demo", "--role", "admin"]
        made = subprocess.run(
            [*run, *command], cwd=drive.ROOT, env=environment, stdout=subprocess.PIPE, stderr=stream, check=True
        )
    return made.stdout.decode().strip()


def main(shots: Path, only: str) -> int:
    """Returns how many scenarios failed."""
    os.environ |= {"UI_URL": UI, "UI_PORT": "8501", "API_URL": drive.SERVICE}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ui-")))
        for name in ("service", "worker", "ui"):
            stack.callback(drive.keep, folder / f"{name}.log", shots)
        api = Api(prepare(folder))
        service = ExitStack()
        stack.callback(service.close)
        service.enter_context(drive.service_process(folder))
        data = {"DATA_DIR": str(folder / "data")}
        worker = [python, "-m", "app", "work"]
        stack.enter_context(drive.process(worker, f"{drive.SERVICE}/livez", folder / "worker.log", **data))
        interface = [python, "-m", "app", "ui"]
        where = {**data, "HOST": "127.0.0.1"}
        stack.enter_context(drive.process(interface, f"{UI}/_stcore/health", folder / "ui.log", **where))
        tell_tales(api)
        api("POST", "/chats/summarize", {"conversation_id": "abcd-3592"})
        job = api("POST", "/jobs/summarize", {"filter": {}})
        while api("GET", f"/jobs/{job['id']}")["status"] in ("queued", "running"):
            time.sleep(0.5)
        playwright = stack.enter_context(sync_playwright())
        chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=drive.CHROMIUM_ARGS)
        stack.callback(browser.close)
        report = Report(browser, api, shots)

        def restart() -> None:
            service.close()
            service.enter_context(drive.service_process(folder))

        scenarios: list[tuple[Callable[..., None], tuple[Any, ...], dict[str, Any]]] = [
            (signs_in_and_out, (), {}),
            (searches_and_filters, (), {}),
            (looks_at_trends, (), {}),
            (follows_evidence, (), {}),
            (writes_as_both_sides, (), {}),
            (sees_a_deletion, (), {}),
            (drops_a_file, (), {}),
            (looks_at_the_workspace, (), {}),
            (makes_a_key, (), {}),
            (in_the_dark, (), {"color_scheme": "dark"}),
            (on_a_phone, (), {"viewport": {"width": 390, "height": 844}}),
            (sees_hostile_text_as_text, (), {}),
            (outlives_a_restart, (restart,), {}),
        ]
        for provider in drive.PROVIDERS:
            stack.enter_context(drive.provider_process(provider, folder))
            scenarios.append((signs_in_with(provider), (restart,), {}))
        for scenario, more, context in scenarios:
            if only in scenario.__name__:
                report.check(scenario, *more, **context)
        secrets = [path.name for path in folder.glob("*.log") if api.key in path.read_text(errors="replace")]
        assert not secrets, f"the key is in {secrets}"
        return report.failures


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, drive.stop)
    signal.alarm(LONGEST_RUN_S)
    target = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="screenshots-"))
    target.mkdir(parents=True, exist_ok=True)
    failed = main(target, sys.argv[2] if len(sys.argv) > 2 else "")
    log.info("%s failed; screenshots and logs: %s", failed or "none", target)
    sys.exit(bool(failed))
