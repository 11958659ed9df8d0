"""Predictions before training, kept, and compared with what came out."""

import json

import pytest
import scaling_runs as made

from workbench.errors import ConfigError, DataError, InputError
from workbench.scaling.laws import fit_parametric, fit_power
from workbench.scaling.points import points_of_runs
from workbench.scaling.study import (
    FILE,
    check_predictions,
    family_config,
    predict_run,
    read_predictions,
    save_predictions,
)

FEW = [(0.0, 1.0), (2.5, 5.0), (5.0, 7.5), (0.25, 0.5), (0.25, 0.5)]


@pytest.fixture
def root(tmp_path):
    return made.make_family(tmp_path / "family", widths=(8, 16, 32), tokens=(2e5, 6e5, 2e6))


@pytest.fixture
def fit(root):
    return fit_parametric(points_of_runs(root), bootstraps=200, grid=FEW)


def test_a_prediction_is_kept_and_met(root, fit):
    shape = family_config(root, {"d_model": 24})
    assert (shape.d_mlp, shape.d_head, shape.n_layers, shape.d_vocab) == (96, 12, 1, 64)
    one = predict_run(fit, shape, 1e6)
    assert one.beyond is None
    assert one.low < one.loss < one.high
    assert one.six_nd == 6 * shape.n_params * 1e6
    assert one.exact_flops == shape.flops_per_token * 1e6
    save_predictions(root, [one])
    assert read_predictions(root) == [one]
    waiting = check_predictions(root)
    assert waiting.waiting == (one,)
    assert waiting.to_frame().empty
    made.make_run(root / "new", made.config(24, seed=5), 1e6)
    made.make_run(root / "other-tokens", made.config(24), 2e6)
    found = check_predictions(root)
    assert list(found.table["run"]) == ["new"]
    assert found.covered == 1
    assert not found.waiting
    assert found.table["measured"][0] == pytest.approx(float(made.loss(shape.n_params, 1e6)))


def test_a_run_off_the_law_is_not_covered(root, fit):
    save_predictions(root, [predict_run(fit, family_config(root, {"d_model": 24}), 1e6)])
    made.make_run(root / "odd", made.config(24), 1e6, noise=0.2)
    found = check_predictions(root)
    assert found.covered == 0
    assert found.table["error"][0] == pytest.approx(-0.18, abs=0.03)
    assert found.plot().axes[0].get_yticklabels()[0].get_text() == "odd"


def test_runs_that_were_fitted_do_not_confirm_themselves(root, fit):
    save_predictions(root, [predict_run(fit, family_config(root, {"d_model": 16}), 6e5)])
    assert check_predictions(root).to_frame().empty


def test_earlier_predictions_stay(root, fit):
    for width in (24, 48):
        save_predictions(root, [predict_run(fit, family_config(root, {"d_model": width}), 1e6)])
    assert [one.model["d_model"] for one in read_predictions(root)] == [24, 48]
    assert "x the data's largest" in read_predictions(root)[1].beyond


def test_a_power_law_predicts_too(root):
    law = fit_power(points_of_runs(root))
    one = predict_run(law, family_config(root, {"d_model": 24}), 2e6)
    assert one.low < float(made.loss(one.n, 2e6)) < one.high


def test_mistakes(root, fit):
    with pytest.raises(ConfigError, match=r"d_modle is not a field\. Did you mean 'd_model'"):
        family_config(root, {"d_modle": 8})
    with pytest.raises(InputError, match="tokens must be a positive number"):
        predict_run(fit, made.config(8), 0)
    with pytest.raises(DataError, match="does not exist"):
        check_predictions(root)
    for text in ("[]", json.dumps({"predictions": [{"n": 1}]}), "{"):
        (root / FILE).write_text(text)
        with pytest.raises(DataError, match=FILE):
            check_predictions(root)
