"""The component matrix: what attribution, ablation and patching say pair by pair; what is planted is found."""

from typing import Any

import numpy as np
import pytest
import torch
from planted_agreement import pairs as planted_pairs
from planted_agreement import planted_agreement, untrained
from small_models import BASES, build

from workbench.data.pairs import Pair, PairSet
from workbench.errors import DataError, InputError
from workbench.evals.scoring import Readout
from workbench.interp.ablation import ablation_effect, replacement
from workbench.interp.attribution import attribute_pair
from workbench.interp.components import list_components
from workbench.interp.matrix import METHODS, ComponentMatrix, component_matrix, gradient
from workbench.interp.pairs import EncodedPairs

SENTENCES = [
    ("The cats like the ball.", "The cats likes the ball."),  # usable
    ("A dog near the tree was sad.", "The dog near the tree was sad."),  # usable
    ("The girls are happy.", "The girls are sad"),  # differ at the end
    ("Tom ran home.", "Tom ran home with the cat."),  # other lengths
    ("Tom ran home", "Tom ran home."),  # one begins the other
    ("He hurt himself.", "She hurt himself."),  # usable
]
TEXT = ["The cat likes the ball. Tom ran home.", "She hurt herself. A dog was sad near the tree."]


def pair_set(rows=SENTENCES):
    made = [
        Pair(good, bad, "one" if index < 3 else "two", "some", index)
        for index, (good, bad) in enumerate(rows)
    ]
    groups = {uid: tuple(pair for pair in made if pair.uid == uid) for uid in ("one", "two")}
    return PairSet("few", "folder", {uid: some for uid, some in groups.items() if some})


def named(model, tokenizer):
    model.tokenizer = tokenizer
    return model


def lost_by_ablation(model, **options):
    """Nats of margin lost without each part, [pair part], by `ablation_effect`."""
    found = ablation_effect(
        model, list_components(model.config), each=True, pairs=pair_set(), measure=("pairs",), **options
    ).pairs
    assert found is not None
    return (found.pairs.margin.to_numpy() - found.margin).T


def of_parts(matrix, method):
    """Effects of heads and MLPs, [pair part]."""
    return matrix.effects[method][:, [component.kind in ("head", "mlp") for component in matrix.components]]


def test_direct_and_ablated_margins_are_those_of_one_pair_and_one_ablation(model, tokenizer, unchecked):
    model = named(model, tokenizer)
    found = component_matrix(model, pair_set(), methods=("direct", "ablate"), reference=TEXT)
    for row, (good, bad) in enumerate(SENTENCES):
        pair = attribute_pair(model, good, bad, tokenizer=tokenizer)
        np.testing.assert_allclose(found.effects["direct"][row], pair.whole, rtol=0, atol=1e-9)
        assert found.pairs.margin[row] == pytest.approx(pair.difference, abs=1e-9)
    lost = lost_by_ablation(model, how="mean", reference=TEXT)
    np.testing.assert_allclose(of_parts(found, "ablate"), lost, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("base", "protocol", "how"),
    [("default", "lm-eval", "resample"), ("default", "minicons", "zero"), ("bert-like", "minicons", "zero")],
)
def test_other_ablations_and_protocols(base, protocol, how, tokenizer, unchecked):
    model = named(build(**BASES[base] | {"d_vocab": len(tokenizer)}), tokenizer)
    options: dict[str, Any] = dict(how=how, reference=TEXT, protocol=protocol, draws=2, seed=3)
    found = component_matrix(model, pair_set(), methods=("direct", "ablate"), **options)
    lost = lost_by_ablation(model, **options)
    np.testing.assert_allclose(of_parts(found, "ablate"), lost, rtol=0, atol=1e-9)
    uniform = (found.pairs.tokens_good - found.pairs.tokens_bad) * -np.log(model.config.d_vocab)
    if protocol == "lm-eval":
        margin = found.effects["direct"].sum(1) + uniform
        np.testing.assert_allclose(margin, found.pairs.margin, rtol=0, atol=1e-9)


