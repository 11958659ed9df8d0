"""Examples of neurons are those that a naive reading of the whole text would keep, in any batches."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scored_models import small_model, small_tokenizer
from small_models import BASES, VARIANTS, build

from workbench.data.embedded.stories import stories
from workbench.errors import InputError
from workbench.interp import texts
from workbench.interp.components import SITES, layers_with
from workbench.interp.neurons.examples import neuron_examples
from workbench.interp.texts import IGNORED, TextBatch, text_batches

LAYOUTS = ["aamm", "(am)(am)", "mam", "ma(am)"]
FEW = [
    *BASES, *(f"default / layout={layout}" for layout in LAYOUTS), "default / mlp_depth=2", "default / gated=True",
    "default / activation=solu_ln", "default / norm_place=normformer",
]  # fmt: skip
NAMED = {name: VARIANTS[name] for name in FEW} | {"relu": {"activation": "relu"}}


def rows_of_ids(d_vocab, count=14, length=17, seed=0):
    return torch.randint(4, d_vocab, (count, length), generator=torch.Generator().manual_seed(seed))


def naive(model, batches, layers, specials=()):
    """Every activation that counts, by row: [[pos], [pos layer neuron], [tokens]]."""
    found = []
    for batch in batches:
        tokens = batch.tokens
        if model.config.objective == "mlm":
            tokens = torch.where(batch.targets == IGNORED, tokens, batch.targets)
        _, cache = model.run_with_cache(tokens, attention_mask=batch.real, segments=batch.segments)
        x = torch.stack([cache[SITES["neuron"].hook_name(layer)] for layer in layers], 2)
        for row in range(len(tokens)):
            counts = torch.ones_like(tokens[row], dtype=torch.bool) if batch.real is None else batch.real[row]
            counts = counts & ~torch.isin(tokens[row], torch.tensor(sorted(specials), dtype=torch.int64))
            places = counts.nonzero()[:, 0]
            found.append((places.numpy(), x[row, places].detach().numpy(), tokens[row].tolist()))
    return found


def check(found, seen, count, alike):
    """Against the definition, neuron by neuron."""
    together = np.concatenate([values for _, values, _ in seen])
    assert found.tokens == len(together)
    assert found.n_rows == sum(len(places) > 0 for places, _, _ in seen)
    np.testing.assert_allclose(found.mean, together.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.std, together.std(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found.active, (together > 0).mean(0))
    np.testing.assert_allclose(found.max, together.max(0), rtol=1e-12)
    for layer, neuron in np.ndindex(found.mean.shape):
        numbers = together[:, layer, neuron].astype(np.float32).astype(float)
        expected, _ = np.histogram(numbers[numbers >= 0], found.edges)
        negative, _ = np.histogram(-numbers[numbers < 0], found.edges)  # (-b, -a] where positive is [a, b)
        np.testing.assert_array_equal(found.histogram[layer, neuron], expected + negative[::-1])
        best = []
        for row, (places, values, tokens) in enumerate(seen):
            if len(places):
                at = int(values[:, layer, neuron].argmax())
                pos = int(places[at])
                key = tuple(tokens[max(0, pos - alike + 1) : pos + 1]) if alike else row
                best.append((-values[at, layer, neuron], row, pos, key))
        best.sort(key=lambda one: one[:2])
        kept, keys = [], set()
        for one in best:
            if one[3] not in keys:
                keys.add(one[3])
                kept.append(one)
        kept = kept[:count]
        top = found.top_row[layer, neuron]
        assert top[: len(kept)].tolist() == [one[1] for one in kept]
        assert found.top_pos[layer, neuron][: len(kept)].tolist() == [one[2] for one in kept]
        np.testing.assert_allclose(
            found.top_value[layer, neuron][: len(kept)], [-one[0] for one in kept], rtol=1e-9, atol=1e-12
        )
        assert (top[len(kept) :] == -1).all()
        assert (found.top_value[layer, neuron][len(kept) :] == -math.inf).all()
    values = {
        (row, pos): x for row, (places, xs, _) in enumerate(seen) for pos, x in zip(places, xs, strict=True)
    }
    drawn = list(zip(found.sample_row.tolist(), found.sample_pos.tolist(), strict=True))
    assert len(set(drawn)) == len(drawn)
    for where, x in zip(drawn, found.sample_value, strict=True):
        np.testing.assert_allclose(x, values[where], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMED)
def test_all_statistics_and_examples_are_the_naive_ones(name, unchecked):
    model = build(**NAMED[name] | {"d_mlp": 12})
    layers = layers_with(model.config, SITES["neuron"])
    text = rows_of_ids(model.config.d_vocab)
    found = neuron_examples(model, text, count=3, sample=50)
    assert found.layers == tuple(layers)
    check(found, naive(model, text_batches(model, text), layers), 3, alike=8)


def test_padded_stories_segments_and_specials_are_read_as_they_stand(unchecked):
    model = small_model(init_std=0.1, d_mlp=24).double()
    specials = set(small_tokenizer().all_special_ids)
    told = stories(9, seed=5)
    found = neuron_examples(model, told, count=4, sample=40, alike=0)
    # One story at a time, so that nothing is padded.
    seen = naive(model, [batch for one in told for batch in text_batches(model, one)], [0, 1], specials)
    check(found, seen, 4, alike=0)
    packed = rows_of_ids(600, 6, 20)
    packed[:, 7], packed[:, 8] = 2, 1  # the end of a story and the start of the next
    segments = (torch.arange(20) >= 8).long().expand(6, -1)
    batch = TextBatch(packed, torch.full_like(packed, IGNORED), segments)
    found = neuron_examples(model, [batch], count=4, sample=40)
    check(found, naive(model, [batch], [0, 1], specials), 4, alike=8)
    assert found.tokens == 6 * 18
    row = found.rows[int(found.top_row[0, 0, 0])]
    assert row.segments is not None
    assert row.tokens[7] == 2


def test_a_masked_model_reads_text_with_nothing_hidden(unchecked):
    model = small_model(init_std=0.1, d_mlp=16, attention="bidirectional").double()
    assert model.config.objective == "mlm"
    told = stories(5, seed=5)
    batches = text_batches(model, told, seed=3)
    hidden = sum(int((batch.tokens == 3).sum()) for batch in batches)
    assert hidden > 5
    found = neuron_examples(model, told, count=4, sample=40, alike=0, seed=3)
    assert all((row.tokens != 3).all() for row in found.rows.values())
    assert found.tokens == sum(
        len(small_tokenizer().encode(one, add_special_tokens=False)[:95]) for one in told
    )


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_batches_change_nothing(batch, unchecked, monkeypatch):
    model = small_model(init_std=0.1, d_mlp=24).double()
    told = stories(12, seed=2)
    expected = neuron_examples(model, told, count=5, sample=64)
    monkeypatch.setattr(texts, "TOKENS_PER_FORWARD", 96 * batch)
    monkeypatch.setattr("workbench.interp.neurons.examples.BLOCK", 5)
    found = neuron_examples(model, iter(told), count=5, sample=64)
    for name in ("top_row", "top_pos", "sample_row", "sample_pos", "active", "histogram"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("top_value", "sample_value", "mean", "std"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-12)


def test_ties_go_to_the_earlier_row_and_the_first_position(unchecked):
    model = build(activation="relu")
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.in_weight.zero_()
            block.mlp.b_in.fill_(0.5)
    found = neuron_examples(model, rows_of_ids(61, 14), count=3, alike=0)
    assert (found.top_row == np.arange(3)).all()
    assert (found.top_pos == 0).all()
    assert (found.top_value == 0.5).all()
    assert (found.std == 0).all()
    order = [5, 2, 9]
    batches = [TextBatch(row[None], torch.full_like(row[None], IGNORED)) for row in rows_of_ids(61)[order]]
    assert (neuron_examples(model, iter(batches), count=2, alike=0).top_row == np.arange(2)).all()


def test_of_passages_that_read_alike_only_the_best_is_kept(unchecked):
    model = build()
    text = rows_of_ids(61, 10)
    text = torch.cat([text, text])
    whole = neuron_examples(model, text, count=10, alike=0)
    assert (np.diff(np.sort(whole.top_row % 10), axis=-1) == 0).any()  # both copies of a row
    found = neuron_examples(model, text, count=10)
    for rows in found.top_row.reshape(-1, 10):
        kept = rows[rows >= 0]
        assert len(set(kept % 10)) == len(kept)
        assert (kept < 10).all()


def test_the_sample_is_uniform_and_depends_on_the_seed_alone(unchecked):
    model = build(n_layers=1, d_mlp=8)
    text = rows_of_ids(61, 100, 20)
    first, second = (neuron_examples(model, text, sample=300, seed=seed) for seed in (0, 1))
    assert set(zip(first.sample_row, first.sample_pos, strict=True)) != set(
        zip(second.sample_row, second.sample_pos, strict=True)
    )
    counts = np.zeros((100, 20))
    for seed in range(20):
        found = neuron_examples(model, text, sample=300, seed=seed)
        counts[found.sample_row, found.sample_pos] += 1
    spread = 20 * 0.15 * 0.85  # variance of a binomial: 20 draws of 15 %
    assert counts.mean() == 3
    assert counts.var() == pytest.approx(spread, rel=0.12)
    assert abs(counts.mean(0) - 3).max() < 4 * (spread / 100) ** 0.5
    assert abs(counts.mean(1) - 3).max() < 4 * (spread / 20) ** 0.5


def test_examples_of_each_strength_lie_in_their_quantiles(unchecked):
    model = build(d_mlp=8)
    text = rows_of_ids(61, 60, 20)
    found = neuron_examples(model, text, count=4, random=6, quantiles=(0, 0.5, 0.9, 1), sample=500)
    layer, neuron = found.part("L1N3")
    values = found.sample_value[:, layer, neuron]
    given = found.examples("L1N3", per_bin=5)
    kinds = pd.Series([one.kind for one in given])
    assert kinds.value_counts().to_dict() == {"top": 4, "random": 6, "0-50 %": 5, "50-90 %": 5, "90-100 %": 5}
    for one in given:
        if one.kind == "90-100 %":
            assert one.value >= np.quantile(values, 0.9)
        if one.kind == "0-50 %":
            assert one.value < np.quantile(values, 0.5)
        assert one.row in found.rows
    frame = found.to_frame()
    assert frame.component[8 + 3] == "L1N3"
    assert frame.q90[8 + 3] == np.quantile(values, 0.9)
    assert found.examples("l1n3", per_bin=5) == given
    assert found.examples((1, 3), per_bin=5) == given


def test_a_limit_stops_behind_the_row_that_reaches_it_and_rows_kept_do_not_grow(unchecked):
    model = build(d_mlp=4, n_layers=1)
    read = []

    def forever():
        for seed in range(10_000):
            read.append(seed)
            tokens = rows_of_ids(61, 8, 10, seed)
            yield TextBatch(tokens, torch.full_like(tokens, IGNORED))

    told = []
    found = neuron_examples(
        model,
        forever(),
        count=2,
        sample=16,
        tokens=6_010,
        progress=lambda *update: told.append(update),
    )
    assert found.tokens == 6_010
    assert found.n_rows == 601
    assert len(read) <= 77
    assert told[-1] == (1.0, "6,010 tokens")
    assert len(found.rows) <= 2 * 4 + 16
    whole = neuron_examples(
        model, torch.cat([rows_of_ids(61, 8, 10, seed) for seed in range(76)])[:601], count=2, sample=16
    )
    np.testing.assert_array_equal(found.top_row, whole.top_row)
    np.testing.assert_array_equal(found.sample_row, whole.sample_row)


def test_permuting_neurons_permutes_the_answer_and_a_dead_one_is_nothing(unchecked):
    model = build(d_mlp=12)
    text = rows_of_ids(61)
    before = neuron_examples(model, text, count=3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mlp = model.blocks[1].mlp
        for weight in (mlp.in_weight, mlp.b_in):
            weight.copy_(weight[order])
        mlp.out_weight.copy_(mlp.out_weight[:, order])
    after = neuron_examples(model, text, count=3)
    np.testing.assert_array_equal(after.top_row[1], before.top_row[1][order])
    np.testing.assert_allclose(after.mean[1], before.mean[1][order], rtol=1e-9)
    with torch.no_grad():
        mlp.in_weight[4] = 0
        mlp.b_in[4] = 0
    dead = neuron_examples(model, text, layers=[1])
    assert dead.layers == (1,)
    assert dead.mean[0, 4] == dead.std[0, 4] == dead.active[0, 4] == dead.max[0, 4] == 0


def test_hooks_go_and_half_precision_is_read_in_float32(unchecked):
    model = build().to(torch.bfloat16)
    found = neuron_examples(model, rows_of_ids(61))
    assert found.sample_value.dtype == np.float32
    assert not model.has_listeners()
    broken = build()
    with torch.no_grad():
        broken.blocks[1].mlp.in_weight[3, 0] = math.nan
    with pytest.raises(InputError, match="L1N3 has activations that are not finite"):
        neuron_examples(broken, rows_of_ids(61))
    assert not broken.has_listeners()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(layers=[0, 7]), "Block 7 has no neurons; blocks with neurons: 0, 1"),
        (dict(layers=[]), "No layer was given"),
        (dict(count=0), "count must be 1 or more; found 0"),
        (dict(random=-1), "random must be 0 or more"),
        (dict(tokens=0), "tokens must be 1 or more"),
        (dict(quantiles=(0.5, 0.1)), "quantiles must ascend from 0 to 1"),
        (dict(quantiles=(0, 2)), "quantiles must ascend"),
        (dict(text=[]), "The text is empty"),
        (dict(text="a story"), "no tokenizer"),
    ],
)
def test_bad_input_is_named(options, words, unchecked):
    options = {"text": rows_of_ids(61)} | options
    with pytest.raises(InputError, match=words):
        neuron_examples(build(), **options)


def test_models_and_texts_without_neurons_or_tokens_are_refused(unchecked):
    with pytest.raises(InputError, match="This model has no neuron"):
        neuron_examples(build(layout="aa"), rows_of_ids(61))
    with pytest.raises(InputError, match="nothing but special tokens"):
        neuron_examples(small_model(), torch.ones(2, 5, dtype=torch.int64))
    found = neuron_examples(build(), rows_of_ids(61), layers=[1])
    with pytest.raises(InputError, match="'L0N3' was not read; the neurons read are L1N0 to L1N47"):
        found.examples("L0N3")
    with pytest.raises(InputError, match="was not read"):
        found.examples(3)
