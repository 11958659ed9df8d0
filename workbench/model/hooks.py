"""Lazy hook points: what nobody listens to is not computed.

A `HookPoint` (transformer-lens) with no listener is an identity that costs one module call.
Tensors that lie off the fast path ask `listened` first.
"""

from transformer_lens.hook_points import HookPoint


def listened(*points: HookPoint) -> bool:
    """Whether any of the hook points has a forward or backward listener, however it was added."""
    return any(point._forward_hooks or point._backward_hooks or point._forward_pre_hooks for point in points)
