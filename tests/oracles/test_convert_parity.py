"""Models of Hugging Face's five families, opened here: the same logits, loss, activations and gradients."""

import pytest
import torch
import torch.nn.functional as F
from hf_models import CASES, Case, in_float64, listening, places

from workbench.model.hf import FAMILIES, to_hf
from workbench.model.hf.family import to_ours
from workbench.model.transformer import HookedTransformer

EXACT = dict(rtol=0, atol=1e-10)  # float64 rounds by 1e-16 a step, and some thousand steps add up
SINGLE = dict(rtol=0, atol=2e-5)  # float32, on activations of order 1 to 10


every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def batch(case: Case, config, length: int):
    """Tokens [3 length], of which the second row has padding in its second half, and the mask of what is real."""
    generator = torch.Generator().manual_seed(length)
    # No token is the padding, to which RoBERTa gives no position.
    tokens = torch.randint(5, config.d_vocab, (3, length), generator=generator)
    real = torch.ones_like(tokens)
    real[1, (length + 1) // 2 :] = 0
    tokens[real == 0] = case.settings.get("pad_token_id", 0)
    return tokens, real


def targets(case: Case, tokens, real):
    """What each place is to predict; -100 where nothing is."""
    if case.masked:
        return torch.where(real.bool(), (tokens + 1) % 29, -100)
    ahead = torch.where(real.bool(), tokens, -100)[:, 1:]
    return torch.cat([ahead, torch.full((len(tokens), 1), -100)], 1)


def check(case: Case, dtype, tolerance, length: int):
    theirs = case.model(dtype)
    ours = HookedTransformer.from_hf(theirs)
    config = ours.config
    tokens, real = batch(case, config, length)
    here = real.bool()

    def close(a, b, what):
        b = b.expand(len(a), *b.shape[1:])  # positions are looked up once for all rows
        assert a.shape == b.shape, (what, a.shape, b.shape)
        torch.testing.assert_close(a[here], b[here], **tolerance, msg=lambda text: f"{what}: {text}")

    where = {hook: place for hook, place in places(case, config).items() if hook in ours.hook_dict}
    with listening(theirs, where) as seen:
        out = theirs(tokens, attention_mask=real, output_hidden_states=True, output_attentions=True)
    logits, cache = ours.run_with_cache(tokens, attention_mask=real)
    close(logits, out.logits, "logits with listeners")
    close(ours(tokens, attention_mask=real), out.logits, "logits")
    for hook, value in seen.items():
        close(cache[hook], value, hook)
    for layer in range(config.n_layers):
        close(cache["resid_pre", layer], out.hidden_states[layer], f"hidden state {layer}")
        pattern = cache["pattern", layer].transpose(1, 2)
        close(pattern, out.attentions[layer].transpose(1, 2), f"pattern {layer}")
    last = ours.residual(tokens, attention_mask=real) if not case.masked else cache[where_last(config)]
    close(last, out.hidden_states[-1], "last hidden state")

    goal = targets(case, tokens, real)
    if bool((goal == -100).all()):
        return
    theirs_loss = F.cross_entropy(out.logits.flatten(0, 1), goal.flatten())
    ours_loss = F.cross_entropy(ours(tokens, attention_mask=real).flatten(0, 1), goal.flatten())
    torch.testing.assert_close(ours_loss, theirs_loss, **tolerance)
    if not case.masked:
        # The loss that training uses, which never holds all logits; right padding is in no token's past.
        torch.testing.assert_close(ours.loss(tokens, goal), theirs_loss, **tolerance)
        torch.testing.assert_close(
            ours(tokens, return_type="loss", attention_mask=real), theirs_loss, **tolerance
        )
    theirs_loss.backward()
    ours_loss.backward()
    compare_gradients(case, ours, theirs, tolerance)


def where_last(config) -> str:
    return f"blocks.{config.n_layers - 1}.hook_normalized_resid_post"


def compare_gradients(case, ours, theirs, tolerance):
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in theirs.named_parameters()}
    expected = to_ours(FAMILIES[case.family], ours.config, found, "gradients", None)
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], **tolerance, msg=lambda t, n=name: f"{n}: {t}")
    assert max(float(g.abs().max()) for g in gradients.values()) > 1e-3


@every_case
@pytest.mark.parametrize("length", [1, 8, 19])
def test_parity_in_float64(case, length):
    with in_float64(), case.told():
        check(case, torch.float64, EXACT, length)


@every_case
def test_parity_in_float32(case):
    with case.told():
        check(case, torch.float32, SINGLE, 19)


@pytest.mark.parametrize("case", [c for c in CASES if not c.masked], ids=lambda case: case.name)
@pytest.mark.parametrize("cut", [1, 7, 18])
def test_parity_with_caches(case, cut):
    """Both read the first tokens, then the others one at a time, past every window."""
    with in_float64(), case.told(), torch.no_grad():
        theirs = case.model()
        ours = HookedTransformer.from_hf(theirs)
        tokens, _ = batch(case, ours.config, 19)
        whole = ours(tokens)
        cache, past = ours.new_cache(len(tokens)), None
        for part in (tokens[:, :cut], *tokens[:, cut:].split(1, 1)):
            mine = ours(part, past_kv_cache=cache)
            out = theirs(part, past_key_values=past, use_cache=True)
            past = out.past_key_values
            torch.testing.assert_close(mine, out.logits, **EXACT)
            torch.testing.assert_close(mine, whole[:, cache.length - part.shape[1] : cache.length], **EXACT)


@every_case
def test_there_and_back(case):
    """Ours as theirs has exactly their weights again, and the same settings as far as both have them."""
    theirs = case.model(torch.float32)
    ours = HookedTransformer.from_hf(theirs)
    again = to_hf(ours, case.family)
    before, after = theirs.state_dict(), again.state_dict()
    unused = {"cls.predictions.bias", "lm_head.bias"} if case.masked and not ours.config.tied else set()
    assert before.keys() == after.keys()
    for name in before.keys() - unused:
        assert torch.equal(before[name], after[name]), name
    back = HookedTransformer.from_hf(again)
    assert back.config == ours.config
    assert all(
        torch.equal(a, b) for a, b in zip(back.state_dict().values(), ours.state_dict().values(), strict=True)
    )


def test_the_cases_are_many_and_differ():
    assert len(CASES) >= 24
    assert len({str(sorted(case.settings.items(), key=str)) for case in CASES}) == len(CASES)
    neo = [case.settings for case in CASES if case.family == "gpt_neo"]
    assert any("local" in str(one["attention_types"]) and one["window_size"] < 8 for one in neo)
    llama = [case.settings for case in CASES if case.family == "llama"]
    assert any(1 <= (one["num_key_value_heads"] or 99) < one["num_attention_heads"] for one in llama)
    for family, key in (
        ("gpt2", "tie_word_embeddings"),
        ("bert", "tie_word_embeddings"),
        ("llama", "attention_bias"),
    ):
        assert {case.settings[key] for case in CASES if case.family == family} == {True, False}
