"""TransformerLens' surface of `HookedTransformer`: weights under its names, text and tokens, `cfg`, and
`run_with_cache`."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
import transformer_lens
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens import FactoredMatrix, HookedRootModule

from workbench.errors import InputError, nearest, shown
from workbench.model.config import ModelConfig, total_memory
from workbench.model.layers import (
    Embed,
    LayerNorm,
    LearnedPositions,
    MLMHead,
    RMSNorm,
    SinusoidalPositions,
    has_hooks,
)

if TYPE_CHECKING:
    from transformer_lens.config import TransformerLensConfig
    from transformers import PreTrainedTokenizerFast

Names = Callable[[str], Any] | Iterable[str] | str | None
"""A choice of hook points: a predicate on names, names, one name, or None for the default."""

_OPTIONAL_HOOKS = {
    "hook_result": "use_attn_result",
    "hook_attn_in": "use_attn_in",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
}
"""Copies of the residual stream for each head, and the flag of `cfg` that makes `run_with_cache` keep them by
default."""


class TransformerLensModel(HookedRootModule):
    """Base of `HookedTransformer`.

    `model.blocks[i].attn.W_Q` is a view of the trained weight; `model.W_Q` is a stack over layers, a copy,
    with zeros where a layer has no attention.
    """

    config: ModelConfig
    tokenizer: "PreTrainedTokenizerFast | None"
    embed: Embed
    pos_embed: LearnedPositions | SinusoidalPositions | None
    blocks: nn.ModuleList
    ln_final: LayerNorm | RMSNorm | None
    mlm_head: MLMHead | None
    unembed_weight: nn.Parameter | None
    unembed_bias: nn.Parameter | None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.embed.W_E.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.embed.W_E.dtype

    @property
    def readout_weight(self) -> Float[Tensor, "d_vocab d_readout"]:
        """The unembedding as it is stored; the embedding itself if tied."""
        return self.embed.W_E if self.unembed_weight is None else self.unembed_weight

    @property
    def readout_bias(self) -> Float[Tensor, " d_vocab"] | None:
        """Bias of the logits; None without."""
        return self.unembed_bias

    def residual(self, tokens: Tensor, **kwargs: Any) -> Tensor:
        """Return the input of the unembedding; see `HookedTransformer.residual`."""
        raise NotImplementedError

    # Weights

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_embed"]:
        return self.embed.W_E

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_embed"]:
        if not isinstance(self.pos_embed, LearnedPositions):
            raise AttributeError(
                f"W_pos: this model has {self.config.positions} positions and no learned position vectors."
            )
        return self.pos_embed.W_pos[self.config.position_offset :]

    @property
    def W_U(self) -> Float[Tensor, "d_readout d_vocab"]:
        return self.readout_weight.T

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        return self._or_zeros(self.unembed_bias, self.config.d_vocab)

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        return self._stack("attn", "W_Q", self.config.n_heads, self.config.d_model, self.config.head_width)

    @property
    def W_K(self) -> Float[Tensor, "layer head d_model d_head"]:
        return self._stack("attn", "W_K", self.config.n_heads, self.config.d_model, self.config.head_width)

    @property
    def W_V(self) -> Float[Tensor, "layer head d_model d_value"]:
        return self._stack("attn", "W_V", self.config.n_heads, self.config.d_model, self.config.value_width)

    @property
    def W_O(self) -> Float[Tensor, "layer head d_value d_model"]:
        return self._stack("attn", "W_O", self.config.n_heads, self.config.value_width, self.config.d_model)

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        return self._stack("mlp", "W_in", self.config.d_model, self.config.mlp_width)

    @property
    def W_gate(self) -> Float[Tensor, "layer d_model d_mlp"]:
        return self._stack("mlp", "W_gate", self.config.d_model, self.config.mlp_width)

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        return self._stack("mlp", "W_out", self.config.mlp_width, self.config.d_model)

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        return self._stack("attn", "b_Q", self.config.n_heads, self.config.head_width)

    @property
    def b_K(self) -> Float[Tensor, "layer head d_head"]:
        return self._stack("attn", "b_K", self.config.n_heads, self.config.head_width)

    @property
    def b_V(self) -> Float[Tensor, "layer head d_value"]:
        return self._stack("attn", "b_V", self.config.n_heads, self.config.value_width)

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        return self._stack("attn", "b_O", self.config.d_model)

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        return self._stack("mlp", "b_in", self.config.mlp_width)

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        return self._stack("mlp", "b_out", self.config.d_model)

    def _or_zeros(self, weight: Tensor | None, *shape: int) -> Tensor:
        return self.readout_weight.new_zeros(shape) if weight is None else weight

    def _stack(self, module: str, name: str, *shape: int) -> Tensor:
        modules = (getattr(block, module) for block in self.blocks)
        return torch.stack([self._or_zeros(getattr(module, name, None), *shape) for module in modules])

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q W_K^T of all heads, [layer head d_model d_model] (Elhage et al. 2021)."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """W_V W_O of all heads, [layer head d_model d_model] (Elhage et al. 2021)."""
        return FactoredMatrix(self.W_V, self.W_O)

    def all_head_labels(self) -> list[str]:
        """Return the labels of all heads: `L0H0`, `L0H1`, ..."""
        return [f"L{i}H{h}" for i in range(self.config.n_layers) for h in range(self.config.n_heads)]

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """Return the sum of all biases that the blocks before `layer` add to the residual stream.

        Args:
            layer: counts blocks 0 to `layer - 1`.
            mlp_input: also count the attention bias of block `layer`.
            include_mlp_biases: count `b_out`.
        """
        total = self.b_O[: layer + mlp_input].sum(0)
        return total + self.b_out[:layer].sum(0) if include_mlp_biases else total

    def tokens_to_residual_directions(
        self, tokens: str | int | Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape d_model"]:
        """Return the direction in the normalised residual stream that increases each token's logit.

        It is `ln_final.w * W_U[:, token]`: the gain is part of the direction, so that its dot product with
        `cache.apply_ln_to_stack(...)`, which centres and divides but has no gain, is the logit without
        folding any weights. The bias `ln_final.b @ W_U` is not included.

        Raises:
            InputError: the model has an `mlm_head`, so its logits are not linear in the stream.
        """
        if self.mlm_head is not None:
            raise InputError("this model's mlm_head is not linear, so no direction raises a token's logit.")
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        directions = self.readout_weight[tokens]
        if self.config.tied and self.embed.up_weight is not None:
            directions = directions @ self.embed.up_weight.T
        if self.ln_final is not None:
            directions = directions * self.ln_final.w
        return directions.squeeze(0) if isinstance(tokens, Tensor) and tokens.numel() == 1 else directions

    # Configuration

    @property
    def cfg(self) -> "TransformerLensConfig":
        """The configuration as TransformerLens' tools read it."""
        cached = self.__dict__.get("_cfg")
        if cached is None or cached.dtype != self.dtype or cached.device != str(self.device):
            new = lens_config(self.config, self.dtype, self.device)
            for flag in (*_OPTIONAL_HOOKS.values(), "use_hook_mlp_in"):
                setattr(new, flag, getattr(cached, flag, False))
            cached = self.__dict__["_cfg"] = new
        return cached

    # Hooks on these points always work; the flags decide what `run_with_cache` keeps by default.
    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Keep `hook_result`, the output of each head, in `run_with_cache` by default."""
        self.cfg.use_attn_result = use_attn_result

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Keep `hook_{q,k,v}_input`, the inputs of each head, in `run_with_cache` by default."""
        self.cfg.use_split_qkv_input = use_split_qkv_input

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Keep `hook_attn_in`, the common input of each head, in `run_with_cache` by default."""
        self.cfg.use_attn_in = use_attn_in  # type: ignore[attr-defined]

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Set the flag for TransformerLens' tools; `run_with_cache` always keeps `hook_mlp_in`."""
        self.cfg.use_hook_mlp_in = use_hook_mlp_in  # type: ignore[attr-defined]

    # Hooks

    def run_with_cache(self, *args: Any, return_cache_object: bool = True, **kwargs: Any) -> tuple[Any, Any]:
        """Run the model and keep activations (see `HookedRootModule.run_with_cache` for the options).

        Without `names_filter` all activations are kept, except the copies of the residual stream for each
        head (`hook_result`, `hook_attn_in`, `hook_{q,k,v}_input`), which a filter must name or
        `set_use_attn_result` and the like must ask for; `cache.stack_head_results()` needs none of them.

        Returns:
            The output and an `ActivationCache` (a plain dict if `return_cache_object=False`).

        Raises:
            InputError: unknown hook point, or activations that do not fit into free memory
                (`activation_bytes` gives their size).
        """
        names = kwargs.get("names_filter")
        if names is None:
            kwargs["names_filter"] = self.is_cached_by_default
        elif not callable(names):
            for name in [names] if isinstance(names, str) else names:
                self._check_hook_name(name)
        input: Any = args[0] if args else kwargs.get("input")
        tokens = input if isinstance(input, Tensor) else self.to_tokens(input, kwargs.get("prepend_bos"))
        rows, length = (1, len(tokens)) if tokens.ndim == 1 else tokens.shape[:2]
        check_cache_fits_memory(self, rows, length, kwargs["names_filter"])
        out, activations = super().run_with_cache(*args, **kwargs)
        if not return_cache_object:
            return out, activations
        batched = not kwargs.get("remove_batch_dim", False)
        return out, ActivationCache(activations, self, has_batch_dim=batched)

    def is_cached_by_default(self, name: str) -> bool:
        """Return True if `run_with_cache` keeps a hook point without `names_filter`."""
        flag = _OPTIONAL_HOOKS.get(name.rpartition(".")[2])
        return flag is None or bool(getattr(self.cfg, flag))

    def _enable_hook_with_name(self, name: str, hook: Callable, dir: Any) -> None:
        self._check_hook_name(name)
        super()._enable_hook_with_name(name, hook, dir)

    def _check_hook_name(self, name: str) -> None:
        if name not in self.hook_dict:
            raise InputError(f"no hook point is called {name!r}. {nearest(name, self.hook_dict)}")

    def has_listeners(self) -> bool:
        """Return True if any hook point has a hook."""
        return has_hooks(*self.hook_dict.values())

    # Text and tokens

    def bos(self, prepend_bos: bool | None = None) -> list[int]:
        """Return the tokens put before a text: BOS, or none if `prepend_bos` is False or there is no BOS."""
        token = self._special_token("bos")
        return [] if prepend_bos is False or token is None else [token]

    def _special_token(self, role: str) -> int | None:
        return getattr(self.need_tokenizer(), f"{role}_token_id")

    def to_tokens(
        self, text: str | Sequence[str], prepend_bos: bool | None = None, truncate: bool = False
    ) -> Int[Tensor, "batch pos"]:
        """Return token ids, padded on the right; each row starts with BOS unless `prepend_bos=False`.

        A tokenizer without BOS prepends none. Padding cannot be seen in the ids: pass the texts to
        `forward`, or the mask of `to_tokens_and_mask`, if a bidirectional model is to ignore it.

        Raises:
            InputError: no tokenizer, an empty list, or a text longer than the context.
        """
        return self.to_tokens_and_mask(text, prepend_bos, truncate)[0]

    def to_tokens_and_mask(
        self, text: str | Sequence[str], prepend_bos: bool | None = None, truncate: bool = False
    ) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """Return the ids of `to_tokens`, and True at tokens, False at padding."""
        tokenizer = self.need_tokenizer()
        texts = [text] if isinstance(text, str) else list(text)
        if not texts:
            raise InputError("no text was given; pass at least one string.")
        rows = [self.bos(prepend_bos) + _encode(tokenizer, text) for text in texts]
        longest = max(map(len, rows))
        if longest > self.config.n_ctx:
            if not truncate:
                raise InputError(
                    f"the text has {longest} tokens, the model's context is {self.config.n_ctx}; "
                    "shorten it or pass truncate=True."
                )
            rows = [row[: self.config.n_ctx] for row in rows]
        tokens, mask = pad_rows(rows, self._special_token("pad"))
        return tokens.to(self.device), mask.to(self.device)

    def to_string(self, tokens: Int[Tensor, "*batch pos"] | list[int] | int) -> str | list[str]:
        """Return the text of token ids; a list of texts for a batch."""
        ids = torch.as_tensor(tokens)
        if ids.ndim == 2:
            return [self._decode(row.tolist()) for row in ids]
        return self._decode(ids.reshape(-1).tolist())

    def to_str_tokens(
        self, input: str | list[str] | Int[Tensor, "*batch pos"], prepend_bos: bool | None = None
    ) -> list[str] | list[list[str]]:
        """Return the text of each token in its context; see `workbench.data.tokenizer.token_texts`."""
        from workbench.data.tokenizer import token_texts

        tokenizer = self.need_tokenizer()
        if isinstance(input, list):
            return [self.to_str_tokens(one, prepend_bos) for one in input]  # type: ignore[misc]
        ids = self.to_tokens(input, prepend_bos)[0] if isinstance(input, str) else torch.as_tensor(input)
        if ids.ndim == 2 and ids.shape[0] == 1:
            ids = ids[0]
        if ids.ndim == 2:
            return [self.to_str_tokens(row) for row in ids]  # type: ignore[misc]
        return token_texts(tokenizer, ids.reshape(-1).tolist())

    def to_single_token(self, text: str) -> int:
        """Return the id of a text that is one token.

        Raises:
            InputError: the text is no token or several; the message shows them.
        """
        tokenizer = self.need_tokenizer()
        special = text in tokenizer.all_special_tokens
        ids = tokenizer.convert_tokens_to_ids([text]) if special else _encode(tokenizer, text)
        assert isinstance(ids, list)
        if len(ids) != 1:
            from workbench.data.tokenizer import token_texts

            parts = token_texts(tokenizer, ids)
            raise InputError(f"{text!r} is {len(ids)} tokens, not one: {parts}. Mind the leading space.")
        return ids[0]

    def to_single_str_token(self, token: int) -> str:
        """Return the text of a single token id."""
        from workbench.data.tokenizer import token_text

        return token_text(self.need_tokenizer(), token)

    def get_token_position(
        self,
        single_token: str | int,
        input: str | Int[Tensor, "*batch pos"],
        mode: str = "first",
        prepend_bos: bool | None = None,
    ) -> int:
        """Return the position of a token in a text or in token ids, [pos] or [1 pos].

        Args:
            single_token: id, or text that is one token.
            input: where to search; text starts with BOS unless `prepend_bos=False`.
            mode: `first` or `last` occurrence.
            prepend_bos: see `to_tokens`.

        Raises:
            InputError: the token does not occur, several rows, or an unknown `mode`.
        """
        if mode not in ("first", "last"):
            raise InputError(f"mode must be first or last; found {mode!r}.")
        tokens = self.to_tokens(input, prepend_bos) if isinstance(input, str) else input
        if tokens.ndim == 2 and len(tokens) != 1:
            raise InputError(f"the position of a token is that in one row; found {len(tokens)} rows.")
        token = self.to_single_token(single_token) if isinstance(single_token, str) else int(single_token)
        positions = (tokens.reshape(-1) == token).nonzero().flatten().tolist()
        if not positions:
            raise InputError(f"the token {single_token!r} does not occur in the input.")
        return positions[0 if mode == "first" else -1]

    def _decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return str(
            self.need_tokenizer().decode(
                ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
            )
        )

    def need_tokenizer(self) -> "PreTrainedTokenizerFast":
        """Return the tokenizer.

        Raises:
            InputError: the model has none.
        """
        if self.tokenizer is None:
            raise InputError("this model has no tokenizer; set model.tokenizer, or pass token ids.")
        return self.tokenizer

    def loss_fn(
        self,
        logits: Float[Tensor, "batch pos d_vocab"],
        tokens: Int[Tensor, "batch pos"],
        attention_mask: Tensor | None = None,
        per_token: bool = False,
    ) -> Float[Tensor, "*shape"]:
        """Return the cross-entropy in nats of each token given the tokens before it, without padding.

        Returns:
            The mean over real tokens; if `per_token`, [batch pos-1] with 0 at padding.
        """
        logits = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
        losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        losses = losses.view(tokens.shape[0], -1)
        if attention_mask is None:
            return losses if per_token else losses.mean()
        mask = attention_mask[:, 1:].to(losses.dtype)
        return losses * mask if per_token else (losses * mask).sum() / mask.sum().clamp(min=1)


