"""Eight readers at once on one server, in browsers of their own: each sees what it sees alone."""

import pytest

from apps.frame.told import FAILED
from apps.pages import PAGES

pytestmark = pytest.mark.browser

PAIR = "run=scored&look=sentences&good=The cat was happy.&bad=The cat were happy."
QUERIES = [
    *(f"?{PAIR}&page={key}" for key in ("explain", "heads", "generate")),
    "?run=scored&look=text&text=A dog and three cats ran home.",
    *(f"?{PAIR}&page=patch&off={off}" for off in ("L0H0", "L1 MLP", "L1H2", "L0 MLP,L1H0")),
]
FIGURES = ".wb-verdict, .wb-where, .wb-pair, .wb-written, .wb-equation, .wb-top, [data-testid=stMetric]"
TEXTS = f"[...document.querySelectorAll('{FIGURES}')].map(one => one.innerText)"


def shown(page) -> list[str]:
    """The figures and tokens on the page once nothing comes any more."""
    seen: list[list[str]] = []
    for _ in range(90):
        page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
        page.wait_for_timeout(300)
        seen.append(page.evaluate(TEXTS))
        if len(seen) > 3 and seen[-1] == seen[-2] == seen[-3] == seen[-4] and seen[-1]:
            assert FAILED not in page.inner_text("[data-testid=stMain]")
            return seen[-1]
    raise AssertionError(f"it does not come to rest: {seen[-2:]}")


@pytest.mark.timeout(600)
def test_eight_readers_see_what_each_sees_alone(chromium, server):
    """Each page, and the same pair with this or that switched off; all on one model, which all of them share,
    and each switches something off and on again meanwhile."""
    assert set(PAGES) >= {"explain", "heads", "generate", "patch"}
    contexts = [chromium.new_context(viewport={"width": 1400, "height": 1000}) for _ in QUERIES]
    pages = [context.new_page() for context in contexts]
    try:
        for page, query in zip(pages, QUERIES, strict=True):
            page.set_default_timeout(120_000)
            page.goto(f"{server}/{query}", wait_until="commit")
        for page in pages:  # head scores that one reader waits for are there for all of them afterwards
            shown(page)
        for page in pages:
            page.reload(wait_until="commit")
        together = [shown(page) for page in pages]
        for page in pages:  # all ask again at the same moment
            page.reload(wait_until="commit")
        for page, text in zip(pages, together, strict=True):
            assert shown(page) == text
    finally:
        for context in contexts:
            context.close()
    alone = chromium.new_context(viewport={"width": 1400, "height": 1000})
    for query, text in zip(QUERIES, together, strict=True):
        page = alone.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"{server}/{query}")
        assert shown(page) == text, query
        page.close()
    alone.close()
    off = [text for query, text in zip(QUERIES, together, strict=True) if "&off=" in query]
    assert len({tuple(texts) for texts in off}) == len(off) == 4, "what is off makes no difference"
    assert all("without L" in texts[0] for texts in off)
