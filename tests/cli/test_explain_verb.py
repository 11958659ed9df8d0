"""`workbench explain` writes the tables that the explorer shows first, and skips what is up to date."""

import json

import page_runs
import pandas as pd
import pytest

from apps.answers import catalogue, summaries
from workbench.interp.matrix import component_matrix
from workbench.interp.summary import FORMAT, read_table
from workbench.io import sha256
from workbench.runs.run import load

LITTLE = ("--limit", 1, "--stories", 2, "--methods", "direct", "--quiet")
pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("explain")
    words = page_runs.tokenizer()
    page_runs.make_run(root / "plain", words, n_layers=1)
    page_runs.make_run(root / "none", words, steps=(8,), layout="mm")
    page_runs.make_run(root / "masked", words, steps=(8,), n_layers=1, attention="bidirectional")
    return root


def test_it_writes_the_tables_and_skips_what_is_up_to_date(workbench, root):
    said = workbench("explain", root / "plain", "--all", *LITTLE)
    assert (said.code, said.err) == (0, "")
    assert "plain@0: 4 heads on 2 stories, 8 components on 26 pairs of 26 embedded paradigms" in said.out
    assert "2 of 2 checkpoints were computed" in said.out
    folder = root / "plain" / "explain" / "step-000008"
    card = json.loads((folder / "summary.json").read_text())
    assert card["files"] == {file.name: sha256(file) for file in folder.glob("*.parquet")}
    again = workbench("explain", root / "plain", "--all", *LITTLE).out
    assert "plain@8: up to date" in again
    assert "0 of 2 checkpoints" in again
    assert "up to date" not in workbench("explain", root / "plain", "--limit", 2, *LITTLE[2:]).out


def test_the_numbers_are_the_librarys(workbench, root):
    assert workbench("explain", root / "plain", *LITTLE).code == 0
    found = read_table(root / "plain", 8, "components")
    own = component_matrix(load(root / "plain"), limit=1, methods=("direct",)).to_frame()
    pd.testing.assert_frame_equal(
        found[["method", "paradigm", "component", "n", "effect", "low", "high", "q", "found"]],
        own[["method", "paradigm", "component", "n", "effect", "low", "high", "q", "found"]],
        check_dtype=False,
    )


def test_the_page_reads_it_or_nothing(workbench, root):
    assert workbench("explain", root / "plain", *LITTLE).code == 0
    opened = catalogue.open_checkpoint(root / "plain", 8)
    assert set(summaries.table(opened, "head_scores")["class"]) <= {"previous", "self", "sink", "other",
        "same_word", "punctuation", "name", "duplicate", "induction"}  # fmt: skip
    file = root / "plain" / "explain" / "step-000008" / "opening.parquet"
    assert len(summaries.table(opened, "opening")) == 1
    assert summaries.table(opened, "nonsense") is None
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    assert read_table(root / "plain", 8, "opening") is None
    card = file.parent / "summary.json"
    text = card.read_text()
    for damaged in ("", "[]", "{}", text.replace(f'"format": {FORMAT}', '"format": 99'), text.replace(
        json.loads(text)["weights"], "0" * 64)):  # fmt: skip
        card.write_text(damaged)
        assert read_table(root / "plain", 8, "components") is None
    said = workbench("explain", root / "plain", *LITTLE)
    assert "up to date" not in said.out
    assert read_table(root / "plain", 8, "opening") is not None


def test_models_without_heads_and_masked_ones(workbench, root):
    said = workbench("explain", root / "none", root / "masked", *LITTLE)
    assert (said.code, said.err) == (0, "")
    assert "none@8: no attention heads" in said.out
    assert read_table(root / "none", 8, "head_scores") is None
    assert read_table(root / "none", 8, "components") is not None
    assert "masked@8: 4 heads" in said.out


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--limit", 0), "limit must be 1 or more; found 0"),
        (("--methods", "dirct"), "Unknown method 'dirct'. Did you mean 'direct'?"),
        (("--methods", ","), "methods: "),
        (("--stories", 1), "stories must be 2 or more; found 1"),
    ],
)
def test_mistakes_are_one_line(workbench, root, words, answer):
    said = workbench("explain", root / "plain", *words)
    assert said.code == 2
    assert answer in said.err
    assert said.err.count("\n") == 1


def test_help_teaches(workbench):
    said = workbench("explain", "--help")
    assert "zoo/tiny-4h" in said.out
    assert "opening.parquet" in said.out
