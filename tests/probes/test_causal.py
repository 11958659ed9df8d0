"""Erasing and steering: the law of LEACE with its positive control, and both on a small run."""

import numpy as np
import pytest
import torch

from probes.causal.erase import erase
from probes.causal.erasers import erase_all, erase_concept, erase_numbers, erase_random
from probes.causal.erasure_result import ALL, CONCEPT, CONTROL_CONCEPT, FAR, NOTHING, RANDOM
from probes.causal.intervening import changed
from probes.causal.steer import PROBE, steer
from probes.causal.steer import RANDOM as RANDOM_PUSH
from probes.fitting.logistic import fit_logistic
from workbench.errors import InputError

pytest.importorskip("concept_erasure", reason="erasing needs concept-erasure")


def planted(classes: int = 4, rows: int = 2000, d: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated activations whose class means differ, one class rare."""
    random = torch.Generator().manual_seed(0)
    y = torch.randint(0, classes, (rows,), generator=random)
    y[y == classes - 1] = 0
    y[:8] = classes - 1
    x = torch.randn(rows, d, generator=random) @ torch.randn(d, d, generator=random)
    return x + 3 * torch.randn(classes, d, generator=random)[y] + 5, y


def test_after_leace_a_linear_probe_stands_at_chance_and_after_a_random_erasure_it_does_not() -> None:
    from sklearn.linear_model import LogisticRegression

    x, y = planted()
    concept = erase_concept(x, y, 4)
    assert concept.rank == 3
    for erased, at_chance in ((concept(x.double()), True), (erase_random(x, 3, 0)(x.double()), False)):
        scaled = erased / x.double().std(0)
        ours = fit_logistic(
            scaled[None], y[None], torch.zeros(1, dtype=torch.long), n_classes=4, tolerance=1e-9
        )
        theirs = LogisticRegression(tol=1e-9, max_iter=5000).fit(scaled.numpy(), y.numpy())
        for beta in (float(ours.W.abs().max()), float(np.abs(theirs.coef_).max())):
            assert beta < 1e-4 if at_chance else beta > 0.1
        majority = float((y == y.mode().values).double().mean())
        right = float(ours.accuracy(scaled[None], y[None])[0])
        assert right == pytest.approx(majority) if at_chance else right > majority + 0.1


def test_a_number_is_erased_too() -> None:
    x, _ = planted()
    z = (x @ torch.randn(20, generator=torch.Generator().manual_seed(1)))[:, None].double()
    erased = erase_numbers(x, z)(x.double())
    assert float((z - z.mean()).T.mul(erased.T - erased.mean(0)[:, None]).mean(1).abs().max()) < 1e-8


def test_erasers_keep_the_mean_and_do_nothing_twice() -> None:
    x, y = planted()
    for eraser in (erase_concept(x, y, 4), erase_random(x, 5, 1), erase_all(x)):
        once = eraser(x.double())
        assert torch.allclose(once.mean(0), x.double().mean(0), atol=1e-5)
        assert torch.allclose(eraser(once), once, atol=1e-6)
    assert erase_random(x, 5, 1).moved(x) < 0.6
    assert erase_all(x).moved(x) == pytest.approx(1.0)
    assert eraser(x.half()).dtype == torch.float16
    with pytest.raises(InputError, match="rank 21: the activations have 1 to 20"):
        erase_random(x, 21, 0)
    with pytest.raises(InputError, match="one class"):
        erase_concept(x, torch.zeros_like(y), 4)


def test_without_concept_erasure_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "concept_erasure", None)
    x, y = planted()
    with pytest.raises(InputError, match=r"pip install 'interp-workbench\[probe\]'"):
        erase_concept(x, y, 4)


@pytest.fixture(scope="module")
def model_run(tmp_path_factory: pytest.TempPathFactory):
    """A run with random weights."""
    import page_runs

    from workbench.runs.run import load

    root = tmp_path_factory.mktemp("causal")
    page_runs.make_run(root / "one", page_runs.tokenizer(), steps=(8,), n_layers=1)
    return load(root / "one")


def test_a_change_reaches_the_logits_leaves_bos_alone_and_goes(model_run) -> None:
    network = model_run.model
    tokens = torch.tensor([[network.tokenizer.bos_token_id, 5, 6, 7]])
    hook = "blocks.0.hook_resid_post"
    before = network(tokens)
    seen, push = {}, torch.linspace(-1, 1, 32)  # the same everywhere would be lost in the layer norm

    def keep(x: torch.Tensor, hook: object) -> None:
        seen["x"] = x

    with changed(network, hook, lambda x: x + push):
        network.hook_dict[hook].add_hook(keep)
        after = network(tokens)
    network.reset_hooks()
    _, cache = network.run_with_cache(tokens)
    assert torch.allclose(seen["x"][:, 1:], cache[hook][:, 1:] + push, atol=1e-5)
    assert torch.allclose(seen["x"][:, 0], cache[hook][:, 0], atol=1e-5)
    assert not torch.allclose(after[:, 1:], before[:, 1:], atol=1e-3)
    assert torch.equal(network(tokens), before)
    assert not network.has_listeners()


def test_a_change_of_nothing_changes_nothing_and_an_error_leaves_no_hook(model_run) -> None:
    network, hook = model_run.model, "blocks.0.attn.hook_z"
    tokens = torch.arange(8)[None]
    plain = network(tokens)
    with changed(network, hook, None):
        assert torch.allclose(network(tokens), plain, atol=1e-5)
    with pytest.raises(ZeroDivisionError), changed(network, hook, lambda x: 1 / 0):
        network(tokens)
    assert not network.has_listeners()


@pytest.mark.usefixtures("unchecked")
def test_erasing_a_task_of_a_run(model_run, tmp_path) -> None:
    told = []
    found = erase(
        model_run, "pos", tokens=4000, hooks="blocks.0.hook_resid_post", limit=3, randoms=2,
        tell=lambda *what: told.append(what),
    )  # fmt: skip
    frame = found.to_frame().set_index("condition")
    assert list(frame.index) == [NOTHING, CONCEPT, CONTROL_CONCEPT, RANDOM, FAR, ALL]
    assert len(found.cells) == 8
    assert frame.probe[CONCEPT] <= found.chance + 0.05
    assert frame.beta[CONCEPT] < 1e-4
    assert frame.probe[RANDOM] > found.chance + 0.1
    assert frame.probe[NOTHING] >= frame.probe[RANDOM] - 0.02
    assert frame.loss[NOTHING] == 0
    assert frame.loss_low[ALL] > 0 or frame.loss_high[ALL] < 0  # what is done at the place reaches the loss
    assert frame["rank"][RANDOM] == frame["rank"][CONCEPT]
    # Right on average; two draws of half of 32 unequally wide dimensions are a tenth off now and then.
    assert frame.moved[FAR] == pytest.approx(frame.moved[CONCEPT], abs=0.15)
    assert frame.moved[FAR] > frame.moved[RANDOM]
    assert np.isfinite(frame.loss_beyond[CONCEPT])
    assert np.isfinite(frame.loss_beyond_far[CONCEPT])
    assert set(found.paradigms.condition) >= {CONCEPT, RANDOM}
    assert told[-1][1] == told[-1][2]
    assert "Beyond random subspaces of equal rank" in str(found)
    found.plot().savefig(tmp_path / "erasure.png")
    with pytest.raises(InputError, match="pairs of words"):
        erase(model_run, "dependency", tokens=2000, pairs=False)


@pytest.mark.usefixtures("unchecked")
def test_steering_a_task_of_a_run(model_run, tmp_path) -> None:
    options = dict(tokens=4000, hooks="blocks.0.hook_resid_post", limit=2)
    found = steer(model_run, "pos", "NOUN", "VERB", strengths=(-1, 6), **options)
    cells = found.cells.set_index(["direction", "strength"])
    assert cells.read[PROBE, 6.0] > 0.5
    assert cells.read[PROBE, -1.0] < 0.1
    assert cells.read[RANDOM_PUSH, 6.0] < 0.2
    assert cells.norm[PROBE, 6.0] == pytest.approx(cells.norm[RANDOM_PUSH, 6.0], rel=1e-4)
    assert (cells.kl > 0).all()
    assert "promotes" in str(found)
    found.plot().savefig(tmp_path / "steering.png")
    for source, target, words in (("NOUN", "VERV", "VERB"), ("NOUN", "NOUN", "no direction")):
        with pytest.raises(InputError, match=words):
            steer(model_run, "pos", source, target, **options)