class ActivationCache(transformer_lens.ActivationCache):
    """TransformerLens' cache; its shorthand `cache["q_input", 0]` also finds hook points inside attention."""

    def __getitem__(self, key: Any) -> Tensor:
        try:
            return super().__getitem__(key)
        except KeyError as error:
            block, _, hook = str(error.args[0]).rpartition(".")
            name = f"{block}.attn.{hook}"
            if hook in _OPTIONAL_HOOKS and name in self.cache_dict:
                return self.cache_dict[name]
            raise


def lens_config(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> "TransformerLensConfig":
    """Return the configuration as the `TransformerLensConfig` that TransformerLens' tools read."""
    from transformer_lens.config import TransformerLensConfig

    rms = config.norm == "RMSNorm"
    return TransformerLensConfig(
        d_model=config.d_model,
        d_head=config.head_width,
        n_layers=config.n_layers,
        n_ctx=config.n_ctx,
        n_heads=config.n_heads,
        n_key_value_heads=None if config.kv_heads == config.n_heads else config.kv_heads,
        d_mlp=config.mlp_width,
        d_vocab=config.d_vocab,
        device=str(device),
        positional_embedding_type=_POSITIONS[config.positions],
        attn_only=not any("m" in kind for kind in config.blocks),
        gated_mlp=config.gated,
        uses_rms_norm=rms,
        final_rms=rms,
        eps=config.eps,
        act_fn=config.activation,
        normalization_type={"LayerNorm": "LN", "RMSNorm": "RMS", "none": None}[config.norm],
        dtype=dtype,
    )


_POSITIONS = {
    "learned": "standard",
    "sinusoidal": "standard",
    "rotary": "rotary",
    "alibi": "alibi",
    "t5": "relative_positional_bias",
    "shaw": "relative_positional_bias",
    "none": "none",
}


def _encode(tokenizer: "PreTrainedTokenizerFast", text: str) -> list[int]:
    """Return a text's token ids.

    Raises:
        InputError: not a text, or one with a stray byte.
    """
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    except TypeError:
        raise InputError(f"{shown(ascii(text))} cannot be read as text; give text in UTF-8.") from None


def pad_rows(
    rows: Sequence[list[int]], pad: int | None
) -> tuple[Int[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
    """Return token ids padded on the right with `pad` (0 if None), and True at tokens, False at padding."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    padded = [row + [pad or 0] * (width - len(row)) for row in rows]
    tokens = torch.tensor(padded, dtype=torch.long).reshape(len(rows), width)
    return tokens, torch.arange(width) < lengths[:, None]


# The size of a cache, before its activations are computed.


def activation_bytes(
    model: TransformerLensModel, batch: int, pos: int, names: Names = None
) -> dict[str, int]:
    """Return the bytes of each activation that `run_with_cache` would keep, by hook name.

    The model runs on torch's meta device, which computes shapes only.

    Args:
        model: the model.
        batch: number of rows.
        pos: tokens in each.
        names: hook points, as `names_filter`; default: those that `run_with_cache` keeps by default.

    Raises:
        InputError: `pos` exceeds the context.
    """
    config = model.config
    if pos > config.n_ctx:
        raise InputError(f"the sequence has {pos} tokens, the context is {config.n_ctx}.")
    if names is None:
        names = model.is_cached_by_default
    elif not callable(names):
        names = ({names} if isinstance(names, str) else set(names)).__contains__
    with torch.device("meta"):
        meta = type(model)(config).to(model.dtype).eval()
    sizes: dict[str, int] = {}

    def measure(x: Tensor, hook: Any) -> None:
        sizes[hook.name] = x.numel() * x.element_size()

    tokens = torch.zeros(batch, pos, dtype=torch.long, device="meta")
    mask = None
    if config.attention != "causal":
        mask = torch.ones(1, 1, pos, pos, dtype=torch.bool, device="meta")
    with torch.no_grad(), meta.hooks(fwd_hooks=[(name, measure) for name in meta.hook_dict if names(name)]):
        meta.residual(tokens, mask=mask)
    return sizes


def activation_bytes_bound(model: TransformerLensModel, batch: int, pos: int) -> int:
    """Return an upper bound on the bytes of any choice of activations, without running the model.

    It is often far too high.
    """
    c = model.config
    heads = c.n_heads * (2 * pos + 4 * c.d_model + 6 * max(c.head_width, c.value_width))
    per_token = 24 * c.d_model + heads + 6 * c.mlp_width * c.mlp_depth
    ends = 16 * max(c.d_model, c.embed_width, c.readout_width)
    return 8 * batch * pos * (per_token * c.n_layers + ends)


def check_cache_fits_memory(model: TransformerLensModel, batch: int, pos: int, names: Names) -> None:
    """Check that the activations of a cache fit into free memory.

    Raises:
        InputError: they do not; the message gives their size.
    """
    free = free_memory(model.device)
    if free is None or activation_bytes_bound(model, batch, pos) <= free:
        return
    needed = sum(activation_bytes(model, batch, pos, names).values())
    if needed > free:
        raise InputError(
            f"a cache of {batch} x {pos} tokens takes {format_bytes(needed)}, and {format_bytes(free)} are "
            "free; name what you need in names_filter, or run fewer or shorter texts."
        )


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are available on a device; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    amounts = [_available_memory(), _memory_below_limit()]
    return min((amount for amount in amounts if amount is not None), default=None)


def format_bytes(count: int | float) -> str:
    """Format a number of bytes.

    >>> format_bytes(3.4 * 2**30)
    '3.4 GiB'
    """
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def _available_memory() -> int | None:
    """Return the kernel's estimate of available memory, or all memory where there is none."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return total_memory()


def _memory_below_limit() -> int | None:
    """Return the memory left below the limit of a container."""
    try:
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):
        return None
    return max(limit - used, 0)
