"""Change what flows through a hook point, at every token but the one that opens the text."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Change = Callable[[Float[Tensor, "*batch width"]], Float[Tensor, "*batch width"]]


@contextmanager
def changed(network: Any, hook: str, change: Change | None, *, opening: bool = False) -> Iterator[Any]:
    """A model whose activations at `hook` go through `change` as long as the block lasts.

    Args:
        network: a `HookedTransformer`.
        hook: full name of a hook point with a vector a token; heads are laid side by side.
        change: of vectors; None changes nothing, computed the same way.
        opening: also at BOS, whose activations are unlike all others and which no probe reads.
    """
    seen = threading.local()
    first = None if network.tokenizer is None else network.tokenizer.bos_token_id

    def note(module: Any, args: tuple[Any, ...]) -> None:
        seen.tokens = args[0]

    def edit(x: Tensor, hook: Any) -> Tensor:
        flat = x.flatten(2)
        new = flat if change is None else change(flat)
        if first is not None and not opening:
            opens = seen.tokens.expand(x.shape[:2]) == first
            new = torch.where(opens[..., None], flat, new)
        return new.view(x.shape)

    handle = network.embed.register_forward_pre_hook(note)
    point = network.hook_dict[hook]
    added = point.add_hook(edit, is_permanent=True)
    try:
        yield network
    finally:
        added.hook.remove()
        point.fwd_hooks = [other for other in point.fwd_hooks if other is not added]
        handle.remove()
