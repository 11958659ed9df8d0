"""`workbench heads` prints a row for each head and writes what it found."""

import json

import page_runs
import pandas as pd
import pytest

from workbench.interp.heads import find_names, name_ids, punctuation_ids
from workbench.interp.texts import story_rows, text_batches
from workbench.result import Result


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("heads")
    words = page_runs.tokenizer()
    page_runs.make_run(root / "plain", words, steps=(8,))
    page_runs.make_run(root / "masked", words, steps=(8,), attention="bidirectional", layout="mam")
    page_runs.make_run(root / "none", words, steps=(8,), layout="mm")
    return root


@pytest.fixture
def heads(workbench):
    return lambda *words: workbench("heads", *words, "--quiet")


def test_the_table(heads, root):
    code, out, err = heads(root / "plain", "--stories", 8)
    assert (code, err) == (0, "")
    assert "plain@8 on 8 embedded stories" in out
    assert out.count("\nL") == 8
    for word in ("prev", "sink", "punct", "name", "ind-u", "copying", "uniform", "untrained, max"):
        assert word in out
    assert "next not measured: a causal model cannot see the next token." in out


def test_a_masked_model_with_one_attention_block(heads, root):
    out = heads(root / "masked", "--stories", 8).out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("L")] == [
        f"L1H{head}" for head in range(4)
    ]
    assert "induction not measured: it predicts the next token" in out
    assert " next " in out


def test_files(heads, root, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    out = tmp_path / "out"
    assert heads(root / "plain", "--stories", 8, "--out", out).code == 0
    frame = pd.read_parquet(out / "scores.parquet")
    again = Result.read(out / "scores")
    assert set(frame.score) == {*again.names, "copying"}
    assert again.classes.shape == (2, 4)
    assert json.loads((out / "settings.json").read_text())["stories"] == 8
    assert set(pd.read_parquet(out / "distances.parquet").offset) == set(range(9))
    assert (out / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_circuits_composition_and_a_card(heads, root, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    out = tmp_path / "out"
    told = heads(root / "plain", "--stories", 8, "--circuits", "--composition", "--out", out).out
    assert told.count("\nL") == 8 + 8 + 12
    assert "second - first copy, uniform tokens: " in told
    assert "random heads of the same widths: Q 0." in told
    pairs, mixed = (pd.read_parquet(out / f"{name}.parquet") for name in ("circuits", "composition"))
    assert len(pairs) == 8 * 2 * 10
    assert len(mixed) == 3 * 4 * 4
    assert (out / "composition.png").read_bytes().startswith(b"\x89PNG")
    assert set(Result.read(out / "scores").copies) == {"uniform", "unigram"}
    card = heads(root / "plain", "--stories", 8, "--head", "L1H2").out
    assert "\nL1H2: other\n" in card
    for word in ("previous", "attention by distance", "OV (attended → raised)", "is read by"):
        assert word in card
    for wrong in ("L1 MLP", "heads", "L0H1,L1H1"):
        assert f"one head, such as L1H2; found {wrong}." in heads(root / "plain", "--head", wrong).err
    assert "L1H9 is out of range" in heads(root / "plain", "--head", "L1H9").err


def test_letters_of_special_tokens_are_text(root):
    words = page_runs.tokenizer()
    plain, spelled = story_rows(words, ["A cat. B", "A cat. <bos><eos> B"])
    assert [plain[0], plain[-1]] == [words.bos_token_id, words.eos_token_id]
    assert not set(spelled[1:-1]) & set(words.all_special_ids)
    assert words.decode(spelled[1:-1]) == "A cat. <bos><eos> B"
    assert story_rows(words, ["A cat. B"], 3, end=False) == [plain[:3]]
    batch = text_batches(page_runs.load(root / "plain"), ["<mask> <bos>"])[0]
    assert batch.tokens[0].tolist() == story_rows(words, ["<mask> <bos>"])[0]


def test_stories_of_ones_own_and_names(heads, root, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text(
        "\n".join(json.dumps({"text": f"Tom saw {n} cats. Then Tom ran home."}) for n in range(400))
    )
    out = heads(root / "plain", "--data", file, "--stories", 3, "--names", "Tom").out
    assert "on 3 stories of mine" in out


def test_mistakes(heads, root):
    assert (
        "'--stories': Input should be greater than or equal to 2" in heads(root / "plain", "--stories", 1).err
    )
    code, _, err = heads(root / "none", "--stories", 4)
    assert code == 2
    assert "its layout is mm" in err


def test_names_and_punctuation():
    words = page_runs.tokenizer()
    marks = {words.decode([one]).strip() for one in punctuation_ids(words)}
    assert {".", ",", "!"} <= marks
    assert not any(letter.isalnum() for mark in marks for letter in mark)
    texts = ["The dog met Tom. Then she saw Tom and Lily.", "A cat saw Lily. The end of the day."]
    assert find_names(texts) == ["Tom", "Lily"]
    assert name_ids(words, ["Tom"]) == sorted(
        {ids[0] for form in ("Tom", " Tom") if len(ids := words.encode(form, add_special_tokens=False)) == 1}
    )
