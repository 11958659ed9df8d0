"""Kaplan's power laws, accuracy over size, the critical batch."""

import json

import known_laws as known
import numpy as np
import pandas as pd
import pytest

from workbench.errors import DataError, InputError
from workbench.scaling.laws import fit_critical_batch, fit_grammar, fit_power, read_noise


def kaplan(sizes=12, noise=0.005, seed=0):
    n = np.geomspace(1e5, 1e9, sizes)
    y = (8.8e13 / n) ** 0.076 * np.exp(noise * np.random.default_rng(seed).standard_normal(sizes))
    return known.of_losses(n, np.full(sizes, 1e10), y)


def test_kaplans_law_comes_back():
    found = fit_power(kaplan(noise=0))
    assert found.exponent.value == pytest.approx(0.076, rel=1e-6)
    assert found.scale.value == pytest.approx(8.8e13, rel=1e-4)
    noisy = fit_power(kaplan())
    assert noisy.exponent.low < 0.076 < noisy.exponent.high
    assert noisy.r2 > 0.99
    assert 0.001 < noisy.held_out < 0.02
    assert list(noisy.to_frame()["constant"]) == ["N_c", "alpha_N"]
    assert noisy.plot().axes[0].get_xlabel() == "N, all parameters"


def test_intervals_of_few_sizes_are_not_too_narrow():
    """Five sizes, as a small family has: of 60 draws at least 50 are covered."""
    hits = 0
    for seed in range(60):
        one = fit_power(kaplan(5, seed=seed), bootstraps=200).exponent
        hits += one.low <= 0.076 <= one.high
    assert hits >= 50


def test_a_remaining_loss_is_found():
    n = np.geomspace(1e5, 1e9, 12)
    found = fit_power(known.of_losses(n, np.full(12, 1e10), 1.5 + (1e7 / n) ** 0.3), irreducible=True)
    assert found.constants["E"].value == pytest.approx(1.5, rel=1e-3)
    assert found.exponent.value == pytest.approx(0.3, rel=1e-3)


def test_only_points_that_data_do_not_hold_back():
    n, d = known.grid(5, 4)
    found = fit_power(known.points(n, d))
    assert len(found.points) == 5
    assert (found.points.d == d.max()).all()
    of_tokens = fit_power(known.points(n, d), "d")
    assert (of_tokens.points.n == n.max()).all()
    assert list(of_tokens.constants) == ["D_c", "alpha_D"]
    mixed = fit_power(known.points(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5)))
    assert "mixes size and data" in mixed.notes[0]


def test_too_few_sizes_and_rising_losses_are_refused(unchecked):
    with pytest.raises(InputError, match=r"L\(N\) needs at least 3 different sizes; found 2"):
        fit_power(known.points([1e7, 1e8], [1e9, 1e9]))
    with pytest.raises(InputError, match=r"L\(D\) needs at least 3 different numbers of tokens; found 1"):
        fit_power(kaplan(), "d")
    n = np.geomspace(1e5, 1e8, 6)
    with pytest.raises(InputError, match="does not fall with N"):
        fit_power(known.of_losses(n, np.full(6, 1e9), n**0.1))
    with pytest.raises(InputError, match="variable must be 'n' or 'd'"):
        fit_power(kaplan(), "c")


def scored(seeds=1, slope=0.1, noise=0.0, sizes=6):
    generator = np.random.default_rng(0)
    rows = []
    for n in np.geomspace(1e5, 1e7, sizes):
        for seed in range(seeds):
            for name, height in (("agreement", slope), ("islands", 0.0), ("mean", slope / 2)):
                accuracy = 0.5 + height * np.log10(n / 1e5) + noise * generator.standard_normal()
                rows.append({"run": f"{n:.0f}-{seed}", "n": n, "tokens": 1e6, "phenomenon": name,
                             "accuracy": float(np.clip(accuracy, 0, 1)), "pairs": 1000})  # fmt: skip
    return pd.DataFrame(rows)


