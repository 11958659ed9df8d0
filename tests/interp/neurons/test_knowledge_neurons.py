"""Knowledge neurons: a planted one is found and carries the answer, random ones do not."""

import numpy as np
import pytest
import torch
from small_models import BASES, build

from workbench.errors import InputError
from workbench.interp.neurons.attribution import attribute_neurons
from workbench.interp.neurons.knowledge import Probability, _neuron_sets, knowledge_neurons
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

ANSWER, ASKED = 5, 9
FACTS = torch.tensor([[1, 2, ASKED], [3, 2, ASKED], [4, 8, ASKED]])


def planted(seed=0, neuron=3):
    """Neuron `L1N{neuron}` fires on token 9 and writes what raises token 5, over weak random weights."""
    config = ModelConfig(
        n_layers=2, n_heads=2, d_model=24, d_mlp=40, d_vocab=12, n_ctx=8, norm="none", tied=False, seed=seed
    )
    model = HookedTransformer(config).double().eval()
    with torch.no_grad():
        model.embed.W_E[:, :12] += torch.eye(12)
        model.unembed_weight[:, 12:] += torch.eye(12)
        model.blocks[1].mlp.in_weight[neuron, ASKED] = 2.0
        model.blocks[1].mlp.out_weight[12 + ANSWER, neuron] = 1.5
    return model


def test_the_planted_neuron():
    """It is found, carries the answer in other prompts of the fact too, and leaves other facts alone."""
    test, others = torch.tensor([[6, 6, 8, ASKED], [2, 0, 0, ASKED]]), torch.tensor([[1, 2, 7], [3, 2, 8]])
    found = knowledge_neurons(
        planted(), FACTS, ANSWER, test=test, others=others, other_answers=[2, 3], draws=50
    )
    assert [part.label for part in found.neurons] == ["L1N3"]
    assert found.above[1, 3] == 1
    effects = found.effects().set_index(["on", "neurons"])
    assert effects.index.tolist() == [
        (on, what) for on in ("facts", "test", "others") for what in ("suppressed", "enhanced")
    ]
    for on in ("facts", "test"):
        assert effects.change[on, "suppressed"] < -0.5
        assert effects.change[on, "enhanced"] > 0.5
        assert (effects.p[on] < 0.05).all()
    assert (effects.random.abs() < 0.02).all()
    assert (effects.change["others"].abs() < 0.02).all()
    assert (effects.before["facts"] == found.tried["facts"].probability.mean()).all()
    assert found.to_frame().neuron.tolist() == ["L1N3"]


def test_an_untrained_model_has_none_that_stands_out():
    """Where neurons were chosen because they move the answer they do, a little; not by half of it."""
    config = ModelConfig(n_layers=2, n_heads=2, d_model=24, d_mlp=40, d_vocab=12, n_ctx=8)
    found = knowledge_neurons(HookedTransformer(config).double(), FACTS, ANSWER)
    assert (found.effects().change.abs() < 0.05).all()


@pytest.mark.parametrize("base", BASES)
def test_scores_and_effects_are_those_of_the_model(base, tokenizer):
    """The scores are integrated gradients at the answer's place, complete over prompts of unequal length; the
    probabilities those of the model with the neurons scaled there."""
    model = build(**BASES[base] | {"d_vocab": len(tokenizer), "d_mlp": 10})
    masked = model.config.objective == "mlm"
    model.tokenizer = tokenizer
    hole = model.tokenizer.mask_token if masked else ""
    facts = [f"The cat likes {hole}", f"The cats near the tree like {hole}"]
    found = knowledge_neurons(model, facts, " the", threshold=0.5, share=0.5, steps=48, draws=3)
    assert found.neurons
    for row, fact in enumerate(facts):
        tokens = model.to_tokens(fact)
        place = tokens.shape[1] - 1
        metric = Probability(torch.tensor([model.to_single_token(" the")]), torch.tensor([place]))
        alone = attribute_neurons(
            model, fact, metric=metric, method="integrated", positions=[place], steps=48
        )
        np.testing.assert_allclose(found.scores[row], alone.per_pair[0, :, 0], rtol=0, atol=1e-9)
        assert np.abs(alone.rest).max() < 1e-9
        assert found.tried["facts"].probability[row] == pytest.approx(alone.base[0], abs=1e-9)
        for factor, after in ((0.0, found.tried["facts"].suppressed), (2.0, found.tried["facts"].enhanced)):

            def scale(x, hook, factor=factor, place=place):
                x = x.clone()
                for part in found.neurons:
                    if part.hook_name == hook.name:
                        x[:, place, part.unit] *= factor
                return x

            names = {part.hook_name for part in found.neurons}
            with torch.no_grad():
                logits = model.run_with_hooks(tokens, fwd_hooks=[(name, scale) for name in names])
            expected = logits[0, place].softmax(-1)[model.to_single_token(" the")]
            assert after[row] == pytest.approx(float(expected), abs=1e-9)
    assert found.tried["facts"].random_suppressed.shape == (3, 2)


