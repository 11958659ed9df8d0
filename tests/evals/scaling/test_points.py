"""Points from runs and from tables."""

import json

import numpy as np
import pandas as pd
import pytest
import scaling_runs as made

from workbench.errors import DataError, InputError, RunError
from workbench.model.config import count_parameters
from workbench.scaling.laws import fit_parametric
from workbench.scaling.points import blimp_of_runs, points_of_runs, points_of_table
from workbench.scaling.study import scaling_study


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return made.make_family(tmp_path_factory.mktemp("scaling") / "family")


@pytest.fixture
def pair(tmp_path):
    """Two runs, to be spoiled."""
    for width in (8, 16):
        made.make_run(tmp_path / f"w{width}", made.config(width), 1e5)
    return tmp_path


def test_a_point_a_run(family):
    points = points_of_runs(family)
    assert len(points) == 16
    row = points.to_frame().set_index("run").loc["w32-d2e+06"]
    shape = made.config(32)
    assert row["n"] == row["parameters"] == shape.n_params
    parts = count_parameters(shape)
    assert row["non_embedding"] == parts["attention"] + parts["mlp"] + parts["norms"]
    assert row["tokens"] == 2e6
    assert row["flops"] == shape.flops_per_token * 2e6
    assert row["six_nd"] == 6 * shape.n_params * 2e6
    assert row["loss"] == pytest.approx(float(made.loss(shape.n_params, 2e6)), rel=0.03)
    assert points_of_runs(family, count="non-embedding").n.max() < points.n.max()


def test_the_law_behind_the_runs_is_found(family):
    constants = fit_parametric(points_of_runs(family), bootstraps=200).constants
    for name, truth in zip(constants, (made.E, made.A, made.B, made.ALPHA, made.BETA), strict=True):
        assert constants[name].low <= truth <= constants[name].high, name


def test_a_study_fits_what_it_can_and_says_why_not(family):
    study = scaling_study(family, bootstraps=50)
    assert set(study.fits) == {"power-n", "power-d", "parametric", "blimp"}
    assert "no budget has models of 4 sizes" in study.refused["isoflop"]
    assert study.law is study.fits["parametric"]
    frame = study.to_frame()
    assert {"alpha", "alpha_N", "gain agreement"} <= set(frame["constant"])
    with pytest.raises(InputError, match="no budget has models"):
        scaling_study(family, methods=["isoflop"])
    with pytest.raises(InputError, match="Did you mean 'parametric'"):
        scaling_study(family, methods=["parametrics"])


def test_evaluations_along_training(tmp_path):
    for width in (8, 16, 24, 48):
        made.make_run(tmp_path / f"w{width}", made.config(width), 1e6, evaluations=12, schedule="constant")
    points = points_of_runs(tmp_path, along=True)
    assert points.curves
    assert len(points) == 48
    assert len(np.unique(points.groups)) == 4
    study = scaling_study(tmp_path, along=True, methods=["parametric", "power-d"], bootstraps=20)
    assert study.fits["parametric"].constants["E"].value == pytest.approx(made.E, rel=0.02)


def test_decaying_runs_cannot_be_fitted_along_their_way(tmp_path):
    for width in (8, 16, 32, 64):
        made.make_run(tmp_path / f"w{width}", made.config(width), 1e6, evaluations=5)
    with pytest.raises(InputError, match="learning rate that falls"):
        scaling_study(tmp_path, along=True, methods=["parametric"])


def test_unfinished_and_damaged_runs_are_left_out_by_name(pair):
    made.make_run(pair / "half", made.config(24), 1e5, finished=False)
    made.make_run(pair / "broken", made.config(24), 1e5)
    next((pair / "broken").rglob("state.json")).write_text("{")
    points = points_of_runs(pair)
    assert set(points.frame["run"]) == {"w8", "w16"}
    assert "excluded as damaged: broken" in points.notes
    assert "excluded as unfinished: half" in points.notes


def test_masked_and_causal_runs_are_not_mixed(pair):
    made.make_run(pair / "masked", made.config(24, attention="bidirectional"), 1e5)
    with pytest.raises(InputError, match=r"mixes masked runs \(masked\) with causal ones"):
        points_of_runs(pair)