def exchanged(model, tokenizer, into, other, part):
    """Sum of log-probabilities of `into` with a part's output of `other`, by two plain runs."""
    rows = [torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]])
            for text in (into, other)]  # fmt: skip
    _, cache = model.run_with_cache(rows[1], names_filter=[part.hook_name], return_cache_object=False)
    given = cache[part.hook_name]

    def put(x, hook):
        x = x.clone()
        if part.kind == "mlp":
            x[:] = given
        else:
            x[:, :, part.unit] = given[:, :, part.unit]
        return x

    logits = model.run_with_hooks(rows[0], fwd_hooks=[(part.hook_name, put)])
    return float(logits[0, :-1].log_softmax(-1).gather(-1, rows[0][0, 1:, None]).sum())


@pytest.mark.parametrize(
    "fields",
    [
        *(fields for name, fields in BASES.items() if name not in ("bert-like", "albert-like", "elc-like")),
        dict(layout="mam"),
        dict(residual="weighted"),
        dict(norm_place="post", d_value=12),
        dict(positions="t5", n_key_value_heads=2),
        dict(positions="shaw", mlp_depth=2),
    ],
    ids=lambda fields: ",".join(f"{key}={value}" for key, value in fields.items()) or "default",
)
def test_patching_equals_two_plain_runs(fields, tokenizer, unchecked):
    model = named(build(**fields | {"d_vocab": len(tokenizer)}), tokenizer)
    found = component_matrix(model, pair_set(), methods=("patch", "noise", "denoise"))
    usable = np.flatnonzero(found.pairs.usable == "usable")
    assert set(usable) == {0, 1, 5}
    assert np.isnan(of_parts(found, "patch")[[2, 3, 4]]).all()
    with torch.no_grad():
        for row in usable:
            good, bad = SENTENCES[row]
            for column, part in enumerate(list_components(model.config)):
                noise = found.pairs.logp_good[row] - exchanged(model, tokenizer, good, bad, part)
                denoise = exchanged(model, tokenizer, bad, good, part) - found.pairs.logp_bad[row]
                assert of_parts(found, "noise")[row, column] == pytest.approx(noise, abs=1e-9)
                assert of_parts(found, "denoise")[row, column] == pytest.approx(denoise, abs=1e-9)
    both = found.effects["noise"] + found.effects["denoise"]
    np.testing.assert_allclose(found.effects["patch"], both, rtol=0, atol=1e-9)


@pytest.mark.parametrize("base", ["default", "bert-like", "elc-like"])
def test_the_gradient_is_the_slope_of_the_ablation(base, tokenizer, unchecked):
    model = named(build(**BASES[base] | {"d_vocab": len(tokenizer)}), tokenizer)
    parts = list_components(model.config)
    given = replacement(model, parts, "mean", TEXT)
    pairs = EncodedPairs(model, pair_set().pairs)
    step = 1e-6
    for group in pairs.groups(10_000):
        batch = pairs.batch(group)
        slopes = gradient(model, batch, parts, given)
        for column, part in enumerate(parts[:5]):
            value = given.values[part]

            def towards(x, hook, part=part, value=value):
                x = x.clone()
                here = x if part.kind == "mlp" else x[:, :, part.unit]
                here += step * (value - here)
                return x

            with torch.no_grad():
                ends = []
                for hook in (lambda x, hook: x, towards):
                    with model.hooks(fwd_hooks=[(part.hook_name, hook)]):
                        x = batch.stream(model)
                    ends.append(batch.log_probs(model, Readout.of(model), x, 1)[0].sum(-1))
            numeric = (ends[0] - ends[1]).numpy() / step
            np.testing.assert_allclose(slopes[:, column], numeric, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("layer", "head"), [(0, 1), (1, 2)])
def test_the_planted_head_is_all_that_is_found(layer, head, unchecked):
    model = planted_agreement(layer, head)
    found = component_matrix(
        model, planted_pairs(), methods=METHODS, reference=["the cat sleeps .", "the dogs run ."]
    )
    label = f"L{layer}H{head}"
    frame = found.to_frame().query("found")
    assert set(frame.component) == {label}
    assert set(zip(frame.method, frame.paradigm, strict=True)) >= {
        ("direct", "verb"), ("ablate", "verb"), ("gradient", "verb"),
        ("patch", "subject"), ("noise", "subject"), ("denoise", "subject"),
    }  # fmt: skip
    others = [column for column, name in enumerate(found.labels) if name != label and name[0] == "L"]
    for method in found.methods:
        assert not np.nan_to_num(found.effects[method])[:, others].any(), method
    assert found.accuracy["verb"] == 1
    top = found.of("verb", "ablate").iloc[0]
    assert top.component == label
    assert top.lost == top.n
    assert top.effect > 3
    assert len(found.explained(label, "verb", "ablate").query("decides")) == top.n


