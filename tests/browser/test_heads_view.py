"""Heads and neurons in a real Chromium."""

import pytest

pytestmark = pytest.mark.browser

TITLES = "[...document.querySelectorAll('h3')].map(each => each.innerText).join('|')"


def heard(seen, words: str) -> None:
    """Wait until a heading says so."""
    seen.page.wait_for_function(f"words => {TITLES}.includes(words)", arg=words, timeout=60_000)


def test_the_scores_come_by_themselves_and_a_click_opens_a_head(visit):
    seen = visit("?page=heads&run=scored")
    seen.page.wait_for_function(
        "document.body.innerText.includes('All scores of all 8 heads')", timeout=60_000
    )
    seen.page.wait_for_timeout(500)
    box = seen.page.locator("[data-testid=stVegaLiteChart]").first.bounding_box()
    # Two layers of four heads; the first row holds the names.
    seen.page.mouse.click(box["x"] + 0.16 * box["width"], box["y"] + 0.5 * box["height"])
    heard(seen, "What L0H0 attends to")
    assert "head=L0H0" in seen.page.url
    copy = visit(seen.page.url, fresh=True)
    heard(copy, "What L0H0 attends to")
    seen.page.get_by_text("All heads of layer 0").click()
    frame = seen.frames(1)[0]
    frame.wait_for_selector("#view canvas", timeout=20_000)
    assert seen.errors == []
    assert seen.strangers() == set()
    seen.shot("heads")


def test_a_neuron_and_the_narrow_dark_page(visit):
    seen = visit("?page=heads&run=scored&units=neurons&neuron=L1N7", scheme="dark", width=420)
    heard(seen, "Neuron L1N7")
    seen.page.wait_for_selector(".wb-passages .here", timeout=60_000)
    seen.page.wait_for_function(
        "document.body.innerText.includes('How often it is how active')", timeout=60_000
    )
    wider = seen.page.evaluate(
        "document.querySelector('[data-testid=stMain]').scrollWidth - "
        "document.querySelector('[data-testid=stMain]').clientWidth"
    )
    assert wider <= 1, "the page scrolls sideways"
    assert seen.errors == []
    assert seen.strangers() == set()
    seen.shot("neurons-dark-420")
