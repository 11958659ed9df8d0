"""What a component matrix says of its pairs, on made-up effects: against scipy, and by hand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workbench.errors import InputError
from workbench.interp.components import Component
from workbench.interp.matrices import (
    ComponentFamily,
    ComponentHistory,
    component_family,
    history_steps,
)
from workbench.interp.matrix import ComponentMatrix

COMPONENTS = (
    Component(None, "embed"), Component(0, "head", 0), Component(0, "mlp"),
    Component(2, "head", 0), Component(None, "biases"),
)  # fmt: skip


def made(effects=None, seed=0, step=0, run="made", n_layers=3):
    """Two paradigms of 12 and 8 pairs of one phenomenon, 5 of another."""
    random = np.random.default_rng(seed)
    paradigm = np.repeat(["a", "b", "c"], [12, 8, 5])
    count = len(paradigm)
    margin = random.normal(size=count)
    pairs = pd.DataFrame(
        {
            "paradigm": paradigm, "phenomenon": np.where(paradigm == "c", "other", "one"),
            "pair_id": range(count), "sentence_good": [f"good {i}" for i in range(count)],
            "sentence_bad": [f"bad {i}" for i in range(count)], "margin": margin,
            "correct": (margin > 0).astype(float), "usable": "usable",
        }
    )  # fmt: skip
    if effects is None:
        effects = random.normal(0.3, 1.0, (count, len(COMPONENTS)))
    ablated = effects.copy()
    ablated[:, [0, 4]] = np.nan
    return ComponentMatrix(
        COMPONENTS, pairs, {"direct": effects, "ablate": ablated}, how="mean", draws=1, seed=0, protocol="native",
        pll=None, name="made", fingerprint="0", n_layers=n_layers, run=run, step=step,
    )  # fmt: skip


def test_means_intervals_and_corrected_p_are_those_of_scipy():
    found = made()
    frame = found.to_frame().query("method == 'direct'")
    expected = []
    for name in "abc":
        for column in range(len(COMPONENTS)):
            values = found.effects["direct"][found.pairs.paradigm == name, column]
            test = stats.ttest_1samp(values, 0)
            low, high = test.confidence_interval()
            expected.append((len(values), values.mean(), low, high, test[1]))
    expected = np.array(expected)
    np.testing.assert_allclose(frame[["n", "effect", "low", "high"]], expected[:, :4], rtol=1e-12)
    np.testing.assert_allclose(frame.q, stats.false_discovery_control(expected[:, 4]), rtol=1e-10)
    assert (frame.found == ((frame.low > 0) | (frame.high < 0))).all()
    row = frame.query("paradigm == 'a' and component == 'L0H0'").iloc[0]
    mine = found.pairs.query("paradigm == 'a'")
    after = mine.margin - found.effects["direct"][mine.index, 1]
    assert row.lost == ((mine.margin > 0) & (after <= 0)).sum()
    assert row.gained == ((mine.margin <= 0) & (after > 0)).sum()


def test_passing_against_failing_pairs_is_welch_s_test():
    found = made(seed=1)
    frame = found.failing("ablate")
    assert set(frame.component) == {"L0H0", "L0 MLP", "L2H0"}
    row = frame.query("paradigm == 'a' and component == 'L2H0'").iloc[0]
    mine = found.pairs.query("paradigm == 'a'")
    sides = [found.effects["ablate"][mine.index[chosen], 3] for chosen in (mine.margin > 0, mine.margin < 0)]
    low, high = stats.ttest_ind(*sides, equal_var=False).confidence_interval()
    assert (row.n_right, row.n_wrong) == (len(sides[0]), len(sides[1]))
    assert (row.difference, row.low, row.high) == pytest.approx(
        (sides[0].mean() - sides[1].mean(), low, high)
    )


def test_pairs_are_ranked_by_what_the_component_adds():
    found = made()
    frame = found.explained("L0H0", "b")
    assert frame.effect.is_monotonic_decreasing
    assert set(frame.paradigm) == {"b"}
    turned = np.sign(frame.margin) != np.sign(frame.margin - frame.effect)
    assert (frame.decides == turned).all()
    best = found.of("b", "ablate")
    assert best.effect.abs().is_monotonic_decreasing
    assert len(best) == 3


def test_a_phenomenon_is_the_mean_of_its_paradigms():
    found = made()
    row = found.phenomena().query("phenomenon == 'one' and component == 'L0H0'").iloc[0]
    frame = found.to_frame().query("method == 'direct' and component == 'L0H0' and phenomenon == 'one'")
    assert row.paradigms == 2
    assert row.effect == pytest.approx(frame.effect.mean())
    reach = np.sqrt((((frame.high - frame.low) / 2) ** 2).sum()) / 2
    assert (row.low, row.high) == pytest.approx((row.effect - reach, row.effect + reach))


def test_one_pair_has_no_interval_and_no_effect_is_no_finding():
    found = made(np.zeros((25, 5)))
    assert not found.to_frame().found.any()
    assert (found.to_frame().q == 1).all()
    single = dataclasses.replace(found, pairs=found.pairs[:1], effects={"direct": np.ones((1, 5))}).to_frame()
    assert single.low.isna().all()
    assert not single.found.any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (("of", "d"), "no paradigm is called 'd' here"),
        (("explained", "L0H9"), "no component is called 'L0H9' here. Did you mean 'L0H0'"),
        (("effect", "ablation"), "'ablation' was not measured here. Did you mean 'ablate'"),
    ],
    ids=["paradigm", "component", "method"],
)
def test_what_is_not_there_is_refused(call, words):
    name, argument = call
    with pytest.raises(InputError, match=words):
        getattr(made(), name)(argument)


def constant(*sizes):
    """Effects of these sizes in every pair, a little spread."""
    spread = np.random.default_rng(0).normal(0, 1e-3, (25, len(COMPONENTS)))
    return np.array([0.0, *sizes, 0.0]) + spread


def test_a_family_counts_the_components_that_carry_half():
    one, two = made(constant(8.0, 1.0, 1.0), run="one"), made(constant(-1.0, 1.0, 1.0), run="two", n_layers=5)
    family = ComponentFamily((one, two), "direct")
    frame = family.to_frame()
    assert set(frame.component) == {"L0H0", "L0 MLP", "L2H0"}  # embeddings and biases left out
    np.testing.assert_allclose(frame.groupby(["run", "paradigm"]).share.sum(), 1)
    assert frame.query("run == 'one' and component == 'L2H0'").depth.unique() == [1.0]
    assert frame.query("run == 'two' and component == 'L2H0'").depth.unique() == [0.5]
    counts = family.counts("phenomenon").set_index(["run", "phenomenon"])
    assert counts.loc[("one", "one")].tolist() == [3, 1, 2]
    assert counts.loc[("two", "one")].tolist() == [3, 2, 3]
    depths = family.depths(2).set_index(["run", "kind", "from"]).share
    assert depths["one", "head", 0.0] == pytest.approx(0.8, abs=0.01)
    assert depths["two", "head", 0.5] == pytest.approx(1 / 3, abs=0.01)
    assert depths.groupby("run").sum().to_numpy() == pytest.approx([1, 1])
    with pytest.raises(InputError, match="Unknown grouping 'layer'"):
        family.to_frame("layer")


def test_a_family_needs_two_names():
    class Fake:
        name = "one"

    with pytest.raises(InputError, match="at least two runs with different names; got one, one"):
        component_family([Fake(), Fake()])


def test_a_takeover_is_the_checkpoint_from_which_the_sign_stays():
    sizes = [(0.0, 0.0, 1.0), (2.0, 0.0, 1.0), (0.0, 0.0, -1.0), (2.0, 0.0, -1.0), (3.0, 0.0, -2.0)]
    history = ComponentHistory(
        tuple(made(constant(*each), step=10**index) for index, each in enumerate(sizes)), "direct"
    )
    noise = history.matrices[-1].to_frame().query("component == 'L0 MLP' and found and method == 'direct'")
    found = history.takeovers().set_index(["paradigm", "component"])
    assert found.loc[("a", "L0H0")].step == 1000
    assert found.loc[("a", "L2H0")].step == 100
    assert found.loc[("a", "L2H0")].effect == pytest.approx(-2, abs=0.01)
    assert found.loc[("a", "L2H0")].share == pytest.approx(0.4, abs=0.01)
    assert set(found.reset_index().query("component == 'L0 MLP'").paradigm) == set(noise.paradigm)
    assert history.effect.shape == (5, 3, 5)
    assert set(history.to_frame().step) == {1, 10, 100, 1000, 10000}


def test_checkpoints_that_are_not_there_are_refused():
    class Fake:
        path, checkpoints = "runs/one", [0, 8, 16]

    assert history_steps(Fake(), [16, 0]) == [0, 16]
    with pytest.raises(InputError, match="runs/one has no checkpoint 9; available: 0, 8, 16"):
        history_steps(Fake(), [0, 9])
    with pytest.raises(InputError, match="at least two checkpoints; 1 of runs/one was selected"):
        history_steps(Fake(), [8])
    with pytest.raises(InputError, match="checkpoints is 'last'; give 'all' or steps"):
        history_steps(Fake(), "last")


def test_plots_of_missing_effects_and_of_some_paradigms(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    found = made()
    found.effects["ablate"][:12] = np.nan
    found.plot(method="ablate").savefig(tmp_path / "matrix.png")
    history = ComponentHistory((found, made(step=5, seed=2)), "direct")
    panels = [ax for ax in history.plot(paradigms=["a", "c"]).axes if ax.get_title()]
    assert len(panels) == 2
    with pytest.raises(InputError, match="no paradigm is called 'x' here"):
        history.plot(paradigms=["x"])
