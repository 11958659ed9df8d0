"""Named shapes. A preset is a mapping of `ModelConfig` fields; anything can be overridden.

The published ones have the architecture and the exact number of parameters of their source (see `SOURCES`).
Initial weights, dropout (0 unless set) and training are the workbench's own, and so is the tokenizer: one of
at most `d_vocab` tokens is trained on the corpus, unless a tokenizer.json is given.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from workbench import settings
from workbench.errors import ConfigError, nearest, shown

# The order of attention and MLP modules: a string of `a` and `m`, with parentheses for parallel.
#
# `"am" * n` is the usual transformer, `"aaaammmm"` all attention first, `"aamamm"` a sandwich (Press et al.
# 2020, arXiv:1911.03864), `"(am)(am)"` attention and MLP side by side on the same input (Wang & Komatsuzaki
# 2021, GPT-J), `"aaaa"` attention only (Elhage et al. 2021), `"mm"` MLP only.
#
# A block is what an attention module and the MLP right behind it make together; a module that has no such
# partner is a block of its own. So `"aaaammmm"` has seven blocks: a a a am m m m.


LONGEST = 20_000
"""Letters of a layout."""

_BLOCK = re.compile(r"\(am\)|\(ma\)|am|a|m")


def blocks_of(layout: str) -> tuple[str, ...]:
    """The blocks of a layout, each one of `am`, `a`, `m` and `(am)`.

    Raises:
        ConfigError: the layout does not parse; the message says where and why.
    """
    if not layout:
        raise ConfigError("model.layout is empty; it needs at least one a (attention) or m (MLP).")
    if len(layout) > LONGEST:
        raise ConfigError(f"model.layout has {len(layout):,} letters; at most {LONGEST:,} are allowed.")
    found, place = [], 0
    while place < len(layout):
        match = _BLOCK.match(layout, place)
        if match is None:
            raise ConfigError(f"model.layout = {_short(layout)}: {_trouble(layout, place)}")
        found.append("(am)" if match[0].startswith("(") else match[0])
        place = match.end()
    return tuple(found)


def _short(layout: str) -> str:
    return repr(layout if len(layout) <= 40 else layout[:37] + "...")


def _trouble(layout: str, place: int) -> str:
    letter = layout[place]
    if letter == "(":
        inside = layout[place + 1 :].partition(")")
        if not inside[1]:
            return f"the parallel group opened at letter {place + 1} is not closed."
        return f"a parallel group holds one a and one m; found ({inside[0][:20]})."
    if letter == ")":
        return f"the parenthesis at letter {place + 1} closes nothing."
    return f"{letter!r} at letter {place + 1} is none of a (attention), m (MLP), ( and )."


def modules(layout: str | None, n_layers: int) -> Counter[str]:
    """How many blocks there are of each kind, without writing them out."""
    return Counter({"am": n_layers}) if layout is None else Counter(blocks_of(layout))


# `ModelConfig`: every architectural question is one field, validated once.


Positions = Literal["learned", "sinusoidal", "rotary", "alibi", "t5", "shaw", "none"]
Norm = Literal["LayerNorm", "RMSNorm", "none"]
NormPlace = Literal["pre", "post", "normformer"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "solu", "solu_ln", "prelu"]
AttentionKind = Literal["causal", "bidirectional"]
Sharing = Literal["none", "all", "attention", "mlp"]
Residual = Literal["plain", "weighted"]
Objective = Literal["clm", "mlm"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of one transformer (Vaswani et al. 2017; defaults as Radford et al. 2019, GPT-2).

    Raises:
        ConfigError: a field out of range, or two fields that contradict each other.
    """

    # Width and shape
    d_model: int = 128
    """Width of the residual stream."""
    n_layers: int = None  # type: ignore[assignment]
    """Number of blocks; if not set, as many as `layout` has, or 4."""
    layout: str | None = None
    """Order of attention (`a`) and MLP (`m`); `"am" * n_layers` if not set. See `model.layout`."""
    n_heads: int = 4
    n_key_value_heads: int | None = None
    """Heads that keys and values have, each read by an equal group of query heads (Ainslie et al. 2023,
    arXiv:2305.13245); `n_heads` if not set."""
    d_head: int | None = None
    """Query and key width of one head; `d_model / n_heads` if not set."""
    d_value: int | None = None
    """Value width of one head; `d_head` if not set."""
    d_mlp: int | None = None
    """Hidden width of the feed-forward block; `4 * d_model` if not set."""
    mlp_depth: int = 1
    """Hidden layers of width `d_mlp` inside one feed-forward block."""
    d_vocab: int = 4000
    n_ctx: int = 256
    """Longest sequence in tokens, BOS included."""

    # Attention
    attention: AttentionKind = "causal"
    windows: tuple[int, ...] = ()
    """How many tokens back, itself included, each attention module sees (both ways if bidirectional);
    0 for all. Repeated over the modules: GPT-Neo's global and local layers are `[0, 256]`."""
    attention_scale: float | None = None
    """Scores are divided by this; `sqrt(d_head)` if not set, 1.0 for GPT-Neo."""
    qkv_bias: bool = True
    out_bias: bool = True

    # Positions
    positions: Positions = "learned"
    """`learned` or `sinusoidal` vectors (Vaswani et al. 2017), `rotary` (Su et al. 2021), `alibi` (Press et
    al. 2022, arXiv:2108.12409), `t5` buckets shared by all layers (Raffel et al. 2020), `shaw` (Shaw et al.
    2018, arXiv:1803.02155, with relative keys and values), or `none` (Haviv et al. 2022)."""
    position_offset: int = 0
    """Learned vectors before the first position's, never read: 2 in RoBERTa."""
    rotary_base: float = 10000.0
    """Base of the rotary wavelengths."""
    rotary_adjacent: bool = False
    """Rotate neighbouring dimensions together (GPT-J), not those half a head apart (Llama, GPT-NeoX)."""
    relative_buckets: int = 32
    """Distances that `t5` tells apart."""
    relative_distance: int | None = None
    """Distance from which on all are alike: 128 for `t5`, 16 for `shaw` if not set."""

    # Norms
    norm: Norm = "LayerNorm"
    """LayerNorm (Ba et al. 2016), RMSNorm (Zhang & Sennrich 2019), or none."""
    norm_place: NormPlace = "pre"
    """`pre`: what a module reads; `post`: what it leaves behind (BERT); `normformer`: as `pre`, and also
    after attention, after the activation, with a gain for each head (Shleifer et al. 2021)."""
    eps: float = 1e-5

    # Feed-forward
    activation: Activation = "gelu"
    """`solu` is x softmax(x), `solu_ln` the same and a LayerNorm (Elhage et al. 2022); `prelu` learns the
    slope below zero of each neuron (He et al. 2015, arXiv:1502.01852)."""
    gated: bool = False
    """Multiply the activation by a second projection (Shazeer 2020: GEGLU, SwiGLU)."""
    mlp_bias: bool = True

    # Embeddings and readout
    tied: bool = True
    """The unembedding is the embedding, transposed (Press & Wolf 2017)."""
    d_embed: int | None = None
    """Width of the embedding if it is factorised (Lan et al. 2020, ALBERT); `d_model` if not set."""
    token_types: int = 0
    """Vectors for the kind of sentence a token belongs to (Devlin et al. 2019, BERT); all tokens are of
    kind 0 here."""
    embed_norm: bool = False
    """Normalise the sum of the embeddings (BERT)."""
    mlm_head: bool = False
    """A dense layer, the activation and a norm before the unembedding (BERT)."""
    unembed_bias: bool = False
    """One number a token added to the logits (BERT)."""
    objective: Objective | None = None
    """`clm` or `mlm`; if not set, the one that fits `attention`."""

    # Between layers
    sharing: Sharing = "none"
    """Layers that share their weights (ALBERT): in full, their attention, or their MLP."""
    residual: Residual = "plain"
    """`weighted`: each block reads a learned mean of what the embedding and all earlier blocks wrote
    (Charpentier & Samuel 2023, arXiv:2311.02265, ELC-BERT)."""
    dropout: float = 0.0
    """Probability of dropping an entry of the embedding, the attention output and the MLP output."""

    # Initial weights
    init_std: float = 0.02
    depth_scaled_init: bool = True
    """Divide the projections into the residual stream by sqrt(2 n_layers) (Radford et al. 2019)."""
    seed: int = 0
    """Seed of the initial weights."""

    def __post_init__(self) -> None:
        self._check_values()
        self._resolve()
        self._check_fit()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_values(self) -> None:
        """Each field by itself."""
        for name, (least, most) in _WHOLE.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if type(value) is not int or not least <= value <= most:
                rule = f"must be a whole number of at least {least}"
                rule += f" and at most {most:,}" if type(value) is int and value > most else ""
                raise ConfigError(f"model.{name} {rule}; found {shown(value)}.")
        for name, options in _CHOICES.items():
            value = getattr(self, name)
            if value not in options and not (name == "objective" and value is None):
                raise ConfigError(f"model.{name} must be one of {', '.join(options)}; found {shown(value)}.")
        for name in _SWITCHES:
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"model.{name} must be true or false; found {shown(getattr(self, name))}.")
        for name in ("eps", "init_std", "rotary_base", "attention_scale"):
            value = getattr(self, name)
            if (name != "attention_scale" or value is not None) and not (_is_real(value) and value > 0):
                raise ConfigError(f"model.{name} must be a number above 0; found {shown(value)}.")
            self._set(name, None if value is None else float(value))
        if not _is_real(self.dropout) or not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"model.dropout must lie in [0, 1); found {shown(self.dropout)}.")
        if not isinstance(self.windows, tuple | list) or any(
            type(window) is not int or not 0 <= window <= LARGEST for window in self.windows
        ):
            raise ConfigError(
                "model.windows must be a list of whole numbers, one for each attention module, 0 for no "
                f"window; found {shown(self.windows)}."
            )
        self._set("windows", tuple(self.windows))
        if self.d_vocab < 5:
            raise ConfigError(f"model.d_vocab must hold the 4 special tokens and more; found {self.d_vocab}.")

    def _resolve(self) -> None:
        """What was left open follows from the rest."""
        if self.layout is not None:
            if not isinstance(self.layout, str):
                raise ConfigError(f"model.layout must be a text such as amam; found {shown(self.layout)}.")
            count = len(blocks_of(self.layout))
            if self.n_layers is not None and self.n_layers != count:
                raise ConfigError(
                    f"model.n_layers = {self.n_layers} contradicts model.layout, which has {count} blocks; "
                    "leave one of them out."
                )
            self._set("n_layers", count)
        if self.n_layers is None:
            self._set("n_layers", 4)
        if self.d_head is None:
            if self.d_model % self.n_heads:
                raise ConfigError(
                    f"model.n_heads = {self.n_heads} does not divide model.d_model = {self.d_model}; "
                    "choose another number of heads, or set model.d_head."
                )
            self._set("d_head", self.d_model // self.n_heads)
        for name, default in (
            ("n_key_value_heads", self.n_heads),
            ("d_value", self.d_head),
            ("d_mlp", 4 * self.d_model),
            ("objective", "clm" if self.attention == "causal" else "mlm"),
        ):
            if getattr(self, name) is None:
                self._set(name, default)

    def _check_fit(self) -> None:
        """Fields against each other: (holds, field, rule)."""
        kinds = modules(self.layout, self.n_layers)
        n_attention, n_mlp = self.n_layers - kinds["m"], self.n_layers - kinds["a"]
        inside = self.positions in ("rotary", "alibi", "t5", "shaw")
        small_window = self.windows and max(self.windows) > 0
        for broken, field, rule in (
            (
                (self.objective == "clm") != (self.attention == "causal"), "objective",
                f"contradicts model.attention = {self.attention}: "
                "clm goes with causal, mlm with bidirectional",
            ),
            (
                self.n_heads % self.kv_heads, "n_key_value_heads",
                f"must divide model.n_heads = {self.n_heads}",
            ),
            (
                self.kv_heads != self.n_heads and self.value_width != self.head_width, "d_value",
                "must be model.d_head where model.n_key_value_heads is another number than model.n_heads",
            ),
            (small_window and not n_attention, "windows", "needs attention, and model.layout has none"),
            (
                len(self.windows) > max(n_attention, 1), "windows",
                f"names more windows than model.layout has attention modules ({n_attention})",
            ),
            (inside and not n_attention, "positions", "acts inside attention, and model.layout has none"),
            (
                self.positions == "rotary" and self.head_width % 2, "d_head",
                "must be even for rotary positions",
            ),
            (
                self.positions == "sinusoidal" and self.embed_width % 2, "d_model",
                "must be even for sinusoidal positions",
            ),
            (
                self.position_offset and self.positions != "learned", "position_offset",
                f"belongs to learned positions, not to {self.positions}",
            ),
            (
                self.positions == "t5" and self.relative_buckets < 4, "relative_buckets",
                "must be at least 4 for t5 positions",
            ),
            (
                self.positions == "t5" and self.farthest <= self.relative_buckets, "relative_distance",
                f"must be above model.relative_buckets = {self.relative_buckets}",
            ),
            (
                self.relative_distance is not None and self.positions not in ("t5", "shaw"),
                "relative_distance", f"belongs to t5 or shaw positions, not to {self.positions}",
            ),
            (
                self.rotary_adjacent and self.positions != "rotary", "rotary_adjacent",
                f"belongs to rotary positions, not to {self.positions}",
            ),
            (
                self.norm == "none" and self.norm_place != "pre", "norm_place",
                "needs a norm, and model.norm is none",
            ),
            (self.norm == "none" and self.embed_norm, "embed_norm", "needs a norm, and model.norm is none"),
            (self.gated and not n_mlp, "gated", "needs an MLP, and model.layout has none"),
            (self.mlp_depth > 1 and not n_mlp, "mlp_depth", "needs an MLP, and model.layout has none"),
            (
                self.sharing == "attention" and not n_attention, "sharing",
                "needs attention, and model.layout has none",
            ),
            (self.sharing == "mlp" and not n_mlp, "sharing", "needs an MLP, and model.layout has none"),
            (
                self.residual == "weighted" and self.norm_place == "post", "residual",
                "mixes unnormalised outputs, which model.norm_place = post does not leave",
            ),
            (
                self.mlm_head and self.objective != "mlm", "mlm_head",
                f"belongs to model.objective = mlm, not to {self.objective}",
            ),
        ):  # fmt: skip
            if broken:
                raise ConfigError(f"model.{field} = {shown(getattr(self, field))} {rule}.")

    @property
    def head_width(self) -> int:
        """`d_head` as a number (it is resolved when the configuration is made)."""
        assert self.d_head is not None
        return self.d_head

    @property
    def value_width(self) -> int:
        """`d_value` as a number."""
        assert self.d_value is not None
        return self.d_value

    @property
    def kv_heads(self) -> int:
        """`n_key_value_heads` as a number."""
        assert self.n_key_value_heads is not None
        return self.n_key_value_heads

    @property
    def mlp_width(self) -> int:
        """`d_mlp` as a number."""
        assert self.d_mlp is not None
        return self.d_mlp

    @property
    def embed_width(self) -> int:
        """Width of the token vectors: `d_embed`, or `d_model` if the embedding is not factorised."""
        return self.d_model if self.d_embed is None else self.d_embed

    @property
    def readout_width(self) -> int:
        """Width of what the unembedding reads; a tied factorised embedding reads its own width."""
        return self.embed_width if self.tied or self.mlm_head else self.d_model

    @property
    def scale(self) -> float:
        """What attention scores are divided by."""
        return self.attention_scale if self.attention_scale is not None else self.head_width**0.5

    @property
    def farthest(self) -> int:
        """`relative_distance` as a number."""
        if self.relative_distance is not None:
            return self.relative_distance
        return 128 if self.positions == "t5" else 16

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks in order, each one of `am`, `a`, `m` and `(am)`."""
        return ("am",) * self.n_layers if self.layout is None else blocks_of(self.layout)

    def window(self, index: int) -> int:
        """The window of the attention module number `index`; 0 if it sees everything."""
        return self.windows[index % len(self.windows)] if self.windows else 0

    @property
    def n_params(self) -> int:
        """Number of trainable parameters, by formula (a law holds it to the module's own count)."""
        from workbench.model.size import count_parameters

        return sum(count_parameters(self).values())

    @property
    def flops_per_token(self) -> int:
        """See `workbench.model.size.flops_per_token`."""
        from workbench.model.size import flops_per_token

        return flops_per_token(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for `config.json`."""
        return settings.to_dict(self) | {"windows": list(self.windows)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`.

        Raises:
            ConfigError: unknown key, wrong type, or a value that `ModelConfig` refuses.
        """
        return settings.build(cls, values, "model")


_CHOICES: dict[str, tuple[str, ...]] = {
    "positions": ("learned", "sinusoidal", "rotary", "alibi", "t5", "shaw", "none"),
    "norm": ("LayerNorm", "RMSNorm", "none"),
    "norm_place": ("pre", "post", "normformer"),
    "activation": ("gelu", "gelu_tanh", "relu", "silu", "solu", "solu_ln", "prelu"),
    "attention": ("causal", "bidirectional"),
    "sharing": ("none", "all", "attention", "mlp"),
    "residual": ("plain", "weighted"),
    "objective": ("clm", "mlm"),
}

LARGEST = 10**15
"""No size is above this; a model that large is refused for its memory anyway."""

_WHOLE = dict.fromkeys(
    ("d_model", "n_layers", "n_heads", "n_key_value_heads", "d_head", "d_value", "d_mlp", "mlp_depth",
     "d_vocab", "n_ctx", "relative_buckets", "relative_distance", "d_embed"), (1, LARGEST),
) | {"position_offset": (0, LARGEST), "token_types": (0, LARGEST), "seed": (0, 2**63 - 1)}  # fmt: skip
"""Fields that are whole numbers, the least that each may be, and the most."""

_OPTIONAL = {"n_layers", "n_key_value_heads", "d_head", "d_value", "d_mlp", "relative_distance", "d_embed"}

_SWITCHES = (
    "qkv_bias", "out_bias", "rotary_adjacent", "gated", "mlp_bias", "tied", "embed_norm", "mlm_head",
    "unembed_bias", "depth_scaled_init",
)  # fmt: skip


def _is_real(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST


_GPT_NEO = dict(attention_scale=1.0, qkv_bias=False, activation="gelu_tanh", windows=(0, 256))
# The heads of llama2.c rotate neighbouring dimensions; its exports to Hugging Face are permuted to halves.
_LLAMA = dict(
    positions="rotary", rotary_adjacent=True, norm="RMSNorm", activation="silu", gated=True,
    qkv_bias=False, out_bias=False, mlp_bias=False,
)  # fmt: skip
_BERT = dict(
    n_ctx=512, attention="bidirectional", norm_place="post", embed_norm=True, mlm_head=True,
    unembed_bias=True,
)  # fmt: skip
_BASE = dict(n_layers=12, d_model=768, n_heads=12, d_mlp=3072)
_STORIES = dict(n_heads=16, d_vocab=50257, n_ctx=2048, **_GPT_NEO)

PRESETS: dict[str, dict[str, Any]] = {
    "nano": dict(n_layers=2, d_model=64, n_heads=4, d_mlp=256, d_vocab=2000, n_ctx=128),
    "tiny": dict(n_layers=4, d_model=128, n_heads=4, d_mlp=512, d_vocab=4000, n_ctx=256),
    "small": dict(n_layers=4, d_model=256, n_heads=8, d_mlp=1024, d_vocab=8000, n_ctx=256),
    "base": dict(n_layers=4, d_model=512, n_heads=8, d_mlp=1024, d_vocab=10000, n_ctx=256),
    "gpt-neo-9m": dict(n_layers=2, d_model=512, n_heads=4, d_mlp=1024, d_vocab=10000, n_ctx=512, **_GPT_NEO),
    "tinystories-1m": dict(n_layers=8, d_model=64, d_mlp=256, **_STORIES),
    "tinystories-3m": dict(n_layers=8, d_model=128, d_mlp=512, **_STORIES),
    "tinystories-8m": dict(n_layers=8, d_model=256, d_mlp=1024, **_STORIES),
    "tinystories-28m": dict(n_layers=8, d_model=512, d_mlp=2048, **_STORIES),
    "tinystories-33m": dict(n_layers=4, d_model=768, d_mlp=3072, **_STORIES),
    "stories260k": dict(
        n_layers=5, d_model=64, n_heads=8, n_key_value_heads=4, d_mlp=172, d_vocab=512, n_ctx=512, **_LLAMA
    ),
    "stories15m": dict(n_layers=6, d_model=288, n_heads=6, d_mlp=768, d_vocab=32000, n_ctx=256, **_LLAMA),
    "stories42m": dict(n_layers=8, d_model=512, n_heads=8, d_mlp=1376, d_vocab=32000, n_ctx=1024, **_LLAMA),
    "stories110m": dict(**_BASE | dict(d_mlp=2048), d_vocab=32000, n_ctx=1024, **_LLAMA),
    "gpt2": dict(**_BASE, d_vocab=50257, n_ctx=1024, activation="gelu_tanh"),
    "mini-llm-166m": dict(**_BASE | dict(n_layers=18), d_vocab=50257, n_ctx=1024, activation="gelu_tanh"),
    "roberta-9m": dict(
        n_layers=2, d_model=512, n_heads=4, d_mlp=1024, d_vocab=10000, token_types=1, position_offset=2,
        **_BERT,
    ),
    "bert-base": dict(**_BASE, d_vocab=30522, token_types=2, eps=1e-12, **_BERT),
    "roberta-base": dict(**_BASE, d_vocab=50265, token_types=1, position_offset=2, **_BERT),
    "albert-base": dict(
        **_BASE, d_vocab=30000, d_embed=128, sharing="all", token_types=2, activation="gelu_tanh", eps=1e-12,
        **_BERT,
    ),
    "elc-bert-small": dict(
        n_layers=12, d_model=384, n_heads=6, d_mlp=1024, d_vocab=6144, positions="t5", residual="weighted",
        activation="gelu_tanh", gated=True, mlp_bias=False, eps=1e-7, **_BERT | dict(norm_place="normformer"),
    ),
}  # fmt: skip


class Source(NamedTuple):
    """Where a preset comes from."""

    tokenizer: str
    """Kind of tokenizer it was published with."""
    citation: str
    n_params: int | None = None
    """Its published number of parameters, which ours is exactly; None if ours is not."""


_OURS = "a shape of this workbench's own, for CPUs"
_DELFT = "Tiny Transformers (AISE, TU Delft)"
_ELDAN = "Eldan & Li 2023, TinyStories, arXiv:2305.07759; Hugging Face roneneldan/TinyStories"
_KARPATHY = "Karpathy 2023, llama2.c; architecture of Touvron et al. 2023, arXiv:2307.09288"

SOURCES: dict[str, Source] = {
    "nano": Source("BPE", _OURS),
    "tiny": Source("BPE", _OURS),
    "small": Source("BPE", _OURS),
    "base": Source("BPE", _OURS),
    "gpt-neo-9m": Source("BPE", f"{_DELFT}; architecture of Black et al. 2021, GPT-Neo", 9_585_664),
    "tinystories-1m": Source("BPE", f"{_ELDAN}-1M", 3_745_984),
    "tinystories-3m": Source("BPE", f"{_ELDAN}-3M", 8_278_400),
    "tinystories-8m": Source("BPE", f"{_ELDAN}-8M", 19_702_528),
    "tinystories-28m": Source("BPE", f"{_ELDAN}-28M", 51_987_968),
    "tinystories-33m": Source("BPE", f"{_ELDAN}-33M", 68_514_048),
    "stories260k": Source("SentencePiece", _KARPATHY, 260_032),
    "stories15m": Source("SentencePiece", _KARPATHY, 15_191_712),
    "stories42m": Source("SentencePiece", _KARPATHY, 41_689_600),
    "stories110m": Source("SentencePiece", _KARPATHY, 109_529_856),
    "gpt2": Source("BPE", "Radford et al. 2019, GPT-2, the smallest", 124_439_808),
    "mini-llm-166m": Source(
        "BPE",
        "the Mini LLM challenge, published as 166M: 18 layers, 768 wide, 12 heads; the rest is GPT-2's, and "
        "so the exact count may not be theirs",
    ),
    "roberta-9m": Source("BPE", f"{_DELFT}; architecture of Liu et al. 2019, RoBERTa", 9_863_952),
    "bert-base": Source(
        "WordPiece", "Devlin et al. 2019, BERT, arXiv:1810.04805; with its MLM head", 109_514_298
    ),
    "roberta-base": Source(
        "BPE", "Liu et al. 2019, RoBERTa, arXiv:1907.11692; with its MLM head", 124_697_433
    ),
    "albert-base": Source(
        "SentencePiece", "Lan et al. 2020, ALBERT, arXiv:1909.11942, version 2; with its MLM head", 11_221_680
    ),
    # Theirs has DeBERTa's attention to positions, and norms without gains where ours have them.
    "elc-bert-small": Source(
        "WordPiece",
        "after Charpentier & Samuel 2023, ELC-BERT, arXiv:2311.02265, small (24M): its widths, GEGLU and "
        "weights over layers, but T5's positions and NormFormer's norms, so the exact count is not theirs",
    ),
}

# Where the key is overridden, what the preset says of these no longer applies.
_FOLLOWERS = {
    "layout": ("n_layers",),
    "n_layers": ("layout",),
    "positions": ("position_offset", "rotary_adjacent"),
}


def merge(name: object, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the preset called `name`, with `overrides` on top.

    A layout that is given decides the number of layers, not the preset, and the other way round; and what
    only fits the preset's positions is left out where other positions are given.

    Raises:
        ConfigError: no preset of that name (with the nearest one).
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"no preset is called {name!r}. {nearest(name, PRESETS)}")
    fields = dict(PRESETS[name])
    for leader, followers in _FOLLOWERS.items():
        own = fields.get(leader, getattr(ModelConfig, leader))
        if overrides.get(leader, own) != own:
            for follower in followers:
                fields.pop(follower, None)
    return fields | dict(overrides)


def preset(name: str, **overrides: Any) -> ModelConfig:
    """The configuration called `name`, with `overrides` on top (see `merge`).

    Raises:
        ConfigError: no preset of that name (with the nearest one), or an override that does not fit.
    """
    return ModelConfig.from_dict(merge(name, overrides))
