"""Attribution of every architecture: the parts sum, and each is what a linearised model gives by autograd."""

import numpy as np
import pytest
import torch
from small_models import SINGLE, VARIANTS, build, marked

from workbench.interp.attribution import attribute_pair, attribute_text
from workbench.interp.components import list_components
from workbench.interp.contributions import EMBEDDINGS, decompose, record_outputs

GOOD, BAD = "The cat likes the ball.", "The cats like the"
# Sums in float64 over some 20 parts of order 10, and a path integral complete to 1e-12.
EXACT = 1e-9


@pytest.fixture
def variant(request, tokenizer):
    return build(**VARIANTS[request.param] | {"d_vocab": len(tokenizer)})


every = pytest.mark.parametrize("variant", marked(VARIANTS), indirect=True)
single = pytest.mark.parametrize("variant", SINGLE, indirect=True)


@torch.no_grad()
def plain_log_probs(model, found):
    """log p of each scored token, from all logits of a plain run."""
    logits = model(torch.from_numpy(found.contexts))[found.rows, found.places]
    return logits.log_softmax(-1)[torch.arange(len(found.ids)), found.ids].numpy()


@every
def test_parts_sum_to_the_log_probability(variant, tokenizer):
    found = attribute_pair(variant, GOOD, BAD, tokenizer=tokenizer)
    for side in (found.good, found.bad):
        np.testing.assert_allclose(side.log_probs, plain_log_probs(variant, side), rtol=0, atol=EXACT)
        assert np.abs(side.rest).max() < EXACT
    assert abs(found.rest) < EXACT
    assert abs(found.rest_at_place) < EXACT
    assert np.isfinite(found.whole).all()


@every
def test_each_part_is_the_gradient_of_a_linearised_model(variant):
    """What every module wrote is made a leaf, so that none reads another; norms' denominators and the ratio
    of the head's activation are constants. What is left is linear in the leaves."""
    tokens = torch.randint(variant.config.d_vocab, (2, 7), generator=torch.Generator().manual_seed(0))
    rows, places = torch.tensor([0, 0, 1]), torch.tensor([2, 6, 4])
    leaves, pre = {}, []

    def leaf(value, hook):
        leaves[hook.name] = value.detach().clone().requires_grad_()
        return leaves[hook.name]

    def constant(value, hook):
        return value.detach()

    def ratio(post, hook):
        return pre[0] * (post / pre[0]).detach()

    hooks = [
        (lambda name: name.endswith((*EMBEDDINGS.values(), "hook_z", "hook_mlp_out")), leaf),
        (lambda name: name.endswith("hook_scale"), constant),
        ("mlm_head.hook_pre", lambda value, hook: pre.append(value)),
        ("mlm_head.hook_post", ratio),
    ]
    known = [(name, hook) for name, hook in hooks if callable(name) or name in variant.hook_dict]
    with variant.hooks(fwd_hooks=known):
        final = variant.residual(tokens)[rows, places]
    direction = torch.randn(final.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parts = record_outputs(variant, tokens, rows, places)
    torch.testing.assert_close(parts.final, final.detach(), rtol=0, atol=1e-10)  # the same sums, once fused
    found = decompose(variant, parts, direction)[1]
    columns = {
        part.label: column
        for part, column in zip(
            list_components(variant.config, embeddings=True, biases=True), found.T, strict=True
        )
    }

    for index, row in enumerate(rows):
        total = (final[index] * direction[index]).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()), retain_graph=True)
        products = {
            name: (leaf * gradient)[row, places[index]].detach()
            for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
        }
        wanted = {}
        for name, product in products.items():
            layer = name.split(".")[1] if name.startswith("blocks.") else ""
            if name.endswith("hook_z"):
                wanted |= {f"L{layer}H{head}": part for head, part in enumerate(product.sum(-1))}
            elif name.endswith("hook_mlp_out"):
                bias = variant.blocks[int(layer)].mlp.b_out
                slope = gradients[list(leaves).index(name)][row, places[index]]
                wanted[f"L{layer} MLP"] = product.sum() - (0 if bias is None else (bias * slope).sum())
            else:
                wanted[next(label for label, hook in EMBEDDINGS.items() if hook == name)] = product.sum()
        wanted["biases"] = total - sum(wanted.values())
        assert wanted.keys() == columns.keys()
        for label, value in wanted.items():
            assert columns[label][index].item() == pytest.approx(value.item(), abs=EXACT), label


