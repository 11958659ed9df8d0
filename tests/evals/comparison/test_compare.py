"""A folder of runs compared: rows, intervals, pairs, what is left out; the page and the tables."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from small_runs import masked, small

from training.session import train
from workbench.errors import RunError
from workbench.evals.comparison import compare
from workbench.runs.run import load, summarise


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Widths 8 and 16 with two seeds, scored; and a folder that is no finished run."""
    import os

    os.environ.setdefault("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    import jaxtyping

    from workbench.evals.blimp import blimp

    root = tmp_path_factory.mktemp("family")
    jaxtyping.config.update("jaxtyping_disable", True)
    for width in (8, 16):
        for seed in (0, 1):
            name = f"d_model-{width}_seed-{seed}"
            settings = small(
                f"model.d_model={width}",
                "model.n_ctx=64",
                "train.steps=6",
                f"train.seed={seed}",
                f"model.seed={seed}",
            )
            train(settings, root / name, quiet=True)
            blimp(load(root / name), limit=1).save(root / name)
    jaxtyping.config.update("jaxtyping_disable", False)
    broken = root / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("model: {}\n")
    return root


def test_runs_that_differ_by_their_seed_are_one_row(family, unchecked):
    found = compare(family, seconds=0.05)
    assert set(found.rows.index) == {"d_model-8", "d_model-16"}
    assert list(found.rows.n) == [2, 2]
    row = found.rows.loc["d_model-8"]
    losses = [summarise(family / f"d_model-8_seed-{seed}").loss for seed in (0, 1)]
    assert row.loss == pytest.approx(sum(losses) / 2)
    assert row.loss_low < min(losses) < max(losses) < row.loss_high
    assert row.parameters == summarise(family / "d_model-8_seed-0").parameters
    assert row.ms > 0
    assert row.ms_int8 > 0
    run = load(family / "d_model-8_seed-0")
    assert row.flops == run.checkpoint.config.flops_per_token * row.tokens > 0
    assert found.axis == "model.d_model"
    assert [found.place(name) for name in ("d_model-8", "d_model-16")] == [8, 16]
    assert found.left_out == {"broken": "empty"}
    assert repr(found).endswith("4 runs, 2 rows)")


def test_runs_are_compared_by_a_list(family, unchecked):
    names = ["d_model-8_seed-0", "d_model-16_seed-1"]
    found = compare([load(family / names[0]), family / names[1]], speed=False)
    whole = compare(family, speed=False).runs.set_index("run").loc[names]
    np.testing.assert_array_equal(found.runs.set_index("run").loc[names].loss, whole.loss)
    with pytest.raises(RunError, match="nothing"):
        compare([family / "nothing"])


def test_blimp_by_phenomenon_is_what_the_runs_saved(family, unchecked):
    found = compare(family, speed=False)
    assert found.pairs_name.startswith("the embedded pairs (not BLiMP), a part of it,")
    saved = json.loads(next((family / "d_model-8_seed-0" / "blimp" / "partial").glob("*.json")).read_text())
    mine = found.pairs[found.pairs.run == "d_model-8_seed-0"].set_index("phenomenon").accuracy.to_dict()
    assert mine == {entry["phenomenon"]: entry["accuracy"] for entry in saved["phenomena"]}
    assert found.runs.set_index("run").blimp["d_model-8_seed-0"] == saved["mean_over_paradigms"]["accuracy"]
    assert set(found.phenomena.n) == {2}
    assert found.rows.ms.isna().all()
    frame = found.to_frame()
    assert {"row", "n", "loss", "loss_low", "model.d_model"} <= set(frame.columns)


def test_other_kinds_and_other_corpora_are_pointed_out(family, tmp_path, unchecked):
    root = tmp_path / "mixed"
    train(small("train.steps=3"), root / "one", quiet=True)
    train(masked("train.steps=3", "data.n_stories=50"), root / "two", quiet=True)
    found = compare(root, speed=False)
    said = " ".join(found.notes)
    assert "masked and causal models are mixed" in said
    assert "not trained and validated on the same corpus" in said
    assert found.pairs_name is None
    assert all(math.isnan(value) for value in found.rows.blimp)


def test_nothing_to_compare_is_one_line(tmp_path):
    with pytest.raises(RunError, match=r"There is no folder .*nowhere; `workbench sweep width"):
        compare(tmp_path / "nowhere")
    with pytest.raises(RunError, match="holds no run that has been evaluated"):
        compare(tmp_path)


def test_figures_show_what_there_is(family, unchecked):
    import matplotlib

    matplotlib.use("Agg")
    found = compare(family, seconds=0.05)
    axes = found.plot().axes
    assert [ax.get_ylabel()[:4] for ax in axes] == ["vali", "mini", "ms p"]
    points = dict(axes[0].collections[0].get_offsets().tolist())
    expected = {found.place(row): found.rows.loss[row] for row in found.rows.index}
    assert points == pytest.approx(expected)
    assert found.plot_phenomena().axes[0].get_legend() is not None
    assert len(found.plot_curves().axes[0].lines) == 4
    matplotlib.pyplot.close("all")


def test_close_losses_are_dots_on_an_axis_that_covers_the_intervals(capsys):
    from workbench.console import show
    from workbench.evals.comparison import loss_dots

    rows = {"a": (5.387, 5.3, 5.5), "second": (5.389, math.nan, math.nan), "other": (math.nan,) * 3}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["loss", "loss_low", "loss_high"])
    show(*loss_dots(table.loc[["second", "a", "other"]]))
    *_, second, first, axis = capsys.readouterr().out.splitlines()
    assert abs(second.index("●") - first.index("●")) <= 1
    assert first.count("─") == 47
    assert "─" not in second
    assert axis.split() == ["5.300", "5.500"]


def test_the_verb_prints_and_writes(family, tmp_path, unchecked, capsys):
    from apps.cli import main

    out = tmp_path / "report"
    assert main(["compare", str(family), "--out", str(out), "--quiet", "--no-speed"]) == 0
    said = capsys.readouterr().out
    assert said.index("d_model-8 ") < said.index("d_model-16 ")
    assert "Student's 95 % interval over seeds" in said
    assert "left out: broken: empty" in said
    page = (out / "index.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/svg+xml") == 3
    loss = float(compare(family, speed=False).rows.loss["d_model-8"])
    assert f'<data value="{loss!r}">' in page
    rows = pd.read_parquet(out / "rows.parquet")
    assert list(rows.row) == list(compare(family, speed=False).rows.index)
    assert len(pd.read_parquet(out / "runs.parquet")) == 4
    assert set(pd.read_parquet(out / "phenomena.parquet").columns) >= {
        "row",
        "phenomenon",
        "accuracy",
        "low",
        "high",
    }
    assert main(["compare", str(family), "--by", "phenomenon", "--quiet", "--no-speed"]) == 0
    assert "island effects" in capsys.readouterr().out.replace("_", " ")
    assert main(["compare", str(tmp_path / "no")]) == 2


def test_hostile_names_stay_text_on_the_page(tmp_path, unchecked):
    from apps.compare_report.page import compare_page

    name = "<img src=x onerror=alert(1)>"
    train(small("train.steps=2"), tmp_path / name, quiet=True)
    page = compare_page(compare(tmp_path, speed=False))
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
