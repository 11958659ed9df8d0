"""`workbench heads` prints a row for each head and writes what it found."""

import json

import page_runs
import pandas as pd
import pytest

from apps import cli
from apps.verbs.heads import _names, _punctuation


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("heads")
    words = page_runs.tokenizer()
    page_runs.make_run(root / "plain", words, steps=(8,))
    page_runs.make_run(root / "masked", words, steps=(8,), attention="bidirectional", layout="mam")
    page_runs.make_run(root / "none", words, steps=(8,), layout="mm")
    return root


@pytest.fixture
def heads(workbench, monkeypatch):
    monkeypatch.setitem(cli.VERBS["look"], "heads", "what attention heads look at")
    return lambda *words: workbench("heads", *words, "--quiet")


def test_the_table(heads, root):
    code, out, err = heads(root / "plain", "--stories", 8)
    assert (code, err) == (0, "")
    assert "plain@8 on 8 embedded stories (" in out
    assert out.count("\nL") == 8
    for word in ("prev", "sink", "punct", "name", "ind-u", "copying", "uniform", "untrained, most"):
        assert word in out
    assert "next left out: a causal model cannot see the next token." in out


def test_a_masked_model_with_one_attention_block(heads, root):
    out = heads(root / "masked", "--stories", 8).out
    assert [line[:5] for line in out.splitlines() if line.startswith("L")] == [
        f"L1 H{head}" for head in range(4)
    ]
    assert "induction left out: it predicts the next token" in out
    assert " next " in out


def test_files(heads, root, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    out = tmp_path / "out"
    assert heads(root / "plain", "--stories", 8, "--out", out).code == 0
    frame = pd.read_parquet(out / "scores.parquet")
    written = json.loads((out / "heads.json").read_text())
    assert set(frame.score) == {*written["names"], "copying"}
    assert len(written["heads"]) == len(frame)
    assert written["axes"] == ["score", "layer", "head"]
    assert [len(row) for row in written["classes"]] == [4, 4]
    assert set(pd.read_parquet(out / "offsets.parquet").offset) == set(range(9))
    assert (out / "heads.png").read_bytes().startswith(b"\x89PNG")


def test_stories_of_ones_own_and_names(heads, root, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text(
        "\n".join(json.dumps({"text": f"Tom saw {n} cats. Then Tom ran home."}) for n in range(400))
    )
    out = heads(root / "plain", "--data", file, "--stories", 3, "--names", "Tom").out
    assert "on 3 stories of mine" in out


def test_mistakes(heads, root):
    assert "--stories must be 2 or more" in heads(root / "plain", "--stories", 1).err
    code, _, err = heads(root / "none", "--stories", 4)
    assert code == 2
    assert "its layout is mm" in err


def test_names_and_punctuation():
    words = page_runs.tokenizer()
    marks = {words.decode([one]).strip() for one in _punctuation(words)}
    assert {".", ",", "!"} <= marks
    assert not any(letter.isalnum() for mark in marks for letter in mark)
    texts = ["The dog met Tom. Then she saw Tom and Lily.", "A cat saw Lily. The end of the day."]
    found = {words.decode([one]).strip() for one in _names(words, texts, None)}
    assert found <= {"Tom", "Lily"}
    assert _names(words, texts, ["Tom"]) == sorted(
        {ids[0] for form in ("Tom", " Tom") if len(ids := words.encode(form, add_special_tokens=False)) == 1}
    )
