"""`workbench neurons` prints tables or a card, and writes what it found."""

import page_runs
import pandas as pd
import pytest

from workbench.result import Result

FAST = ("--tokens", "3000", "--stories", "24", "--quiet")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("neurons")
    words = page_runs.tokenizer()
    page_runs.make_run(root / "plain", words, steps=(8,), d_mlp=20)
    page_runs.make_run(root / "masked", words, steps=(8,), d_mlp=20, attention="bidirectional")
    page_runs.make_run(root / "none", words, steps=(8,), layout="aa")
    return root


@pytest.fixture
def neurons(workbench, unchecked):
    return lambda *words: workbench("neurons", *words, *FAST)


def test_three_tables_and_their_files(neurons, root, tmp_path):
    said = neurons(root / "plain", "--top", "3", "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert "40 neurons over 3," in lines[0]
    assert "have a label that holds on held-out stories" in lines[1]
    titles = [line for line in lines if line.startswith("most ")]
    assert titles[0] == "most active (by mean)"
    assert titles[-1] == "most needed (of the largest estimates)"
    assert sum(line.startswith(("L0N", "L1N")) for line in lines) >= 6
    frame = pd.read_parquet(tmp_path / "out" / "neurons.parquet")
    assert len(frame) == 40
    assert frame["loss_change"].notna().sum() == 3
    assert {"label", "auc", "precision", "estimate", "active", "q90"} <= set(frame)
    passages = pd.read_parquet(tmp_path / "out" / "passages.parquet")
    assert passages.groupby("component").size().max() == 10
    again = Result.read(tmp_path / "out" / "neurons")
    pd.testing.assert_frame_equal(again.to_frame(), frame)
    assert again.axes == ("layer", "neuron")
    for name in ("neurons.png", "labels.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_one_layer_without_labels(neurons, root):
    said = neurons(root / "masked", "--layer", "1", "--no-labels", "--top", "2")
    assert said.code == 0, said.err
    assert "20 neurons over 3," in said.out
    assert "AUC" not in said.out
    assert "L0N" not in said.out
    assert "standard deviations above the mean" in said.out


def test_a_card_and_its_page(neurons, root, tmp_path):
    said = neurons(
        root / "plain", "--neuron", "L1N7", "--no-labels", "--top", "4", "--out", tmp_path / "card"
    )
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("L1N7 of ")
    assert "top passages" in said.out
    assert "\x1b" not in said.out
    saved = Result.read(tmp_path / "card" / "card")
    assert (saved.layer, saved.neuron) == (1, 7)
    page = (tmp_path / "card" / "card.html").read_text()
    assert page.startswith("<!doctype html>")
    assert len(pd.read_parquet(tmp_path / "card" / "card.parquet")) > 20
    assert (tmp_path / "card" / "card.png").read_bytes().startswith(b"\x89PNG")


def test_stories_of_ones_own(neurons, root, tmp_path):
    from workbench.data.embedded.stories import stories

    file = tmp_path / "told.txt"
    file.write_text("<|endoftext|>".join(stories(400, seed=8)))
    said = neurons(root / "plain", "--data", file, "--no-labels", "--top", "1", "--neuron", "L0N3")
    assert said.code == 0, said.err
    few = tmp_path / "few.txt"
    few.write_text("<|endoftext|>".join(stories(3, seed=8)))
    said = neurons(root / "plain", "--data", few)
    assert said.code == 2
    assert "1 validation stories; intervals need at least 2" in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("plain", "--neuron", "L0N99"), "L0N99 is out of range; block 0 has L0N0 to L0N19"),
        (("plain", "--neuron", "L0H1"), "A card is of one neuron"),
        (("plain", "--layer", "6"), "Block 6 has no neurons; blocks with neurons: 0, 1"),
        (("plain", "--top", "0"), "'--top': Input should be greater than or equal to 1"),
        (("none",), "This model has no neuron: its layout is aa"),
        (("nothing",), "nothing"),
    ],
)
def test_mistakes_are_one_line(neurons, root, words, told):
    said = neurons(root / words[0], *words[1:])
    assert said.code == 2
    assert told in said.err
    assert said.err.count("\n") == 1


def test_nothing_is_written_after_a_mistake(neurons, root, tmp_path):
    assert neurons(root / "plain", "--neuron", "L9N0", "--out", tmp_path / "out").code == 2
    assert not (tmp_path / "out").exists()
