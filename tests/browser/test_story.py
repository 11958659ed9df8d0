"""The whole story in a real Chromium: from the first page to a head, to the model without it, to a shared link.
And every page of the menu: in light and dark, on a telephone, silent on the network and in the console."""

import re

import pytest

from apps.frame.told import FAILED
from apps.pages import PAGES

pytestmark = pytest.mark.browser

NATS = re.compile(r"[+−]?\d+\.\d\d nats")
LAYERS, HEADS = 2, 4
"""Of the run `scored`."""
MAIN = "[data-testid=stMain]"
SIDEWAYS = f"(() => {{ const main = document.querySelector('{MAIN}'); return main.scrollWidth - main.clientWidth; }})()"


def cell(seen, layer: int, head: int, chart: int = 0) -> tuple[float, float]:
    """Where a head of the component map is on the screen; four heads, a gap and the MLP stand in a row."""
    place = seen.page.locator("[data-testid=stVegaLiteChart]").nth(chart)
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    across = 20 + (box["width"] - 20) * (head + 0.475) / (HEADS + 1.25)
    return box["x"] + across, box["y"] + box["height"] * (layer + 1.5) / (LAYERS + 1)


def main(seen) -> str:
    return seen.page.inner_text(MAIN)


def says(seen, words: str) -> None:
    seen.page.wait_for_function(
        f"words => document.querySelector('{MAIN}').innerText.includes(words)", arg=words
    )
    seen.settle()


def go(seen, key: str) -> None:
    """To another page, by the menu."""
    seen.page.get_by_test_id("stMain").get_by_test_id("stButtonGroup").first.get_by_text(
        PAGES[key].title, exact=True
    ).click()
    first = key == next(iter(PAGES))  # which the address does not name
    there = "key => location.search.includes(`page=${key}`)"
    seen.page.wait_for_function("() => !location.search.includes('page=')" if first else there, arg=key)
    seen.settle()


def figures(seen) -> dict[str, str]:
    """The figures in boxes, by their names."""
    boxes = seen.page.locator("[data-testid=stMetric]").all()
    return {box.inner_text().split("\n")[0]: box.inner_text() for box in boxes}


def test_from_a_failing_pair_to_a_head_to_an_ablation_to_a_shared_link(visit):
    seen = visit()
    assert "prefers the wrong sentence by" in seen.page.inner_text(".wb-verdict")

    first = seen.page.inner_text(".wb-where")
    seen.page.get_by_role("combobox", name="Pair").last.click()
    option = seen.page.get_by_role("option").nth(2)
    assert "✗" in option.inner_text()
    option.click()
    seen.page.wait_for_function("text => document.querySelector('.wb-where').innerText !== text", arg=first)
    seen.settle()
    assert "prefers the wrong sentence by" in seen.page.inner_text(".wb-verdict")

    label = "L1H3" if "L1H3 on the" not in main(seen) else "L1H2"
    head = int(label[-1])
    seen.page.click(f"[data-wb-pick={label}]")
    says(seen, f"{label} on the grammatical sentence")
    assert f"{label} on the ungrammatical sentence" in main(seen)
    assert f"head={label}" in seen.page.url
    seen.page.get_by_text("Whole sentences", exact=True).first.click()
    seen.page.wait_for_function("location.search.includes('at=sentence')")
    seen.settle()
    effect = figures(seen)
    assert re.search(r"[+−]?\d+\.\d\d without it", effect["Zero ablation"])
    alone = re.search(r"([+−]?\d+\.\d\d) without it", effect["Zero ablation"]).group(1)
    copied(visit, seen)

    go(seen, "patch")
    whole = seen.page.inner_text(".wb-verdict")
    seen.page.mouse.click(*cell(seen, 1, head))
    says(seen, f"without {label} prefers")
    assert seen.page.inner_text(".wb-verdict") != whole
    assert f"off={label}" in seen.page.url
    now = figures(seen)
    assert NATS.search(now["Ablated"]).group().startswith(alone), (
        "both pages say what is left without the head"
    )
    assert not NATS.search(now["Whole model"]).group().startswith(alone)
    assert seen.page.inner_text(".wb-where") != first
    copied(visit, seen)

    go(seen, "explain")
    assert f"{label} on the grammatical sentence" in main(seen)
    assert seen.errors == []
    assert seen.strangers() == set()


def copied(visit, seen) -> None:
    """The address, opened by somebody else, shows the same."""
    other = visit(seen.page.url, fresh=True)
    other.page.wait_for_function(
        f"words => document.querySelector('{MAIN}').innerText === words", arg=main(seen)
    )
    for place in (".wb-verdict", ".wb-where"):
        assert other.page.inner_text(place) == seen.page.inner_text(place)
    assert figures(other) == figures(seen)
    assert other.errors == []
    assert other.strangers() == set()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("key", PAGES)
def test_every_page(visit, key, scheme):
    """Alone and beside another model; the light one also as wide as a telephone."""
    beside = "&beside=plain" if scheme == "dark" else ""
    seen = visit(f"?page={key}{beside}", scheme=scheme)
    seen.page.wait_for_timeout(700)
    seen.settle()
    words = main(seen)
    assert FAILED not in words
    assert len(words.split()) > 30
    seen.shot(f"page-{key}-{scheme}")
    assert seen.page.evaluate(SIDEWAYS) <= 1, "the page scrolls sideways"
    if scheme == "light":
        seen.page.set_viewport_size({"width": 420, "height": 900})
        seen.page.wait_for_timeout(700)
        seen.shot(f"page-{key}-420")
        assert seen.page.evaluate(SIDEWAYS) <= 1, "the page scrolls sideways on a telephone"
    assert seen.errors == []
    assert seen.strangers() == set()


def test_the_pair_survives_another_checkpoint_and_the_next_clicks(visit):
    """Its label changes with the model, and the browser knows a choice by its label only."""
    seen = visit("?run=scored")
    pair = seen.page.evaluate("new URLSearchParams(location.search).get('pair')")
    words = seen.page.inner_text(".wb-where").split("·")[2]
    assert pair in words
    seen.page.get_by_role("combobox", name="Checkpoint").last.click()
    seen.page.get_by_role("option").last.click()
    seen.page.wait_for_function("() => location.search.includes('checkpoint=')")
    seen.settle()
    for key in ("patch", "explain"):
        go(seen, key)
        assert seen.page.evaluate("new URLSearchParams(location.search).get('pair')") == pair
        assert words in seen.page.inner_text(".wb-where")


def test_back_and_forward_change_the_page(visit):
    seen = visit("?run=scored")
    places = {}
    for key in ("blimp", "patch", "generate"):
        go(seen, key)
        places[key] = seen.page.evaluate("history.length")
    assert [places[key] - places["blimp"] for key in places] == [0, 1, 2], "one entry a click"
    for key in ("patch", "blimp"):
        seen.page.go_back()
        seen.page.wait_for_function("key => location.search.includes(`page=${key}`)", arg=key)
        seen.settle()
        pressed = "button[aria-checked=true], button[kind*=Active]"
        assert seen.page.get_by_test_id("stMain").locator(pressed).first.inner_text() == PAGES[key].title
    seen.page.go_forward()
    seen.page.wait_for_function("() => location.search.includes('page=patch')")
    seen.settle()
    says(seen, "Replaced by")
    assert seen.errors == []
