"""The ends of paths between components: who writes into the residual stream, and who reads it."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from workbench.errors import InputError, nearest, shown
from workbench.interp.direct.writers import Component, components
from workbench.interp.parts import Part, find_parts

EMBED = Component("embed", "embed", -1)
"""All that the embedding adds up, as one sender."""

_HEAD = re.compile(r"(L\d+H\d+)(?:\.([qkv]))?", re.IGNORECASE)


class Receiver(NamedTuple):
    """One reader of the residual stream."""

    layer: int
    kind: str
    """`q`, `k` or `v` of a head, `mlp`, or `logits`."""
    head: int = -1
    """Of keys and values that several query heads share, the one that they are computed for."""

    @property
    def label(self) -> str:
        """`L1H2.q`, `L1 MLP` or `logits`."""
        if self.kind == "logits":
            return "logits"
        return f"L{self.layer} MLP" if self.kind == "mlp" else f"L{self.layer}H{self.head}.{self.kind}"

    @property
    def hook_name(self) -> str:
        """Where its own output passes; empty for the logits."""
        if self.kind == "logits":
            return ""
        return f"blocks.{self.layer}." + ("hook_mlp_out" if self.kind == "mlp" else f"attn.hook_{self.kind}")

    @property
    def place(self) -> tuple[int, str]:
        """The place of the walk where it reads."""
        return self.layer, "attn" if self.kind in "qkv" else self.kind


def all_receivers(config: Any) -> tuple[Receiver, ...]:
    """Every reader, block by block: each head's q, k and v, each MLP, and the logits."""
    found = []
    for layer, kind in enumerate(config.blocks):
        if "a" in kind:
            for what, count in (("q", config.n_heads), ("k", config.kv_heads), ("v", config.kv_heads)):
                found += [Receiver(layer, what, head) for head in range(count)]
        if "m" in kind:
            found.append(Receiver(layer, "mlp"))
    return (*found, Receiver(config.n_layers, "logits"))


def find_receivers(config: Any, named: Any) -> tuple[Receiver, ...]:
    """What a user names, each once.

    Args:
        config: the model's.
        named: `"L1H2.q"`, `"L1H2"` (its q, k and v), `"L1 MLP"`, `"logits"`, `"all"`, several in one text
            with commas, a tuple (1, 2, "q"), a `Receiver`, or a list of these.

    Raises:
        InputError: a name that is none, or of a reader that the model does not have.
    """
    one = isinstance(named, str | Receiver) or (isinstance(named, tuple) and _is_triple(named))
    words: list[Any] = [named] if one else list(named) if isinstance(named, Iterable) else [named]
    found: dict[Receiver, None] = {}
    for word in words:
        if isinstance(word, str):
            for part in (piece.strip() for piece in word.split(",")):
                found |= dict.fromkeys(_read(config, part)) if part else {}
        else:
            made = Receiver(word[0], word[2], word[1]) if _is_triple(word) else word
            if not isinstance(made, Receiver) or made not in all_receivers(config):
                raise InputError(_unknown(config, shown(getattr(made, "label", made))))
            found[made] = None
    if not found:
        raise InputError("no receiver was named; name heads as L1H2.q, MLPs as 'L1 MLP', or logits.")
    return tuple(found)


def _is_triple(word: Any) -> bool:
    return isinstance(word, tuple) and len(word) == 3 and word[2] in ("q", "k", "v")


def _read(config: Any, word: str) -> list[Receiver]:
    there = all_receivers(config)
    if word.lower() == "all":
        return list(there)
    if word.lower() == "logits":
        return [there[-1]]
    head = _HEAD.fullmatch(word)
    if head is None:
        if not re.fullmatch(r"L\d+\s*MLP", word, re.IGNORECASE):
            raise InputError(_unknown(config, shown(word)))
        part = find_parts(config, word)[0]
        return [Receiver(part.layer, "mlp")]
    part = find_parts(config, head[1])[0]
    kinds = [head[2].lower()] if head[2] else ["q", "k", "v"]
    found = [one for one in there if one[0] == part.layer and one.head == part.unit and one.kind in kinds]
    if not found:
        raise InputError(
            f"{word}: {config.n_heads} query heads share {config.kv_heads} heads of keys and values here; "
            f"choose L{part.layer}H0 to L{part.layer}H{config.kv_heads - 1} for k and v."
        )
    return found


def _unknown(config: Any, word: str) -> str:
    hint = nearest(word, [one.label for one in all_receivers(config)])
    if hint.startswith("Choose"):
        hint = "Heads' inputs are called L1H2.q, MLPs L1 MLP, the end logits."
    return f"nothing that reads the residual stream is called {word!r}. {hint}"


def find_senders(config: Any, named: Any = None) -> tuple[Component, ...]:
    """Writers into the residual stream, the earliest first.

    Args:
        config: the model's.
        named: as in `parts.find_parts`, or `embed`; the embedding, all heads and all MLPs if not set.

    Raises:
        InputError: an unknown writer, or a neuron.
    """
    everything = (EMBED, *(one for one in components(config) if one.kind in ("head", "mlp")))
    if named is None:
        return everything
    words: list[Any] = named.split(",") if isinstance(named, str) else [named]
    if not isinstance(named, str | Part | Component) and isinstance(named, Iterable):
        words = list(named)
    words = [word.strip() if isinstance(word, str) else word for word in words]
    embedding = [word for word in words if getattr(word, "label", word) == EMBED.label]
    parts = find_parts(config, [word for word in words if word not in embedding])
    chosen = {part.label for part in parts} | ({EMBED.label} if embedding else set())
    for part in parts:
        if part.kind == "neuron":
            raise InputError(f"{part.label}: paths begin at the embedding, a head or an MLP.")
    if not chosen:
        raise InputError("no sender was named; name heads as L0H1, MLPs as 'L0 MLP', or embed.")
    return tuple(one for one in everything if one.label in chosen)


def layer_of(sender: Component) -> int:
    """Its block; -1 of the embedding."""
    return -1 if sender.layer is None else sender.layer


def reaches(config: Any, sender: Component, receiver: Receiver) -> bool:
    """Whether the receiver reads what the sender wrote."""
    if layer_of(sender) != receiver.layer:
        return layer_of(sender) < receiver.layer
    return sender.kind == "head" and receiver.kind == "mlp" and config.blocks[receiver.layer] == "am"
