"""Names of activations (`Site`) and of the components of a model (`Component`), as users write them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.errors import InputError, nearest, shown

if TYPE_CHECKING:
    from workbench.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Site:
    """An activation that every block of some kind has: where patches and edits apply."""

    name: str
    hook: str
    """The hook point without `blocks.{layer}.`."""
    module: str
    """What a block needs to have it: `a` (attention), `m` (MLP), `am` (both), or nothing (empty)."""
    unit: str | None = None
    """What the unit axis counts: `head`, `kv_head` or `neuron`; None if there is no unit axis."""
    spreads: bool = False
    """True if a change at one position reaches later positions within the same block."""

    @property
    def is_pattern(self) -> bool:
        """True if the axes are [batch head query_pos key_pos] instead of [batch pos (unit) ...]."""
        return self.name == "pattern"

    def hook_name(self, layer: int) -> str:
        """Return the full name of the hook point."""
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

_SITE_NAMES = {"neurons": SITES["neuron"]}
for _site in SITES.values():
    _SITE_NAMES |= dict.fromkeys((_site.name, _site.hook, _site.hook.split(".")[-1]), _site)

_HOOK = re.compile(r"blocks\.(\d{1,9})\.(.+)")


def find_site(name: str) -> Site:
    """Return the site of a name (`z`, `neurons`) or a hook point (`hook_z`, `blocks.2.attn.hook_z`).

    Raises:
        InputError: unknown name, with the nearest one.
    """
    match = _HOOK.fullmatch(name)
    site = _SITE_NAMES.get(match[2] if match else name)
    if site is None:
        raise InputError(f"Unknown activation {name!r}. {nearest(name, SITES)}")
    return site


def hook_layer(hook: str) -> int:
    """Return the block of a full hook name.

    Raises:
        InputError: it has none.
    """
    match = _HOOK.fullmatch(hook)
    if match is None:
        raise InputError(f"{hook!r} is not a hook point of a block, such as blocks.2.attn.hook_z.")
    return int(match[1])


def find_site_layers(name: str, layers: Sequence[int] | None) -> tuple[Site, Sequence[int] | None]:
    """Return the site of a name, and `layers` or else the layer of a full hook name."""
    match = _HOOK.fullmatch(name)
    return find_site(name), [int(match[1])] if match and layers is None else layers


def layers_with(config: ModelConfig, site: Site) -> list[int]:
    """Return the blocks that have the site.

    Raises:
        InputError: none has.
    """
    kinds = config.blocks
    if site.module == "am":
        layers = [layer for layer, kind in enumerate(kinds) if kind == "am"]
    else:
        layers = [layer for layer, kind in enumerate(kinds) if site.module in kind]
    if not layers:
        raise InputError(f"This model has no {site.name}: its layout is {''.join(kinds)}.")
    return layers


def units(config: ModelConfig, site: Site) -> int:
    """Return the length of the unit axis; 0 if the site has none."""
    sizes = {"head": config.n_heads, "kv_head": config.kv_heads, "neuron": config.mlp_width}
    return 0 if site.unit is None else sizes[site.unit]


_LETTERS = {"head": "H", "neuron": "N", "q": "H", "k": "H", "v": "H"}
_HOOKS = {"head": "attn.hook_z", "mlp": "hook_mlp_out", "neuron": "mlp.hook_post"} | {
    kind: f"attn.hook_{kind}" for kind in "qkv"
}
_MODEL_HOOKS = {"embed": "hook_embed", "pos_embed": "hook_pos_embed", "token_type": "hook_token_type_embed"}
_LABEL = re.compile(r"L(\d{1,9})(?:H(\d{1,9})(?:\.([qkv]))?|N(\d{1,9})|\s*(MLP)|\s+(\S+))", re.IGNORECASE)


class Component(NamedTuple):
    """A part of a model that writes into the residual stream or reads from it.

    `Component(2, "head", 1)` is `L2H1`, `Component(2, "mlp")` is `L2 MLP`, `Component(2, "neuron", 17)` is
    `L2N17`, `Component(None, "embed")` is `embed`.
    """

    layer: int | None
    """The block; None outside the blocks."""
    kind: str
    """Writers: `embed`, `pos_embed`, `token_type`, `head`, `mlp`, `neuron`, `bias` (one bias), `biases` (the
    sum of all). Readers: `q`, `k` or `v` of a head, `mlp`, `logits`."""
    unit: int | None = None
    """Head or neuron; for `k` and `v` the key-value head."""
    name: str | None = None
    """Parameter of a bias: `b_O`, `b_U`, `ln_final.b`."""

    @property
    def label(self) -> str:
        """The name in tables and on the command line: `L2H1`, `L2 MLP`, `L2N17`, `L2H1.q`, `L2 b_O`."""
        if self.kind == "bias":
            return str(self.name) if self.layer is None else f"L{self.layer} {self.name}"
        if self.layer is None:
            return self.kind
        if self.kind == "mlp":
            return f"L{self.layer} MLP"
        label = f"L{self.layer}{_LETTERS[self.kind]}{self.unit}"
        return f"{label}.{self.kind}" if self.kind in ("q", "k", "v") else label

    @property
    def place(self) -> tuple[int, int]:
        """(layer, unit) of a head or neuron."""
        assert self.layer is not None
        assert self.unit is not None
        return self.layer, self.unit

    @property
    def head(self) -> int | None:
        """The head; None for other components."""
        return None if self.kind == "neuron" else self.unit

    @property
    def neuron(self) -> int | None:
        """The neuron; None for other components."""
        return self.unit if self.kind == "neuron" else None

    @property
    def hook_name(self) -> str:
        """The hook point of the output (a head's z, a neuron's activation, a reader's q, k or v); empty for
        biases and logits."""
        if self.layer is None or self.kind == "bias":
            return _MODEL_HOOKS.get(self.kind, "")
        return f"blocks.{self.layer}.{_HOOKS[self.kind]}"

    @classmethod
    def parse(cls, label: str) -> Component:
        """Return the component of a `label`; no model is needed, so the component need not exist in one."""
        match = _LABEL.fullmatch(label.strip())
        if match is None:
            whole = label.lower() in (*_MODEL_HOOKS, "biases", "logits")
            return cls(None, label.lower()) if whole else cls(None, "bias", name=label)
        layer, head, reader, neuron, mlp, bias = match.groups()
        if head is not None:
            return cls(int(layer), reader.lower() if reader else "head", int(head))
        if neuron is not None:
            return cls(int(layer), "neuron", int(neuron))
        return cls(int(layer), "mlp") if mlp else cls(int(layer), "bias", name=bias)


def list_components(
    config: ModelConfig,
    *,
    heads: bool = True,
    mlps: bool = True,
    neurons: bool = False,
    embeddings: bool = False,
    biases: bool = False,
) -> tuple[Component, ...]:
    """Return the components that write into the residual stream, block by block.

    Args:
        config: of the model.
        heads: include attention heads.
        mlps: include MLPs.
        neurons: list each MLP as the neurons of its last hidden layer.
        embeddings: begin with token, position and token-type embeddings, as far as the model has them.
        biases: end with the sum of all biases. `b_V` is not part of it: attention weights sum to one, so it
            reaches the stream through the heads.
    """
    found = [Component(None, "embed")] if embeddings else []
    if embeddings and config.positions in ("learned", "sinusoidal"):
        found.append(Component(None, "pos_embed"))
    if embeddings and config.token_types:
        found.append(Component(None, "token_type"))
    for layer, kind in enumerate(config.blocks):
        if heads and "a" in kind:
            found += [Component(layer, "head", head) for head in range(config.n_heads)]
        if "m" in kind and neurons:
            found += [Component(layer, "neuron", unit) for unit in range(config.mlp_width)]
        elif "m" in kind and mlps:
            found.append(Component(layer, "mlp"))
    return (*found, Component(None, "biases")) if biases else tuple(found)


def find_components(config: ModelConfig, names: Any) -> tuple[Component, ...]:
    """Return the heads, MLPs and neurons that a user names, each once.

    Args:
        config: of the model.
        names: `"L2H1"`, `"L0H1, L2 MLP, L2N17"`, `"heads"`, `"mlps"`, `"neurons"`, a head as `(2, 1)`, a
            hook point (`"blocks.2.attn.hook_z"`: the heads of block 2; `"hook_mlp_out"`: all MLPs), a
            `Component`, or a sequence of these.

    Raises:
        InputError: an unknown name, or a component that the model does not have.
    """
    found: dict[Component, None] = {}
    for word in split_names(names):
        group = _group(config, word) if isinstance(word, str) else None
        found |= dict.fromkeys((_checked(config, word),) if group is None else group)
    return tuple(found)


def find_head(config: ModelConfig, name: Any) -> Component:
    """Return the one head that a user names, as `"L2H1"` or (2, 1).

    Raises:
        InputError: an unknown name, a head that the model does not have, or not exactly one head.
    """
    components = find_components(config, name)
    if len(components) != 1 or components[0].kind != "head":
        raise InputError(f"Expected one head, such as L1H2; found {shown(name)}.")
    return components[0]


def split_names(names: Any) -> list[Any]:
    """Return the single names of `names`: texts are split at commas, a `Component` or (2, 1) is one name."""
    if isinstance(names, str):
        return [word.strip() for word in names.split(",") if word.strip()]
    if isinstance(names, Component) or _is_head(names) or not isinstance(names, Iterable):
        return [names]
    return [word for name in names for word in (split_names(name) if isinstance(name, str) else [name])]


def _is_head(word: Any) -> bool:
    return isinstance(word, tuple) and len(word) == 2 and all(isinstance(part, int) for part in word)


def _group(config: ModelConfig, word: str) -> tuple[Component, ...] | None:
    """Return the components of `heads`, `mlps`, `neurons` or a hook point; None for any other word."""
    match = _HOOK.fullmatch(word)
    site = _SITE_NAMES.get(match[2] if match else word) if match or "hook_" in word else None
    kinds = {"attn.hook_z": "heads", "mlp.hook_post": "neurons", "hook_mlp_out": "mlps"}
    kind = word.lower() if site is None else kinds.get(site.hook)
    if kind not in kinds.values():
        return None
    found = list_components(config, heads=kind == "heads", mlps=kind == "mlps", neurons=kind == "neurons")
    return tuple(one for one in found if match is None or one.layer == int(match[1]))


def _checked(config: ModelConfig, word: Any) -> Component:
    """Return the head, MLP or neuron that a word names, if the model has it."""
    component = word
    if _is_head(word):
        component = Component(word[0], "head", word[1])
    elif isinstance(word, str):
        component = Component.parse(word)
    if not isinstance(component, Component) or component.kind not in ("head", "mlp", "neuron"):
        text = component.label if isinstance(component, Component) else word
        hint = nearest(text, [one.label for one in list_components(config)]) if isinstance(text, str) else ""
        if not hint or hint.startswith("Choose"):
            hint = "Heads are named L0H1, MLPs L0 MLP, neurons L0N17."
        raise InputError(f"Unknown head, MLP or neuron {shown(text)!r}. {hint}")
    layer, kind, blocks = component.layer, component.kind, config.blocks
    if layer is None or not 0 <= layer < len(blocks):
        raise InputError(f"{component.label} is out of range; the model has blocks L0 to L{len(blocks) - 1}.")
    module, letter = ("attention", "a") if kind == "head" else ("MLP", "m")
    if letter not in blocks[layer]:
        having = ", ".join(f"L{index}" for index, block in enumerate(blocks) if letter in block) or "none"
        raise InputError(f"{component.label}: block {layer} has no {module}; blocks with one: {having}.")
    count = {"head": config.n_heads, "neuron": config.mlp_width}.get(kind)
    if count is not None and not (component.unit is not None and 0 <= component.unit < count):
        first, last = (component._replace(unit=unit).label for unit in (0, count - 1))
        raise InputError(f"{component.label} is out of range; block {layer} has {first} to {last}.")
    return component
