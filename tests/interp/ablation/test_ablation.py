"""An ablated model is the model with those weights at zero, and afterwards it is itself again."""

import copy

import numpy as np
import pytest
import torch
from small_models import build

from workbench.errors import InputError
from workbench.evals import scoring as causal_scoring
from workbench.evals.protocols import ragged
from workbench.evals.scoring import MaskedRows, causal_log_probs, masked_log_probs
from workbench.interp.ablation import ablated, replacement
from workbench.interp.components import Component, find_components, list_components

EXACT = dict(rtol=0, atol=1e-12)  # float64: the same sums, perhaps in another order
MASK = 3
random = torch.Generator().manual_seed(5)
TOKENS = torch.randint(5, 60, (3, 9), generator=random)
REFERENCE = torch.randint(5, 60, (4, 12), generator=random)


def some(model):
    """A head, an MLP and some neurons, in different blocks where there are several."""
    config = model.config
    heads, mlps = list_components(config, mlps=False), list_components(config, heads=False)
    neurons = [Component(mlps[0].layer, "neuron", unit) for unit in (2, 7)]
    return [heads[1], heads[-1], heads[-2], mlps[-1], *neurons]


@torch.no_grad()
def without_weights(model, parts):
    """A copy in which what the parts write with is zero."""
    model = copy.deepcopy(model)
    for part in parts:
        block = model.blocks[part.layer]
        if part.kind == "head":
            width = model.config.value_width
            block.attn.out_weight[:, part.unit * width : (part.unit + 1) * width] = 0
        elif part.kind == "neuron":
            block.mlp.out_weight[:, part.unit] = 0
        else:
            block.mlp.out_weight.zero_()
            if block.mlp.b_out is not None:
                block.mlp.b_out.zero_()
    return model


@torch.no_grad()
def test_zero_ablation_is_zeroed_weights(model):
    parts = some(model)
    if model.config.sharing != "none":  # weights that all blocks have are zero in all of them
        parts = [part._replace(layer=layer) for part in parts for layer in range(model.config.n_layers)]
    with ablated(model, parts):
        found = model.residual(TOKENS)
    torch.testing.assert_close(found, without_weights(model, parts).residual(TOKENS), **EXACT)
    assert (found - model.residual(TOKENS)).abs().max() > 1e-3