def test_gains_a_tenfold_of_size():
    found = fit_grammar(scored())
    assert found.over == "pairs"
    assert found.phenomena == ["agreement", "islands", "mean"]
    gain = found.gain("agreement")
    assert gain.value == pytest.approx(0.1)
    assert 0.07 < gain.low < 0.1 < gain.high < 0.13
    frame = found.to_frame().set_index("phenomenon")
    assert frame["clear"].to_dict() == {"agreement": True, "islands": False, "mean": True}
    assert found.accuracy("agreement", 1e12).value == 1.0
    assert found.accuracy("islands", 1e12).low == 0.5


def test_seeds_are_what_is_drawn_where_every_size_has_some():
    found = fit_grammar(scored(seeds=4, noise=0.03))
    assert found.over == "seeds"
    gain = found.gain("agreement")
    assert gain.low < 0.1 < gain.high
    assert gain.high - gain.low > 1.2 * np.ptp(
        fit_grammar(scored(seeds=4, noise=0.003)).draws["agreement"][:, 1]
    )


@pytest.mark.parametrize("slope", [0.15, 0.0])
def test_a_logistic_stays_between_chance_and_one(slope):
    found = fit_grammar(scored(slope=slope), kind="logistic", bootstraps=200)
    for n in (1.0, 1e6, 1e30):
        one = found.accuracy("agreement", n)
        assert 0.5 <= one.low <= one.value <= one.high <= 1.0
    assert np.isfinite(found.draws["agreement"]).all()
    middle = found.gain("agreement")
    assert middle.low - 1e-9 <= slope <= middle.high + 0.05


def test_a_logistic_finds_its_own_curve():
    frame = scored()
    frame["accuracy"] = 0.5 + 0.5 / (1 + np.exp(-(-1.0 + 1.5 * np.log10(frame["n"] / 1e6))))
    found = fit_grammar(frame, kind="logistic", bootstraps=20)
    for n in (1e5, 1e6, 1e7):
        truth = 0.5 + 0.5 / (1 + np.exp(-(-1.0 + 1.5 * np.log10(n / 1e6))))
        assert found.accuracy("mean", n).value == pytest.approx(truth, abs=1e-3)


def test_two_sizes_are_too_few_for_grammar(unchecked):
    with pytest.raises(InputError, match="at least 3 sizes; found 2"):
        fit_grammar(scored(sizes=2))
    with pytest.raises(InputError, match="must be 'linear' or 'logistic'; found 'cubic'"):
        fit_grammar(scored(), kind="cubic")  # type: ignore[arg-type]


def test_the_critical_batch_law():
    loss = np.geomspace(1.5, 8, 10)
    noise = np.exp(0.05 * np.random.default_rng(0).standard_normal(10))
    found = fit_critical_batch(loss, 2e8 / loss ** (1 / 0.21) * noise)
    assert found.exponent.low < 0.21 < found.exponent.high
    assert found.scale.low < 2e8 < found.scale.high
    assert float(found.at(2.0)) == pytest.approx(2e8 / 2 ** (1 / 0.21), rel=0.1)
    assert len(found.to_frame()) == 10
    assert found.plot().axes[0].get_ylabel() == "critical batch, tokens"


@pytest.mark.parametrize(
    ("loss", "scale", "told"),
    [
        ([2.0, 3.0], [10, 5], "at three different losses; found 2"),
        ([2.0, 2.0, 2.0], [10, 5, 6], "at three different losses"),
        ([2.0, 3.0, 4.0], [5, 7, 10], "does not grow as the loss falls"),
        ([2.0, 3.0, np.nan], [5, 7, 10], "1 rows of the noise scale are not positive numbers"),
    ],
)
def test_noise_that_follows_no_law_is_refused(loss, scale, told):
    with pytest.raises(InputError, match=told):
        fit_critical_batch(loss, scale)


def test_noise_is_read_from_tables_and_json(tmp_path):
    rows = [{"loss": 3.0, "b_simple": 100.0}, {"loss": 2.0, "b_simple": 900.0}]
    pd.DataFrame(rows).to_csv(tmp_path / "noise.csv", index=False)
    (tmp_path / "tune.json").write_text(json.dumps({"lr": 1e-3, "noise": rows}))
    for name in ("noise.csv", "tune.json"):
        loss, scale = read_noise(tmp_path / name)
        assert (list(loss), list(scale)) == ([3.0, 2.0], [100.0, 900.0])
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="no columns loss and noise_scale"):
        read_noise(tmp_path / "other.json")
