"""Batches: a pure function of (seed, step); every window once an epoch; segments, masks and evaluation."""

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data.batches import Batch, Batches, eval_batches, mask_tokens
from workbench.errors import ConfigError, DataError

lengths = st.lists(st.integers(2, 40), min_size=1, max_size=30)


def stream_of(split):
    return split.read(0, split.n_tokens)


def same(one: Batch, other: Batch) -> bool:
    pairs = ((one.tokens, other.tokens), (one.targets, other.targets), (one.segments, other.segments))
    return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("objective", ["clm", "mlm"])
@pytest.mark.parametrize("cross_story", [True, False])
@pytest.mark.parametrize("align", ["stream", "story"])
def test_a_batch_depends_on_seed_and_step_alone(little_packed, objective, cross_story, align):
    def fresh(seed):
        return Batches(little_packed.train, seed, 4, 32, cross_story, objective, align=align)

    forwards = fresh(5)
    seen = [forwards.batch(step) for step in range(60)]
    backwards = fresh(5)
    for step in reversed(range(60)):
        assert same(backwards.batch(step), seen[step])
    late = fresh(5)
    for step in range(40, 60):  # a run that resumes at 40, in the middle of an epoch
        assert same(late.batch(step), seen[step])
    other = fresh(6)
    assert not all(same(other.batch(step), seen[step]) for step in range(60))
    for batch in seen:
        assert batch.tokens.shape == batch.targets.shape == (4, 32)
        assert batch.tokens.dtype == batch.targets.dtype == torch.int64
        assert (batch.segments is None) == cross_story


def test_200_random_steps_are_what_was_trained_on(little_packed):
    batches = Batches(little_packed.train, 3, 8, 32)
    log = {}
    for step in range(400):
        batch = batches.batch(step)
        log[step] = hashlib.sha256(
            batch.tokens.numpy().tobytes() + batch.targets.numpy().tobytes()
        ).hexdigest()
    rng = np.random.default_rng(0)
    again = Batches(little_packed.train, 3, 8, 32)
    for step in rng.choice(400, 200, replace=False):
        batch = again.batch(int(step))
        assert (
            hashlib.sha256(batch.tokens.numpy().tobytes() + batch.targets.numpy().tobytes()).hexdigest()
            == log[step]
        )


def test_golden_batches(make_split):
    """The same bytes in every process and on every machine, now and later: a change here breaks every resume."""
    split = make_split([9, 30, 14, 3, 22, 41, 8])
    found = {}
    for objective in ("clm", "mlm"):
        batches = Batches(split, 7, 4, 10, cross_story=False, objective=objective)
        digest = hashlib.sha256()
        for step in range(20):
            batch = batches.batch(step)
            for tensor in (batch.tokens, batch.targets, batch.segments):
                digest.update(tensor.numpy().tobytes())
        found[objective] = digest.hexdigest()[:16]
    assert found == {"clm": "eba31eb821ab152b", "mlm": "2b7a86967c635fac"}


