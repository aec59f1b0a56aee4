"""Chromium, the built page, and the two gateways it is tried against: the scripted one and,
where TANDEM_URL names it, a real instance."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fake_gateway import FakeGateway
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

REPO = Path(__file__).resolve().parents[2]
WEB = REPO / "web"
SCREENSHOTS = REPO / "tests" / "screenshots"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)

WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
"""


@pytest.fixture(scope="session")
def dist() -> Path:
    """The page as it is shipped; built here when nobody has built it yet."""
    built = WEB / "dist"
    sources = [*WEB.glob("src/**/*"), *WEB.glob("public/*"), WEB / "index.html"]
    newest = max(path.stat().st_mtime for path in sources if path.is_file())
    index = built / "index.html"
    if index.exists() and index.stat().st_mtime >= newest:
        return built
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("web/dist is missing or old and there is no npm: run `npm run build` in web/")
    steps = [] if (WEB / "node_modules").exists() else [["ci"]]
    for step in [*steps, ["run", "build"]]:
        done = subprocess.run([npm, *step], cwd=WEB, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    return built


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=FLAGS, timeout=120_000)
        yield found
        found.close()


class Running:
    """The fake on a free port, in a thread of its own."""

    def __init__(self, gateway: FakeGateway) -> None:
        self.gateway = gateway
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(
            gateway.app(), log_level="error", ws="none", lifespan="off",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(15)
        self.socket.close()


@pytest.fixture(scope="session")
def running_fake(dist: Path) -> Iterator[Running]:
    running = Running(FakeGateway(dist))
    yield running
    running.close()


@pytest.fixture
def fake(running_fake: Running) -> FakeGateway:
    running_fake.gateway.reset()
    return running_fake.gateway


@pytest.fixture
def page_url(running_fake: Running) -> str:
    return f"{running_fake.url}/"


Opener = Callable[..., Page]


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Opener]:
    """Pages that fail the test for any script error or breach of the security policy."""
    contexts: list[BrowserContext] = []
    pages: list[Page] = []
    wrong: list[str] = []

    def open_page(locale: str = "zh-CN", **options: Any) -> Page:
        context = browser.new_context(locale=locale, **options)
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(WATCH)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if _breach(said.text) else None)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        wrong += page.evaluate("window.violations ?? []")
    for context in contexts:
        context.close()
    assert not wrong, wrong


def _breach(text: str) -> bool:
    return "Content Security Policy" in text or "Refused to" in text


@pytest.fixture
def page(new_page: Opener, fake: FakeGateway, page_url: str) -> Page:
    """Signed in, Chinese, before the scripted gateway."""
    return signed_in(new_page(), page_url, fake.key)


def signed_in(page: Page, url: str, key: str) -> Page:
    page.goto(url)
    page.locator("input[name=key]").fill(key)
    page.locator(".key-card button[type=submit]").click()
    expect(page.locator(".composer textarea")).to_be_visible()
    return page


def ask(page: Page, text: str) -> None:
    page.locator(".composer textarea").fill(text)
    page.locator(".composer textarea").press("Enter")


@dataclass(frozen=True)
class Instance:
    url: str
    key: str


@pytest.fixture(scope="session")
def tandem() -> Instance:
    """A real instance that somebody started (`scripts/try.sh --print-env` names it)."""
    url, key = os.environ.get("TANDEM_URL"), os.environ.get("TANDEM_API_KEY")
    if not url or not key:
        pytest.fail('no running instance: eval "$(scripts/try.sh --print-env)" names one')
    return Instance(url.rstrip("/"), key)


def screenshot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
