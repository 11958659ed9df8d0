"""Distance-based and semantic heads are told apart, and uniform attention is neither."""

import numpy as np
import pytest
import torch
from planted_heads import PLACES, SHARP, VOCAB, planted
from small_models import VARIANTS, build

from workbench.errors import InputError
from workbench.interp.head_kinds import head_kinds

pytestmark = pytest.mark.usefixtures("unchecked")


def rows(count=40, length=PLACES, d_vocab=VOCAB, seed=0):
    random = np.random.default_rng(seed)
    return [[1, 5, *random.integers(2, d_vocab, length - 2).tolist()] for _ in range(count)]


@pytest.fixture(scope="module")
def found():
    """Layer 0: head 0 looks at token 5 wherever it stands, head 1 at the previous place, head 2 at everything."""
    model = planted()
    first = model.blocks[0].attn
    with torch.no_grad():
        first.W_Q[0, VOCAB : VOCAB + PLACES, 0] = SHARP  # whatever the place
        first.W_K[0, 5, 0] = 1.0
    return head_kinds(model, rows())


def test_planted_heads_are_called_what_they_are(found):
    assert found.kinds[0].tolist() == ["semantic", "distance", "uniform"]
    assert found.kinds[1, :2].tolist() == ["uniform", "uniform"]
    assert found.kinds[1, 2] == "semantic"  # induction: what the query asks for


def test_a_rule_that_is_the_truth_explains_all(found):
    total, distance, token = (found.of(name)[0] for name in found.measures)
    # All attention on one key of q + 1: log(q + 1) nats; the mean over the queries behind the first.
    one_hot = np.log(np.arange(2, PLACES + 1)).mean()
    assert total[1] == pytest.approx(one_hot, abs=1e-9)
    # Distances were counted with one uniform query beside 20 rows of 25 queries.
    assert 0.9 * one_hot < distance[1] < one_hot
    assert abs(token[1]) < 0.2 * one_hot
    assert 0.5 * total[0] < token[0] <= total[0]


def test_uniform_attention_is_zero_nats(found):
    np.testing.assert_allclose(found.of("total")[0, 2], 0, atol=1e-12)
    np.testing.assert_allclose(found.of("distance")[0, 2], 0, atol=0.02)


def test_an_untrained_copy_is_uniform(found):
    assert (found.untrained[0] < 0.1).all()
    alone = head_kinds(build(), rows(4, 12, 61), untrained=False)
    assert np.isnan(alone.untrained).all()


@pytest.mark.parametrize(
    "name", ["bert-like", "gpt-neo-like", "default / layout=mam", "default / windows=5,2"]
)
def test_gains_never_exceed_the_divergence(name):
    model = build(**VARIANTS[name])
    found = head_kinds(model, rows(8, 16, 61), untrained=False)
    for rule in (found.distance, found.token):
        assert (rule <= found.total + 1e-9).all()
    assert not model.has_listeners()
    frame = found.to_frame()
    assert len(frame) == 3 * found.kinds.size
    assert (frame.low <= frame.nats).all()


def test_bad_input():
    with pytest.raises(InputError, match="two sequences of two tokens"):
        head_kinds(build(), [[1, 2, 3], [4]])
    with pytest.raises(InputError, match="its layout is mm"):
        head_kinds(build(layout="mm"), rows(4))


def test_the_plot(found):
    pytest.importorskip("matplotlib").use("Agg")
    ax = found.plot().axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()][:2] == ["L0H0  semantic", "L0H1  distance"]
