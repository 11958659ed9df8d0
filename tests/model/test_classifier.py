"""Fine-tuning on the last or the first token: what it reads, learns, refuses and keeps."""

import pytest
import torch
from small_models import BASES, build
from torch import nn

from training.optimizers.adamw import AdamW
from workbench.errors import ConfigError, InputError
from workbench.model.classifier import SequenceClassifier
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

BIDIRECTIONAL = [name for name, fields in BASES.items() if fields.get("attention") == "bidirectional"]
PLACES = [(name, "last") for name in BASES] + [(name, "first") for name in BIDIRECTIONAL]


def random_tokens(rows, length, seed=0):
    return torch.randint(4, 61, (rows, length), generator=torch.Generator().manual_seed(seed))


def classifier(base, token, n_classes=3, **fields):
    return SequenceClassifier(build(**BASES[base] | fields), n_classes, token=token).double().eval()


@pytest.mark.parametrize(("base", "token"), PLACES)
def test_it_reads_the_normalised_stream_at_the_last_or_first_real_token(base, token):
    made, tokens = classifier(base, token), random_tokens(2, 9)
    mask = torch.ones_like(tokens)
    mask[1, 6:] = 0
    model = made.model
    with torch.no_grad():
        found = made(tokens, mask)
        for row, length in enumerate((9, 6)):
            _, cache = model.run_with_cache(tokens[row : row + 1, :length])
            end = f"blocks.{model.config.n_layers - 1}."
            if model.config.norm_place == "post":
                stream = cache[end + "hook_normalized_resid_post"]
            else:
                stream = model.ln_final(cache[end + "hook_resid_post"])
            expected = made.head(stream[0, -1 if token == "last" else 0])
            # The cached run takes the explicit path, in float64.
            torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("base", "token"), PLACES)
def test_padding_changes_nothing(base, token):
    made = classifier(base, token)
    short = random_tokens(1, 5, seed=1)
    with torch.no_grad():
        alone = made(short)
        for filler in (0, 7):
            padded = torch.cat([short, torch.full((1, 6), filler)], 1)
            batch = torch.cat([padded, random_tokens(1, 11, seed=2)])
            mask = torch.tensor([[1] * 5 + [0] * 6, [1] * 11])
            torch.testing.assert_close(made(batch, mask)[:1], alone, rtol=0, atol=1e-10)
        # A positive control: without the mask the padding is read.
        assert not torch.allclose(made(batch)[:1], alone, rtol=0, atol=1e-3)


