"""`ModelConfig`: the shape of a transformer, its layout language, parameter and FLOP counts, and presets."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from workbench import settings
from workbench.errors import ConfigError, nearest, shown
from workbench.settings import Range

Positions = Literal["learned", "sinusoidal", "rotary", "alibi", "t5", "shaw", "none"]
Norm = Literal["LayerNorm", "RMSNorm", "none"]
NormPlace = Literal["pre", "post", "normformer"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "solu", "solu_ln", "prelu"]
AttentionKind = Literal["causal", "bidirectional"]
Sharing = Literal["none", "all", "attention", "mlp"]
Residual = Literal["plain", "weighted"]
Objective = Literal["clm", "mlm"]
MAX_SIZE = 10**15
"""Upper limit of all sizes; a model that large is refused for its memory anyway."""
Size = Annotated[int, Range(1, MAX_SIZE)]
Count = Annotated[int, Range(0, MAX_SIZE)]
Positive = Annotated[float, Range(0, MAX_SIZE, above=True)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of one transformer (Vaswani et al. 2017; defaults as Radford et al. 2019, GPT-2).

    Raises:
        ConfigError: a field out of range, or two fields that contradict each other.
    """

    # Width and shape
    d_model: Size = 128
    """Width of the residual stream."""
    n_layers: Size = None  # type: ignore[assignment]
    """Number of blocks; default: that of `layout`, or 4."""
    layout: str | None = None
    """Order of attention (`a`) and MLP (`m`); default: `"am" * n_layers`. See `parse_layout`."""
    n_heads: Size = 4
    n_key_value_heads: Size | None = None
    """Number of key and value heads, each shared by an equal group of query heads (Ainslie et al. 2023,
    arXiv:2305.13245); default: `n_heads`."""
    d_head: Size | None = None
    """Query and key width of one head; default: `d_model / n_heads`."""
    d_value: Size | None = None
    """Value width of one head; default: `d_head`."""
    d_mlp: Size | None = None
    """Hidden width of the MLP; default: `4 * d_model`."""
    mlp_depth: Size = 1
    """Number of hidden layers of width `d_mlp` in one MLP."""
    d_vocab: Size = 4000
    n_ctx: Size = 256
    """Maximum sequence length in tokens, BOS included."""

    # Attention
    attention: AttentionKind = "causal"
    windows: tuple[Count, ...] = ()
    """Sliding window of each attention module in tokens, the query itself included (in both directions if
    bidirectional); 0 for none. Repeated over the modules: GPT-Neo's alternating layers are `[0, 256]`."""
    attention_scale: Positive | None = None
    """Divisor of the attention scores; default: `sqrt(d_head)`. GPT-Neo has 1.0."""
    qkv_bias: bool = True
    out_bias: bool = True

    # Positions
    positions: Positions = "learned"
    """`learned` or `sinusoidal` vectors (Vaswani et al. 2017), `rotary` (Su et al. 2021), `alibi` (Press et
    al. 2022, arXiv:2108.12409), `t5` buckets shared by all layers (Raffel et al. 2020), `shaw` (Shaw et al.
    2018, arXiv:1803.02155, with relative keys and values), or `none` (Haviv et al. 2022)."""
    position_offset: Count = 0
    """Number of unused learned vectors before that of the first position: 2 in RoBERTa."""
    rotary_base: Positive = 10000.0
    """Base of the rotary wavelengths."""
    rotary_adjacent: bool = False
    """Rotate pairs of adjacent dimensions (GPT-J) instead of those half a head apart (Llama, GPT-NeoX)."""
    relative_buckets: Size = 32
    """Number of `t5` distance buckets."""
    relative_distance: Size | None = None
    """Distance beyond which all distances are treated alike; default: 128 for `t5`, 16 for `shaw`."""

    # Norms
    norm: Norm = "LayerNorm"
    """LayerNorm (Ba et al. 2016), RMSNorm (Zhang & Sennrich 2019), or none."""
    norm_place: NormPlace = "pre"
    """`pre`: normalise the input of each module; `post`: normalise the stream after each module (BERT);
    `normformer`: as `pre`, plus norms after attention and after the activation and a gain for each head
    (Shleifer et al. 2021)."""
    eps: Positive = 1e-5

    # Feed-forward
    activation: Activation = "gelu"
    """`solu` is x softmax(x), `solu_ln` adds a LayerNorm (Elhage et al. 2022); `prelu` learns the slope below
    zero of each neuron (He et al. 2015, arXiv:1502.01852)."""
    gated: bool = False
    """Multiply the activation by a second projection (Shazeer 2020: GEGLU, SwiGLU)."""
    mlp_bias: bool = True

    # Embeddings and readout
    tied: bool = True
    """Use the transposed embedding as the unembedding (Press & Wolf 2017)."""
    d_embed: Size | None = None
    """Width of a factorised embedding (Lan et al. 2020, ALBERT); default: `d_model`, not factorised."""
    token_types: Count = 0
    """Number of token-type vectors (Devlin et al. 2019, BERT); every token has type 0."""
    embed_norm: bool = False
    """Normalise the sum of the embeddings (BERT)."""
    mlm_head: bool = False
    """Apply a dense layer, the activation and a norm before the unembedding (BERT)."""
    unembed_bias: bool = False
    """Add a learned bias to the logits (BERT)."""
    objective: Objective | None = None
    """Causal (`clm`) or masked (`mlm`) language modelling; default: the one that matches `attention`."""

    # Between layers
    sharing: Sharing = "none"
    """Weights that all layers share (ALBERT): all, those of attention, or those of the MLP."""
    residual: Residual = "plain"
    """`weighted`: the input of each block is a learned mean of the outputs of the embedding and all earlier
    blocks (Charpentier & Samuel 2023, arXiv:2311.02265, ELC-BERT)."""
    dropout: Annotated[float, Range(0, 1, below=True)] = 0.0
    """Dropout probability of the embedding, the attention output and the MLP output."""

    # Initial weights
    init_std: Positive = 0.02
    depth_scaled_init: bool = True
    """Divide the projections into the residual stream by sqrt(2 n_layers) (Radford et al. 2019)."""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """Seed of the initial weights."""

    def __post_init__(self) -> None:
        settings.check(self, "model")
        if self.d_vocab < 5:
            raise ConfigError(f"model.d_vocab must hold the 4 special tokens and more; found {self.d_vocab}.")
        self._set_defaults()
        self._check_consistency()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _set_defaults(self) -> None:
        """Set the fields whose default depends on other fields."""
        if self.layout is not None:
            count = len(parse_layout(self.layout))
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

    def _check_consistency(self) -> None:
        """Check fields against each other."""
        kinds = count_blocks(self)
        n_attention, n_mlp = self.n_layers - kinds["m"], self.n_layers - kinds["a"]
        in_attention = self.positions in ("rotary", "alibi", "t5", "shaw")
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
            (
                in_attention and not n_attention, "positions",
                "acts inside attention, and model.layout has none",
            ),
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
        """`d_head`, which is never None once the configuration is made."""
        assert self.d_head is not None
        return self.d_head

    @property
    def value_width(self) -> int:
        """`d_value`, or its default."""
        assert self.d_value is not None
        return self.d_value

    @property
    def kv_heads(self) -> int:
        """`n_key_value_heads`, or its default."""
        assert self.n_key_value_heads is not None
        return self.n_key_value_heads

    @property
    def mlp_width(self) -> int:
        """`d_mlp`, or its default."""
        assert self.d_mlp is not None
        return self.d_mlp

    @property
    def embed_width(self) -> int:
        """Width of the token embeddings: `d_embed`, or `d_model` if they are not factorised."""
        return self.d_model if self.d_embed is None else self.d_embed

    @property
    def readout_width(self) -> int:
        """Width of the input of the unembedding, which is `d_embed` in a tied factorised model."""
        return self.embed_width if self.tied or self.mlm_head else self.d_model

    @property
    def scale(self) -> float:
        """Divisor of the attention scores."""
        return self.attention_scale if self.attention_scale is not None else self.head_width**0.5

    @property
    def farthest(self) -> int:
        """`relative_distance`, or its default."""
        if self.relative_distance is not None:
            return self.relative_distance
        return 128 if self.positions == "t5" else 16

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks in order, each one of `am`, `a`, `m` and `(am)`."""
        return ("am",) * self.n_layers if self.layout is None else parse_layout(self.layout)

    def window(self, index: int) -> int:
        """Return the sliding window of attention module number `index`; 0 for none."""
        return self.windows[index % len(self.windows)] if self.windows else 0

    @property
    def n_params(self) -> int:
        """Number of trainable parameters, by formula (tests compare it with the module)."""
        return sum(count_parameters(self).values())

    @property
    def flops_per_token(self) -> int:
        """Training FLOPs of one token, see `flops_per_token`."""
        return flops_per_token(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for `config.json`."""
        return settings.to_dict(self) | {"windows": list(self.windows)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Make a configuration of the values of `to_dict`.

        Raises:
            ConfigError: unknown key, wrong type, or a value that `ModelConfig` refuses.
        """
        return settings.build(cls, values, "model")


# The layout language: a string of `a` (attention) and `m` (MLP), with parentheses for parallel modules.
#
# `"am" * n` is the usual transformer, `"aaaammmm"` all attention first, `"aamamm"` a sandwich (Press et al.
# 2020, arXiv:1911.03864), `"(am)(am)"` attention and MLP in parallel on the same input (Wang & Komatsuzaki
# 2021, GPT-J), `"aaaa"` attention only (Elhage et al. 2021), `"mm"` MLP only.
#
# An attention module and the MLP right after it form one block; any other module is a block by itself. So
# `"aaaammmm"` has seven blocks: a a a am m m m.

MAX_LAYERS = 20_000
"""Largest number of letters in a layout."""

_BLOCK = re.compile(r"\(am\)|\(ma\)|am|a|m")


def parse_layout(layout: str) -> tuple[str, ...]:
    """Return the blocks of a layout, each one of `am`, `a`, `m` and `(am)`.

    Raises:
        ConfigError: the layout does not parse; the message says where and why.
    """
    if not layout:
        raise ConfigError("model.layout is empty; it needs at least one a (attention) or m (MLP).")
    if len(layout) > MAX_LAYERS:
        raise ConfigError(f"model.layout has {len(layout):,} letters; at most {MAX_LAYERS:,} are allowed.")
    blocks, start = [], 0
    while start < len(layout):
        match = _BLOCK.match(layout, start)
        if match is None:
            text = layout if len(layout) <= 40 else layout[:37] + "..."
            raise ConfigError(f"model.layout = {text!r}: {_syntax_error(layout, start)}")
        blocks.append("(am)" if match[0].startswith("(") else match[0])
        start = match.end()
    return tuple(blocks)


def _syntax_error(layout: str, index: int) -> str:
    letter, place = layout[index], f"letter {index + 1}"
    if letter == "(":
        group, closed, _ = layout[index + 1 :].partition(")")
        if not closed:
            return f"the parallel group opened at {place} is not closed."
        return f"a parallel group holds one a and one m; found ({group[:20]})."
    if letter == ")":
        return f"the parenthesis at {place} closes nothing."
    return f"{letter!r} at {place} is none of a (attention), m (MLP), ( and )."


def count_blocks(config: ModelConfig) -> Counter[str]:
    """Return the number of blocks of each kind without building the list of all blocks."""
    return Counter({"am": config.n_layers}) if config.layout is None else Counter(config.blocks)


# Parameters, floating-point operations and memory of a configuration, before anything is allocated.


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Return the number of trainable parameters of each part.

    Parts: embedding (token, position and token-type vectors and their projection), attention, mlp, norms,
    mixing (weights over earlier layers) and readout.
    """
    c = config
    kinds = count_blocks(c)
    n_attention, n_mlp = c.n_layers - kinds["m"], c.n_layers - kinds["a"]
    attentions = min(n_attention, 1) if c.sharing in ("all", "attention") else n_attention
    mlps = min(n_mlp, 1) if c.sharing in ("all", "mlp") else n_mlp
    attention_norms = min(n_attention, 1) if c.sharing == "all" else n_attention
    normformer, post = c.norm_place == "normformer", c.norm_place == "post"
    mlp_norms = n_mlp - (
        kinds["(am)"] if post else 0
    )  # a parallel post-norm block has one norm after its sum
    if c.sharing == "all":
        mlp_norms = min(mlp_norms, 1)
    n_norms = attention_norms * (1 + normformer) + mlp_norms + (not post)
    return {
        "embedding": _embedding_parameters(c),
        "attention": attentions * _attention_parameters(c),
        "mlp": mlps * _mlp_parameters(c),
        # NormFormer's norm after the activation counts as a part of the MLP.
        "norms": n_norms * _norm_parameters(c, c.d_model)
        + (_norm_parameters(c, c.embed_width) if c.embed_norm else 0),
        "mixing": c.n_layers * (c.n_layers + 3) // 2 if c.residual == "weighted" else 0,
        "readout": _readout_parameters(c),
    }


def _norm_parameters(c: ModelConfig, width: int) -> int:
    return {"LayerNorm": 2, "RMSNorm": 1, "none": 0}[c.norm] * width


def _embedding_parameters(c: ModelConfig) -> int:
    rows = c.d_vocab + c.token_types
    rows += c.n_ctx + c.position_offset if c.positions == "learned" else 0
    up = 0 if c.d_embed is None else c.d_embed * c.d_model + c.d_model
    buckets = c.relative_buckets * c.n_heads if c.positions == "t5" else 0
    return rows * c.embed_width + up + buckets


def _attention_parameters(c: ModelConfig) -> int:
    into = c.n_heads * c.head_width + c.kv_heads * (c.head_width + c.value_width)
    out = c.n_heads * c.value_width
    biases = (into if c.qkv_bias else 0) + (c.d_model if c.out_bias else 0)
    tables = (2 * c.farthest + 1) * (c.head_width + c.value_width) if c.positions == "shaw" else 0
    scales = c.n_heads if c.norm_place == "normformer" else 0
    return c.d_model * (into + out) + biases + tables + scales


def _mlp_parameters(c: ModelConfig) -> int:
    hidden, copies = c.mlp_width, 2 if c.gated else 1
    each = (hidden if c.mlp_bias else 0) + (hidden if c.activation == "prelu" else 0)
    each += _after_norm(c) if c.activation == "solu_ln" else 0
    inner = (c.mlp_depth - 1) * (copies * hidden * hidden + each)
    normformer = c.norm_place == "normformer" and c.activation != "solu_ln"
    out = hidden * c.d_model + (c.d_model if c.mlp_bias else 0)
    return copies * c.d_model * hidden + each + inner + out + (_after_norm(c) if normformer else 0)


def _after_norm(c: ModelConfig) -> int:
    """Return the parameters of the norm after an activation: LayerNorm even in a model without norms."""
    return (1 if c.norm == "RMSNorm" else 2) * c.mlp_width


def _readout_parameters(c: ModelConfig) -> int:
    width = c.readout_width
    head = c.d_model * width + width + _norm_parameters(c, width) if c.mlm_head else 0
    return head + (0 if c.tied else c.d_vocab * width) + (c.d_vocab if c.unembed_bias else 0)


def flops_per_token(config: ModelConfig) -> int:
    """Return the FLOPs of one training token, forward and backward (Kaplan et al. 2020, 6N).

    Counts matrix products only, with attention over the average number of keys in a full context.
    """
    c = config
    kinds = count_blocks(c)
    n_attention, n_mlp = c.n_layers - kinds["m"], c.n_layers - kinds["a"]
    into = c.n_heads * c.head_width + c.kv_heads * (c.head_width + c.value_width)
    out = c.n_heads * c.value_width
    keys = 0.0
    windows = c.windows or (0,)
    for index, window in enumerate(windows):
        reach = min(window or c.n_ctx, c.n_ctx)
        one_side = reach - reach * reach / (2 * c.n_ctx)
        layers = (n_attention - index + len(windows) - 1) // len(windows)
        keys += layers * one_side * (1 if c.attention == "causal" else 2)
    pattern = round(keys * c.n_heads * (c.head_width + c.value_width))
    copies = 2 if c.gated else 1
    mlp = (copies + 1) * c.d_model * c.mlp_width + copies * (c.mlp_depth - 1) * c.mlp_width**2
    factor = 0 if c.d_embed is None else c.d_embed * c.d_model
    ends = factor + (c.d_model * c.readout_width if c.mlm_head else factor if c.tied else 0)
    projections = n_attention * c.d_model * (into + out) + n_mlp * mlp
    return 6 * (projections + pattern + ends + c.readout_width * c.d_vocab)


def total_memory() -> int | None:
    """Return the bytes of memory of this machine; None if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def check_fits_memory(config: ModelConfig) -> None:
    """Check that a model's float32 weights and position tables fit into this machine's memory.

    Raises:
        ConfigError: they do not; the message names the fields that determine the size.
    """
    widths = {"rotary": 2 * config.head_width, "sinusoidal": config.embed_width}
    # Position tables are kept in float64 and once in the type of the weights.
    tables = 12 * config.n_ctx * widths.get(config.positions, 0)
    # A module object takes about 40 kB besides its weights; a million tiny blocks do not fit either.
    needed, total = 4 * config.n_params + 40_000 * config.n_layers + tables, total_memory()
    if total is not None and needed > total:
        raise ConfigError(
            f"a model of {config.n_params:,} parameters needs {needed / 2**30:,.1f} GiB and this machine has "
            f"{total / 2**30:,.1f}; make model.n_layers, d_model, d_mlp, d_vocab or n_ctx smaller."
        )


# Presets: published ones have the architecture and the exact number of parameters of their source (see
# `SOURCES`). Initial weights, dropout (0 unless set), training and tokenizer are the workbench's own: a
# tokenizer of at most `d_vocab` tokens is trained on the corpus, unless a tokenizer.json is given.

_GPT_NEO = dict(attention_scale=1.0, qkv_bias=False, activation="gelu_tanh", windows=(0, 256))
# llama2.c rotates adjacent dimensions; its exports to Hugging Face are permuted to halves.
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
    """The source of a preset."""

    tokenizer: str
    """Kind of tokenizer it was published with."""
    citation: str
    n_params: int | None = None
    """Published number of parameters, equal to that of the preset; None if the preset differs."""


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
    # The original has DeBERTa's relative attention, and norms without gains where ours have them.
    "elc-bert-small": Source(
        "WordPiece",
        "after Charpentier & Samuel 2023, ELC-BERT, arXiv:2311.02265, small (24M): its widths, GEGLU and "
        "weights over layers, but T5's positions and NormFormer's norms, so the exact count is not theirs",
    ),
}

# Fields of a preset that no longer apply when the field in front is overridden.
_DEPENDENT = {
    "layout": ("n_layers",),
    "n_layers": ("layout",),
    "positions": ("position_offset", "rotary_adjacent"),
}


def merge(name: object, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the preset called `name`, updated with `overrides`.

    A given layout replaces the preset's number of layers and vice versa; fields that belong to the preset's
    positions are dropped if other positions are given.

    Raises:
        ConfigError: unknown preset; the message suggests the nearest name.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"no preset is called {name!r}. {nearest(name, PRESETS)}")
    fields = dict(PRESETS[name])
    for field, dependents in _DEPENDENT.items():
        default = fields.get(field, getattr(ModelConfig, field))
        if overrides.get(field, default) != default:
            for dependent in dependents:
                fields.pop(dependent, None)
    return fields | dict(overrides)


def preset(name: str, **overrides: Any) -> ModelConfig:
    """Return the configuration called `name`, updated with `overrides` (see `merge`).

    Raises:
        ConfigError: unknown preset, or an override that does not fit.
    """
    return ModelConfig.from_dict(merge(name, overrides))