def test_tokenizers_are_not_mixed_but_bits_a_byte_are(pair):
    made.make_run(pair / "other", made.config(24), 1e5, tokenizer="another")
    with pytest.raises(InputError, match=r"different tokenizers.*measure=.bits_per_byte"):
        points_of_runs(pair)
    points = points_of_runs(pair, measure="bits_per_byte")
    assert len(points) == 3
    assert points.unit == "bits per byte"


def test_a_loss_that_is_no_number_is_refused(pair):
    made.make_run(pair / "nan", made.config(24), 1e5, value=float("nan"))
    with pytest.raises(InputError, match=r"the loss \(nats per token\) of nan is nan"):
        points_of_runs(pair)


def test_a_masked_model_that_sees_its_answers_is_refused(tmp_path):
    made.make_run(tmp_path / "leak", made.config(8, attention="bidirectional"), 1e5, value=3e-5)
    with pytest.raises(InputError, match="sees its answers"):
        points_of_runs(tmp_path)


def test_a_folder_without_runs(tmp_path):
    with pytest.raises(RunError, match="no run that can be fitted"):
        points_of_runs(tmp_path)
    with pytest.raises(RunError, match="there is no folder"):
        points_of_runs(tmp_path / "none")


def test_scores_of_different_protocols_are_not_mixed(pair):
    with pytest.raises(InputError, match=r"no run of .* has been scored"):
        blimp_of_runs(pair)
    made.score(pair / "w8", 0.6)
    made.score(pair / "w16", 0.7)
    frame = blimp_of_runs(pair)
    assert set(frame["phenomenon"]) == {"agreement", "islands", "mean"}
    made.score(pair / "w16", 0.7, protocol="paper")
    with pytest.raises(InputError, match="different pairs or by different protocols"):
        blimp_of_runs(pair)


def table(rows=12):
    n = np.geomspace(1e7, 1e9, rows)
    return pd.DataFrame({"Model Size": n, "Training FLOP": 1e3 * n**1.9, "Loss": 2 + (1e7 / n) ** 0.3})


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_published_tables(tmp_path, kind):
    file = tmp_path / f"points.{kind}"
    if kind == "parquet":
        table().to_parquet(file)
    else:
        table().to_csv(file, sep="\t" if kind == "tsv" else ",", index=False)
    points = points_of_table(file)
    assert len(points) == 12
    assert points.c == pytest.approx(table()["Training FLOP"].to_numpy())
    assert points.frame["run"][0] == "row 1"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.drop(columns="Loss"), "has no column for loss"),
        (
            lambda t: t.drop(columns="Model Size"),
            "has no column for non_embedding|has no column for parameters",
        ),
        (lambda t: t.drop(columns="Training FLOP"), "has no column for tokens or flops"),
        (lambda t: t.assign(Loss="much"), r"the loss .* of row 1 and 11 more is nan"),
        (lambda t: t.iloc[:0], "gives no points"),
    ],
)
def test_tables_that_lack_something(tmp_path, change, told):
    change(table()).to_csv(tmp_path / "points.csv", index=False)
    with pytest.raises(InputError, match=told):
        points_of_table(tmp_path / "points.csv")


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"PAR1junkPAR1"])
def test_files_that_are_no_tables(tmp_path, content):
    for name in ("points.csv", "points.parquet"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((DataError, InputError)) as caught:
            points_of_table(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        points_of_table(tmp_path / "none.csv")


def test_json_numbers_that_are_text_do_not_pass(pair, unchecked):
    file = pair / "w8" / "metrics.jsonl"
    file.write_text(json.dumps({"kind": "eval", "step": 100, "loss": "low", "final": True}) + "\n")
    with pytest.raises(InputError, match="of w8 is nan"):
        points_of_runs(pair)


@pytest.mark.parametrize(("separator", "name"), [(";", "table.csv"), ("\t", "table.csv"), (",", "table.tsv")])
def test_another_separator_is_named(separator, name, tmp_path):
    file = tmp_path / name
    file.write_text(f"n{separator}d{separator}loss\n1{separator}2{separator}3\n")
    shown = "a tab" if separator == "\t" else f"'{separator}'"
    with pytest.raises(DataError, match=f"look separated by {shown}"):
        points_of_table(file)


def test_results_are_read_as_they_were_saved(family, tmp_path):
    study = scaling_study(family, bootstraps=20)
    for name, result in {"study": study, **study.fits}.items():
        again = type(result).read(result.save(tmp_path / name))
        pd.testing.assert_frame_equal(again.to_frame(), result.to_frame())