@settings(max_examples=60, deadline=None)
@given(lengths=lengths, n_ctx=st.integers(1, 20), batch_size=st.integers(1, 9), seed=st.integers(0, 99))
def test_an_epoch_reads_no_token_twice_and_leaves_out_less_than_a_window(
    make_split, lengths, n_ctx, batch_size, seed
):
    split = make_split(lengths)
    if split.n_tokens < n_ctx + 1:
        return
    batches, stream = Batches(split, seed, batch_size, n_ctx), stream_of(split)
    assert len(batches) == split.n_tokens // n_ctx
    starts = np.concatenate([batches.starts(step) for step in range(3 * len(batches) // batch_size + 1)])
    for epoch in range(3):
        windows = starts[epoch * len(batches) : (epoch + 1) * len(batches)]
        read = Counter((windows[:, None] + np.arange(n_ctx)).ravel() % split.n_tokens)
        assert set(read.values()) == {1}
        assert split.n_tokens - len(read) < n_ctx
    batch, first = batches.batch(1), batches.starts(1)
    for row, start in enumerate(first):
        places = (start + np.arange(n_ctx + 1)) % split.n_tokens
        assert batch.tokens[row].tolist() == stream[places[:-1]].tolist()
        assert batch.targets[row].tolist() == stream[places[1:]].tolist()


@settings(max_examples=60, deadline=None)
@given(lengths=lengths, n_ctx=st.integers(1, 20), seed=st.integers(0, 99))
def test_windows_that_start_with_stories(make_split, lengths, n_ctx, seed):
    split = make_split(lengths)
    if split.n_tokens < n_ctx + 1:
        return
    batches = Batches(split, seed, len(lengths), n_ctx, align="story")
    starts = np.concatenate([batches.starts(step) for step in range(len(batches) // len(lengths) + 1)])[
        : len(batches)
    ]
    covered = set(((starts[:, None] + np.arange(n_ctx)) % split.n_tokens).ravel())
    assert covered == set(range(split.n_tokens))
    inside_long = {
        int(first) + n_ctx * k
        for first, length in zip(split.offsets[:-1], np.diff(split.offsets), strict=True)
        for k in range(1, -(-int(length) // n_ctx))
    }
    assert all(stream_of(split)[start] == 1 or start in inside_long for start in starts)


def test_batches_larger_than_the_split_go_on_into_the_next_epochs(make_split):
    batches = Batches(make_split([10, 11]), 0, 7, 10)
    assert len(batches) == 2
    assert batches.batch(0).tokens.shape == (7, 10)
    assert batches.steps_per_epoch == 2 / 7
    assert batches.tokens_per_step == 70


@settings(max_examples=60, deadline=None)
@given(
    lengths=lengths,
    n_ctx=st.integers(2, 25),
    objective=st.sampled_from(["clm", "mlm"]),
    align=st.sampled_from(["stream", "story"]),
)
def test_segments_number_the_stories_of_a_row(make_split, lengths, n_ctx, objective, align):
    split = make_split(lengths)
    if split.n_tokens < n_ctx + 1:
        return
    batches = Batches(split, 1, 5, n_ctx, cross_story=False, objective=objective, align=align)
    open_batches = Batches(split, 1, 5, n_ctx, objective=objective, align=align)
    story_of = np.repeat(np.arange(len(lengths)), lengths)
    for step in range(3):
        batch, starts = batches.batch(step), batches.starts(step)
        for row, start in enumerate(starts):
            places = (start + np.arange(n_ctx + 1)) % split.n_tokens
            owner, segments = story_of[places], batch.segments[row].tolist()
            begins = np.isin(places, split.offsets[:-1])
            assert segments[0] == 0
            for i in range(1, n_ctx):
                assert segments[i] - segments[i - 1] == int(begins[i])
                if owner[i] != owner[i - 1]:
                    assert segments[i] == segments[i - 1] + 1
            if objective == "clm":
                for i in range(n_ctx):
                    expected = -100 if begins[i + 1] else stream_of(split)[places[i + 1]]
                    assert batch.targets[row, i] == expected
        assert torch.equal(batch.tokens, open_batches.batch(step).tokens)


def test_segments_where_bos_and_eos_are_one_token(make_split):
    split = make_split([6, 7, 5], bos_id=1, eos_id=1)
    tokens = stream_of(split)
    tokens[tokens == 2] = 1
    split = make_split([6, 7, 5], eos_id=1, shards=(tokens.astype("<u2"),))
    batch = next(eval_batches(split, 1, 17, cross_story=False))
    assert batch.segments[0].tolist() == [0] * 6 + [1] * 7 + [2] * 4


def test_masks_are_15_percent_and_80_10_10(little_packed):
    split = little_packed.train
    batches = Batches(split, 0, 32, 64, objective="mlm")
    plain = Batches(split, 0, 32, 64)
    ordinary = chosen = masked = kept = changed = 0
    for step in range(150):
        batch, original = batches.batch(step), plain.batch(step).tokens
        picked = batch.targets != -100
        assert torch.equal(batch.targets[picked], original[picked])
        assert torch.equal(batch.tokens[~picked], original[~picked])
        assert not (picked & (original < 4)).any()
        ordinary += int((original >= 4).sum())
        chosen += int(picked.sum())
        shown = batch.tokens[picked]
        assert not ((shown < 3) & (original[picked] != shown)).any()
        masked += int((shown == 3).sum())
        kept += int((shown == original[picked]).sum())
        changed += int(((shown != 3) & (shown != original[picked])).sum())
    assert ordinary > 250_000
    assert chosen / ordinary == pytest.approx(0.15, abs=0.003)  # 4 standard errors of 0.0007
    assert masked / chosen == pytest.approx(0.80, abs=0.009)
    assert kept / chosen == pytest.approx(0.10, abs=0.007)  # a random draw hits the original 1 in 600 times
    assert changed / chosen == pytest.approx(0.10, abs=0.007)


def test_random_replacements_cover_the_vocabulary_but_for_specials(make_split):
    split = make_split([200] * 40, d_vocab=20)
    batches = Batches(split, 0, 64, 100, objective="mlm", d_vocab=30)
    seen = Counter()
    for step in range(60):
        batch = batches.batch(step)
        seen.update(batch.tokens[(batch.targets != -100) & (batch.tokens != 3)].tolist())
    assert set(seen) == set(range(4, 30))
    outside = np.array([seen[token] for token in range(20, 30)])
    assert outside.min() > 0.7 * outside.mean()


def test_masks_change_from_step_to_step(make_split):
    split = make_split([30])
    batches = Batches(split, 0, 1, 30, objective="mlm", align="story")
    assert len(batches) == 1
    masks = {tuple((batches.batch(step).targets[0] != -100).tolist()) for step in range(30)}
    assert len(masks) > 20


def test_a_row_with_ordinary_tokens_has_a_target():
    rng = np.random.default_rng(0)
    tokens = np.array([[1, 9, 2], [1, 2, 0], [7, 8, 9]])
    for _ in range(200):
        shown, targets = mask_tokens(tokens, rng, mask_id=3, d_vocab=10, special_ids=(0, 1, 2, 3))
        assert targets[0].tolist() == [-100, 9, -100]
        assert (targets[1] == -100).all()
        assert shown[1].tolist() == [1, 2, 0]
        assert (targets[2] != -100).any()


@settings(max_examples=60, deadline=None)
@given(lengths=lengths, n_ctx=st.integers(1, 30), batch_size=st.integers(1, 5), cross_story=st.booleans())
def test_evaluation_scores_each_token_once(make_split, lengths, n_ctx, batch_size, cross_story):
    split = make_split(lengths)
    stream = stream_of(split)
    batches = list(eval_batches(split, batch_size, n_ctx, cross_story=cross_story))
    tokens = torch.cat([batch.tokens for batch in batches]).flatten()
    targets = torch.cat([batch.targets for batch in batches]).flatten()
    scored = len(stream) - 1
    assert tokens[:scored].tolist() == stream[:-1].tolist()
    expected = stream[1:].copy()
    if not cross_story:
        expected[split.offsets[1:-1] - 1] = -100
    assert targets[:scored].tolist() == expected.tolist()
    assert (tokens[scored:] == 0).all()
    assert (targets[scored:] == -100).all()
    assert len(tokens) - scored < n_ctx
    assert all(len(batch.tokens) == batch_size for batch in batches[:-1])
    for batch in batches:
        assert (batch.segments is None) == cross_story
    if not cross_story:
        segments = batches[-1].segments[-1]
        padding = batches[-1].targets.shape[1] - (scored - 1) % n_ctx - 1
        if padding:
            assert set(segments[-padding:].tolist()).isdisjoint(segments[:-padding].tolist())


@settings(max_examples=40, deadline=None)
@given(lengths=lengths, n_ctx=st.integers(1, 30), sizes=st.tuples(st.integers(1, 4), st.integers(1, 9)))
def test_masked_evaluation_is_fixed_and_ignores_the_batch_size(make_split, lengths, n_ctx, sizes):
    split = make_split(lengths)
    stream, runs = stream_of(split), []
    for size in (*sizes, sizes[0]):
        batches = list(eval_batches(split, size, n_ctx, objective="mlm"))
        runs.append(
            [torch.cat([getattr(batch, name) for batch in batches]) for name in ("tokens", "targets")]
        )
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))
    tokens, targets = (value.flatten() for value in runs[0])
    n = len(stream)
    picked = targets[:n] != -100
    assert (targets[:n][picked].numpy() == stream[picked.numpy()]).all()
    assert (tokens[:n][~picked].numpy() == stream[~picked.numpy()]).all()
    assert (targets[n:] == -100).all()
    assert (tokens[n:] == 0).all()
    ordinary = torch.from_numpy(stream >= 4)
    for start in range(0, n, n_ctx):  # a window with ordinary tokens has at least one to predict
        assert picked[start : start + n_ctx].any() == ordinary[start : start + n_ctx].any()
    if n % n_ctx:
        last = batches[-1].segments[-1]
        assert last[: n % n_ctx].unique().numel() == 1
        assert last[n % n_ctx :].unique().numel() == 1
        assert last[0] != last[-1]
    else:
        assert batches[-1].segments is None


def test_evaluation_can_stop_early(little_packed):
    split = little_packed.validation
    whole = list(eval_batches(split, 2, 16))
    part = list(eval_batches(split, 2, 16, max_tokens=100))
    assert len(part) == 4
    assert sum(len(batch.tokens) for batch in part) == 7
    assert all(same(a, b) for a, b in zip(part[:3], whole, strict=False))


def test_tensors_are_the_callers_own(little_packed):
    batches = Batches(little_packed.train, 0, 1, 16)
    batch = batches.batch(0)
    before = batch.targets.clone()
    batch.tokens.zero_()
    assert torch.equal(batch.targets, before)
    assert torch.equal(batches.batch(0).targets, before)


def test_what_cannot_be_batched_is_refused(make_split):
    split = make_split([10, 11])
    with pytest.raises(
        DataError,
        match=r"^the train split has 21 tokens, fewer than one window of n_ctx = 21 needs \(22\): choose n_ctx up to 20, or give more stories\.$",
    ):
        Batches(split, 0, 1, 21)
    assert Batches(split, 0, 1, 20).batch(0).tokens.shape == (1, 20)
    assert Batches(split, 0, 1, 21, objective="mlm").batch(0).tokens.shape == (1, 21)
    with pytest.raises(ConfigError, match="batch_size must be 1 or more, not 0"):
        Batches(split, 0, 0, 8)
    with pytest.raises(ConfigError, match="n_ctx must be 1 or more, not -1"):
        list(eval_batches(split, 1, -1))
    with pytest.raises(ConfigError, match=r"objective is 'clmm'\. Did you mean 'clm'\?"):
        Batches(split, 0, 1, 8, objective="clmm")
    with pytest.raises(ConfigError, match=r"align is 'storys'\. Did you mean 'story'\?"):
        Batches(split, 0, 1, 8, align="storys")
    with pytest.raises(DataError, match="no mask token, so objective 'mlm' cannot be trained"):
        Batches(make_split([10, 11], mask_id=None), 0, 1, 8, objective="mlm")
    with pytest.raises(ConfigError, match="d_vocab = 10 does not hold the tokenizer's 50 tokens"):
        Batches(split, 0, 1, 8, d_vocab=10)
    with pytest.raises(ConfigError, match="a step is 0 or more, not -1"):
        Batches(split, 0, 1, 8).batch(-1)
