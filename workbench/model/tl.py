"""Text in, text out: the tokenizer's side of `HookedTransformer`."""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.errors import InputError, shown
from workbench.model.config import ModelConfig
from workbench.model.mask import KeyValueCache

if TYPE_CHECKING:
    _Model = Any  # the rest of HookedTransformer
else:
    _Model = object


# Weights in transformer-lens' names and shapes, as views or stacks of what is trained.


class WeightViews(_Model):
    """Mixed into `HookedTransformer`. `model.blocks[i].attn.W_Q` is a view of the trained weight;
    `model.W_Q` is a stack over layers, a copy, with zeros where a layer has no attention."""

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_embed"]:
        return self.embed.W_E

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_embed"]:
        if self.config.positions != "learned":
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

    def _or_zeros(self, found: Tensor | None, *shape: int) -> Tensor:
        return self.readout_weight.new_zeros(shape) if found is None else found

    def _stack(self, module: str, name: str, *shape: int) -> Tensor:
        """A weight of all layers; zeros where a layer has no such module or bias."""
        owners = (getattr(block, module) for block in self.blocks)
        return torch.stack([self._or_zeros(getattr(owner, name, None), *shape) for owner in owners])

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        c = self.config
        return self._stack("attn", "W_Q", c.n_heads, c.d_model, c.head_width)

    @property
    def W_K(self) -> Float[Tensor, "layer head d_model d_head"]:
        c = self.config
        return self._stack("attn", "W_K", c.n_heads, c.d_model, c.head_width)

    @property
    def W_V(self) -> Float[Tensor, "layer head d_model d_value"]:
        c = self.config
        return self._stack("attn", "W_V", c.n_heads, c.d_model, c.value_width)

    @property
    def W_O(self) -> Float[Tensor, "layer head d_value d_model"]:
        c = self.config
        return self._stack("attn", "W_O", c.n_heads, c.value_width, c.d_model)

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

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """Sum of all biases that the blocks before `layer` wrote into the residual stream.

        Args:
            layer: blocks 0 to `layer - 1` are counted.
            mlp_input: count the attention bias of block `layer` too.
            include_mlp_biases: count `b_out`.
        """
        total = self.b_O[: layer + mlp_input].sum(0)
        return total + self.b_out[:layer].sum(0) if include_mlp_biases else total

    def tokens_to_residual_directions(
        self, tokens: str | int | Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape d_model"]:
        """The direction in the normalised residual stream that raises each token's logit.

        It is `ln_final.w * W_U[:, token]`: the gain is part of the direction, so that a dot product
        with `cache.apply_ln_to_stack(...)`, which centres and divides but has no gain, gives the
        logit without folding any weights. The bias `ln_final.b @ W_U` stays outside.

        Raises:
            InputError: a masked model with a head of its own, whose logits are not linear in the stream.
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


# What transformer-lens' tools expect of a model beside its hook points.


class LensSurface(_Model):
    """Mixed into `HookedTransformer`."""

    @property
    def cfg(self):
        """The configuration as transformer-lens' tools read it."""
        made = self.__dict__.get("_lens_config")
        if made is None or made.dtype != self.dtype or made.device != str(self.device):
            made = self.__dict__["_lens_config"] = lens_config(self.config, self.dtype, self.device)
        return made

    # transformer-lens' tools switch these before they listen; here listening is enough.
    def set_use_attn_result(self, value: bool) -> None:
        """Accepted for transformer-lens' tools; `hook_result` fires whenever it has a listener."""
        self.cfg.use_attn_result = value

    def set_use_split_qkv_input(self, value: bool) -> None:
        """Accepted for transformer-lens' tools; `hook_{q,k,v}_input` fire whenever they have a listener."""
        self.cfg.use_split_qkv_input = value

    def set_use_hook_mlp_in(self, value: bool) -> None:
        """Accepted for transformer-lens' tools; `hook_mlp_in` always fires."""
        self.cfg.use_hook_mlp_in = value  # type: ignore[attr-defined]

    def set_use_attn_in(self, value: bool) -> None:
        """Accepted for transformer-lens' tools; `hook_attn_in` fires whenever it has a listener."""
        self.cfg.use_attn_in = value  # type: ignore[attr-defined]


def lens_config(config: ModelConfig, dtype: torch.dtype, device: torch.device):
    """Our configuration as the `TransformerLensConfig` that transformer-lens' tools read."""
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


class TextInterface(_Model):
    """Mixed into `HookedTransformer`."""

    def to_tokens(
        self, text: str | list[str], prepend_bos: bool | None = None, truncate: bool = False
    ) -> Int[Tensor, "batch pos"]:
        """Token ids, right-padded, each row starting with BOS unless `prepend_bos=False`.

        Raises:
            InputError: no tokenizer, an empty list, or a text that is longer than the context.
        """
        return self._padded(text, prepend_bos, truncate)[0]

    def _padded(
        self, text: str | list[str], prepend_bos: bool | None = None, truncate: bool = False
    ) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """Token ids, and where they are no padding."""
        tokenizer = self._need_tokenizer()
        texts = [text] if isinstance(text, str) else list(text)
        if not texts:
            raise InputError("no text was given; pass at least one string.")
        start = [] if prepend_bos is False else [tokenizer.bos_token_id]
        rows = [start + _ids(tokenizer, one) for one in texts]
        longest = max(map(len, rows))
        if longest > self.config.n_ctx:
            if not truncate:
                raise InputError(
                    f"the text has {longest} tokens, the model's context is {self.config.n_ctx}; "
                    "shorten it or pass truncate=True."
                )
            rows = [row[: self.config.n_ctx] for row in rows]
        tokens, real = pad_rows(rows, tokenizer.pad_token_id)
        return tokens.to(self.device), real.to(self.device)

    def _real(self, tokens: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"] | None:
        """Up to each row's last token that is not PAD; None if there is no PAD, or none at an end."""
        pad = None if self.tokenizer is None else self.tokenizer.pad_token_id
        if pad is None:
            return None
        real = (tokens != pad).flip(1).cummax(1).values.flip(1)
        return None if bool(real.all()) else real

    def to_string(self, tokens: Int[Tensor, "*batch pos"] | list[int] | int) -> str | list[str]:
        """The text of token ids; a list of texts for a batch."""
        tokenizer = self._need_tokenizer()
        ids = torch.as_tensor(tokens)
        if ids.ndim == 2:
            return [tokenizer.decode(row.tolist(), clean_up_tokenization_spaces=False) for row in ids]
        return tokenizer.decode(ids.reshape(-1).tolist(), clean_up_tokenization_spaces=False)

    def to_str_tokens(
        self, input: str | list[str] | Int[Tensor, "*batch pos"], prepend_bos: bool | None = None
    ) -> list[str] | list[list[str]]:
        """Return the text of each token in its context; see `workbench.data.tokenizer.token_texts`."""
        from workbench.data.tokenizer import token_texts

        tokenizer = self._need_tokenizer()
        if isinstance(input, list):
            return [self.to_str_tokens(one, prepend_bos) for one in input]  # type: ignore[misc]
        ids = self.to_tokens(input, prepend_bos)[0] if isinstance(input, str) else torch.as_tensor(input)
        if ids.ndim == 2 and ids.shape[0] == 1:
            ids = ids[0]
        if ids.ndim == 2:
            return [self.to_str_tokens(row) for row in ids]  # type: ignore[misc]
        return token_texts(tokenizer, ids.reshape(-1).tolist())

    def to_single_token(self, text: str) -> int:
        """The id of a text that is one token.

        Raises:
            InputError: the text is no token or several; the message shows them.
        """
        tokenizer = self._need_tokenizer()
        known = tokenizer.convert_tokens_to_ids(text) if text in tokenizer.all_special_tokens else None
        ids = [known] if known is not None else _ids(tokenizer, text)
        if len(ids) != 1:
            from workbench.data.tokenizer import token_texts

            parts = token_texts(tokenizer, ids)
            raise InputError(f"{text!r} is {len(ids)} tokens, not one: {parts}. Mind the leading space.")
        return ids[0]

    @torch.no_grad()
    def generate(
        self,
        prompt: str | Int[Tensor, "batch pos"] = "",
        max_new_tokens: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop_at_eos: bool = True,
        use_cache: bool = True,
    ):
        """Sample a continuation; returns text for a text prompt, token ids for token ids.

        Args:
            prompt: text (BOS is prepended) or ids, [batch pos].
            max_new_tokens: stops earlier at EOS, or when the context is full.
            temperature: 0 takes the most likely token each time.
            top_k: sample among the k most likely tokens only (Fan et al. 2018).
            top_p: sample among the fewest tokens whose probabilities reach p (Holtzman et al. 2020).
            seed: the same seed gives the same text on the same machine.

        Raises:
            InputError: a masked model, a prompt that fills the context, or settings out of range.
        """
        if self.config.attention != "causal":
            raise InputError("a masked model cannot continue a text; use a run with objective clm.")
        if temperature < 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
            raise InputError("generate needs temperature >= 0, top_k >= 1 and 0 < top_p <= 1.")
        tokens = self.to_tokens(prompt) if isinstance(prompt, str) else prompt.to(self.device)
        if tokens.shape[1] == 0:
            raise InputError("the prompt has no tokens; pass some text or ids.")
        if tokens.shape[1] >= self.config.n_ctx:
            raise InputError(
                f"the prompt has {tokens.shape[1]} tokens and fills the context of {self.config.n_ctx}; "
                "shorten it."
            )
        eos = self.tokenizer.eos_token_id if stop_at_eos and self.tokenizer is not None else None
        random = torch.Generator(device=self.device).manual_seed(seed)
        cache = KeyValueCache(self.config, tokens.shape[0], self.dtype, self.device) if use_cache else None
        ended = torch.zeros(tokens.shape[0], dtype=torch.bool, device=self.device)
        unread = tokens
        for _ in range(min(max_new_tokens, self.config.n_ctx - tokens.shape[1])):
            last = self.residual(unread, cache=cache)[:, -1]
            chosen = sample(self.unembed(last), temperature, top_k, top_p, random)
            if eos is not None:
                chosen = torch.where(ended, eos, chosen)
                ended |= chosen == eos
            tokens = torch.cat([tokens, chosen[:, None]], 1)
            if eos is not None and bool(ended.all()):
                break
            unread = tokens if cache is None else chosen[:, None]
        if not isinstance(prompt, str):
            return tokens
        return self._need_tokenizer().decode(
            tokens[0].tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _need_tokenizer(self):
        if self.tokenizer is None:
            raise InputError("this model has no tokenizer; set model.tokenizer, or pass token ids.")
        return self.tokenizer


def _ids(tokenizer: Any, text: str) -> list[int]:
    """A text's token ids.

    Raises:
        InputError: no text, or one with a stray byte.
    """
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    except TypeError:
        raise InputError(f"{shown(ascii(text))} cannot be read as text; give text in UTF-8.") from None


def pad_rows(
    rows: list[list[int]], pad: int | None
) -> tuple[Int[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
    """Token ids padded on the right with `pad`, or 0 without one, and where they are no padding."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    padded = [row + [pad or 0] * (width - len(row)) for row in rows]
    tokens = torch.tensor(padded, dtype=torch.long).reshape(len(rows), width)
    return tokens, torch.arange(width) < lengths[:, None]


def sample(
    logits: Float[Tensor, "batch d_vocab"],
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator,
) -> Int[Tensor, " batch"]:
    """Draw one token a row after temperature, top-k and top-p, in that order."""
    logits = narrowed(logits, temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def narrowed(
    logits: Float[Tensor, "batch d_vocab"], temperature: float, top_k: int | None, top_p: float | None
) -> Float[Tensor, "batch d_vocab"]:
    """The logits that are drawn from: after temperature, top-k and top-p; -inf where nothing is drawn. At
    temperature 0 only the largest is left."""
    logits = logits.float()
    if temperature == 0:
        best = logits.argmax(-1, keepdim=True)
        return torch.full_like(logits, float("-inf")).scatter(-1, best, 0.0)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        beyond = probabilities.cumsum(-1) - probabilities >= top_p
        logits = logits.scatter(-1, order, ordered.masked_fill(beyond, float("-inf")))
    return logits