@pytest.mark.parametrize("token", ["last", "first"])
def test_a_closing_token_that_is_also_pad_is_read(token):
    """Padding is known from the mask alone: with PAD = SEP a text's own SEP must not vanish."""
    made, tokens = classifier("bert-like", token), random_tokens(2, 8)
    tokens[:, -1] = 2
    with torch.no_grad():
        expected = made(tokens, torch.ones_like(tokens))
        made.model.tokenizer = type("Tokenizer", (), {"pad_token_id": 2})()
        torch.testing.assert_close(made(tokens), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            made.model(tokens), made.model(tokens, attention_mask=torch.ones_like(tokens)), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize(
    ("base", "token"), [("default", "last"), ("bert-like", "first"), ("llama-like", "last")]
)
def test_fine_tuning_learns_a_task_in_fewer_than_100_steps(base, token):
    """Which of two tokens stands somewhere in the row: a head alone on random weights hardly knows."""
    torch.manual_seed(0)
    shape = dict(d_model=32, n_layers=2, n_heads=4, d_mlp=64, d_vocab=61, n_ctx=24) | BASES[base]
    made = SequenceClassifier(HookedTransformer(ModelConfig(**shape)), 2, token=token)
    random = torch.Generator().manual_seed(1)

    def batch(rows):
        tokens = torch.randint(6, 61, (rows, 12), generator=random)
        labels = torch.randint(2, (rows,), generator=random)
        tokens[torch.arange(rows), torch.randint(12, (rows,), generator=random)] = 4 + labels
        return tokens, labels

    optimiser = AdamW(made.named_parameters(), weight_decay=0.0)
    for _ in range(90):
        optimiser.zero_grad()
        tokens, labels = batch(64)
        made(tokens, labels=labels).backward()
        optimiser.step(1e-2)
    tokens, labels = batch(500)
    with torch.no_grad():
        right = (made.eval()(tokens).argmax(-1) == labels).double().mean()
        made.model.initialise()
        chance = (made(tokens).argmax(-1) == labels).double().mean()
    assert right > 0.95
    assert chance < 0.75  # the model's weights know it, not the head's alone


@pytest.mark.parametrize("base", BASES)
def test_gradients_reach_every_weight_that_is_read(base):
    made = classifier(base, "last")
    made(random_tokens(3, 9), labels=torch.tensor([0, 2, 1])).backward()
    unread = ("model.mlm_head.", "model.unembed_")  # they stand behind the normalised stream
    for name, parameter in made.named_parameters():
        silent = parameter.grad is None or not parameter.grad.any()
        assert silent == name.startswith(unread), name


def test_the_models_hooks_fire_and_steer():
    made, tokens = classifier("default", "last"), random_tokens(2, 7)
    with torch.no_grad():
        plain = made(tokens)
        seen = []

        def silence(value, hook):
            seen.append(hook.name)
            return value * 0

        with made.model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", silence)]):
            steered = made(tokens)
        assert seen == ["blocks.1.attn.hook_pattern"]
        assert not torch.allclose(steered, plain, rtol=0, atol=1e-3)
        assert torch.equal(made(tokens), plain)
    last = made.model.ln_final
    assert not last._forward_hooks, "nothing stays behind"
    with pytest.raises(InputError):
        made(torch.full((1, 3), 99))
    assert not last._forward_hooks, "nor after an error"


@pytest.mark.parametrize("base", BASES)
def test_weights_survive_a_file(base, tmp_path):
    from safetensors.torch import load_file, save_file

    made, tokens = classifier(base, "last"), random_tokens(2, 7)
    save_file(made.state_dict(), tmp_path / "classifier.safetensors")
    again = classifier(base, "last", seed=5)
    nn.init.ones_(again.head.weight)
    assert not torch.equal(again(tokens), made(tokens))
    again.load_state_dict(load_file(tmp_path / "classifier.safetensors"))
    assert torch.equal(again(tokens), made(tokens))
    with pytest.raises(RuntimeError, match=r"embed\.W_E"):
        again.load_state_dict({name: w for name, w in made.state_dict().items() if name != "model.embed.W_E"})
    with pytest.raises(RuntimeError, match=r"tail\.weight"):
        again.load_state_dict(made.state_dict() | {"tail.weight": torch.ones(1)})


def test_the_head_is_seeded_and_of_the_models_type():
    model = build()
    first, same = SequenceClassifier(model, 2), SequenceClassifier(model, 2)
    assert torch.equal(first.head.weight, same.head.weight)
    assert not torch.equal(first.head.weight, SequenceClassifier(model, 2, seed=1).head.weight)
    assert first.head.weight.dtype == torch.float64


def test_dropout_acts_in_training_only():
    made = SequenceClassifier(build(), 2, dropout=0.5)
    tokens = random_tokens(4, 6)
    made.train()
    torch.manual_seed(0)
    assert not torch.equal(made(tokens), made(tokens))
    made.eval()
    assert torch.equal(made(tokens), made(tokens))


def test_loss_is_the_cross_entropy_in_nats():
    made, tokens, labels = classifier("default", "last"), random_tokens(3, 5), torch.tensor([2, 0, 2])
    expected = -made(tokens).log_softmax(-1)[torch.arange(3), labels].mean()
    torch.testing.assert_close(made(tokens, labels=labels), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(n_classes=1), "n_classes must be a whole number of at least 2; found 1."),
        (dict(n_classes=True), "n_classes must be a whole number of at least 2; found True."),
        (dict(n_classes=2, token="middle"), "token must be last or first; found 'middle'."),
        (dict(n_classes=2, dropout=1.0), r"dropout must lie in \[0, 1\); found 1.0."),
        (
            dict(n_classes=2, token="first"),
            "token = 'first' needs model.attention = bidirectional: a causal model's first token has seen "
            "nothing of the text; use token = 'last'.",
        ),
    ],
)
def test_what_it_refuses_to_be(arguments, words):
    with pytest.raises(ConfigError, match=f"^{words}$"):
        SequenceClassifier(build(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(labels=torch.tensor([0, 3])), "labels run from 0 to 3; there are 3 classes, from 0."),
        (dict(labels=torch.tensor([0.0, 1.0])), "found .* of torch.float32"),
        (dict(labels=torch.tensor([-1, 0])), "labels run from -1 to 0"),
        (
            dict(labels=torch.tensor([0])),
            r"labels must be one whole number a row, \[2\]; found \[1\] of torch.int64",
        ),
        (
            dict(attention_mask=torch.ones(2, 4, dtype=torch.int64)),
            r"attention_mask has the shape \[2, 4\], tokens have \[2, 5\]",
        ),
        (dict(attention_mask=torch.tensor([[1] * 5, [0] * 5])), "row 1 has no token, only padding"),
        (dict(attention_mask=torch.tensor([[1] * 5, [0] + [1] * 4])), "padding is on the left"),
    ],
)
def test_what_it_refuses_to_read(arguments, words):
    made = classifier("default", "last")
    with pytest.raises(InputError, match=words):
        made(random_tokens(2, 5), **arguments)
