"""A family may ship what the explorer shows first of each member."""

import dataclasses

import pandas as pd
import pytest
from small_family import SECRET, recipe_of

from training.zoo.__main__ import parser
from training.zoo.__main__ import run as zoo
from training.zoo.make import make_family
from workbench.data.tokenizer import load_tokenizer
from workbench.errors import ConfigError, DataError
from workbench.evals.blimp import BlimpResult, one_paradigm, with_sentences
from workbench.interp.summary import read_table
from workbench.runs.zoo import PLACE
from workbench.zoo.table import check_manifest


def test_a_member_carries_its_summary(runs, tmp_path, monkeypatch, unchecked):
    recipe = dataclasses.replace(recipe_of(), explained=2)
    family = make_family(runs, tmp_path / "family", recipe, ["two-heads"], "two-heads", say=lambda _: None)
    # the recipe's history is of another member; every file is in the manifest all the same
    assert check_manifest(family.path) > 5
    files = list((family.path / "two-heads" / "explain").rglob("*.*"))
    assert {file.name for file in files} == {
        "head_scores.parquet", "components.parquet", "opening.parquet", "opening_parts.parquet",
        "opening_tokens.parquet", "summary.json",
    }  # fmt: skip
    assert sum(file.stat().st_size for file in files) < 20_000
    assert not any(SECRET.encode()[:14] in file.read_bytes() for file in files)
    monkeypatch.setenv(PLACE, str(family.path))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    member = family.path / "two-heads"
    step = int(files[0].parent.name.removeprefix("step-"))
    opening = read_table(member, step, "opening")
    assert list(opening.pairs) == ["blimp", "embedded"]
    assert set(read_table(member, step, "opening_parts").pairs) == {"blimp", "embedded"}
    assert set(read_table(member, step, "opening_tokens").pairs) == {"embedded"}, (
        "tokens of others' sentences"
    )
    table = read_table(member, step, "components")
    assert set(table.method) == {"direct", "ablate"}
    assert (table.n == 2).all()
    assert ((table.low <= table.effect) & (table.effect <= table.high)).all()


def test_the_option(tmp_path):
    assert parser().parse_args(["runs", "--explain", "50"]).explain == 50
    with pytest.raises(ConfigError, match="--explain must be 0 or more; found -1"):
        zoo([str(tmp_path), "--explain", "-1"])


def test_one_paradigm_with_its_sentences_is_a_part_of_the_whole(family, recipe):
    pairs = recipe.sets.embedded
    file = next((family / "mid" / "blimp").glob("*-embedded.json"))
    result = BlimpResult.read(file)
    words = load_tokenizer(family / "tokenizer.json")
    whole = with_sentences(result, pairs, words).per_pair
    uid = list(pairs.paradigms)[3]
    part = one_paradigm(result, uid, pairs.paradigms[uid], family / "tokenizer.json").per_pair
    own = whole[whole.paradigm == uid].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, own[list(part.columns)], check_dtype=False)
    with pytest.raises(DataError, match="found 1 sentences"):
        one_paradigm(result, uid, pairs.paradigms[uid][:1])
