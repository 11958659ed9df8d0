"""Head scores find a planted circuit and nothing else, and are what their definitions say."""

import dataclasses
import weakref

import numpy as np
import pytest
import torch
from planted_heads import PLACES, VOCAB, planted
from small_models import SHAPE, VARIANTS, build, configuration
from transformer_lens.head_detector import detect_head

from workbench.errors import InputError
from workbench.interp.heads import copy_loss, head_scores
from workbench.model.transformer import HookedTransformer
from workbench.stats import derive

pytestmark = pytest.mark.usefixtures("unchecked")

ATTENDING = [
    "default", "llama-like", "gpt-neo-like", "gpt-j-like", "bert-like", "albert-like", "elc-like",
    "default / layout=mam", "default / n_key_value_heads=2", "default / windows=5,2", "default / positions=alibi",
    "default / positions=shaw", "default / d_value=12",
]  # fmt: skip


def texts(count=12, d_vocab=SHAPE["d_vocab"], length=20, seed=0):
    """Token ids with lengths that differ, from a few words so that they repeat."""
    random = np.random.default_rng(seed)
    return [
        [1, *random.integers(4, min(d_vocab, 24), random.integers(6, length)).tolist()] for _ in range(count)
    ]


@pytest.fixture(scope="module")
def circuit():
    return head_scores(
        planted(), texts(30, VOCAB, 25), punctuation=[4, 5], names=[6], unigram=np.ones(VOCAB), bos=1
    )


def test_a_planted_circuit_is_found_exactly(circuit):
    assert circuit.classes.tolist() == [["other", "previous", "other"], ["other", "other", "induction"]]
    # The softmax leaves exp(-60) to all other keys.
    assert circuit.of("previous")[0, 1] == pytest.approx(1.0, abs=1e-12)
    assert circuit.of("induction")[1, 2] == pytest.approx(1.0, abs=1e-12)
    assert circuit.of("duplicate")[1, 2] < 1e-12
    profile = circuit.profile.value[:, 0, 1]
    assert profile[circuit.offsets == 1] == pytest.approx(1.0, abs=1e-12)
    assert profile[circuit.offsets > 1] == pytest.approx(0.0, abs=1e-12)


def test_planted_copying(circuit):
    copying = circuit.copying
    assert copying[1, 2] == pytest.approx(1.0, abs=1e-12)  # writes each token onto itself
    assert copying[0, 1] == 0.0  # writes where the unembedding does not read
    assert (copying[:, 0] == 0).all()


def test_zero_heads_are_uniform_exactly(circuit):
    for row, layer in ((0, 0), (1, 0), (1, 1)):
        np.testing.assert_allclose(
            circuit.scores.value[:, row, layer], circuit.scores.uniform[:, row], rtol=1e-12, err_msg=f"{row}"
        )


@pytest.mark.parametrize(
    "name", ["default", "bert-like", "gpt-neo-like", "default / layout=mam", "default / windows=5,2"]
)
def test_the_uniform_expectation_is_the_score_without_queries(name):
    model = build(**VARIANTS[name])
    with torch.no_grad():
        for block in model.blocks:
            if block.attn is not None:
                width = block.attn.widths[0]
                block.attn.qkv_weight[:width] = 0
                if block.attn.qkv_bias is not None:
                    block.attn.qkv_bias[:width] = 0
    found = head_scores(model, texts(), punctuation=[4, 5], names=[6], unigram=np.ones(61), untrained=False)
    for measured in (found.scores, found.profile):
        wanted = np.broadcast_to(measured.uniform[:, :, None], measured.value.shape)
        np.testing.assert_allclose(measured.value, wanted, rtol=1e-12)
        possible = measured.queries > 0
        assert (~np.isnan(measured.uniform) == possible).all()
        assert possible.any()


@pytest.mark.parametrize("name", ATTENDING)
def test_an_untrained_model_has_no_classes(name):
    model = HookedTransformer(dataclasses.replace(configuration(**VARIANTS[name]), seed=5)).double().eval()
    found = head_scores(model, texts(), punctuation=[4, 5], names=[6], unigram=np.ones(61))
    assert (found.classes == "other").all()
    assert found.layers.tolist() == [i for i, kind in enumerate(model.config.blocks) if "a" in kind]


