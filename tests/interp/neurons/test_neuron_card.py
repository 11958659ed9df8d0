"""A card says what is true of its neuron, and hostile text stays text in every view of it."""

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from scored_models import small_model, small_tokenizer
from small_models import build

from workbench.data.embedded.stories import stories
from workbench.errors import InputError
from workbench.interp.ablation import ablation_effect
from workbench.interp.neurons.attribution import estimated_effects
from workbench.interp.neurons.card import neuron_card
from workbench.interp.neurons.examples import neuron_examples
from workbench.interp.neurons.labels import label_neurons
from workbench.interp.neurons.tokens import promoted_tokens
from workbench.interp.texts import text_batches

TOLD = stories(40, seed=9)
HOSTILE = [
    'The </span><script>alert(1)</script> & "cat" <img src=x onerror=alert(2)> sat.',
    "\x1b[31mred\x1b[0m \u202eevil\u202c \x07bell {{x}} ${y} <!-- --> ' onload='z",
] * 8


@pytest.fixture(scope="module")
def model():
    return small_model(init_std=0.1, d_mlp=24).double()


@pytest.fixture(scope="module")
def card(model):
    return neuron_card(model, "L1N7", TOLD, stories=TOLD, count=4)


def test_every_number_is_that_of_its_own_function(model, card, unchecked):
    found = neuron_examples(model, TOLD)
    at = found.part("L1N7")
    assert (card.layer, card.neuron, card.name, card.tokens) == (1, 7, "L1N7", found.tokens)
    for name in ("mean", "std", "active", "max"):
        assert getattr(card, name) == pytest.approx(getattr(found, name)[at], abs=1e-12)
    np.testing.assert_array_equal(card.histogram, found.histogram[at])
    labels = label_neurons(model, TOLD, layers=[1])
    assert card.label.name == labels.features[labels.feature[0, 7]]
    assert card.label.auc == labels.auc[0, 7]
    assert card.label.holds == labels.passed[0, 7]
    effect = ablation_effect(model, "L1N7", how="mean", text=TOLD, measure=("loss",))
    assert card.ablation.loss_change == pytest.approx(effect.loss_change, abs=1e-12)
    assert card.promoted == promoted_tokens(model, 1, 7, 4).promoted
    assert [(one.kind, one.row, one.pos) for one in card.passages] == [
        (one.kind, one.row, one.pos) for one in found.examples("L1N7")
    ]


def test_activations_along_a_passage_are_the_models(model, card, unchecked):
    """Also of rows of several stories, each of which is read by itself."""
    for one in (card.passages[0], card.passages[-1]):
        batch = text_batches(model, TOLD[one.row])[0]
        _, cache = model.run_with_cache(batch.tokens)
        along = cache["blocks.1.mlp.hook_post"][0, :, 7].detach().numpy()
        first = one.pos - one.place
        np.testing.assert_allclose(one.values, along[first : first + len(one.values)], atol=1e-12)
        assert one.values[one.place] == pytest.approx(one.value, abs=1e-12)
        ids = batch.tokens[0, first : first + len(one.tokens)].tolist()
        assert list(one.tokens) == [small_tokenizer().decode([i]) for i in ids]
    frame = card.to_frame()
    assert frame.here.sum() == len(card.passages)
    np.testing.assert_array_equal(
        frame.activation[frame.here], [one.values[one.place] for one in card.passages]
    )


def test_text_marks_the_token_and_strong_neighbours(card):
    text = card.to_text()
    lines = text.splitlines()
    assert lines[0] == "L1N7 of model"
    assert "top passages" in lines
    assert "random tokens" in lines
    assert "\x1b" not in text
    passages = [line for line in lines if re.match(r" *-?\d+\.\d{3}  ", line)]
    assert len(passages) == len(card.passages)
    assert all("[" in line for line in passages)
    strong = sum(int((np.delete(one.values, one.place) >= card.max / 2).sum()) for one in card.passages)
    assert sum(line.count("(") for line in passages) >= strong > 0
    coloured = card.to_text(colour=True)
    assert "\x1b[1;4" in coloured
    plain = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert "\x1b" not in plain
    bare = text.translate(str.maketrans("", "", "[]()"))
    assert plain.translate(str.maketrans("", "", "[]()")) == bare


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text.append(data)


