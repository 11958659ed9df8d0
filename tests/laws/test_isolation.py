"""A token sees what it may see and nothing else."""

import pytest
import torch
from law_tools import absolute, agree, attends, differ

from workbench.errors import InputError

pytestmark = pytest.mark.usefixtures("unchecked")


@torch.no_grad()
def test_attention_rows_sum_to_one(model, tokens):
    _, cache = model.run_with_cache(tokens)
    for layer in attends(model.config):
        pattern = cache["pattern", layer]
        agree(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
        if model.config.attention == "causal":
            assert pattern.triu(1).abs().max() == 0
        else:
            assert pattern.triu(1).abs().max() > 0


@torch.no_grad()
def test_causality_to_the_bit(model, tokens, logits):
    """Changing later tokens changes no earlier logit at all; in a masked model it must change them."""
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 5) % 61
    after = model(changed)
    differ(after[:, 9:], logits[:, 9:])
    if model.config.attention == "causal" or not attends(model.config):
        assert torch.equal(after[:, :9], logits[:, :9])
    else:
        differ(after[:, :9], logits[:, :9])


@torch.no_grad()
def test_a_row_alone_is_the_row_in_any_batch(model, tokens):
    lengths = [17, 4, 11]
    mask = torch.arange(17)[None] < torch.tensor(lengths)[:, None]
    padded = tokens.where(mask, 0)
    together, careless = model(padded, attention_mask=mask), model(padded)
    for row, length in enumerate(lengths):
        alone = model(tokens[row : row + 1, :length])
        agree(together[row, :length], alone[0])
        if length < 17 and model.config.attention == "bidirectional" and attends(model.config):
            differ(careless[row, :length], alone[0])


def test_left_padding_is_refused(model, tokens):
    mask = torch.ones_like(tokens).bool()
    mask[1, :3] = False
    with pytest.raises(InputError, match="pad on the right"):
        model(tokens, attention_mask=mask)


@torch.no_grad()
def test_stories_in_a_row_do_not_see_each_other(model, tokens, logits):
    segments = torch.tensor([[0] * 6 + [1] * 11]).expand(3, -1)
    together = model(tokens, segments=segments)
    agree(together[:, :6], model(tokens[:, :6]))
    agree(together[:, 6:], model(tokens[:, 6:]))
    if attends(model.config) or absolute(model.config):
        differ(together[:, 6:], logits[:, 6:])


@torch.no_grad()
def test_branches_of_a_prefix_tree_are_separate_rows(model, tokens):
    """Two rows with five tokens in common, read as one tree, the way scoring reads them."""
    if model.config.attention != "causal":
        pytest.skip("in a masked model a shared beginning would see both ends")
    one, other = tokens[0, :12], torch.cat([tokens[0, :5], tokens[1, 5:12]])
    tree = torch.cat([one, other[5:]])[None]
    positions = torch.cat([torch.arange(12), torch.arange(5, 12)])[None]
    branch = torch.tensor([0] * 5 + [1] * 7 + [2] * 7)
    mask = torch.ones(19, 19).tril().bool() & ((branch[None] == 0) | (branch[None] == branch[:, None]))
    read = model.residual(tree, positions=positions, mask=mask[None, None])[0]
    agree(read[:12], model.residual(one[None])[0])
    agree(torch.cat([read[:5], read[12:]]), model.residual(other[None])[0])
    if attends(model.config):
        differ(model.residual(tree, positions=positions)[0, 12:], read[12:])


@torch.no_grad()
def test_only_distances_count_unless_positions_are_absolute(model, tokens):
    moved = torch.arange(17).expand(3, -1) + 2
    found, expected = model.residual(tokens, positions=moved), model.residual(tokens)
    if absolute(model.config):
        differ(found, expected)
    else:
        agree(found, expected, 1e-10)  # angles of other sizes, each rounded
