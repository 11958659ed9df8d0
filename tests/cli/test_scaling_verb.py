"""`workbench scaling` prints laws and optima, predicts, checks, and writes a page."""

import json

import numpy as np
import pandas as pd
import pytest
import scaling_runs as made


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return made.make_family(tmp_path_factory.mktemp("scaling") / "family", widths=(8, 16, 32, 48))


@pytest.fixture
def scaling(workbench, unchecked):
    return lambda *words: workbench("scaling", *words, "--bootstraps", "40", "--quiet")


def test_laws_and_their_files(scaling, root, tmp_path):
    said = scaling(root, "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    assert "16 models of 4 sizes" in said.out
    assert "x 6ND" in said.out
    for title in ("L(N) = ", "L(N, D) = ", "BLiMP over log N", "Best size for a budget", "not fitted:"):
        assert title in said.out
    assert "FLOPs (6ND)" in said.out
    assert "FLOPs (exact)" in said.out
    out = tmp_path / "out"
    for name in ("power-n", "parametric", "blimp"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "scaling.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("data:image/png") == 4
    saved = json.loads((out / "scaling.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert {row["constant"] for row in saved["constants"]} >= {"E", "alpha", "a", "alpha_N"}
    assert len(pd.read_parquet(out / "points.parquet")) == 16
    assert len(pd.read_parquet(out / "optima.parquet")) >= 3


def test_budgets_in_flops_and_hours(scaling, root, monkeypatch):
    from workbench.scaling import points as throughput

    monkeypatch.setattr(
        throughput, "_tokens_per_second", lambda config, batch, seconds: 1e9 / config.n_params
    )
    said = scaling(root, "--method", "parametric", "--flops", "3e10", "--hours", "0.005")
    assert said.code == 0, said.err
    assert "measured on this machine" in said.out
    assert "3e+10 FLOPs (exact)" in said.out
    assert "0.005 hours" in said.out
    assert said.out.index("measured") < said.out.index("Best size")


def test_the_speed_is_measured(unchecked):
    from workbench.scaling.points import measure_speed

    told = []
    speed = measure_speed(
        [made.config(32), made.config(8)], batch_size=2, seconds=0.05, progress=lambda *x: told.append(x)
    )
    assert speed.n == (made.config(8).n_params, made.config(32).n_params)
    assert min(speed.tokens_per_second) > 0
    assert told == [(0.5, "1 of 2 shapes"), (1.0, "2 of 2 shapes")]


def test_predict_then_check(scaling, tmp_path):
    root = made.make_family(tmp_path / "family", widths=(8, 16, 32), tokens=(2e5, 6e5, 2e6))
    (tmp_path / "next.yaml").write_text("model: {d_model: 28}\ntrain: {tokens: 500000}\n")
    said = scaling(root, "--predict", "d_model=24", "--tokens", "1M", "--method", "parametric")
    assert said.code == 0, said.err
    assert "d_model=24, n_layers=1" in said.out
    assert scaling(root, "--predict", tmp_path / "next.yaml", "--method", "parametric").code == 0
    made.make_run(root / "new", made.config(24), 1e6)
    said = scaling(root, "--check", "--out", tmp_path / "checked")
    assert said.code == 0, said.err
    assert "1 of 1 runs lie inside their interval" in said.out
    assert "not trained yet: d_model=28" in said.out
    assert (tmp_path / "checked" / "checked.png").exists()


def test_a_table_with_hostile_names(scaling, tmp_path):
    n = np.geomspace(1e7, 1e9, 10)
    frame = pd.DataFrame(
        {"run": ["<script>x</script>\x1b[31m"] * 10, "n": n, "d": 1e10, "loss": (1e13 / n) ** 0.07}
    )
    frame.to_csv(tmp_path / "$p$<b>.csv", index=False)
    said = scaling(tmp_path / "$p$<b>.csv", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "0.07" in said.out
    assert "\x1b" not in said.out
    assert "<b>" not in (tmp_path / "out" / "scaling.html").read_text().partition("</title>")[0]


def test_the_critical_batch(scaling, root, tmp_path):
    loss = np.array([6.0, 4.0, 3.0, 2.5])
    pd.DataFrame({"loss": loss, "noise_scale": 1e6 / loss**4}).to_csv(tmp_path / "noise.csv", index=False)
    said = scaling(root, "--method", "power-n", "--noise", tmp_path / "noise.csv", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "a_B" in said.out
    assert (tmp_path / "out" / "critical-batch.png").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--method", "isoflop"), "no budget has models of 4 sizes"),
        (("--method", "chinchilla"), "Unknown method 'chinchilla'"),
        (
            ("--method", "power-n", "--flops", "1e9"),
            "the best size for a budget follows from the parametric fit",
        ),
        (("--method", "parametric", "--flops", "1e30"), "lies outside the data"),
        (("--flops", "lots"), "--flops must be a number above 0, such as 50M or 1e15; found 'lots'"),
        (("--flops", "-3"), "--flops must be a number above 0"),
        (("--count", "some"), "'some' is not one of 'all', 'non-embedding'"),
        (("--measure", "bits"), "'bits' is not one of 'loss', 'bits_per_byte'"),
        (("--bootstraps", "3"), "intervals need at least 20 bootstraps; found 3"),
        (("--predict", "d_model=24"), "needs --tokens"),
        (("--tokens", "5M"), "--tokens belongs to --predict"),
        (("--predict", "d_model", "--tokens", "1M"), "--predict takes d_model=128,n_layers=4"),
        (("--check",), "predictions.json does not exist"),
        (("--along", "--method", "parametric"), "learning rate that falls"),
        (("--noise", "nothing.csv", "--method", "power-n"), "nothing.csv cannot be read"),
    ],
)
def test_mistakes_are_one_line(workbench, unchecked, root, words, told):
    extra = () if "--bootstraps" in words else ("--bootstraps", "40")
    said = workbench("scaling", root, *words, *extra, "--quiet")
    assert said.code == 2, said.out
    assert told in said.err
    assert said.err.count("\n") == 1


def test_no_such_folder(scaling, tmp_path):
    said = scaling(tmp_path / "none")
    assert said.code == 2
    assert "there is no folder or table" in said.err