@pytest.mark.parametrize("seed", [0, 1])
def test_an_untrained_model_has_nothing_to_find(seed, unchecked):
    found = component_matrix(untrained(seed), planted_pairs(), paradigms=["verb"], methods=("direct", "ablate", "patch"),
                             reference=["the cat sleeps .", "the dogs run ."])  # fmt: skip
    assert not (found.to_frame().q < 0.05).any()


def test_a_pair_of_the_same_tokens_has_no_effects(causal, tokenizer, unchecked):
    rows = [SENTENCES[0], ("He hurt himself.", "He hurt himself.")]
    found = component_matrix(
        named(causal, tokenizer), pair_set(rows), methods=("direct", "ablate"), reference=TEXT
    )
    assert found.pairs.usable.tolist() == ["usable", "same tokens"]
    assert not np.nan_to_num(found.effects["direct"][1]).any()
    assert not of_parts(found, "ablate")[1].any()
    assert of_parts(found, "ablate")[0].any()


def test_threads_batches_and_order_change_nothing(causal, tokenizer, unchecked, monkeypatch):
    model = named(causal, tokenizer)
    first = component_matrix(model, pair_set(), reference=TEXT)
    monkeypatch.setattr("workbench.interp.matrix.TOKENS_PER_BATCH", {"cpu": 1})
    monkeypatch.setattr("workbench.interp.matrix.LOGITS_AT_ONCE", 1)
    monkeypatch.setattr("workbench.interp.matrix.CELLS_AT_ONCE", 2)
    monkeypatch.setattr("workbench.interp.matrix.threads_for", lambda network: 3)
    done = []
    other = component_matrix(model, pair_set(), reference=TEXT, progress=lambda *state: done.append(state))
    for method in first.methods:
        np.testing.assert_allclose(first.effects[method], other.effects[method], rtol=0, atol=1e-10)
    assert done[-1] == (1.0, "6 of 6 pairs")
    assert done == sorted(done)
    assert not model.has_listeners()


def test_hooks_go_when_a_pass_fails(causal, tokenizer, unchecked, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("workbench.interp.engine._Replay._edit", fail)
    with pytest.raises(KeyboardInterrupt):
        component_matrix(named(causal, tokenizer), pair_set(), methods=("patch",))
    assert not causal.has_listeners()


def test_bad_input_is_refused_by_name(causal, tokenizer, unchecked):
    model = named(causal, tokenizer)
    with pytest.raises(InputError, match=r"Unknown method 'ablade'. Did you mean 'ablate'"):
        component_matrix(model, pair_set(), methods=("ablade",))
    with pytest.raises(InputError, match="no method was chosen"):
        component_matrix(model, pair_set(), methods=())
    with pytest.raises(InputError, match=r"Unknown ablation 'maen'. Did you mean 'mean'"):
        component_matrix(model, pair_set(), how="maen", methods=("ablate",))
    with pytest.raises(DataError, match=r"few has no paradigm 'too'. Did you mean 'two'"):
        component_matrix(model, pair_set(), paradigms=["too"])
    with pytest.raises(InputError, match="longest sequence of the reference to resample from has 3"):
        component_matrix(model, pair_set(), how="resample", reference=torch.ones(2, 3, dtype=torch.long))
    masked = named(build(**BASES["bert-like"] | {"d_vocab": len(tokenizer)}), tokenizer)
    with pytest.raises(InputError, match="'patch' is not defined for masked models"):
        component_matrix(masked, pair_set(), methods=("direct", "patch"))
    assert component_matrix(masked, pair_set(), reference=TEXT).methods == ("direct", "ablate")


def test_it_is_saved_whole_and_read_again(causal, tokenizer, unchecked, tmp_path):
    import pandas as pd

    found = component_matrix(named(causal, tokenizer), pair_set(), reference=TEXT)
    path = found.save(tmp_path / "kept")
    again = ComponentMatrix.read(tmp_path / "kept")
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    assert again.components == found.components
    path.write_text(path.read_text().replace('"methods"', '"mothods"'))
    with pytest.raises(DataError, match="holds no saved component matrix"):
        ComponentMatrix.read(tmp_path / "kept")
    with pytest.raises(DataError, match="does not exist"):
        ComponentMatrix.read(tmp_path)
