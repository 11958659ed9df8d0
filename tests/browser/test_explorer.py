"""The first page in a real Chromium."""

from urllib.parse import quote

import pytest
from page_runs import HOSTILE, HOSTILE_TEXT

pytestmark = pytest.mark.browser

CANVAS = "[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg"


def choose(seen, label: str) -> str:
    """The value of a select box."""
    return seen.page.get_by_role("combobox", name=label, exact=False).first.input_value()


def test_opens_on_a_failing_pair_without_a_click(visit):
    seen = visit("?allheads=1")
    assert "prefers the wrong sentence by" in seen.page.inner_text(".wb-verdict")
    assert seen.page.locator(".wb-map button").count() == 2 * 5
    assert seen.page.locator(CANVAS).count() >= 2
    frames = seen.frames(2)
    assert len(frames) == 2
    for frame in frames:
        frame.wait_for_selector("#view canvas", timeout=20_000)
        assert "L" in frame.inner_text("#view")
    assert seen.errors == []
    assert seen.strangers() == set()
    bundles = [url for url in seen.requests if "circuitsvis" in url]
    assert bundles
    assert all("/app/static/circuitsvis-" in url for url in bundles)
    seen.shot("first-page-light")


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1400), ("light", 760), ("dark", 420)])
def test_other_screens(visit, scheme, width):
    seen = visit(scheme=scheme, width=width)
    assert seen.errors == []
    wider = seen.page.evaluate(
        "document.querySelector('[data-testid=stMain]').scrollWidth - document.querySelector('[data-testid=stMain]').clientWidth"
    )
    assert wider <= 1, "the page scrolls sideways"
    background = seen.page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    assert (sum(map(int, background.removeprefix("rgb(").rstrip(")").split(","))) > 380) == (
        scheme == "light"
    )
    seen.shot(f"first-page-{scheme}-{width}")


def test_a_click_on_a_head_shows_its_attention_and_the_link_brings_it_back(visit):
    seen = visit()
    for wanted in ("L0H0", "L1H3"):
        seen.page.click(f"[data-wb-pick={wanted}]")
        seen.page.wait_for_function("wanted => location.search.includes(`head=${wanted}`)", arg=wanted)
        seen.settle()
        assert choose(seen, "Head or MLP") == wanted
    after = wanted
    assert f"head={after}" in seen.page.url
    assert f"{after} on the grammatical sentence" in seen.page.inner_text("[data-testid=stMain]")
    copy = visit(seen.page.url, fresh=True)
    assert choose(copy, "Head or MLP") == after
    assert copy.page.inner_text(".wb-verdict") == seen.page.inner_text(".wb-verdict")
    assert copy.page.inner_text(".wb-equation") == seen.page.inner_text(".wb-equation")
    assert seen.errors == []


def test_another_pair_by_the_sidebar(visit):
    seen = visit()
    before = seen.page.inner_text(".wb-where")
    box = seen.page.get_by_role("combobox", name="Pair").last
    box.click()
    seen.page.get_by_role("option").nth(3).click()
    seen.page.wait_for_function("text => document.querySelector('.wb-where').innerText !== text", arg=before)
    seen.settle()
    assert "pair=" in seen.page.url
    assert seen.errors == []


def test_hostile_text_stays_text(visit):
    """In a run's name, a sentence, a text and its tokens: no element beyond the template."""
    other = HOSTILE_TEXT.replace("sat", "sits")
    for query in (
        f"?look=text&allheads=1&text={quote(HOSTILE_TEXT)}",
        f"?allheads=1&run={quote(HOSTILE)}&look=sentences&good={quote(HOSTILE_TEXT)}&bad={quote(other)}",
    ):
        seen = visit(query)
        # On a busy machine the text may come after the page's first rest.
        seen.page.wait_for_function(
            "['img src=x', '‹'].some(part => document.querySelector('[data-testid=stApp]').innerText.includes(part))"
        )
        for frame in seen.page.frames:
            assert (
                frame.evaluate("document.querySelectorAll('img[src=x], img[onerror], b > img').length") == 0
            )
            assert frame.evaluate("window.hacked === undefined")
            # Only the page's own and the view's own scripts: nothing of the text became one.
            assert (
                frame.evaluate(
                    "[...document.scripts].filter(s => s.textContent.includes('hacked') && !s.textContent.startsWith('\\nCircuitsVis.render')).length"
                )
                == 0
            )
        assert (
            seen.page.evaluate("document.querySelectorAll('[data-testid=stMain] a[href^=javascript]').length")
            == 0
        )
        assert seen.errors == []
        assert seen.strangers() == set()


def test_bos_is_seen_and_tokens_that_end_a_script_do_not_kill_the_view(visit):
    seen = visit(f"?look=text&allheads=1&text={quote('The </script> cat <!-- sat')}")
    frame = seen.frames(1)[0]
    frame.wait_for_selector("#view canvas", timeout=20_000)
    assert "‹bos›" in seen.page.inner_text("[data-testid=stMain]") or "‹" in seen.page.inner_text(".wb-pair")
    assert seen.errors == []


def test_two_sessions_see_their_own_model(visit):
    one, other = visit("?run=scored"), visit("?run=plain", fresh=True)
    one.page.reload()
    one.settle()
    assert one.page.inner_text(".wb-verdict").startswith("scored")
    assert other.page.inner_text(".wb-verdict").startswith("plain")


@pytest.mark.parametrize("query", ["?run=damaged", "?look=text&text=%20", "?look=sentences&good=a&bad=a"])
def test_mistakes_are_told_in_a_box(visit, query):
    seen = visit(query)
    assert seen.page.locator("[data-testid=stAlert]").count() >= 1
    assert "Traceback" not in seen.page.inner_text("[data-testid=stApp]")
    assert seen.errors == []
