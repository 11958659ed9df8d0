"""Every page of the menu in each state of the world: it says what to do, never a traceback, never nothing."""

import re
import shutil
from pathlib import Path

import page_runs
import pytest
from seen import check, said

from apps.pages import PAGES

pytestmark = pytest.mark.usefixtures("unchecked")

TEXTS = {
    "one token": "a",
    "non-ASCII": "Zoë 喝 café 🐈 ﷽ \u202e\u0000 ​",
}


@pytest.fixture(params=list(PAGES))
def key(request) -> str:
    return request.param


def test_a_good_run(page, runs, key):
    test = page(runs, page=key)
    check(test)
    assert not test.error
    assert test.session_state["page"] == key


def test_no_runs(page, tmp_path, key):
    for root in (tmp_path, tmp_path / "absent"):
        test = page(root, page=key)
        check(test)
        assert "make demo" in said(test.main)
        assert "workbench train" in said(test.main)


def test_a_damaged_run(page, runs, key):
    test = page(runs, page=key, run="damaged")
    check(test)
    assert len(test.error) == 1
    assert "damaged has no intact checkpoint" in said(test.main, "error")
    test.selectbox(key="run").set_value("plain").run()
    check(test)
    assert not test.error


def test_a_damaged_model_beside(page, runs, key):
    test = page(runs, page=key, beside="damaged")
    check(test)
    assert "damaged has no intact checkpoint" in said(test.main, "error")
    if key == "explain":
        assert 'class="wb-verdict"' in said(test.main), "the page of model A stays"


def test_a_run_deleted_while_open(page, runs, tmp_path, key):
    root = tmp_path / "runs"
    for name in "abc":
        shutil.copytree(runs / "plain", root / name)
    test = page(root, page=key, run="b", beside="c")
    check(test)
    shutil.rmtree(root / "c")
    test.run()
    check(test)
    shutil.rmtree(root / "b")
    test.run()
    check(test)
    assert test.selectbox(key="run").value == "a"
    shutil.rmtree(root / "a")
    test.run()
    check(test)
    assert "make demo" in said(test.main)


def test_an_empty_text(page, runs, key):
    for query in ({"look": "text", "text": " \n"}, {"look": "sentences", "good": "", "bad": "The cat."}):
        test = page(runs, page=key, **query)
        check(test)
        assert "write" in said(test.main, "error")


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text(page, runs, key, text):
    check(page(runs, page=key, look="text", text=text))


@pytest.mark.parametrize("look", ["text", "sentences"])
def test_too_long(page, runs, key, look):
    query = {"text": {"text": "word " * 300}, "sentences": {"good": "cat " * 200, "bad": "The cat."}}[look]
    test = page(runs, page=key, look=look, **query)
    check(test)
    about_it = look == "sentences" or key not in ABOUT_PAIRS
    if about_it and key not in ("blimp", "generate", "probes"):  # which read neither
        assert re.search(r"model's context (has|is) 64", said(test.main, "error"))


ABOUT_PAIRS = {"patch", "training"}
"""Pages that read a pair, and say so where a text was chosen."""


@pytest.mark.parametrize("query", [{"run": "masked"}, {"run": "plain"}, {"run": "scored", "beside": "plain"},
                                   {"run": "masked", "beside": "scored"},],
                         ids=["masked", "one layer", "two models", "a masked and a causal one"])  # fmt: skip
def test_other_runs(page, runs, key, query):
    test = page(runs, page=key, **query)
    check(test)
    assert not test.error, said(test, "error")
    assert test.selectbox(key="run").value == query["run"]
    assert test.selectbox(key="beside").value == query.get("beside", "")


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """Runs that lack a part: of a model, or of the folder."""
    root, words = tmp_path_factory.mktemp("odd") / "runs", page_runs.tokenizer()
    page_runs.make_run(root / "no heads", words, steps=(8,), layout="mm")
    page_runs.make_run(root / "no MLPs", words, steps=(8,), layout="aa")
    page_runs.make_run(root / "bare", words, steps=(8,), n_layers=1)
    for name in ("metrics.jsonl", "README.md"):
        (root / "bare" / name).unlink(missing_ok=True)
    torn = page_runs.make_run(root / "torn", words, steps=(8,), n_layers=1) / "metrics.jsonl"
    torn.write_text('{"step": 1,\n\n[]')
    return root


@pytest.mark.parametrize("name", ["no heads", "no MLPs", "bare", "torn"])
def test_runs_that_lack_a_part(page, odd, key, name):
    test = page(odd, page=key, run=name)
    check(test)
    assert test.selectbox(key="run").value == name
