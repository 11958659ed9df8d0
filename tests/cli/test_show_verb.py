"""`workbench show` tells what sets an architecture apart, and times in units that suit them."""

import shutil

import page_runs
import pytest
from hf_folders import make_folder

from workbench.io import write_text
from workbench.runs.foreign import import_run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("shown")
    words = page_runs.tokenizer()
    page_runs.make_run(root / "plain", words, steps=(8,))
    page_runs.make_run(root / "mixed", words, steps=(8,), layout="aam(am)m", sharing="mlp", positions="alibi")
    import_run(make_folder(root / "bert-folder", "bert"), root / "bert")
    return root


def test_what_sets_it_apart(workbench, root):
    plain, mixed = (workbench("show", root / name).out for name in ("plain", "mixed"))
    assert (
        "causal, 41,600 parameters: 2 layers, d_model 32, 4 heads of 8, d_mlp 64, learned positions" in plain
    )
    assert "alibi positions" in mixed
    assert (
        "blocks a, am, (am), m (a attention, m MLP, (am) parallel); layers share their MLP weights" in mixed
    )
    assert "blocks" not in plain
    assert "8,000 tokens in 8 s, limit none, float32" in plain
    assert "embedded stories" in plain


def test_a_limit_in_minutes_has_a_unit_that_suits_it(workbench, root, tmp_path):
    file = shutil.copytree(root / "plain", tmp_path / "plain") / "config.yaml"
    write_text(file, file.read_text().replace("dtype: float32", "dtype: float32\n  minutes: 0.6233333"))
    assert "limit 37 s, float32" in workbench("show", tmp_path / "plain").out


def test_an_imported_run_says_so(workbench, root):
    said = workbench("show", root / "bert").out
    assert f"elsewhere; imported from {root / 'bert-folder'}" in said
    assert "post-norm" in said
    card = workbench("show", root / "bert", "--card").out
    assert "masked-model head before the unembedding" in card
    assert "| time of training |" not in card
