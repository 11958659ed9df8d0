"""Compare and training in a real Chromium."""

import pytest

pytestmark = pytest.mark.browser


def verdict(seen) -> str:
    return seen.page.inner_text(".wb-verdict")


def test_the_slider_drives_all_pages_and_the_link_brings_it_back(visit):
    seen = visit("?page=training&tview=training")
    before = verdict(seen)
    seen.page.get_by_role("slider").first.focus()
    seen.page.keyboard.press("ArrowLeft")
    seen.page.wait_for_function("() => location.search.includes('checkpoint=0')")
    seen.page.wait_for_function("old => document.querySelector('.wb-verdict').innerText !== old", arg=before)
    seen.settle()
    after = verdict(seen)
    again = visit(seen.page.url, fresh=True)
    assert verdict(again) == after
    menu = again.page.get_by_test_id("stMain").get_by_test_id("stButtonGroup").first
    menu.get_by_text("Explain", exact=True).click()
    again.page.wait_for_function("() => document.body.innerText.includes('Carried by that position')")
    again.settle()
    assert "checkpoint 0" in again.page.inner_text("[data-testid=stMain]")
    assert seen.errors == again.errors == []
    assert seen.strangers() == set()


@pytest.mark.parametrize(("view", "width"), [("models", 1400), ("models", 420), ("training", 420)])
def test_screens_do_not_scroll_sideways(visit, view, width):
    seen = visit(f"?page=training&tview={view}&beside=plain&run=scored", width=width)
    seen.page.wait_for_selector("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg")
    wider = seen.page.evaluate(
        "() => { const main = document.querySelector('[data-testid=stMain]'); return main.scrollWidth - main.clientWidth }"
    )
    assert wider <= 1
    assert seen.errors == []
    assert seen.strangers() == set()
    seen.shot(f"training-{view}-{width}")
