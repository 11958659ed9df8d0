"""The study's page in a real Chromium: without network, in light and dark, on a telephone, on paper."""

import os

import page_runs
import pytest

from workbench.data.embedded.stories import stories
from workbench.data.pairs import open_pairs


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    from apps.study_report.page import study_page
    from workbench.interp.study import study
    from workbench.runs.run import load

    os.environ.setdefault("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    root = tmp_path_factory.mktemp("report")
    run = load(page_runs.make_run(root / page_runs.HOSTILE, page_runs.tokenizer(), (8,)))
    pairs = open_pairs(None).select(["embedded_transitive"], 3)
    texts = [f"{page_runs.HOSTILE_TEXT} {one}" for one in stories(8, split="validation")]
    values = study(run, texts, pairs=pairs, quick=True).to_dict()
    (root / "index.html").write_text(study_page(values))
    return root / "index.html", values


@pytest.fixture
def opened(chromium, report):
    """`opened(width, scheme)` -> the page, read from disk without a network."""
    contexts = []

    def open_(width=1100, scheme="light"):
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.goto(report[0].as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()


def test_it_opens_without_network_and_nothing_hostile_runs(opened, report):
    page = opened()
    assert page.requests == [report[0].as_uri()]
    assert page.complaints == []
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page_runs.HOSTILE in page.locator("h1").inner_text()


def test_another_token_shows_its_attention(opened, report):
    page = opened()
    pattern, query = report[1]["attention"]["pattern"], 5
    page.locator(".query button").nth(query).click()
    assert page.locator(".query button[aria-pressed=true]").count() == 1
    for head, text in enumerate(page.locator(".heads .painted").all()):
        shares = text.evaluate("t => [...t.children].map(one => +one.style.getPropertyValue('--v'))")
        most = max(pattern[head][query])
        wanted = [value / most for value in pattern[head][query]]
        assert shares == pytest.approx(wanted, abs=1e-6)
        said = float(page.locator(".heads .most").nth(head).inner_text())
        assert said == pytest.approx(most, abs=0.0051)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_reader(opened, scheme):
    page = opened(scheme=scheme)
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 28)"}[scheme]


def test_it_fits_a_telephone_and_paper(opened):
    page = opened(width=420)
    assert page.evaluate("document.documentElement.scrollWidth") == 420
    assert page.pdf(format="A4").startswith(b"%PDF")
