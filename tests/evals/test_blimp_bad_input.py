"""What a user can get wrong, and the words of the answer."""

import pytest
import torch
from scored_models import small_model, small_tokenizer

from workbench.data.embedded.stories import stories
from workbench.data.tokenizer import train_tokenizer
from workbench.errors import DataError, InputError, WorkbenchError
from workbench.evals.blimp import blimp
from workbench.evals.protocols import PROTOCOLS, find_protocol
from workbench.evals.scoring import score_sentences


def message(call) -> str:
    with pytest.raises(WorkbenchError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_unknown_protocol_names_the_nearest(causal, embedded):
    assert message(lambda: blimp(causal, embedded, "lm_eval")) == (
        "Unknown scoring protocol 'lm_eval'. Did you mean 'lm-eval'?"
    )


def test_unknown_pll_names_the_nearest(masked, embedded):
    text = message(lambda: blimp(masked, embedded, pll="within-word-l2r"))
    assert text == "Unknown pseudo-log-likelihood 'within-word-l2r'. Did you mean 'within_word_l2r'?"


@pytest.mark.parametrize("name", ["lm-eval", "paper"])
def test_a_masked_model_is_refused_where_the_protocol_has_no_meaning(name, masked, embedded):
    text = message(lambda: blimp(masked, embedded, name))
    assert text.startswith(f"Protocol {name!r} is not defined for masked models")
    assert "native, minicons" in text
    find_protocol(name, "clm")


def test_unknown_paradigm_names_the_nearest(causal, embedded):
    with pytest.raises(DataError, match="Did you mean 'embedded_transitive'"):
        blimp(causal, embedded, paradigms=["embedded_transitiv"])


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_sentence_beyond_the_context_is_named(attention, make_pairs):
    model = small_model(attention=attention, n_ctx=12)
    pairs = make_pairs(agreement=[("The dog ran.", "The dog run."), ("The dog ran.", "The " * 20 + "dog.")])
    text = message(lambda: blimp(model, pairs))
    assert text.startswith("sentence_bad of pair 1 in paradigm agreement has ")
    assert "the model's context has 12" in text


def test_a_sentence_of_just_the_context_is_scored():
    """The last token is scored but never read, so n_ctx tokens after BOS fit a causal model."""
    tokenizer = small_tokenizer()
    length = len(tokenizer("The dog ran.")["input_ids"])
    assert score_sentences(small_model(n_ctx=length), ["The dog ran."]).tokens[0] == length
    text = message(lambda: score_sentences(small_model(n_ctx=length - 1), ["The dog ran."]))
    assert text.startswith("sentence 0 has ")
    masked = small_model(n_ctx=length + 2, attention="bidirectional")
    assert score_sentences(masked, ["The dog ran."]).tokens[0] == length


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("empty", ["", "  ", "\n\t"])
def test_an_empty_sentence_is_named(attention, empty, make_pairs):
    pairs = make_pairs(npi=[("The dog ran.", empty)])
    text = message(lambda: blimp(small_model(attention=attention), pairs))
    assert text.startswith("sentence_bad of pair 0 in paradigm npi is empty")


def test_a_tokenizer_with_more_tokens_than_the_model(causal, embedded):
    larger = train_tokenizer(stories(300), 700)
    text = message(lambda: blimp(causal, embedded, tokenizer=larger))
    assert text.startswith("the tokenizer does not fit the model: it has 700 tokens")
    assert "vocabulary has 600" in text


def test_no_tokenizer_at_all(causal, embedded):
    causal.tokenizer = None
    assert "no tokenizer" in message(lambda: blimp(causal, embedded))


def test_no_sentences(causal, tokenizer):
    assert "no sentences" in message(lambda: score_sentences(causal, []))


def test_one_token_where_the_first_is_not_scored(causal, tokenizer):
    text = message(lambda: score_sentences(causal, ["a"], "minicons"))
    assert text.startswith("sentence 0 has 1 token, and protocol 'minicons' does not score the first")


def test_a_model_of_nan_is_no_result(causal, embedded):
    with torch.no_grad():
        causal.ln_final.w.fill_(float("nan"))
    text = message(lambda: blimp(causal, embedded, limit=1))
    assert "is not a number" in text


def test_missing_special_tokens_are_named(causal, masked):
    tokenizer = train_tokenizer(stories(20), 300)
    tokenizer.mask_token = None
    assert "no mask token" in message(lambda: score_sentences(masked, ["The dog ran."], tokenizer=tokenizer))
    tokenizer.bos_token = None
    assert score_sentences(causal, ["The dog ran."], tokenizer=tokenizer).tokens[0] > 0  # EOS stands in
    tokenizer.eos_token = None
    assert "needs BOS or EOS" in message(
        lambda: score_sentences(causal, ["The dog ran."], tokenizer=tokenizer)
    )
    with pytest.raises(InputError, match="needs EOS"):
        score_sentences(causal, ["The dog ran."], "babylm-2023", tokenizer=tokenizer)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("missing", [["bos"], ["eos"], ["bos", "eos"]])
def test_every_protocol_scores_without_special_tokens_or_says_which_it_needs(attention, missing, embedded):
    model, tokenizer = small_model(attention=attention), train_tokenizer(stories(300), 600)
    model.tokenizer = tokenizer
    for name in missing:
        setattr(tokenizer, f"{name}_token", None)
    for name, protocol in PROTOCOLS.items():
        special = protocol.causal if attention == "causal" else protocol.masked
        if special is None:
            continue
        substitute = attention == "causal" and special == "bos" and len(missing) == 1  # EOS in place of BOS
        if special == "default" or substitute or (special == "eos" and missing == ["bos"]):
            assert blimp(model, embedded, name, limit=1).per_pair.tokens_good.min() > 0
        else:
            with pytest.raises(InputError, match=r"needs .*EOS.* the tokenizer has none; minicons, "):
                blimp(model, embedded, name, limit=1)
