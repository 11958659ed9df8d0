"""Circuits through the vocabulary and composition are what the whole matrices give."""

import numpy as np
import pytest
import torch
from planted_heads import planted
from small_models import VARIANTS, build
from torch.nn.functional import layer_norm

from workbench.errors import InputError
from workbench.interp.head_circuits import (
    COMPOSITIONS,
    _readout,
    composition,
    copying_scores,
    head_maps,
    ov_circuit,
    qk_circuit,
    top_pairs,
)

pytestmark = pytest.mark.usefixtures("unchecked")

EVERY = [
    "default", "llama-like", "gpt-neo-like", "gpt-j-like", "bert-like", "albert-like", "elc-like",
    "default / layout=mam", "default / n_key_value_heads=2", "default / d_value=12", "default / d_embed=12",
    "default / norm=none", "default / tied=False", "default / norm_place=normformer",
]  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_copying_is_that_of_the_whole_matrix(name):
    model = build(**VARIANTS[name])
    found = copying_scores(model)
    layers = [i for i, kind in enumerate(model.config.blocks) if "a" in kind]
    assert found.shape == (len(layers), model.config.n_heads)
    for row, layer in enumerate(layers):
        for head in range(model.config.n_heads):
            values = torch.linalg.eigvals(ov_circuit(model, (layer, head)).AB)
            # The 61 x 61 matrix has eigenvalues of 1e-16 of the largest where it should have zeros.
            assert found[row, head] == pytest.approx(float(values.sum().real / values.abs().sum()), abs=1e-8)
    assert (np.abs(found) <= 1 + 1e-12).all()


def test_the_ov_circuit_is_what_a_head_adds_to_the_logits():
    """Without norms and biases: a token attended to alone, through value, output and unembedding."""
    model = build(norm="none", layout="a", qkv_bias=False, out_bias=False, positions="none", tied=False)
    tokens = torch.arange(61)[:, None]
    _, cache = model.run_with_cache(tokens, names_filter=["blocks.0.attn.hook_result"])
    for head in range(4):
        direct = cache["blocks.0.attn.hook_result"][:, 0, head] @ model.unembed_weight.T
        torch.testing.assert_close(ov_circuit(model, (0, head)).AB, direct)


def test_the_qk_circuit_is_the_score_of_two_tokens():
    model = build(norm="none", layout="a", qkv_bias=False, positions="none", attention_scale=3.0)
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    _, cache = model.run_with_cache(pairs, names_filter=["blocks.0.attn.hook_attn_scores"])
    for head in range(4):
        scores = (
            cache["blocks.0.attn.hook_attn_scores"][:, head, 1, 0].view(8, 8).T
        )  # key first, query second
        torch.testing.assert_close(qk_circuit(model, (0, head)).AB[:8, :8], scores)


@pytest.mark.parametrize("name", ["default", "llama-like", "elc-like", "default / norm_place=normformer"])
def test_gains_and_centring_are_in_the_circuits(name):
    """Reading a vector through the norm is the folded map times the frozen denominator."""
    model = build(**VARIANTS[name])
    block = model.blocks[0]
    x = model.embed.complete(model.embed.W_E[None])[0].detach()
    read = block.ln1(x) - (block.ln1.b if hasattr(block.ln1, "b") else 0)
    scale = (x - x.mean(-1, keepdim=True) if hasattr(block.ln1, "b") else x).pow(2).mean(-1, keepdim=True)
    value = read @ block.attn.W_V[1] * (scale + block.ln1.eps).sqrt()
    torch.testing.assert_close(ov_circuit(model, "L0H1").A, value.detach())


