"""The table, the seeds, the manifest, the paragraph: every figure comes from the family's files."""

import json
import shutil

import pytest
from scipy import stats

import workbench as wb
from workbench.errors import RunError
from workbench.runs import zoo as shipped
from workbench.runs.run import load
from workbench.zoo.__main__ import main
from workbench.zoo.paragraph import paragraph
from workbench.zoo.table import (
    changes,
    check_manifest,
    family_bytes,
    seed_interval,
    seeds_of_middle,
    zoo_table,
)


def test_the_table(family):
    table = wb.zoo.zoo_table()
    assert list(table.run) == ["zoo/mid", "zoo/mid-s1", "zoo/two-heads", "zoo/hidden"]
    assert list(table.differs) == ["the middle one", "seed 1", "n_heads 1", "objective mlm"]
    assert list(table.checkpoints) == [5, 1, 1, 1]
    for row in table.itertuples():
        run = load(row.run)
        assert row.parameters == run.checkpoint.config.n_params
        scores = run.blimp()["mean_over_paradigms"]
        assert (row.blimp, row.blimp_low, row.blimp_high) == (
            scores["accuracy"],
            scores["low"],
            scores["high"],
        )
        assert row.loss == json.loads((run.path / "made.json").read_text())["validation"]["loss_float16"]
        assert row.bytes == sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    assert table.bits_per_byte.isna().tolist() == [False, False, False, True]


def test_the_verb(family, workbench):
    code, out, _ = workbench("list", "zoo")
    assert code == 0
    for words in ("zoo/mid-s1", "seed 1", "the middle one", "4 models", "match the manifest"):
        assert words in out
    assert max(map(len, out.splitlines()[:6])) < 170
    losses = [line.split()[0] for line in workbench("list", "zoo", "--sort", "loss")[1].splitlines()[2:6]]
    assert losses == [f"{name}" for name in zoo_table().sort_values("loss").run]


def test_a_changed_file_is_noticed(made, tmp_path, monkeypatch, workbench):
    shutil.copytree(made.path, tmp_path / "f")
    monkeypatch.setenv(shipped.PLACE, str(tmp_path / "f"))
    check_manifest()
    card = tmp_path / "f" / "mid" / "README.md"
    text = card.read_text()
    card.write_text(text.replace("e", "a", 1))
    with pytest.raises(RunError, match=r"mid/README.md is damaged"):
        check_manifest()
    code, _, err = workbench("list", "zoo")
    assert (code, err.count("\n")) == (2, 1)
    card.write_text(text)
    (tmp_path / "f" / "mid" / "extra").write_text("x")
    with pytest.raises(RunError, match="extra is not listed"):
        check_manifest()
    (tmp_path / "f" / "mid" / "extra").unlink()
    card.unlink()
    with pytest.raises(RunError, match=r"README.md is missing"):
        check_manifest()


def test_the_seed_interval_is_students():
    values = [0.51, 0.53, 0.56]
    found = seed_interval(values)
    low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert (found.low, found.high, found.n) == (pytest.approx(low), pytest.approx(high), 3)
    with pytest.raises(ValueError, match="two"):
        seed_interval([1.0])


def test_seeds_of_the_middle_one(family):
    assert seeds_of_middle() == ["mid", "mid-s1"]
    mid, other = (load(f"zoo/{name}").config.to_dict() for name in ("mid", "two-heads"))
    assert changes(other, mid) == {"n_heads": 1}
    assert changes(mid, mid) == {}


def test_the_paragraph_follows_the_files(made, tmp_path, monkeypatch, capsys):
    shutil.copytree(made.path, tmp_path / "f")
    monkeypatch.setenv(shipped.PLACE, str(tmp_path / "f"))
    text = paragraph()
    shares = [load(f"zoo/{name}").blimp()["mean_over_paradigms"]["accuracy"] for name in ("mid", "mid-s1")]
    found = seed_interval(shares)
    assert f"BLiMP {100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]" in text
    assert f"{family_bytes() / 1e6:.1f} MB" in text
    for words in (
        "57.82 [56.97, 58.68]",
        "58.48 [56.68, 59.5",
        "9,585,664",
        "gaps under 2 points",
        "in 2 seeds",
    ):
        assert words in text, words
    assert "nan" not in text.lower()
    file = tmp_path / "f" / "mid" / "made.json"
    facts = json.loads(file.read_text())
    facts["comparison"]["mean"] += 0.2
    file.write_text(json.dumps(facts))
    assert paragraph() != text
    assert main() == 0
    assert capsys.readouterr().out == paragraph()
    facts["comparison"]["groups"] = 12
    file.write_text(json.dumps(facts))
    assert main() == 2
    assert "has no scores of the 17 groups" in capsys.readouterr().err
