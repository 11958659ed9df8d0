"""Which activations are meant: hook names, patterns such as `blocks.*.attn.hook_z`, and short names."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from workbench.errors import InputError, nearest, shown

FINAL = 1_000_000
"""Depth of what comes behind the blocks."""
EMBEDDING = "hook_embed"
"""The embedding layer: what is known of a token before any block has read its context."""

SHORT = {
    "resid_pre": "blocks.*.hook_resid_pre",
    "resid_mid": "blocks.*.hook_resid_mid",
    "resid_post": "blocks.*.hook_resid_post",
    "attn_out": "blocks.*.hook_attn_out",
    "mlp_out": "blocks.*.hook_mlp_out",
    "z": "blocks.*.attn.hook_z",
    "q": "blocks.*.attn.hook_q",
    "k": "blocks.*.attn.hook_k",
    "v": "blocks.*.attn.hook_v",
    "neurons": "blocks.*.mlp.hook_post",
    "embed": EMBEDDING,
}
"""Names that may stand for a pattern."""

_PER_HEAD = ("hook_q", "hook_k", "hook_v", "hook_z", "hook_rot_q", "hook_rot_k")
_NOT_BY_TOKEN = ("hook_attn_scores", "hook_pattern")
_COPIES = ("hook_result", "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input")
_LAYER = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclasses.dataclass(frozen=True)
class Place:
    """A hook point's place in the model."""

    hook: str
    """Full name."""
    layer: int | None
    """Number of the block; None outside the blocks."""
    kind: str
    """The name behind `blocks.{layer}.`, the same for all layers."""

    @property
    def is_per_head(self) -> bool:
        """Whether the activation has a vector for each head."""
        return self.kind.rpartition(".")[2] in _PER_HEAD

    @property
    def depth(self) -> int:
        """-1 before the blocks, then the block; what comes behind the blocks is last."""
        if self.layer is not None:
            return self.layer
        return -1 if "embed" in self.kind else FINAL


def place_of(hook: str) -> Place:
    """The place of a hook point by its name."""
    found = _LAYER.fullmatch(hook)
    return Place(hook, int(found[1]), found[2]) if found else Place(hook, None, hook)


def find_hooks(model: Any, wanted: str | Sequence[str]) -> tuple[str, ...]:
    """Hook points by name, pattern or short name, from the first layer to the last.

    Args:
        model: a `HookedTransformer`.
        wanted: full names, patterns with `*` and `?` (`blocks.*.attn.hook_z`, `blocks.0.*`), short names
            (see `SHORT`), or several of these, also in one text with commas.

    Raises:
        InputError: nothing has that name, it has no vector for each token, or it is one of the per-head
            copies of the residual stream.
    """
    words = [wanted] if isinstance(wanted, str) else list(wanted)
    words = [part.strip() for word in words for part in str(word).split(",") if part.strip()]
    if not words:
        raise InputError("no hook was named; name one such as resid_post or blocks.*.attn.hook_z.")
    there = list(model.hook_dict)
    found: dict[str, None] = {}
    for word in words:
        found.update(dict.fromkeys(_matching(word, there)))
    return tuple(sorted(found, key=lambda name: (place_of(name).depth, there.index(name))))


def _matching(word: str, there: Sequence[str]) -> list[str]:
    pattern = SHORT.get(word, word)
    wild = any(letter in pattern for letter in "*?[")
    names = [name for name in there if (fnmatchcase(name, pattern) if wild else name == pattern)]
    if not names:
        raise InputError(f"no hook point is called {shown(word)!r} here. {nearest(word, _offered(there))}")
    kept = [name for name in names if not name.endswith((*_NOT_BY_TOKEN, *_COPIES))]
    kept = [name for name in kept if not name.endswith("hook_scale")] if wild else kept
    if not kept:
        why = (
            "it has a number for each pair of tokens, not a vector for each token"
            if names[0].endswith(_NOT_BY_TOKEN)
            else "it is a copy of the residual stream for each head; probe resid_pre or z"
        )
        raise InputError(f"{shown(word)} cannot be probed: {why}.")
    return kept


def _offered(there: Iterable[str]) -> list[str]:
    """What a mistyped name may have meant: short names, and a pattern for each kind."""
    kinds = dict.fromkeys(place_of(name).kind for name in there)
    patterns = [f"blocks.*.{kind}" for kind in kinds if f"blocks.0.{kind}" in there]
    return [*SHORT, *patterns]
