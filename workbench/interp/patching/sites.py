"""Where an activation can be patched: hook points by short names."""

import dataclasses
from typing import Any

from workbench.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class Site:
    """A kind of activation that every block of some kind has."""

    name: str
    hook: str
    """Hook point behind `blocks.{layer}.`."""
    module: str
    """`a` or `m`: what a block must have for it; empty if every block has it."""
    unit: str | None = None
    """What it has one of for each entry of its unit axis: `head`, `kv_head` or `neuron`."""
    spreads: bool = False
    """Whether a change at one position reaches later positions within its own block."""

    @property
    def is_pattern(self) -> bool:
        """Whether axes are [batch head query_pos key_pos], not [batch pos (unit) ...]."""
        return self.name == "pattern"

    def hook_name(self, layer: int) -> str:
        """The hook point's full name."""
        return f"blocks.{layer}.{self.hook}"


SITES = {
    site.name: site
    for site in (
        Site("resid_pre", "hook_resid_pre", "", spreads=True),
        Site("resid_mid", "hook_resid_mid", "am"),
        Site("resid_post", "hook_resid_post", ""),
        Site("attn_out", "hook_attn_out", "a"),
        Site("mlp_out", "hook_mlp_out", "m"),
        Site("z", "attn.hook_z", "a", "head"),
        Site("q", "attn.hook_q", "a", "head"),
        Site("k", "attn.hook_k", "a", "kv_head", spreads=True),
        Site("v", "attn.hook_v", "a", "kv_head", spreads=True),
        Site("pattern", "attn.hook_pattern", "a", "head"),
        Site("result", "attn.hook_result", "a", "head"),
        Site("neuron", "mlp.hook_post", "m", "neuron"),
    )
}


def find_site(name: str) -> Site:
    """The site called `name`.

    Raises:
        InputError: there is none, with the nearest one.
    """
    if name not in SITES:
        raise InputError(f"no activation is called {name!r}. {nearest(name, SITES)}")
    return SITES[name]


def layers_with(config: Any, site: Site) -> list[int]:
    """The blocks that have the site.

    Raises:
        InputError: none has.
    """
    kinds = config.blocks
    if site.module == "am":
        found = [layer for layer, kind in enumerate(kinds) if kind == "am"]
    else:
        found = [layer for layer, kind in enumerate(kinds) if site.module in kind]
    if not found:
        raise InputError(f"this model has no {site.name}: its layout is {''.join(kinds)}.")
    return found


def units(config: Any, site: Site) -> int:
    """Length of the unit axis; 0 if the site has none."""
    sizes = {"head": config.n_heads, "kv_head": config.kv_heads, "neuron": config.mlp_width}
    return 0 if site.unit is None else sizes[site.unit]
