"""Word by word gives the tokenizer's own ids; where that is not certain, it is not done."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_models import small_tokenizer
from tokenizers import normalizers, pre_tokenizers

from workbench.data.embedded.stories import stories
from workbench.data.tokenizer import train_tokenizer
from workbench.evals.protocols import PROTOCOLS, causal_rows, splits_at_spaces, word_rows

WORD = st.text(st.sampled_from("abTd'é’-.,?!7²日ßم\u0301$<>_\"sthe"), min_size=1, max_size=8)
TEXTS = st.lists(st.lists(WORD, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=8)


def one_by_one(tokenizer, texts):
    return [[1, *tokenizer(text)["input_ids"]] for text in texts]


@settings(deadline=None)
@given(TEXTS, st.booleans())
def test_words_one_after_the_other_are_the_text(texts, space):
    tokenizer = small_tokenizer()
    texts = [" " + text for text in texts] if space else texts
    assert splits_at_spaces(tokenizer, texts)
    ids, starts = word_rows(tokenizer, texts, 1)
    assert [row.tolist() for row in np.split(ids, starts[1:-1])] == one_by_one(tokenizer, texts)


def test_on_all_embedded_pairs_and_the_real_blimp(embedded, tokenizer, real_data):
    from workbench.data.pairs import open_pairs

    for pairs in (embedded, open_pairs(str(real_data / "blimp"))):
        texts = [f" {text}" for pair in pairs.pairs[::7] for text in (pair.sentence_good, pair.sentence_bad)]
        assert splits_at_spaces(tokenizer, texts)
        ids, _ = word_rows(tokenizer, texts, 1)
        assert ids.tolist() == [token for row in one_by_one(tokenizer, texts) for token in row]


@pytest.mark.parametrize(
    "text", ["a  b", "a\tb", "a\nb", "a\u00a0b", "a <eos> b", "<mask>", "a\u200bb", "a\x00b"]
)
def test_text_that_could_go_wrong_takes_the_slow_way_to_the_same_ids(text, tokenizer):
    texts = ["The dog ran.", text]
    assert not splits_at_spaces(tokenizer, texts)
    rows = causal_rows(tokenizer, texts, PROTOCOLS["native"], str)
    assert [rows[i].tolist() for i in range(2)] == one_by_one(tokenizer, texts)


def test_a_tokenizer_that_could_go_wrong_takes_the_slow_way():
    texts = ["The dog ran."]
    for change in (
        lambda backend: setattr(backend, "normalizer", normalizers.Lowercase()),
        lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.Metaspace()),
        lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.ByteLevel(False, use_regex=False)),
        lambda backend: setattr(backend.model, "dropout", 0.1),
    ):
        tokenizer = train_tokenizer(stories(5), 300)
        assert splits_at_spaces(tokenizer, texts)
        change(tokenizer.backend_tokenizer)
        assert not splits_at_spaces(tokenizer, texts)


def test_a_sentence_that_spells_the_prefix_gets_no_second_one(tokenizer):
    rows = causal_rows(tokenizer, ["<bos>The dog.", "The dog."], PROTOCOLS["native"], str)
    assert rows[0].tolist() == rows[1].tolist()