@pytest.mark.parametrize("name", ATTENDING)
def test_scores_are_what_a_loop_over_queries_gives(name):
    model = build(**VARIANTS[name])
    rows = texts(5)
    found = head_scores(model, rows, names=[6, 7], untrained=False, farthest=3)
    sums: dict = {}
    for row in rows:
        _, cache = model.run_with_cache(torch.tensor([row]))
        for at, layer in enumerate(found.layers):
            pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0]
            seen = cache[f"blocks.{layer}.attn.hook_attn_scores"][0, 0] > -np.inf
            for q in range(len(row)):
                keys = {
                    "previous": [q - 1], "next": [q + 1], "self": [q], "sink": [0] if q else [],
                    "same_word": [k for k in range(len(row)) if row[k] == row[q] and k != q],
                    "name": [k for k in range(len(row)) if row[k] in (6, 7) and k != q],
                }  # fmt: skip
                for score in set(keys) & set(found.names):
                    chosen = [k for k in keys[score] if 0 <= k < len(row) and seen[q, k]]
                    if chosen:
                        sums.setdefault((score, at), []).append(pattern[:, q, chosen].sum(-1))
    for (score, at), values in sums.items():
        np.testing.assert_allclose(
            found.of(score)[at], torch.stack(values).mean(0), rtol=1e-10, err_msg=score
        )
        assert found.scores.queries[found.index(score), at] == len(values)


@pytest.mark.parametrize("name", ["default", "bert-like", "gpt-neo-like"])
def test_batches_padding_and_masks_change_nothing(name):
    model, rows = build(**VARIANTS[name]), texts()
    one, many = (head_scores(model, iter(rows), batch=batch) for batch in (1, 7))
    padded = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row)
    lengths = torch.tensor([len(row) for row in rows])
    masked = head_scores(model, padded, mask=torch.arange(padded.shape[1]) < lengths[:, None])
    for other in (many, masked):
        for part in ("scores", "profile"):
            for field in dataclasses.fields(one.scores):
                a, b = (getattr(getattr(found, part), field.name) for found in (one, other))
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14, err_msg=field.name)
    assert (one.sequences, one.tokens) == (many.sequences, many.tokens) == (len(rows), sum(map(len, rows)))


@pytest.mark.parametrize("name", ["default", "bert-like"])
def test_intervals_contain_the_estimate_and_shrink(name):
    model = build(**VARIANTS[name])
    few, many = (head_scores(model, texts(count), names=[6]) for count in (8, 128))
    for found in (few, many):
        for part in (found.scores, found.profile):
            assert (part.low <= part.value).all()
            assert (part.value <= part.high).all()
    width = [(found.scores.high - found.scores.low)[found.index("previous")].mean() for found in (few, many)]
    # Sixteen times the sequences, a quarter of the width.
    assert 0.1 < width[1] / width[0] < 0.5
    assert width[1] > 0


def test_the_interval_is_that_of_sequences():
    """As wide as 1.96 standard errors of the ratio to each side."""
    model, rows = build(), texts(200)
    found = head_scores(model, rows, untrained=False, scores=["previous"])
    sums, counts = [], []
    for row in rows:
        _, cache = model.run_with_cache(torch.tensor([row]))
        pattern = cache["blocks.0.attn.hook_pattern"][0]
        sums.append(pattern.diagonal(-1, -2, -1).sum(-1).numpy())
        counts.append(len(row) - 1)
    sums, counts = np.array(sums), np.array(counts)[:, None]
    ratio = sums.sum(0) / counts.sum()
    error = np.sqrt(((sums - ratio * counts) ** 2).sum(0)) / counts.sum()
    half = (found.scores.high - found.scores.low)[0, 0] / 2
    # 500 replicates know a quantile to a tenth.
    np.testing.assert_allclose(half, 1.96 * error, rtol=0.2)


def test_one_sequence_tells_nothing_about_others():
    found = head_scores(planted(), texts(1, VOCAB), scores=["previous"])
    assert found.of("previous")[0, 1] == pytest.approx(1.0)
    assert (found.scores.low[0] == 0).all()
    assert (found.scores.high[0] == 1).all()
    assert (found.classes == "other").all()


def test_permuting_heads_permutes_the_answer():
    model, other = build(), build()
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for block in other.blocks:
            attn = block.attn
            for part in (attn.qkv_weight, attn.qkv_bias):
                heads = part.unflatten(0, (3, 4, -1))
                part.copy_(heads[:, order].flatten(0, 2))
            attn.out_weight.copy_(attn.out_weight.unflatten(1, (4, -1))[:, order].flatten(1))
    a, b = (head_scores(one, texts(), names=[6]) for one in (model, other))
    np.testing.assert_allclose(a.scores.value[..., order], b.scores.value, rtol=1e-9)
    np.testing.assert_allclose(a.profile.value[..., order], b.profile.value, rtol=1e-9)
    np.testing.assert_allclose(a.copying[:, order], b.copying, rtol=1e-9)
    assert (a.classes[:, order] == b.classes).all()