def test_the_readout_of_a_final_norm_is_linear_but_for_its_denominator():
    model = build()
    x = torch.randn(5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact = layer_norm(x, (32,)) * model.ln_final.w @ model.readout_weight.T
    scale = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(x @ _readout(model) / scale, exact.detach())


def test_pairs_among_some_tokens():
    circuit, among = ov_circuit(build(), "L1H2"), [3, 11, 40]
    found = top_pairs(circuit, 9, among=among)
    assert set(found.rows) == set(found.columns) == set(among)
    np.testing.assert_allclose(found.values, circuit.AB[found.rows, found.columns].numpy())
    assert (np.diff(found.values) <= 0).all()


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_top_pairs_are_those_of_the_whole_matrix(largest, chunk):
    circuit = ov_circuit(build(), "L1H2")
    found = top_pairs(circuit, 25, largest=largest, chunk=chunk)
    whole = circuit.AB.flatten()
    wanted = whole.sort(descending=largest).values[:25]
    np.testing.assert_allclose(found.values, wanted, rtol=1e-12)
    np.testing.assert_allclose(circuit.AB[found.rows, found.columns], wanted, rtol=1e-12)
    assert found.to_frame().row_token.tolist() == [str(row) for row in found.rows]
    assert len(top_pairs(circuit, 10**6, chunk=chunk).values) == 61 * 61


def test_tokens_are_named(tokenizer):
    frame = top_pairs(qk_circuit(build(d_vocab=len(tokenizer)), "L0H0"), 3, tokenizer=tokenizer).to_frame()
    assert frame.row_token[0] == tokenizer.decode([frame.row[0]])


def test_the_plot_of_pairs(tokenizer):
    pytest.importorskip("matplotlib").use("Agg")
    found = top_pairs(ov_circuit(build(d_vocab=len(tokenizer)), "L0H0"), 5, tokenizer=tokenizer)
    ax = found.plot().axes[0]
    assert [bar.get_width() for bar in ax.patches] == found.values.tolist()
    assert ax.get_yticklabels()[0].get_text() == f"{found.row_labels[0]!r} → {found.column_labels[0]!r}"


def test_a_planted_head_copies_in_its_pairs():
    found = top_pairs(ov_circuit(planted(), "L1H2"), 26)
    assert (found.rows == found.columns).all()
    assert sorted(found.rows) == list(range(26))
    assert found.values == pytest.approx(1.0)


@pytest.mark.parametrize("name", EVERY)
def test_composition_is_that_of_the_whole_matrices(name):
    model = build(**VARIANTS[name])
    found = composition(model, draws=2)
    maps = [{k: w.detach() for k, w in head_maps(model, layer).items()} for layer in found.layers]
    ov = [one["V"] @ one["O"] for one in maps]
    qk = [one["Q"] @ one["K"].mT for one in maps]
    for a in range(len(maps)):
        for b in range(len(maps)):
            if a >= b:
                assert np.isnan(found.value[:, a, :, b]).all()
                continue
            for kind, second in zip(COMPOSITIONS, (qk[b], qk[b].mT, ov[b]), strict=True):
                for i in range(model.config.n_heads):
                    for j in range(model.config.n_heads):
                        wanted = (ov[a][i] @ second[j]).norm() / (ov[a][i].norm() * second[j].norm())
                        assert found.value[COMPOSITIONS.index(kind), a, i, b, j] == pytest.approx(
                            float(wanted), rel=1e-9
                        )


def test_composition_finds_the_planted_pair():
    frame = composition(planted()).to_frame()
    assert len(frame) == 3  # of the heads that are not zero: one pair, three kinds
    assert frame.kind[0] == "K"
    # The two maps fit wholly, as far as a norm can say so: one direction of 26 each.
    assert frame["value"][0] == pytest.approx(1 / np.sqrt(26))
    assert frame["value"][0] > frame.random_high[0]
    assert frame["value"][1:].tolist() == [0, 0]


def test_the_plot_of_composition():
    pytest.importorskip("matplotlib").use("Agg")
    axes = composition(build(n_layers=3), draws=3).plot().axes[:3]
    assert [ax.get_title()[:13] for ax in axes] == ["Q-composition", "K-composition", "V-composition"]
    written, read = (
        [label.get_text() for label in labels]
        for labels in (axes[0].get_yticklabels(), axes[0].get_xticklabels())
    )
    assert written == [f"L{i}H{j}" for i in (0, 1) for j in range(4)]
    assert read == [f"L{i}H{j}" for i in (1, 2) for j in range(4)]
    assert composition(build(n_layers=1), draws=3).plot().axes


def test_permuting_heads_permutes_composition():
    a = composition(planted(), draws=2).value[1, 0]
    b = composition(planted(previous=2, induction=0), draws=2).value[1, 0]
    assert a[1, 1, 2] == b[2, 1, 0] > 0


def test_the_random_baseline():
    """The mean square of two maps turned against each other is 1 / d_model; random heads are so."""
    model = build(d_model=48, n_heads=4)
    found = composition(model, draws=400)
    # The standard error of the mean of 400 is half a percent.
    np.testing.assert_allclose(found.random, 48**-0.5, rtol=0.03)
    assert (found.random_high > found.random).all()
    again = composition(model, draws=400)
    assert (found.random == again.random).all()


def test_heads_that_are_not_there():
    with pytest.raises(InputError, match="L0H4 is out of range; block 0 has L0H0 to L0H3"):
        ov_circuit(build(), (0, 4))
    with pytest.raises(InputError, match="block 0 has no attention; blocks with one: L1"):
        qk_circuit(build(layout="mam"), "L0H0")
    with pytest.raises(InputError, match="Expected one head, such as L1H2; found L0 MLP"):
        ov_circuit(build(), "L0 MLP")
    with pytest.raises(InputError, match="layout is mm"):
        copying_scores(build(layout="mm"))
