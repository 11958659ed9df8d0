"""`save_run` and `export` of models that were made in Python."""

import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import workbench as wb
from workbench.errors import RunError


@pytest.fixture(scope="module")
def run():
    return wb.load("zoo/tiny-1h")


def test_a_model_from_python_becomes_a_run(run, tmp_path):
    with torch.no_grad():
        run.model.W_E.mul_(1.0)
    made = wb.save_run(run.model, tmp_path / "mine")
    tokens = run.model.to_tokens("Once upon a time")
    assert torch.equal(made.model(tokens), run.model(tokens))
    assert wb.load(tmp_path / "mine").tokenizer.get_vocab() == run.tokenizer.get_vocab()
    assert wb.list_runs(tmp_path)[0].status == "imported"
    with pytest.raises(RunError, match="already exists"):
        wb.save_run(run.model, tmp_path / "mine")


def test_a_model_is_exported_without_a_run(run, tmp_path):
    model = wb.HookedTransformer(dataclasses.replace(run.model.config, positions="learned"), run.tokenizer)
    wb.export(model.eval(), tmp_path / "hf")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    ids = AutoTokenizer.from_pretrained(tmp_path / "hf")("Once upon a time", return_tensors="pt").input_ids
    assert torch.equal(ids, model.to_tokens("Once upon a time"))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(ids), atol=2e-4, rtol=1e-4)


def test_a_model_without_a_tokenizer_says_so(tmp_path):
    model = wb.HookedTransformer(wb.ModelConfig(n_layers=1, d_model=8, n_heads=1))
    for write in (wb.save_run, wb.export):
        with pytest.raises(RunError, match="no tokenizer"):
            write(model, tmp_path / "x")
