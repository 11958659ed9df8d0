"""A served explorer and a real headless Chromium."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import page_runs
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / ".cache" / "screenshots"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-extensions",
    "--disable-domain-reliability",
    "--disable-client-side-phishing-detection",
    "--metrics-recording-only",
]


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    return page_runs.make_runs(tmp_path_factory.mktemp("browser") / "runs")


@pytest.fixture(scope="session")
def server(runs) -> Iterator[str]:
    """The page's address, served as `streamlit run apps/explorer.py -- --runs FOLDER`."""
    pytest.importorskip("streamlit", reason="streamlit is not installed (the extra `app`)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "apps" / "explorer.py")]
    command += ["--server.port", str(port), "--", "--runs", str(runs)]
    process = subprocess.Popen(command, cwd=runs.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    address = f"http://localhost:{port}"
    try:
        _wait(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def _wait(address: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    process.kill()
    output = process.stdout.read().decode(errors="replace") if process.stdout else ""
    pytest.fail(f"the explorer did not start: {output[-2000:]}")


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """A Chromium; skips with the reason where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    if binary is None:
        pytest.skip("no chromium is installed; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=binary, args=FLAGS)
        yield browser
        browser.close()


class Seen:
    """A page, with what it asked for and what it complained about."""

    def __init__(self, page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type == "error" else None,
        )

    def settle(self) -> None:
        """Wait until the script has run and the charts and frames are drawn."""
        self.page.wait_for_selector(
            ".wb-verdict, [data-testid=stAlert], [data-testid=stHeading], [data-testid=stMetric]", timeout=120_000
        )
        self.page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=120_000)
        self.page.wait_for_timeout(300)

    def frames(self, number: int) -> list:
        """The page's inner frames, once there are at least `number`: they come behind the script's end."""
        self.page.wait_for_function("n => document.querySelectorAll('iframe').length >= n", arg=number)
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('iframe')].every(frame => frame.contentWindow !== null)"
        )
        return [frame for frame in self.page.frames if frame != self.page.main_frame]

    def strangers(self) -> set[str]:
        """Addresses asked for that are not this machine's."""
        own = re.compile(r"^(https?://(localhost|127\.0\.0\.1)[:/]|wss?://localhost[:/]|data:|blob:|about:)")
        return {url for url in self.requests if not own.match(url)}

    def shot(self, name: str) -> None:
        """Keep a screenshot of the whole page, to be looked at."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        size = self.page.viewport_size
        height = self.page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        self.page.set_viewport_size({"width": size["width"], "height": max(size["height"], height + 20)})
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=SHOTS / f"{name}.png")
        self.page.set_viewport_size(size)


@pytest.fixture(scope="session")
def contexts(chromium) -> Iterator[dict]:
    """One browser context for each colour scheme, so that the page's own files are loaded once."""
    made = {scheme: chromium.new_context(color_scheme=scheme) for scheme in ("light", "dark")}
    yield made
    for context in made.values():
        context.close()


@pytest.fixture
def visit(chromium, contexts, server) -> Iterator[Callable[..., Seen]]:
    """Open the explorer: `visit("?run=tiny", scheme="dark", width=800)`; `fresh` is somebody else's browser."""
    pages, strangers = [], []

    def opened(
        query: str = "", scheme: str = "light", width: int = 1400, height: int = 1000, fresh: bool = False
    ) -> Seen:
        context = contexts[scheme]
        if fresh:
            strangers.append(context := chromium.new_context(color_scheme=scheme))
        pages.append(context.new_page())
        pages[-1].set_viewport_size({"width": width, "height": height})
        seen = Seen(pages[-1])
        seen.page.goto(query if query.startswith("http") else f"{server}/{query}")
        seen.settle()
        return seen

    yield opened
    for page in pages:
        page.close()
    for context in strangers:
        context.close()
