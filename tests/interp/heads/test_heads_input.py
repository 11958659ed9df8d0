"""What head scores refuse, in words."""

import numpy as np
import pytest
import torch
from small_models import build, configuration

from workbench.errors import InputError
from workbench.interp.heads import head_scores
from workbench.model.transformer import HookedTransformer


@pytest.mark.parametrize(
    ("fields", "arguments", "words"),
    [
        ({"layout": "mm"}, {}, "This model has no pattern: its layout is mm"),
        ({}, {"sequences": []}, "there are no sequences"),
        ({}, {"sequences": [[1, 99]]}, "ids of sequence 0 run from 1 to 99; the vocabulary has 61"),
        ({}, {"sequences": [[1], list(range(30))]}, r"sequence 1 has the shape \[30\]; give 1 to 24 token ids"),
        ({}, {"sequences": [[]]}, r"sequence 0 has the shape \[0\]"),
        ({}, {"scores": ["previos"]}, "no score is called 'previos'. Did you mean 'previous'?"),
        ({}, {"scores": ["name"]}, "name cannot be taken: no token ids were given"),
        ({}, {"scores": ["next"]}, "a causal model cannot see the next token"),
        ({}, {"repeat_length": 12}, "repeat_length = 12 must lie between 2 and 11"),
        ({}, {"names": [61]}, "the name ids run to 61; the vocabulary has 61"),
        ({}, {"unigram": np.ones(3)}, "unigram must hold 61 counts"),
        ({}, {"mask": torch.ones(1, 2, dtype=torch.bool)}, "a mask belongs to token ids of the same shape"),
    ],
)  # fmt: skip
def test_mistakes_are_named(fields, arguments, words):
    model = HookedTransformer(configuration(**fields)).eval()
    arguments = {"sequences": [[1, 5, 6], [1, 7]]} | arguments
    with pytest.raises(InputError, match=words):
        head_scores(model, arguments.pop("sequences"), **arguments)


def test_left_padding_is_refused():
    mask = torch.tensor([[0, 1, 1]]).bool()
    with pytest.raises(InputError, match="padding before a token"):
        head_scores(build(), torch.ones(1, 3, dtype=torch.long), mask=mask)
