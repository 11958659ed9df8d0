"""Layer weights are what the blocks mix with, and what their plot shows."""

import numpy as np
import pytest
import torch
from small_models import build

from workbench.errors import InputError
from workbench.interp.attribution import layer_weights


@pytest.fixture(scope="module")
def model():
    return build(n_layers=3, residual="weighted")


def test_they_are_the_ones_of_a_run(model):
    found = layer_weights(model)
    _, cache = model.run_with_cache(torch.tensor([[1, 5, 7]]))
    for row, values in enumerate(found.weights):
        hooked = cache[f"blocks.{row}.hook_mix"].numpy()
        np.testing.assert_allclose(values[: row + 2], hooked, rtol=1e-12)
        assert np.isnan(values[row + 2 :]).all()
    assert found.readers == ("block 1", "block 2", "readout")
    assert found.sources == ("embedding", "block 0", "block 1", "block 2")


def test_the_frame_holds_what_can_be_read(model):
    frame = layer_weights(model).to_frame()
    assert list(frame.columns) == ["reads", "from", "weight"]
    assert frame.groupby("reads").weight.sum().to_numpy() == pytest.approx(1.0)
    assert frame.groupby("reads").size().to_dict() == {"block 1": 2, "block 2": 3, "readout": 4}


def test_the_plot_shows_the_numbers(model):
    pytest.importorskip("matplotlib").use("Agg")
    found = layer_weights(model)
    ax = found.plot().axes[0]
    written = [text.get_text() for text in ax.texts]
    assert written == [f"{value:.2f}" for value in found.to_frame().weight]
    assert [label.get_text() for label in ax.get_xticklabels()] == list(found.sources)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("from", "reads")


def test_a_plain_stream_has_none(causal):
    with pytest.raises(InputError, match="'plain' has no layer weights"):
        layer_weights(causal)