def test_transformer_lens_agrees(tokenizer):
    """Its measure averages over all rows of attention; on rows where each can match it is ours."""
    model = build(d_vocab=len(tokenizer))
    model.tokenizer = tokenizer
    text = "The cat likes the ball. The"
    tokens = model.to_tokens(text)
    queries = tokens.shape[1]
    found = head_scores(model, tokens, scores=["previous"], untrained=False)
    theirs = detect_head(model, text, "previous_token_head").numpy()
    # Theirs divides by all queries, the first included, which has no previous token.
    np.testing.assert_allclose(found.of("previous") * (queries - 1) / queries, theirs, rtol=1e-6)


def test_transformer_lens_agrees_on_induction():
    model = planted()
    kept = []
    model.embed.register_forward_hook(lambda module, args, out: kept.append(args[0]))
    found = head_scores(
        model,
        texts(3, VOCAB),
        untrained=False,
        scores=["induction", "duplicate"],
        repeats=1,
        repeat_length=8,
        bos=1,
    )
    tokens = kept[-1]
    wanted = torch.zeros(17, 17)
    wanted[torch.arange(9, 17), torch.arange(2, 10)] = 1
    _, cache = model.run_with_cache(tokens, remove_batch_dim=True)
    model.to_tokens = lambda seq: tokens  # type: ignore[method-assign]
    theirs = detect_head(model, "", wanted, cache=cache).numpy()
    # Theirs divides by all 17 queries, of which 8 can match.
    np.testing.assert_allclose(found.of("induction") * 8 / 17, theirs, rtol=1e-6)
    assert found.of("induction")[1, 2] == pytest.approx(1.0)


def test_loss_on_the_second_copy(circuit):
    """The planted circuit knows all but the first token of the second r; no one knows the first r."""
    copy = circuit.copies["uniform"]
    assert set(circuit.copies) == {"uniform", "unigram"}
    # It writes one logit of 1 onto zeros: the loss falls from log 26 by 1, but for the other logits' share.
    assert copy.change.mean == pytest.approx((copy.second - copy.first).mean())
    assert copy.change.high < -0.5
    assert abs(copy.untrained.mean) < 0.05
    model = build()
    rows = [torch.tensor([1, 9, 8, 7, 9, 8, 7])]
    found = copy_loss([model], rows, 3)
    logs = model(rows[0][None]).log_softmax(-1)[0]
    wanted = [-(logs[at, 8] + logs[at + 1, 7]) / 2 for at in (1, 4)]
    np.testing.assert_allclose([found.first[0], found.second[0]], torch.stack(wanted).detach(), rtol=1e-12)
    assert np.isnan(found.untrained.mean)


def test_repeats_use_every_token_alike_or_as_often_as_given():
    model = build()
    calls = []
    model.embed.register_forward_hook(lambda module, args, out: calls.append(args[0]))
    counts = np.zeros(61)
    counts[[7, 9]] = 1, 3
    head_scores(model, texts(2), unigram=counts, repeats=40, untrained=False, scores=["induction_unigram"])
    drawn = torch.cat([call.flatten() for call in calls[1:]])
    assert set(drawn.tolist()) == {7, 9}
    assert (drawn == 9).double().mean() == pytest.approx(0.75, abs=0.05)
    for call in calls[1:]:
        assert torch.equal(*call.chunk(2, 1))


@pytest.mark.parametrize("name", ["default", "elc-like"])
def test_the_copy_is_the_same_shape_from_another_seed(name):
    model = build(**VARIANTS[name])
    found = head_scores(model, texts(), names=[6])
    seed = derive(model.config.seed, "untrained copy")
    copy = HookedTransformer(dataclasses.replace(model.config, seed=seed)).double()
    again = head_scores(copy, texts(), names=[6], untrained=False)
    np.testing.assert_allclose(found.scores.untrained, again.scores.value, rtol=1e-12)
    np.testing.assert_allclose(found.scores.untrained_high, again.scores.high, rtol=1e-12)
    np.testing.assert_allclose(found.profile.untrained, again.profile.value, rtol=1e-12)
    np.testing.assert_allclose(found.copying_untrained, again.copying, rtol=1e-9)
    assert np.isnan(again.scores.untrained).all()