@torch.no_grad()
def test_without_any_part_only_the_embedding_is_left(model):
    bare = copy.deepcopy(model)
    for block in bare.blocks:
        if block.attn is not None and block.attn.out_bias is not None:
            block.attn.out_bias.zero_()  # belongs to no head
    with ablated(bare, ["heads", "mlps"]):
        found, cache = bare.run_with_cache(TOKENS, names_filter=lambda name: "hook_" in name)
    written = [x for name, x in cache.items() if name.endswith(("hook_mlp_out", "hook_attn_out"))]
    if bare.config.norm_place == "normformer":
        written = [x for name, x in cache.items() if name.endswith("hook_mlp_out")]  # ln1_post has a bias
    assert all((x == 0).all() for x in written)
    if bare.config.norm_place == "pre" and bare.config.residual == "plain":
        embedding = cache["blocks.0.hook_resid_pre"]
        torch.testing.assert_close(found, bare.unembed(bare.final(embedding)), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_a_dead_head_is_missed_by_nobody(causal, how):
    dead = without_weights(causal, find_components(causal.config, "L1H2"))
    # The kernel is the same with and without hooks, and 0 * w is w * 0: equal to the bit.
    whole = dead(TOKENS)
    with ablated(dead, "L1H2", how, REFERENCE):
        assert torch.equal(dead(TOKENS), whole)
    with ablated(causal, "L1H2", how, REFERENCE):
        changed = causal(TOKENS)
    assert (changed - causal(TOKENS)).abs().max() > 1e-3


@torch.no_grad()
def test_the_mean_is_that_of_the_reference(model):
    parts = some(model)
    rows = [REFERENCE, TOKENS]
    names = {part.hook_name for part in parts}
    caches = [model.run_with_cache(tokens, names_filter=list(names))[1] for tokens in rows]
    class_of = type("Batch", (), {})
    batches = []
    for tokens in rows:
        batch = class_of()
        batch.tokens, batch.targets, batch.segments = tokens, torch.full_like(tokens, -100), None
        batches.append(batch)
    found = replacement(model, parts, "mean", batches)
    for part in parts:
        flat = torch.cat([cache[part.hook_name].flatten(0, 1) for cache in caches])
        own = flat if part.kind == "mlp" else flat[:, part.unit]
        torch.testing.assert_close(found.values[part], own.mean(0), **EXACT)
    with ablated(model, parts, "mean", found):
        _, cache = model.run_with_cache(TOKENS, names_filter=list(names))
    for part in parts:
        seen = cache[part.hook_name]
        seen = seen if part.kind == "mlp" else seen[:, :, part.unit]
        assert torch.equal(seen, found.values[part].expand(seen.shape))


@torch.no_grad()
def test_padding_is_not_in_the_mean(causal, tokenizer):
    model = copy.deepcopy(causal)
    model.tokenizer = tokenizer
    stories = ["The cat likes the ball.", "Tom ran home."]
    both = replacement(model, "L1H0", "mean", stories)
    rows = [
        [tokenizer.bos_token_id, *tokenizer.encode(s, add_special_tokens=False), tokenizer.eos_token_id]
        for s in stories
    ]
    z = [model.run_with_cache(torch.tensor([row]))[1]["blocks.1.attn.hook_z"][0, :, 0] for row in rows]
    torch.testing.assert_close(both.values[Component(1, "head", 0)], torch.cat(z).mean(0), **EXACT)


@torch.no_grad()
def test_resampling_puts_in_another_sequence_position_by_position(model):
    parts = some(model)
    names = list({part.hook_name for part in parts})
    _, donors = model.run_with_cache(REFERENCE, names_filter=names)
    drawn = set()
    for seed in range(6):
        with ablated(model, parts, "resample", REFERENCE, seed):
            _, cache = model.run_with_cache(TOKENS, names_filter=names)
        rows = []
        for part in parts:
            pick = (lambda x: x) if part.kind == "mlp" else (lambda x, unit=part.unit: x[:, :, unit])
            seen, given = pick(cache[part.hook_name]), pick(donors[part.hook_name])[:, : TOKENS.shape[1]]
            near = [all(torch.allclose(row, donor, **EXACT) for row in seen) for donor in given]
            rows.append(near.index(True))
        assert len(set(rows)) == 1, "all parts come from one donor"
        drawn.add(rows[0])
    assert len(drawn) > 1


@torch.no_grad()
def test_donors_go_on_where_one_ends_and_then_are_refused(causal, tokenizer):
    model = copy.deepcopy(causal)
    model.tokenizer = tokenizer
    stories = ["Tom ran home.", "The girls that helped the boy are happy."]
    given = [replacement(model, "L0H0", "resample", stories, seed) for seed in range(8)]
    longest = model.to_tokens(stories).shape[1] + 1
    assert {one.places for one in given} == {longest}
    assert len({float(one.values[Component(0, "head", 0)][1].sum()) for one in given}) > 1
    with (
        ablated(model, "L0H0", "resample", given[0]),
        pytest.raises(InputError, match=f"has {longest} tokens"),
    ):
        model(torch.full((1, longest + 1), 7))
    assert not model.has_listeners()


@torch.no_grad()
@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_scoring_sees_the_ablated_model(model, how, monkeypatch):
    """A prefix tree, or masked copies, give what plain forwards of single rows give."""
    monkeypatch.setattr(causal_scoring, "BLOCK", 6)
    monkeypatch.setattr(causal_scoring, "SLACK", 2)
    rows = [row[: 5 + index].tolist() for index, row in enumerate(TOKENS)]
    rows += [[*rows[0][:3], 9, 8], [*rows[2][:6], 5]]
    parts = some(model)
    with ablated(model, parts, how, REFERENCE):
        if model.config.objective == "clm":
            logits = [model(torch.tensor([row]))[0].log_softmax(-1) for row in rows]
            wanted = [
                sum(float(p[i, t]) for i, t in enumerate(row[1:]))
                for p, row in zip(logits, rows, strict=True)
            ]
            found = causal_log_probs(model, ragged(rows))
        else:
            wanted = []
            for row in rows:
                copies = torch.tensor([row] * len(row))
                copies.fill_diagonal_(MASK)
                log_probs = [model(one[None])[0].log_softmax(-1) for one in copies]
                wanted.append(
                    sum(float(p[i, t]) for (i, t), p in zip(enumerate(row), log_probs, strict=True))
                )
            every = ragged(rows)
            masked = MaskedRows(every, np.ones(len(every.ids), bool), np.arange(len(every.ids)))
            found = masked_log_probs(model, masked, MASK, "original")
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_a_cached_run_is_a_whole_run(causal, how):
    with ablated(causal, some(causal), how, REFERENCE):
        whole = causal(TOKENS)
        cache = causal.new_cache(len(TOKENS))
        steps = [causal(TOKENS[:, at : at + 1], past_kv_cache=cache) for at in range(TOKENS.shape[1])]
    torch.testing.assert_close(torch.cat(steps, 1), whole, **EXACT)


def test_generation_is_the_ablated_models(causal, tokenizer):
    model = copy.deepcopy(causal)
    model.tokenizer = tokenizer
    options = dict(max_new_tokens=6, temperature=0.0)
    with ablated(model, "heads"):
        found = model.generate("The cat", **options)
    bare = without_weights(model, list_components(model.config, mlps=False))
    assert found == bare.generate("The cat", **options)
    assert found != model.generate("The cat", **options)


@torch.no_grad()
def test_packed_stories_are_each_alone(causal):
    packed = torch.cat([TOKENS[0], TOKENS[1]])[None]
    segments = torch.tensor([[0] * 9 + [1] * 9])
    for how in ("zero", "mean", "resample"):
        with ablated(causal, some(causal), how, REFERENCE):
            alone = causal(TOKENS[:2]).flatten(0, 1)
            torch.testing.assert_close(causal(packed, segments=segments)[0], alone, **EXACT)


@torch.no_grad()
def test_hooks_go_and_only_they(causal):
    before = causal(TOKENS)
    for how in ("zero", "mean", "resample"):
        with pytest.raises(InputError, match="context"), ablated(causal, some(causal), how, REFERENCE):
            causal(torch.full((1, 99), 5))
        assert not causal.has_listeners()
        assert not any(block._forward_pre_hooks for block in causal.blocks)
        assert torch.equal(causal(TOKENS), before)
    mine = causal.hook_dict["blocks.0.attn.hook_z"].add_hook(lambda x, hook: None, is_permanent=True)
    try:
        with ablated(causal, "L0H1"):
            with ablated(causal, "L0H2"):
                inner = causal(TOKENS)
            causal.reset_hooks()  # takes temporary hooks only
            outer = causal(TOKENS)
        assert causal.hook_dict["blocks.0.attn.hook_z"].fwd_hooks == [mine]
    finally:
        causal.reset_hooks(including_permanent=True)
    with ablated(causal, "L0H1"):
        assert torch.equal(causal(TOKENS), outer)
    with ablated(causal, ["L0H1", "L0H2"]):
        assert torch.equal(causal(TOKENS), inner)
    with ablated(causal, ()):
        assert torch.equal(causal(TOKENS), before)


def test_parts_have_the_names_of_components(model):
    config = model.config
    labels = [
        part.label for part in list_components(config, embeddings=True, biases=True) if part.layer is not None
    ]
    assert [part.label for part in list_components(config)] == labels
    assert find_components(
        config,
        [part for part in list_components(config, embeddings=True, biases=True) if part.layer is not None],
    ) == list_components(config)
    assert find_components(config, ", ".join(labels)) == list_components(config)
    assert find_components(config, ["heads", "mlps"]) == list_components(
        config, mlps=False
    ) + list_components(config, heads=False)
    neuron = Component(list_components(config, heads=False)[0].layer, "neuron", 17)
    assert find_components(config, [neuron.label, neuron]) == (neuron,)
    assert find_components(config, neuron.label.lower()) == (neuron,)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("L0H9", "L0H9 is out of range; block 0 has L0H0 to L0H3"),
        ("L0N48", "block 0 has L0N0 to L0N47"),
        ("L2H0", "the model has blocks L0 to L1"),
        ("L0 MPL", "Unknown head, MLP or neuron 'L0 MPL'. Did you mean 'L0 MLP'"),
        ("the third head", "Heads are named L0H1"),
        (["L0H1", 7], "Unknown head, MLP or neuron '7'"),
    ],
)
def test_parts_that_are_not_there(causal, named, words):
    with (
        pytest.raises(InputError, match=words.replace("'7'", ".7.").replace("(", r"\(")),
        ablated(causal, named),
    ):
        pass


def test_a_block_without_attention_has_no_head():
    config = build(layout="mam").config
    with pytest.raises(InputError, match="L0H1: block 0 has no attention; blocks with one: L1"):
        find_components(config, "L0H1")


def test_ways_and_references_that_do_not_do(causal):
    for options, words in [
        (dict(how="meen"), "Unknown ablation 'meen'. Did you mean 'mean'"),
        (dict(how="mean", reference=torch.full((1, 5), 10**6)), "token ids run from"),
        (dict(how="mean", reference=torch.ones(1, 99, dtype=torch.int64)), "99 tokens, the context is 24"),
        (dict(how="mean", reference=["Some text."]), "no tokenizer"),
        (dict(how="mean", reference=[]), "the text is empty"),
        (dict(how="resample", reference=REFERENCE[:1]), "only one sequence to resample from"),
        (dict(how="mean", reference=replacement(causal, "L0H0", "mean", REFERENCE)), "no values for L1H1"),
    ]:
        with pytest.raises(InputError, match=words), ablated(causal, "L1H1", **options):
            pass
        assert not causal.has_listeners()
