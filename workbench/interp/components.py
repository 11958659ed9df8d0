"""Heads, MLPs and neurons by name: `L2H1`, `L2 MLP`, `L2N17`."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from workbench.errors import InputError, nearest, shown

# Where an activation can be patched: hook points by short names.


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


# One of the parts that write into the residual stream. Nothing heavy is imported here.


class Component(NamedTuple):
    """One writer into the residual stream."""

    label: str
    """`embed`, `pos_embed`, `token_type`, `L2H1`, `L2 MLP` or `biases`; if asked for `L2N17` instead of the
    MLP, and `L2 b_O`, `L2 b_out`, `ln_final.b`, `b_U` ... instead of `biases`."""
    kind: str
    """`embed`, `pos_embed`, `token_type`, `head`, `mlp`, `neuron`, `bias` or `biases`."""
    layer: int | None = None
    head: int | None = None
    neuron: int | None = None


_SITES = {"head": SITES["z"], "mlp": SITES["mlp_out"], "neuron": SITES["neuron"]}
"""Kind of part -> where its output passes; the third axis of the first and last is the unit."""

_NAME = re.compile(r"L(\d{1,9})(?:H(\d{1,9})|N(\d{1,9})|\s*(MLP))", re.IGNORECASE)


class Part(NamedTuple):
    """One part of a model that can be taken out."""

    layer: int
    kind: str
    """`head`, `mlp` or `neuron`."""
    unit: int = -1
    """Head or neuron; -1 for a whole MLP."""

    @property
    def label(self) -> str:
        """The name, as in tables and on the command line."""
        return (
            f"L{self.layer} MLP" if self.kind == "mlp" else f"L{self.layer}{self.kind[0].upper()}{self.unit}"
        )

    @property
    def head(self) -> int | None:
        """The head; None if it is none."""
        return self.unit if self.kind == "head" else None

    @property
    def hook_name(self) -> str:
        """The hook point that it passes."""
        return _SITES[self.kind].hook_name(self.layer)


def all_parts(config: Any, heads: bool = True, mlps: bool = True) -> tuple[Part, ...]:
    """Every head and every MLP, block by block.

    Args:
        config: the model's.
        heads: with heads.
        mlps: with MLPs.
    """
    found = []
    for layer, kind in enumerate(config.blocks):
        if heads and "a" in kind:
            found += [Part(layer, "head", head) for head in range(config.n_heads)]
        if mlps and "m" in kind:
            found.append(Part(layer, "mlp"))
    return tuple(found)


def find_parts(config: Any, named: Any) -> tuple[Part, ...]:
    """What a user names, each part once.

    Args:
        config: the model's.
        named: `"L2H1"`, `"L0H1, L2 MLP, L2N17"`, `"heads"`, `"mlps"`, a `Part`, a component of
            `workbench.interp.direct.writers`, or several of these.

    Raises:
        InputError: a name that is none, or of a part that the model does not have.
    """
    if isinstance(named, str):
        words: list[Any] = [word.strip() for word in named.split(",") if word.strip()]
    elif isinstance(named, Part) or hasattr(named, "label") or not isinstance(named, Iterable):
        words = [named]
    else:
        words = list(named)
    found: dict[Part, None] = {}
    for word in words:
        if isinstance(word, str) and word.lower() in ("heads", "mlps"):
            found |= dict.fromkeys(all_parts(config, word.lower() == "heads", word.lower() == "mlps"))
        elif isinstance(word, str) and "," in word:
            found |= dict.fromkeys(find_parts(config, word))
        else:
            found[_checked(config, word if isinstance(word, Part) else _read(config, word))] = None
    return tuple(found)


def _read(config: Any, word: Any) -> Part:
    text = getattr(word, "label", word)
    match = _NAME.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        examples = [part.label for part in all_parts(config)]
        hint = nearest(text, examples) if isinstance(text, str) else ""
        if hint.startswith("Choose"):
            hint = "Heads are called L0H1, MLPs L0 MLP, neurons L0N17."
        raise InputError(f"no head, MLP or neuron is called {shown(text)!r}. {hint}".rstrip())
    layer, head, neuron, _ = match.groups()
    if head is not None:
        return Part(int(layer), "head", int(head))
    return Part(int(layer), "mlp") if neuron is None else Part(int(layer), "neuron", int(neuron))


def _checked(config: Any, part: Part) -> Part:
    blocks = config.blocks
    if not 0 <= part.layer < len(blocks):
        raise InputError(f"{part.label}: the model's blocks are L0 to L{len(blocks) - 1}.")
    what, needs = ("attention", "a") if part.kind == "head" else ("MLP", "m")
    if needs not in blocks[part.layer]:
        have = ", ".join(f"L{layer}" for layer, kind in enumerate(blocks) if needs in kind) or "none"
        raise InputError(f"{part.label}: block {part.layer} has no {what}; blocks with one: {have}.")
    count = {"head": config.n_heads, "neuron": config.mlp_width}.get(part.kind)
    if count is not None and not 0 <= part.unit < count:
        first, last = part._replace(unit=0).label, part._replace(unit=count - 1).label
        raise InputError(f"{part.label} is not there; block {part.layer} has {first} to {last}.")
    return part