@single
def test_a_silenced_writer_has_an_empty_column_and_no_other_does(variant, tokenizer):
    labels = [part.label for part in list_components(variant.config, embeddings=True, biases=True)]
    silent = set()
    with torch.no_grad():
        for index, block in enumerate(variant.blocks):
            if block.attn is not None:
                block.attn.W_O[1 % variant.config.n_heads].zero_()
                silent.add(f"L{index}H{1 % variant.config.n_heads}")
                break
        else:
            variant.blocks[0].mlp.out_weight.zero_()
            silent.add("L0 MLP")
    if variant.config.sharing in ("all", "attention"):
        silent = {label for label in labels if label.endswith("H1")}
    found = attribute_text(variant, GOOD, tokenizer=tokenizer)
    empty = {label for label, column in zip(labels, found.contributions.T, strict=True) if not column.any()}
    none = (
        {"biases"}
        if not any(name.endswith(("b", "bias", "b_out")) for name in variant.state_dict())
        else set()
    )
    assert empty - none == silent
    assert np.abs(found.rest).max() < EXACT


def test_the_bias_of_the_unembedding_goes_to_the_biases(tokenizer):
    model = build(d_vocab=len(tokenizer), unembed_bias=True)
    before = attribute_pair(model, "The cat", "The dog", tokenizer=tokenizer)
    with torch.no_grad():
        model.unembed_bias[before.good.ids[before.place]] += 3.0
    after = attribute_pair(model, "The cat", "The dog", tokenizer=tokenizer)
    assert after.same_context
    moved = after.at_place - before.at_place
    assert moved[-1] == pytest.approx(3.0, abs=EXACT)
    np.testing.assert_allclose(moved[:-1], 0, atol=EXACT)


def test_layer_weights_that_leave_out_a_block_leave_out_its_writers(tokenizer):
    model = build(d_vocab=len(tokenizer), n_layers=3, residual="weighted")
    with torch.no_grad():
        model.blocks[2].mix.logits.copy_(torch.tensor([0.0, -1e4, 0.0, 0.0]))
    found = attribute_text(model, GOOD, tokenizer=tokenizer)
    columns = dict(zip([part.label for part in found.components], found.contributions.T, strict=True))
    assert not columns["L0H0"].any()
    assert not columns["L0 MLP"].any()
    assert all(columns[label].any() for label in ("embed", "L1H0", "L2 MLP", "biases"))


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        (dict(layout="mam"), ["L0 MLP", "L1H0", "L1H1", "L1 MLP"]),
        (dict(layout="aa"), ["L0H0", "L0H1", "L1H0", "L1H1"]),
        (dict(layout="mm", positions="none"), ["L0 MLP", "L1 MLP"]),
        (dict(layout="(am)a"), ["L0H0", "L0H1", "L0 MLP", "L1H0", "L1H1"]),
    ],
)
def test_components_are_what_the_layout_has(fields, labels, tokenizer):
    model = build(d_vocab=len(tokenizer), n_heads=2, **fields)
    found = [part.label for part in list_components(model.config, embeddings=True, biases=True)]
    first = ["embed"] if fields.get("positions") == "none" else ["embed", "pos_embed"]
    assert found == [*first, *labels, "biases"]


@pytest.mark.parametrize("layout", ["aamm", "mm", "aa"])
def test_plots_leave_missing_parts_empty(layout, tokenizer):
    pytest.importorskip("matplotlib").use("Agg")
    model = build(d_vocab=len(tokenizer), layout=layout, positions="none")
    found = attribute_pair(model, GOOD, BAD, tokenizer=tokenizer)
    ax = found.plot().axes[0]
    inner = [part for part in found.components if part.layer is not None]
    assert len(ax.texts) == len(inner)
    assert ax.images[0].get_array().count() == len(inner)
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert names == [f"H{head}" for head in range(4)] * ("a" in layout) + ["MLP"] * ("m" in layout)
