"""Every result class saves and reads itself back; nothing is pickled, and foreign classes are refused."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

import workbench as wb
from workbench.console import show
from workbench.errors import DataError
from workbench.interp.heads import name_ids
from workbench.interp.neurons.protagonist import find_mentions
from workbench.interp.summary import Summary, SummaryOptions, make_summary
from workbench.result import Result


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Example(Result):
    effect: np.ndarray
    names: tuple[str, ...]
    table: pd.DataFrame
    tensor: torch.Tensor
    nested: dict[str, float]

    def to_frame(self) -> pd.DataFrame:
        return pd.DataFrame({"name": self.names, "effect": self.effect})


@pytest.fixture
def example(monkeypatch):
    # Classes are looked up under the package's name only.
    monkeypatch.setattr("workbench.result.Example", Example, raising=False)
    monkeypatch.setattr(Example, "__module__", "workbench.result")
    frame = pd.DataFrame({"a": [1, 2]})
    return Example(np.array([0.5, np.nan]), ("L0H1", "L1 MLP"), frame, torch.eye(2), {"x": float("nan")})


def test_a_result_is_read_back_as_its_class(example, tmp_path):
    for folder in (example.save(tmp_path / "r"), example.save(tmp_path / "r")):  # replacing is allowed
        again = Result.read(folder)
    assert type(again) is Example
    np.testing.assert_array_equal(again.effect, example.effect)
    assert again.names == example.names
    assert np.isnan(again.nested["x"])
    assert torch.equal(again.tensor, example.tensor)
    pd.testing.assert_frame_equal(again.table, example.table)


def test_an_array_of_texts_keeps_its_shape(example, tmp_path):
    names = np.array([["L0H1", None, "a"], ["b", "", "c"]], dtype=object)
    again = Result.read(dataclasses.replace(example, effect=names).save(tmp_path / "r"))
    np.testing.assert_array_equal(again.effect, names)


def test_repr_and_summary_are_short(example, capsys):
    assert repr(example) == "Example(2 rows: name, effect)"
    show(example.summary(rows=1))
    assert capsys.readouterr().out.splitlines() == [
        "Example", "", "name  effect", "───── ──────", "L0H1     0.5", "1 of 2 rows; to_frame() has all",
    ]  # fmt: skip
    assert "<table" in example._repr_html_()


def test_a_folder_that_is_no_result_is_never_replaced(example, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not a saved result"):
        example.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["os:system", "workbench.io:write_text", "workbench.nothing:X", "", None])
def test_a_class_that_is_no_result_is_refused(example, tmp_path, name):
    folder = example.save(tmp_path / "r")
    head = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(head | {"class": name}))
    with pytest.raises(DataError):
        Result.read(folder)


def test_a_damaged_folder_says_so(example, tmp_path):
    folder = example.save(tmp_path / "r")
    (folder / "arrays.npz").write_bytes(b"PK")
    with pytest.raises(DataError):
        Result.read(folder)


def test_the_summary_of_a_run_is_read_back_whole(tmp_path):
    """A summary holds other results, which are saved inside its folder; a lone method is one name."""
    run = wb.load("zoo/tiny-1h")
    summary = make_summary(run, SummaryOptions(limit=2, methods="direct", stories=2), progress=False)
    assert summary.components.methods == ("direct",)
    again = Result.read(summary.save(tmp_path / "summary"))
    assert type(again) is Summary
    assert repr(again) == repr(summary)
    for name, table in summary.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table)


@pytest.mark.parametrize(
    ("measured", "missing"), [("loss", "pairs"), ("pairs", "loss")], ids=["loss", "pairs"]
)
def test_a_lone_measure_is_one_name(measured, missing):
    tokens = torch.arange(4, 12)[None]
    found = wb.ablation_effect(
        "zoo/tiny-1h", "L0H0", measure=measured, text=tokens, paradigms="anaphor_gender_agreement", limit=2
    )
    assert getattr(found, measured) is not None
    assert getattr(found, missing) is None


def test_a_lone_name_of_a_person_is_one_name():
    run = wb.load("zoo/tiny-1h")
    assert name_ids(run.tokenizer, "Lily") == name_ids(run.tokenizer, ["Lily"]) != []
    texts = ["Lily saw a cat. Lily ran.", "Tom saw Lily."]
    lone, listed = (find_mentions(run.tokenizer, texts, names, 64) for names in ("Lily", ["Lily"]))
    assert lone[1] == listed[1] == ("Lily",)
    assert len(lone[0]) == len(listed[0]) > 0
