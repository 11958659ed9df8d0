"""Replays of edited runs equal whole runs with hooks, and so do their gradients."""

import pytest
import torch
from small_models import build
from test_patching import EXACT, MODELS

from workbench.errors import InputError
from workbench.interp import engine
from workbench.interp.components import find_site, layers_with
from workbench.interp.engine import CachedRun, Edit, activation_gradients
from workbench.interp.metrics import Function, LogitDifference

SITES = ("resid_pre", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "neuron")
LAST = torch.tensor([6, 4])


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return build(**MODELS[request.param])


@pytest.fixture(autouse=True)
def several_batches(monkeypatch, unchecked):
    monkeypatch.setitem(engine.TOKENS_PER_BATCH, "cpu", 60)


@pytest.fixture
def tokens():
    return torch.randint(4, 61, (2, 7), generator=torch.Generator().manual_seed(2))


def random_variants(model, tokens, count=12):
    """Variants of one to three edits of tensors, constants and functions, of all sites and layers."""
    random = torch.Generator().manual_seed(1)
    names = [
        find_site(name).hook_name(layer)
        for name in SITES
        for layer in layers_with(model.config, find_site(name))
    ]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens.flip(0), names_filter=names)

    def draw(limit):
        return int(torch.randint(limit, (), generator=random))

    variants = []
    for index in range(count):
        edits = []
        for _ in range(1 + index % 3):
            hook = names[draw(len(names))]
            x = cache[hook]
            unit = draw(x.shape[2]) if find_site(hook).unit and draw(2) else None
            own = x if unit is None or draw(2) else x[:, :, unit]
            value = (own, 0.5, lambda x: 2 * x)[draw(3)]
            edits.append(Edit(hook, value, draw(7) if draw(3) else None, unit))
        variants.append(edits)
    return variants


def with_hooks(model, tokens, edits, **inputs):
    """The stream behind the last block of one whole run with hooks."""

    def change(x, hook, edit):
        x, place = x.clone(), slice(None) if edit.pos is None else edit.pos
        at = (slice(None), place) if edit.unit is None else (slice(None), place, edit.unit)
        value = edit.value
        if isinstance(value, torch.Tensor):
            value = value[at] if value.ndim == x.ndim else value[:, place]
        x[at] = value(x[at]) if callable(value) else value
        return x

    hooks = [(edit.hook, lambda x, hook, edit=edit: change(x, hook, edit)) for edit in edits]
    with model.hooks(fwd_hooks=hooks):
        return model.stream(tokens, **inputs)


@torch.no_grad()
def test_variants_of_many_edits_equal_whole_runs(model, tokens):
    run, variants = CachedRun(model, tokens), [*random_variants(model, tokens), []]
    expected = torch.stack([with_hooks(model, tokens, edits) for edits in variants])
    torch.testing.assert_close(run.replay(variants), expected, rtol=0, atol=EXACT)
    rows = torch.arange(2)
    reads = run.replay(variants, LAST)[:, :, 0]
    torch.testing.assert_close(reads, expected[:, rows, LAST], rtol=0, atol=EXACT)
    at_one = LogitDifference(torch.tensor([5, 7]), torch.tensor([6, 8]), LAST)
    at_all = Function(lambda logits: logits[..., 5].sum(1), 2)
    for metric in (at_one, at_all):
        values = torch.stack([metric.of_stream(model, stream) for stream in expected])
        torch.testing.assert_close(run.measure(variants, metric), values, rtol=0, atol=1e-10)
    assert not model.has_listeners()


@pytest.mark.parametrize("site", ["resid_pre", "z", "k", "neuron"])
def test_gradients_of_replays(model, tokens, site):
    layer = layers_with(model.config, find_site(site))[0]
    hook = find_site(site).hook_name(layer)
    with torch.no_grad():
        run = CachedRun(model, tokens, keep=[hook])
    metric = LogitDifference(torch.tensor([5, 7]), torch.tensor([6, 8]), LAST)
    points = [run.kept[hook].mul(factor).requires_grad_() for factor in (0.5, 1.0)]
    value = run.measure([[Edit(hook, point)] for point in points], metric)
    found = torch.autograd.grad(value.sum(), points)
    for point, gradient in zip(points, found, strict=True):
        expected = metric.of_stream(model, with_hooks(model, tokens, [Edit(hook, point)]))
        torch.testing.assert_close(
            gradient, torch.autograd.grad(expected.sum(), point)[0], rtol=0, atol=EXACT
        )
    whole = activation_gradients(model, [hook], lambda x: metric.of_stream(model, x), tokens)
    torch.testing.assert_close(whole.gradients[hook], found[1], rtol=0, atol=EXACT)
    torch.testing.assert_close(whole.activations[hook], run.kept[hook], rtol=0, atol=EXACT)


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, dict(positions="rotary"), dict(positions="alibi"), MODELS["bert"]])
def test_rows_of_a_prefix_tree(fields, tokens):
    """Two endings of one beginning in one row see what each sees alone."""
    model = build(**fields)
    positions = torch.tensor([[0, 1, 2, 3, 4, 3, 4]]).expand(2, -1)
    branch = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    seen = (branch[:, None] == branch) | (branch == 0)
    if model.config.attention == "causal":
        seen &= torch.ones(7, 7, dtype=torch.bool).tril()
    mask = seen.expand(2, 1, 7, 7)
    run = CachedRun(model, tokens, positions=positions, mask=mask)
    variants = random_variants(model, tokens, 6)
    for edits, stream in zip(variants, run.replay(variants), strict=True):
        expected = with_hooks(model, tokens, edits, positions=positions, mask=mask)
        torch.testing.assert_close(stream, expected, rtol=0, atol=EXACT)


def test_edits_that_cannot_be_made_are_refused(tokens):
    model = build()
    run = CachedRun(model, tokens)
    for hook, words in (
        ("blocks.0.attn.hook_zz", "Unknown activation"),
        ("hook_embed", "hook point of a block"),
    ):
        with pytest.raises(InputError, match=words):
            run.replay([[Edit(hook, 0.0)]])
    pattern = Edit("blocks.1.attn.hook_pattern", 0.0)
    with pytest.raises(InputError, match="pattern"):
        run.replay([[Edit("blocks.0.hook_mlp_out", 0.0), pattern]])
