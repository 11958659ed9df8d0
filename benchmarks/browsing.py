"""A served explorer, and a reader in a real Chromium who clicks on it and waits for what should come."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXPLORER = Path(__file__).resolve().parents[1] / "apps" / "explorer.py"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-default-apps", "--disable-extensions", "--no-first-run",
    "--disable-domain-reliability", "--disable-client-side-phishing-detection", "--metrics-recording-only",
]  # fmt: skip
_OWN = re.compile(r"^(https?://(localhost|127\.0\.0\.1)[:/]|wss?://localhost[:/]|data:|blob:|about:)")
IDLE = "[data-testid=stApp][data-test-script-state=notRunning]"
AXIS, GAP = 20, 0.3
"""Pixels of a component map left of its cells; columns between its heads and its MLPs."""


class Server:
    """`streamlit run apps/explorer.py`, in a folder without runs of its own."""

    def __init__(self, folder: Path, words: Sequence[str] = (), script: Path = EXPLORER) -> None:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://localhost:{port}"
        command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", str(port)]
        command += ["--server.headless", "true", "--browser.gatherUsageStats", "false", "--", *words]
        self.log = folder / "server.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        end = time.monotonic() + 120
        while not self._answers():
            if time.monotonic() > end or self.process.poll() is not None:
                self.stop()
                raise SystemExit(f"the explorer did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/_stcore/health", timeout=2):
                return True
        except OSError:
            return False

    def memory(self) -> float:
        """Megabytes of the server in memory."""
        import psutil

        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Complaints:
    """What all readers of a benchmark asked of other hosts, and what their consoles said."""

    def __init__(self) -> None:
        self.strangers: list[str] = []
        self.errors: list[str] = []

    def listen(self, page: Any) -> None:
        """Hear everything of this page."""
        page.on("request", lambda request: _OWN.match(request.url) or self.strangers.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console", lambda message: self.errors.append(message.text) if message.type == "error" else None
        )


class Reader:
    """One page in one browser context of its own."""

    def __init__(self, browser: Any, complaints: Complaints, server: Server) -> None:
        self.context = browser.new_context(viewport={"width": 1400, "height": 1000})
        self.page = self.context.new_page()
        self.page.set_default_timeout(120_000)
        self.server, self.complaints = server, complaints
        complaints.listen(self.page)

    def another_tab(self) -> None:
        """The same browser, with the page's files at hand."""
        self.page.close()
        self.page = self.context.new_page()
        self.page.set_default_timeout(120_000)
        self.complaints.listen(self.page)

    def close(self) -> None:
        """Close the browser context."""
        self.context.close()

    def open(self, query: str = "") -> float:
        """Go there; returns seconds until the verdict and the first map are drawn."""
        began = time.perf_counter()
        self.page.goto(f"{self.server.address}/{query}")
        self.page.wait_for_function(
            "() => document.querySelector('.wb-verdict') && document.querySelector('.wb-map button, "
            "[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg')"
        )
        return time.perf_counter() - began

    def rest(self) -> None:
        """Wait until nothing runs any more."""
        self.page.wait_for_selector(IDLE)
        self.page.wait_for_timeout(250)
        self.page.wait_for_selector(IDLE)

    def text(self, selector: str) -> str:
        """The words of an element."""
        return self.page.inner_text(selector)

    def changed(self, selectors: Sequence[str], before: Sequence[str]) -> None:
        """Wait until each of these has other words."""
        self.page.wait_for_function(
            "([selectors, before]) => selectors.every((one, at) => {"
            " const found = document.querySelector(one);"
            " return found && found.innerText !== before[at]; })",
            arg=[list(selectors), list(before)],
        )

    def says(self, words: str) -> None:
        """Wait until the page says so."""
        self.page.wait_for_function(
            "words => document.querySelector('[data-testid=stMain]').innerText.includes(words)", arg=words
        )

    def cell(
        self, layers: int, heads: int, layer: int, head: int | None, chart: int = 0
    ) -> tuple[float, float]:
        """Where a cell of a component map is on the screen; `head` None is the MLP."""
        place = self.page.locator("[data-testid=stVegaLiteChart]").nth(chart)
        place.scroll_into_view_if_needed()
        box = place.bounding_box()
        columns = max(heads + 1, 4) + 0.25
        across = (heads + GAP if head is None else head) + 0.475
        x = box["x"] + AXIS + (box["width"] - AXIS) * across / columns
        return x, box["y"] + box["height"] * (layer + 1.5) / (layers + 1)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser.

    Raises:
        SystemExit: playwright or Chromium is not installed.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit("playwright is not installed; `pip install -e .[dev]` brings it.") from None
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    if binary is None:
        raise SystemExit("there is no Chromium on this machine; on Debian: apt-get install chromium")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=binary, args=FLAGS)
        yield browser
        browser.close()
