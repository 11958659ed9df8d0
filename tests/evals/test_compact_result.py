"""Results without sentences: every decision stays, nothing else does."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import build

from workbench.data.embedded.stories import stories
from workbench.data.pairs import open_pairs
from workbench.data.tokenizer import train_tokenizer
from workbench.errors import DataError, InputError
from workbench.evals.blimp import (
    BlimpResult,
    blimp,
    compact_table,
    has_sentences,
    rounded_margins,
    save_compact,
    with_sentences,
)


@pytest.fixture(scope="module")
def pairs():
    return open_pairs(None).select(None, 8)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(stories(200), 500)


@pytest.fixture(scope="module", params=["clm", "mlm"])
def result(request, pairs, tokenizer):
    fields = {"attention": "bidirectional"} if request.param == "mlm" else {}
    model = build(d_vocab=len(tokenizer), n_ctx=64, **fields).float()
    return blimp(model, pairs, tokenizer=tokenizer)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.integers(1, 10))
def test_margins_keep_their_side_and_their_size(values, bits):
    margins = np.array(values)
    found = rounded_margins(margins, bits)
    assert found.dtype == np.float16
    assert np.isfinite(found).all()
    assert (np.sign(found) == np.sign(margins)).all()
    inside = (np.abs(margins) > 1e-4) & (np.abs(margins) < 6e4)
    off = np.abs(found[inside].astype(float) / margins[inside] - 1)
    assert (off <= 2.0 ** -(bits + 1) * 1.0001).all()
    assert (rounded_margins(found.astype(float), bits) == found).all()


def test_margins_at_the_ends():
    found = rounded_margins(np.array([1e300, -np.inf, 1e-300, -1e-40, 0.0]))
    assert list(np.sign(found)) == [1, -1, 1, -1, 0]
    assert np.isfinite(found).all()
    with pytest.raises(InputError, match="not a number"):
        rounded_margins(np.array([np.nan]))


def test_what_was_saved_is_read(result, pairs, tmp_path):
    path = save_compact(result, tmp_path)
    again = BlimpResult.read(path)
    assert again.overall == result.overall
    assert again.paradigms.equals(result.paradigms)
    assert again.phenomena.equals(result.phenomena)
    assert list(again.per_pair.correct) == list(result.per_pair.correct)
    assert list(again.per_pair.pair_id) == list(result.per_pair.pair_id)
    assert np.allclose(again.per_pair.margin, result.per_pair.margin, rtol=2**-7)
    assert not has_sentences(again.per_pair)
    assert again.plot() is not None
    assert json.loads(path.read_text())["sentences"] is False
    for file in (path, path.with_suffix(".parquet")):
        assert not any(pair.sentence_good.encode() in file.read_bytes() for pair in pairs.pairs)
    assert len(compact_table(result, 4)) <= len(compact_table(result, 10))


def test_ties_count_as_the_protocol_says(pairs, tokenizer, tmp_path):
    model = build(d_vocab=len(tokenizer), n_ctx=64).float()
    for protocol, share in (("native", 0.5), ("lm-eval", 1.0), ("paper", 0.0)):
        found = blimp(model, pairs, protocol, tokenizer=tokenizer)
        found.per_pair["margin"] = 0.0
        found.per_pair["correct"] = share
        again = BlimpResult.read(save_compact(found, tmp_path / protocol))
        assert set(again.per_pair.correct) == {share}
        assert int(again.paradigms.ties.sum()) == len(pairs)


def test_sentences_come_back(result, pairs, tokenizer, tmp_path):
    again = BlimpResult.read(save_compact(result, tmp_path))
    whole = with_sentences(again, pairs, tokenizer)
    for column in ("sentence_good", "sentence_bad", "tokens_good", "tokens_bad", "paradigm", "pair_id"):
        assert list(whole.per_pair[column]) == list(result.per_pair[column]), column
    assert with_sentences(whole, pairs) is whole
    assert "tokens_good" not in with_sentences(again, pairs).per_pair


def test_other_pairs_are_refused(result, pairs, tmp_path):
    again = BlimpResult.read(save_compact(result, tmp_path))
    for other in (pairs.select(None, 7), pairs.select([next(iter(pairs.paradigms))])):
        with pytest.raises(DataError, match="are not the pairs of"):
            with_sentences(again, other)