def test_hostile_text_stays_text(model, unchecked):
    card = neuron_card(model, "L0N3", HOSTILE, stories=TOLD, labels=False)
    page = card.to_html()
    seen = _Tags()
    seen.feed(page)
    assert seen.tags <= {
        "html", "head", "meta", "title", "body", "style", "section", "h2", "small", "dl", "dt", "dd", "svg", "rect",
        "h3", "p", "span",
    }  # fmt: skip
    assert not any(name.startswith("on") or name in ("src", "href") for name in seen.attributes)
    assert "default-src 'none'" in html.unescape(page)
    assert "http" not in page.replace("http-equiv", "")
    shown = "".join(seen.text)
    assert "<script>" in shown or "<img" in shown  # it is there, as text
    for view in (page, card.to_text(), card.to_text(colour=True)):
        assert "\u202e" not in view
        assert "\x07" not in view
    assert "\x1b" not in card.to_text()
    assert "\x1b[31m" not in card.to_text(colour=True)
    body = card.to_html(whole=False)
    assert body.split("</style>")[1] in page
    assert "<html" not in body


def test_pairs_are_measured_where_they_are_wanted(model, unchecked):
    found = neuron_card(
        model,
        "L0N3",
        TOLD[:6],
        stories=TOLD[:6],
        labels=False,
        how="zero",
        pairs=_few_pairs(),
        before=2,
        after=1,
    )
    assert found.ablation.pairs is not None
    assert "accuracy on pairs" in found.to_text()
    assert "zero ablation" in found.to_text()
    assert found.label is None
    assert max(len(one.tokens) for one in found.passages) == 4
    numbers = found.to_dict()
    assert numbers["label"] is None
    assert set(numbers["accuracy_change"]) == {"mean", "low", "high"}


def _few_pairs():
    from workbench.data.pairs import PairSet, open_pairs

    whole = open_pairs()
    return PairSet("few", "folder", {uid: whole.paradigms[uid][:5] for uid in list(whole.paradigms)[:2]})


def test_estimates_are_close_to_small_ablations_and_permute(unchecked):
    """Where the gate closes by little the slope is the effect: a neuron that hardly varies shows it."""
    model = build(d_mlp=10)
    text = torch.randint(4, 61, (12, 15), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.out_weight.mul_(1e-4)
    means = neuron_examples(model, text).mean
    estimate = estimated_effects(model, means, text)
    names = [f"L{layer}N{unit}" for layer in range(2) for unit in range(10)]
    truth = ablation_effect(
        model, names, each=True, how="mean", text=text, reference=text, measure=("loss",)
    ).loss_change
    np.testing.assert_allclose(estimate.ravel(), truth, rtol=2e-3, atol=1e-9)
    dead = build(d_mlp=10)
    with torch.no_grad():
        dead.blocks[0].mlp.out_weight[:, 4] = 0
    assert estimated_effects(dead, neuron_examples(dead, text).mean, text)[0, 4] == 0
    assert not dead.has_listeners()


def test_a_masked_and_a_packed_text_have_cards(unchecked):
    masked = small_model(attention="bidirectional", init_std=0.1, d_mlp=12)
    card = neuron_card(masked, "L1N2", TOLD[:8], stories=TOLD[:8], labels=False)
    assert "<mask>" not in card.to_text()
    from workbench.interp.texts import IGNORED, TextBatch

    causal = small_model(init_std=0.1, d_mlp=12).double()
    rows = torch.randint(4, 600, (4, 20), generator=torch.Generator().manual_seed(0))
    segments = (torch.arange(20) >= 8).long().expand(4, -1)
    batch = TextBatch(rows, torch.full_like(rows, IGNORED), segments)
    card = neuron_card(causal, "L1N2", [batch], stories=TOLD[:4], labels=False, alike=0)
    one = next(one for one in card.passages if one.pos > 8)
    assert one.values[one.place] == pytest.approx(one.value, abs=1e-12)


@pytest.mark.parametrize(
    ("neuron", "words"),
    [
        ("L1H2", "A card is of one neuron, such as L0N17; found 'L1H2'"),
        ("L0N1, L0N2", "A card is of one neuron"),
        ("L0N999", "L0N999 is out of range; block 0 has L0N0 to L0N23"),
        ("L9N0", "the model has blocks L0 to L1"),
        ("neuron 5", "Unknown head, MLP or neuron 'neuron 5'"),
    ],
)
def test_other_names_are_refused(model, neuron, words):
    with pytest.raises(InputError, match=words):
        neuron_card(model, neuron, TOLD)


def test_results_of_other_layers_are_refused(model, unchecked):
    other = neuron_examples(model, TOLD[:4], layers=[1])
    with pytest.raises(InputError, match="'L0N3' was not read"):
        neuron_card(model, "L0N3", examples=other, labels=False)


def test_it_is_drawn(card):
    pytest.importorskip("matplotlib")
    ax = card.plot().axes[0]
    assert ax.get_title().startswith("L1N7")
    assert ax.get_yscale() == "log"
    assert sum(patch.get_height() for patch in ax.patches) == card.tokens
