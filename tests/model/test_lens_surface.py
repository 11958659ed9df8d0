"""What TransformerLens users expect of a model besides hooks and weights."""

import pytest
import torch
from small_models import BASES, build
from transformer_lens import FactoredMatrix

from workbench.data.tokenizer import train_tokenizer
from workbench.errors import InputError

EXACT = dict(rtol=0, atol=1e-12)
TOKENS = torch.randint(4, 61, (2, 9), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def text_model():
    tokenizer = train_tokenizer(["The cat sat on the mat. A dog ran."] * 3, 270)
    model = build(d_vocab=len(tokenizer), n_ctx=48)
    model.tokenizer = tokenizer
    return model


@pytest.mark.parametrize("base", [name for name in BASES if BASES[name].get("residual") != "weighted"])
def test_a_run_may_stop_at_a_layer_and_start_there(base):
    model = build(**BASES[base] | dict(n_layers=3, layout=None))
    expected = model(TOKENS)
    for layer in (0, 1, 2, -1):
        x = model(TOKENS, stop_at_layer=layer)
        _, cache = model.run_with_cache(TOKENS)
        torch.testing.assert_close(x, cache["resid_pre", layer], **EXACT)
        torch.testing.assert_close(model(x, start_at_layer=layer), expected, **EXACT)
    last = model(TOKENS, stop_at_layer=3)
    torch.testing.assert_close(model.unembed(model.final(last)), expected, **EXACT)
    _, cache = model.run_with_cache(model(TOKENS, stop_at_layer=1), start_at_layer=1)
    assert not any(name.startswith(("blocks.0", "hook_embed")) for name in cache)


def test_the_loss_of_a_run_from_a_layer_needs_the_ids():
    model = build()
    x = model(TOKENS, stop_at_layer=1)
    loss = model(x, return_type="loss", start_at_layer=1, tokens=TOKENS)
    torch.testing.assert_close(loss, model(TOKENS, return_type="loss"), **EXACT)
    with pytest.raises(InputError, match="pass tokens="):
        model(x, return_type="loss", start_at_layer=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(stop_at_layer=3), "stop_at_layer = 3: the model has the layers 0 to 1"),
        (dict(stop_at_layer=-3), "the layers 0 to 1"),
        (dict(start_at_layer=1), "needs the residual stream as input"),
    ],
)
def test_layers_that_do_not_exist_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        build()(TOKENS, **options)


def test_a_weighted_stream_starts_at_the_embedding_only():
    model = build(residual="weighted")
    x = model(TOKENS, stop_at_layer=0)
    torch.testing.assert_close(model(x, start_at_layer=0), model(TOKENS), **EXACT)
    with pytest.raises(InputError, match="outputs of all earlier ones"):
        model(x, start_at_layer=1)


@pytest.mark.parametrize(
    ("setter", "names"),
    [
        ("set_use_attn_result", ["result"]),
        ("set_use_split_qkv_input", ["q_input", "k_input", "v_input"]),
        ("set_use_attn_in", ["attn_in"]),
    ],
)
def test_the_flags_fill_the_cache(setter, names):
    model = build()
    hooks = [f"blocks.0.attn.hook_{name}" for name in names]
    assert not set(hooks) & set(model.run_with_cache(TOKENS)[1])
    getattr(model, setter)(True)
    for _ in range(2):
        logits, cache = model.run_with_cache(TOKENS)
        for name, hook in zip(names, hooks, strict=True):
            assert cache[name, 0] is cache[hook]
            assert cache[name, -1].shape == (2, 9, model.config.n_heads, model.config.d_model)
        torch.testing.assert_close(logits, model(TOKENS), rtol=0, atol=1e-5)
        model.float()  # the flags survive another type of weights
    getattr(model, setter)(False)
    assert not set(hooks) & set(model.run_with_cache(TOKENS)[1])
    with pytest.raises(KeyError):
        cache["nothing", 0]


def test_circuits_of_all_heads():
    model = build(n_key_value_heads=2)
    assert isinstance(model.QK, FactoredMatrix)
    torch.testing.assert_close(model.QK.AB[1, 3], model.W_Q[1, 3] @ model.W_K[1, 3].T, **EXACT)
    torch.testing.assert_close(model.OV.AB[0, 2], model.W_V[0, 2] @ model.W_O[0, 2], **EXACT)
    assert model.all_head_labels() == [f"L{layer}H{head}" for layer in range(2) for head in range(4)]


def test_loss_fn_is_the_loss_of_forward():
    model = build()
    mask = torch.ones_like(TOKENS)
    mask[1, 6:] = 0
    logits, expected = model(TOKENS, return_type="both", attention_mask=mask)
    assert torch.equal(model.loss_fn(logits, TOKENS, mask), expected)
    per_token = model.loss_fn(logits, TOKENS, mask, per_token=True)
    assert per_token.shape == (2, 8)
    torch.testing.assert_close(per_token.sum() / 13, expected, **EXACT)


def test_single_tokens_and_their_positions(text_model):
    text = "A dog ran. A dog ran."
    ids = text_model.to_tokens(text)
    token = int(ids[0, 1])
    word = text_model.to_single_str_token(token)
    assert text_model.to_single_token(word) == token
    assert text_model.get_token_position(word, text) == 1
    assert text_model.get_token_position(word, text, prepend_bos=False) == 0
    last = text_model.get_token_position(token, ids, mode="last")
    assert last == int((ids[0] == token).nonzero()[-1]) > 1
    with pytest.raises(InputError, match="does not occur"):
        text_model.get_token_position(word, "The cat")


def test_to_hf_gives_the_same_logits():
    model = build()
    with torch.no_grad():
        torch.testing.assert_close(model.to_hf()(TOKENS).logits, model(TOKENS), rtol=0, atol=1e-10)
    assert type(model.to_hf("gpt2")).__name__ == "GPT2LMHeadModel"


@pytest.mark.parametrize("bos", [True, False])
def test_the_bridge_keeps_the_tokenizer(text_model, bos):
    if not bos:
        text_model.tokenizer.bos_token = None
    bridge = text_model.to_bridge()
    text = "The cat sat on the mat."
    assert torch.equal(bridge.to_tokens(text), text_model.to_tokens(text))
    with torch.no_grad():
        torch.testing.assert_close(bridge(text), text_model(text), rtol=0, atol=1e-10)
