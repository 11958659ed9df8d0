"""A model checks itself when it is loaded from foreign weights.

After an idea of nnterp (https://github.com/Butanium/nnterp): a model whose hooks are in the wrong place
still answers, so the check is causal. Attention rows must sum to 1, and a pattern that is changed through
its hook must change the logits.
"""

from typing import Any

import torch
from torch import Tensor

from workbench.errors import RunError
from workbench.seeds import derive

TOKENS, LOGITS = 4, 512
"""A pattern needs several tokens; few of them, and few logits, cost one pass over the weights."""


@torch.no_grad()
def check_itself(model: Any, where: str) -> None:
    """One short forward pass of three equal rows, the last with other patterns.

    What rounding does is seen between the first two, and from the size of the logits; the last must differ
    by far more.

    Args:
        model: a `HookedTransformer` in eval mode.
        where: begins the messages.

    Raises:
        RunError: an attention row does not sum to 1, logits are not finite, or the patterns do not matter.
    """
    names = [name for name in model.hook_dict if name.endswith("attn.hook_pattern")]
    length = min(TOKENS, model.config.n_ctx)
    random = torch.Generator().manual_seed(derive(model.config.seed, "self-check"))
    tokens = torch.randint(0, model.config.d_vocab, (1, length), generator=random)
    tokens = tokens.expand(3, -1).to(model.device)
    sums: dict[str, Tensor] = {}

    def change(pattern: Tensor, hook: Any) -> Tensor:
        """Each query of the last row looks at the first key alone."""
        sums[hook.name] = pattern.sum(-1)
        pattern = pattern.clone()
        pattern[2], pattern[2, ..., 0] = 0.0, 1.0
        return pattern

    for name in names:
        model.hook_dict[name].add_hook(change)
    try:
        last = model.residual(tokens, attention_mask=torch.ones_like(tokens))[:, -1]
    finally:
        model.reset_hooks()
    logits = last @ model.readout_weight[:LOGITS].T
    if not bool(logits.isfinite().all()):
        raise RunError(f"{where}: the logits of {length} tokens are not finite; the weights are damaged.")
    for name in names:
        # float32 rounds a sum of a few probabilities by some 1e-7, bfloat16 by some 1e-2.
        allowed = 16 * torch.finfo(model.dtype).eps
        if name not in sums or float((sums[name] - 1).abs().max()) > allowed:
            raise RunError(
                f"{where}: the rows of {name} do not sum to 1; the model does not fit its weights."
            )
    rounding, changed = ((logits[0] - logits[row]).abs().max() for row in (1, 2))
    floor = 16 * torch.finfo(model.dtype).eps * logits.abs().max()
    if names and length > 1 and not bool(changed > 10 * rounding + floor):
        raise RunError(f"{where}: changing the attention patterns does not change the logits.")