def test_share_of_prompts_and_threshold():
    """A neuron of one prompt in three counts at a third; a lower threshold keeps at least as many."""
    other = FACTS.clone()
    other[1:, -1] = 7
    few = knowledge_neurons(planted(), other, ANSWER, share=0.7)
    assert "L1N3" not in [part.label for part in few.neurons]
    some = knowledge_neurons(planted(), other, ANSWER, share=0.3)
    assert "L1N3" in [part.label for part in some.neurons]
    low = knowledge_neurons(planted(), FACTS, ANSWER, threshold=1e-4)
    high = knowledge_neurons(planted(), FACTS, ANSWER, threshold=0.9)
    assert {part.label for part in high.neurons} <= {part.label for part in low.neurons}
    assert len(high.neurons) < len(low.neurons)
    scores = low.to_frame().score
    assert scores.is_monotonic_decreasing


def test_random_neurons_are_others_and_as_many():
    model = planted()
    one, same, another = (
        knowledge_neurons(model, FACTS, ANSWER, threshold=1e-3, seed=seed).tried["facts"].random_suppressed
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != another).any()
    kept = np.random.default_rng(0).random((3, 20)) < 0.3
    sets = _neuron_sets(kept, 30, np.random.default_rng(1))
    assert (sets.sum(2) == kept.sum(1)).all()
    assert not (sets[1:] & kept).any()
    assert len({each.tobytes() for each in sets[1:]}) > 25


def test_no_neuron_is_left():
    """An answer that no neuron helps: nothing is kept, nothing changes, and the picture is drawn."""
    model = planted()
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.out_weight.zero_()
    found = knowledge_neurons(model, FACTS, ANSWER)
    assert found.neurons == ()
    tried = found.tried["facts"]
    np.testing.assert_allclose(tried.suppressed, tried.probability, rtol=0, atol=1e-12)
    assert (found.effects().p == 1).all()
    assert "0 knowledge neurons" in found.plot().axes[0].get_title()
    assert len(found.to_frame()) == 0


def test_picture():
    ax = knowledge_neurons(planted(), FACTS, ANSWER).plot().axes[0]
    assert len(ax.patches) == 4
    assert "%" in ax.get_ylabel()


BAD = {
    "threshold": (dict(threshold=0.0), "threshold must be above 0 and at most 1; found 0.0"),
    "share": (dict(share=1.5), "share must be above 0"),
    "steps": (dict(steps=0), "At least 1 step and 1 draw"),
    "draws": (dict(draws=0), "At least 1 step and 1 draw"),
    "others": (dict(others=FACTS), "Give both others= .* and other_answers="),
    "layers": (dict(layers=[2]), "Block 2 has no neurons"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    settings, words = BAD[name]
    with pytest.raises(InputError, match=words):
        knowledge_neurons(planted(), FACTS, ANSWER, **settings)


def test_a_masked_prompt_needs_one_hole(tokenizer):
    model = build(**BASES["bert-like"] | {"d_vocab": len(tokenizer), "objective": "mlm"})
    with pytest.raises(InputError, match="tokenizer has none"):
        knowledge_neurons(model, torch.tensor([[1, 2, 3]]), 5)
    model.tokenizer = tokenizer
    for fact, count in (
        ("The cat", 0),
        (f"The {model.tokenizer.mask_token} {model.tokenizer.mask_token}", 2),
    ):
        with pytest.raises(InputError, match=f"prompt 0 has {count} mask tokens"):
            knowledge_neurons(model, fact, " the")