def test_classes_are_by_what_the_baseline_leaves_over():
    """Scores 0.1 above a baseline of 0.4, and 0.35 above one of 0.1; then with less certainty, or a stronger copy."""
    found = head_scores(build(layout="a", n_heads=1), texts(2), scores=["previous", "sink"], untrained=False)
    cells = {"value": (0.5, 0.45), "low": (0.48, 0.4), "high": (0.6, 0.5), "untrained_high": (0.4, np.nan)}
    arrays = {name: np.array(pair).reshape(2, 1, 1) for name, pair in cells.items()}
    uniform = np.full((2, 1), 0.1)

    def made(**changed):
        scores = dataclasses.replace(found.scores, uniform=uniform, **arrays | changed)
        return dataclasses.replace(found, scores=scores)

    assert made().excess.ravel() == pytest.approx([0.1 / 0.6, 0.35 / 0.9])
    assert made().classes[0, 0] == "sink"
    unsure = made(low=np.array([0.48, 0.1]).reshape(2, 1, 1))
    assert unsure.excess.ravel() == pytest.approx([0.1 / 0.6, 0.0])
    assert unsure.classes[0, 0] == "previous"
    copied = made(untrained_high=np.array([0.45, 0.42]).reshape(2, 1, 1))
    assert copied.excess.ravel() == pytest.approx([0.05 / 0.55, 0.0])
    assert copied.classes[0, 0] == "other"  # under a tenth


def test_the_largest_head_of_an_untrained_layer_is_the_baseline_of_all():
    found = head_scores(build(), texts(4))
    assert (found.baseline[:, 0] >= found.scores.untrained_high[:, 0].max(-1, keepdims=True)).all()
    alibi = head_scores(build(positions="alibi"), texts(4))
    at = alibi.index("previous")
    assert (
        alibi.baseline[at, 0] == np.fmax(alibi.scores.untrained_high[at, 0], alibi.scores.uniform[at, 0])
    ).all()


def test_progress_arrives():
    calls = []
    model = build(n_layers=1)
    head_scores(
        model, texts(9), batch=2, progress=lambda *call: calls.append(call), repeats=4, untrained=False
    )
    assert calls == sorted(calls, key=lambda call: call[0])
    assert calls[-1][0] == 1.0


def test_sequences_are_let_go():
    """Of a stream no more than a batch is alive, and the next."""
    alive, most = weakref.WeakSet(), []

    def stream():
        for row in texts(40):
            made = torch.tensor(row)
            alive.add(made)
            most.append(len(alive))
            yield made
            del made

    found = head_scores(build(n_layers=1), stream(), batch=3, repeats=4, untrained=False)
    assert found.sequences == 40
    assert max(most) <= 5


def test_masked_models_tell_directions_apart_and_have_no_induction():
    model = build(attention="bidirectional")
    found = head_scores(model, texts())
    assert {"previous", "next"} <= set(found.names)
    assert "induction" in found.omitted
    assert found.offsets.tolist() == list(range(-8, 9))
    np.testing.assert_allclose(found.profile.value[found.offsets == -1][0], found.of("next"), rtol=1e-12)
    np.testing.assert_allclose(found.profile.value[found.offsets == 1][0], found.of("previous"), rtol=1e-12)
    with pytest.raises(InputError, match="induction was not measured: it predicts the next token"):
        found.of("induction")
    with pytest.raises(InputError, match="induction cannot be taken: it predicts the next token"):
        head_scores(model, texts(), scores=["induction"])


def test_the_frame_and_the_hooks(circuit):
    frame = circuit.to_frame()
    assert len(frame) == (len(circuit.names) + 1) * 6
    row = frame[(frame.layer == 1) & (frame["head"] == 2) & (frame.score == "induction")].iloc[0]
    assert row["value"] == circuit.of("induction")[1, 2]
    assert row["class"] == "induction"
    assert row.low <= row["value"] <= row.high
    assert len(circuit.profile_frame()) == len(circuit.offsets) * 6
    model = build()
    head_scores(model, texts(2))
    assert not model.has_listeners()


def test_bfloat16_and_training_mode_are_left_as_they_were():
    model = HookedTransformer(configuration()).bfloat16().train()
    found = head_scores(model, texts(3))
    assert model.training
    assert model.dtype == torch.bfloat16
    assert np.isfinite(found.of("previous")).all()


def test_the_plots(circuit):
    pytest.importorskip("matplotlib").use("Agg")
    ax = circuit.plot("induction").axes[0]
    assert [text.get_text() for text in ax.texts] == [
        f"{value:.2f}" for value in circuit.of("induction").ravel()
    ]
    assert len(ax.patches) == 1
    figure = circuit.plot()
    titles = [panel.get_title().partition("\n")[0] for panel in figure.axes if panel.get_title()]
    assert titles[0] == "class"
    assert len(titles) == len(circuit.names) + 3
    with pytest.raises(InputError, match="Did you mean 'sink'"):
        circuit.plot("sinc")


def test_long_contexts_fit(circuit):
    assert PLACES >= 2 * 12 + 1
    assert (circuit.scores.queries[circuit.index("induction")] == 32 * 12).all()
