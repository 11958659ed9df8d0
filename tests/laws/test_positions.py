"""Position encodings and windows against what was published, one at a time."""

import math

import pytest
import torch
from law_tools import agree, differ
from small_models import build, configuration
from transformers.models.t5.modeling_t5 import T5Attention

from workbench.model.layers import Alibi, LearnedPositions, Rotary, SinusoidalPositions, T5Bias, alibi_slopes

F64 = torch.zeros((), dtype=torch.float64)


def test_alibi_slopes_as_published():
    """Press et al. 2022, section 3: for 8 heads 1/2, 1/4, ..., 1/256; for 16 heads every half power."""
    assert alibi_slopes(8) == [2.0**-power for power in range(1, 9)]
    assert alibi_slopes(16) == pytest.approx([2 ** (-power / 2) for power in range(1, 17)])


@pytest.mark.parametrize("n_heads", [1, 2, 3, 5, 6, 7, 12, 20, 24])
def test_alibi_slopes_as_in_the_authors_code(n_heads):
    """`get_slopes` of the ALiBi repository: a geometric series, and every second of the next one for the rest."""

    def series(n):
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    def get_slopes(n):
        if math.log2(n).is_integer():
            return series(n)
        closest = 2 ** math.floor(math.log2(n))
        return series(closest) + get_slopes(2 * closest)[0::2][: n - closest]

    assert alibi_slopes(n_heads) == pytest.approx(get_slopes(n_heads), rel=1e-12)


def test_alibi_falls_off_both_ways():
    distance = torch.tensor([[[-2, -1, 0, 1, 2]]])
    found = Alibi(configuration(positions="alibi", n_heads=2, attention="bidirectional"))(distance, F64)
    expected = -torch.tensor([[2.0, 1, 0, 1, 2]]) * torch.tensor([[2.0**-4], [2.0**-8]])
    agree(found[0, :, 0], expected.double())


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 12), (16, 100), (4, 9), (7, 20)])
def test_t5_buckets_are_those_of_hugging_face(attention, buckets, farthest):
    config = configuration(
        positions="t5", attention=attention, relative_buckets=buckets, relative_distance=farthest
    )
    distance = torch.arange(-200, 201)
    theirs = T5Attention._relative_position_bucket(
        -distance, bidirectional=attention == "bidirectional", num_buckets=buckets, max_distance=farthest
    )
    assert torch.equal(T5Bias(config)._bucket(distance), theirs)
    assert len(theirs.unique()) > buckets // 2


def test_sinusoidal_positions_as_published():
    """Vaswani et al. 2017: PE(p, 2i) = sin(p / 10000^(2i/d)), PE(p, 2i + 1) = cos of the same."""
    found = SinusoidalPositions(configuration(positions="sinusoidal", d_embed=6))(torch.arange(24)[None], F64)
    for place in (0, 1, 7, 23):
        for i in range(3):
            angle = place / 10000 ** (2 * i / 6)
            assert found[0, place, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-14)
            assert found[0, place, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-14)


def test_learned_positions_start_behind_the_offset():
    learned = LearnedPositions(configuration(position_offset=2))
    torch.nn.init.normal_(learned.W_pos)
    assert torch.equal(learned(torch.tensor([[0, 5]]), F64)[0], learned.W_pos[[2, 7]])


@pytest.mark.parametrize("adjacent", [False, True])
def test_rotary_keeps_lengths_and_sees_only_distances(adjacent):
    rotary = Rotary(configuration(positions="rotary", rotary_adjacent=adjacent, d_head=6))
    q, k = torch.randn(2, 1, 1, 1, 6, dtype=torch.float64)

    def product(a: int, b: int):
        return (rotary(q, torch.tensor([[a]])) * rotary(k, torch.tensor([[b]]))).sum()

    agree(product(7, 3), product(20, 16))
    differ(product(7, 3), product(7, 4))
    differ(product(7, 3), product(3, 7))
    agree(rotary(q, torch.tensor([[11]])).norm(), q.norm())
    pair = q.clone()
    pair[..., 2 if adjacent else 1 :] = 0
    pair[..., 1] = 0
    turned = rotary(pair, torch.tensor([[2]]))[0, 0, 0]
    partner = 1 if adjacent else 3
    agree(turned[partner], q[..., 0].squeeze() * math.sin(2))


def test_rotary_in_bfloat16_has_exact_angles():
    """Angles are made in float64, so that far positions of a bf16 model are not rounded to multiples of 8."""
    rotary = Rotary(configuration(positions="rotary", n_ctx=2000))
    x = torch.randn(1, 1, 1, 8)
    low, wide = (
        rotary(x.to(dtype), torch.tensor([[1999]])).float() for dtype in (torch.bfloat16, torch.float32)
    )
    assert (low - wide).abs().max() < 0.03 * x.abs().max()


@pytest.mark.parametrize("positions", ["learned", "rotary", "alibi", "t5", "shaw", "none"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@torch.no_grad()
def test_a_key_outside_the_window_counts_nothing(positions, attention):
    model = build(n_layers=1, windows=(4,), positions=positions, attention=attention)
    tokens = torch.randint(4, 61, (1, 20), generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[0, 8] = (tokens[0, 8] + 7) % 61
    before, after = model(tokens)[0], model(changed)[0]
    first = 8 if attention == "causal" else 5
    seen = torch.arange(first, 12)
    unseen = torch.tensor([place for place in range(20) if place not in seen])
    assert torch.equal(before[unseen], after[unseen])
    for place in seen:
        differ(before[place], after[place])


@torch.no_grad()
def test_windows_repeat_over_the_attention_modules():
    """Of three attention modules with windows 0, 3 the second alone is local, whatever stands between."""
    for layout in ("ama(am)", "amamam", "aammma"):
        model = build(layout=layout, windows=(0, 3))
        _, cache = model.run_with_cache(torch.randint(4, 61, (1, 10)))
        patterns = [value[0, 0] for name, value in cache.items() if name.endswith("hook_pattern")]
        seen = [int((pattern[9] > 0).sum()) for pattern in patterns]
        assert seen == [10, 3, 10][: len(patterns)]


@torch.no_grad()
def test_a_window_as_long_as_the_text_hides_nothing():
    tokens = torch.randint(4, 61, (2, 12))
    for attention in ("causal", "bidirectional"):
        whole = build(attention=attention)(tokens)
        assert torch.equal(build(attention=attention, windows=(12,))(tokens), whole)
        differ(build(attention=attention, windows=(11,))(tokens), whole)
