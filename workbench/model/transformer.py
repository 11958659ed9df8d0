"""The loss through `torch.compile`, without losing hooks."""

import math
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens import ActivationCache, HookedRootModule
from transformer_lens.hook_points import HookPoint

from workbench.errors import InputError, nearest
from workbench.model.attention import Attention
from workbench.model.config import ModelConfig
from workbench.model.hooks import listened
from workbench.model.kernels import linear_cross_entropy
from workbench.model.layers import BIASES, MLP, VECTORS, Embed, LayerMix, MLMHead, make_norm, normed
from workbench.model.mask import AttentionMask, KeyValueCache, LayerCache
from workbench.model.size import kept_by_default, refuse_large_cache, refuse_too_large
from workbench.model.tl import LensSurface, TextInterface, WeightViews
from workbench.stats import derive

# One block: attention, MLP, or both, each added to the residual stream.


if TYPE_CHECKING:
    _Model = Any  # the rest of HookedTransformer
else:
    _Model = object


class Block(nn.Module):
    """The usual pre-norm block is `mid = pre + attn(ln1(pre))`, `post = mid + mlp(ln2(mid))` (Radford et al.
    2019). A parallel one reads `pre` twice; a post-norm one puts each norm behind its sum (Vaswani et al.
    2017).

    Args:
        config: the shape.
        index: number of the block.
        kind: `am`, `a`, `m` or `(am)`.
        n_before: attention modules in the blocks before, which decides this one's window.
    """

    def __init__(self, config: ModelConfig, index: int, kind: str, n_before: int) -> None:
        super().__init__()
        self.kind, self.dropout = kind, config.dropout
        self.post_norm = config.norm_place == "post"
        attends, feeds, parallel = "a" in kind, "m" in kind, kind == "(am)"
        former = config.norm_place == "normformer"
        self.ln1 = make_norm(config) if attends else None
        self.ln2 = make_norm(config) if feeds and not (parallel and self.post_norm) else None
        self.attn = Attention(config, config.window(n_before)) if attends else None
        self.mlp = MLP(config) if feeds else None
        self.ln1_post = make_norm(config) if attends and former else None
        self.mix = LayerMix(index + 2) if config.residual == "weighted" else None
        self.hook_resid_pre, self.hook_resid_post = HookPoint(), HookPoint()
        if attends:
            self.hook_attn_out = HookPoint()
        if feeds:
            self.hook_mlp_in, self.hook_mlp_out = HookPoint(), HookPoint()
        if kind == "am":
            self.hook_resid_mid = HookPoint()
        if self.post_norm:
            self.hook_normalized_resid_post = HookPoint()
        if self.mix is not None:
            self.hook_mix = HookPoint()

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        sight: AttentionMask,
        cache: LayerCache | None = None,
        written: list[Tensor] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream behind the block.

        Args:
            x: the residual stream.
            sight: who may see whom.
            cache: keys and values of the earlier tokens.
            written: what the embedding and the blocks before wrote; this block's output is appended.
        """
        pre = self.hook_resid_pre(x)
        if self.kind == "am":
            attended = self._attend(pre, sight, cache)
            mid = self.hook_resid_mid(pre + attended)
            if self.post_norm:
                mid = normed(self.ln1, mid)
            fed = self._feed(mid)
            post = mid + fed
            total = attended + fed if self.mix is not None else None
        else:
            total = self._attend(pre, sight, cache) if self.attn is not None else None
            if self.mlp is not None:
                fed = self._feed(pre)
                total = fed if total is None else total + fed
            assert total is not None
            post = pre + total
        if self.mix is not None:
            assert written is not None
            assert total is not None
            written.append(total)
            post = self.mix(written, self.hook_mix)
        post = self.hook_resid_post(post)
        if not self.post_norm:
            return post
        last = self.ln2 if self.ln2 is not None else self.ln1
        return self.hook_normalized_resid_post(normed(last, post))

    def keys_values(
        self, x: Float[Tensor, "batch pos d_model"], sight: AttentionMask
    ) -> tuple[Tensor, Tensor]:
        """The keys and values of tokens whose queries nobody asks for."""
        assert self.attn is not None
        return self.attn.keys_values(x if self.post_norm else normed(self.ln1, x), sight)

    def _attend(self, pre: Tensor, sight: AttentionMask, cache: LayerCache | None) -> Tensor:
        assert self.attn is not None
        norm = None if self.post_norm else self.ln1
        forked = self.attn.fork(pre)
        if forked is None:
            out = self.attn(normed(norm, pre), sight, cache)
        else:
            q, k, v = (normed(norm, part) for part in forked)
            out = self.attn(pre, sight, cache, split=(q, k, v))
        return self.hook_attn_out(self._drop(normed(self.ln1_post, out)))

    def _feed(self, x: Tensor) -> Tensor:
        assert self.mlp is not None
        x = self.hook_mlp_in(x)
        return self.hook_mlp_out(self._drop(self.mlp(x if self.post_norm else normed(self.ln2, x))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


def share_weights(blocks: nn.ModuleList, what: str) -> None:
    """Make all blocks use the weights of the first that has them (Lan et al. 2020, ALBERT).

    Args:
        blocks: of one model.
        what: `all`, `attention` or `mlp`. Norms are shared in `all` only; layer weights never.
    """
    parts = {"all": ("attn", "mlp", "ln1", "ln2", "ln1_post"), "attention": ("attn",), "mlp": ("mlp",)}[what]
    for part in parts:
        having = [module for block in blocks if (module := getattr(block, part)) is not None]
        for module in having[1:]:
            for name, parameter in having[0].named_parameters():
                *path, last = name.split(".")
                owner = module.get_submodule(".".join(path))
                setattr(owner, last, parameter)


# Weights in and out of a model, each once.


class StoredWeights(_Model):
    """Mixed into `HookedTransformer`."""

    @classmethod
    def from_weights(cls, config: ModelConfig, tensors: Mapping[str, Tensor], tokenizer: Any = None) -> Any:
        """A model that takes `tensors` as its weights, without a copy and without initialising any.

        Args:
            config: the shape.
            tensors: by name, as `state_dict()` gives them; all of one type.
            tokenizer: given to the model.

        Raises:
            ConfigError: the model does not fit into memory.
            RuntimeError: a tensor missing, left over, or of another shape.
        """
        refuse_too_large(config)
        with torch.device("meta"):
            model = cls(config, tokenizer)
        model.load_state_dict(tensors, assign=True)
        if config.sharing != "none":
            share_weights(model.blocks, config.sharing)
        return model

    def _share(self) -> None:
        """Make layers use one set of weights where the configuration says so, and keep it so on disk:
        `state_dict` gives shared weights once, under the first layer's name, and loading takes that."""
        if self.config.sharing == "none":
            return
        share_weights(self.blocks, self.config.sharing)
        self.register_state_dict_post_hook(_drop_repeats)
        self.register_load_state_dict_pre_hook(_add_repeats)


def _repeats(model: Any) -> dict[str, str]:
    """Each further name of a shared weight, and its first one."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    everywhere = model.named_parameters(remove_duplicate=False)
    return {name: first[id(weight)] for name, weight in everywhere if name != first[id(weight)]}


def _drop_repeats(model: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in _repeats(model):
        state.pop(prefix + name, None)


def _add_repeats(model: Any, state: dict[str, Any], prefix: str, *others: Any) -> None:
    for name, first in _repeats(model).items():
        if prefix + first in state:
            state[prefix + name] = state[prefix + first]


# `HookedTransformer`: the model that trains is the model that is opened.


class HookedTransformer(TextInterface, WeightViews, StoredWeights, LensSurface, HookedRootModule):
    """A transformer with transformer-lens' hook points, names and tools, at the speed of plain PyTorch.

    Args:
        config: the shape.
        tokenizer: a `PreTrainedTokenizerFast`, needed only for text input and output.

    `.config` is ours; `.cfg` is the same as a `TransformerLensConfig`. Rows of unequal length are
    padded on the right; a row alone gives what it gives in any batch, to rounding.
    """

    def __init__(self, config: ModelConfig, tokenizer: Any = None) -> None:
        super().__init__()
        on_paper = torch.get_default_device().type == "meta"
        if not on_paper:
            refuse_too_large(config)
        self.config = config
        self.tokenizer = tokenizer
        self.embed = Embed(config)
        self.hook_embed = HookPoint()
        self.pos_embed = VECTORS[config.positions](config) if config.positions in VECTORS else None
        if self.pos_embed is not None:
            self.hook_pos_embed = HookPoint()
        if config.token_types:
            self.hook_token_type_embed = HookPoint()
        self._completes = bool(config.token_types or config.embed_norm or config.d_embed)
        if self._completes:
            self.hook_full_embed = HookPoint()
        self.position_bias = BIASES[config.positions](config) if config.positions in BIASES else None
        kinds = config.blocks
        before = [0, *accumulate("a" in kind for kind in kinds)]
        self.blocks = nn.ModuleList(
            Block(config, index, kind, before[index]) for index, kind in enumerate(kinds)
        )
        self._share()
        self.ln_final = make_norm(config) if config.norm_place != "post" else None
        self.mlm_head = MLMHead(config) if config.mlm_head else None
        shape = (config.d_vocab, config.readout_width)
        self.unembed_weight = None if config.tied else nn.Parameter(torch.empty(shape))
        self.unembed_bias = nn.Parameter(torch.zeros(config.d_vocab)) if config.unembed_bias else None
        self.setup()
        if not on_paper:
            self.initialise()

    @classmethod
    def from_hf(cls, model: Any, tokenizer: Any = None) -> "HookedTransformer":
        """The same model as one of Hugging Face's GPT-Neo, GPT-2, Llama, BERT or RoBERTa; weights are copied.

        Raises:
            ConfigError: another family, or a setting that this model cannot hold; the message names it.
            RunError: a tensor that does not fit.
        """
        from workbench.model.hf import from_hf

        return from_hf(model, tokenizer)

    def to_bridge_state(self) -> Any:
        """The same weights in transformer-lens' own bridge; see `workbench.model.hf.to_bridge_state`."""
        from workbench.model.hf import to_bridge_state

        return to_bridge_state(self)

    @torch.no_grad()
    def initialise(self) -> None:
        """Set all weights from `config.seed`: normal with `init_std`, projections into the residual
        stream divided by the root of their number (Radford et al. 2019), biases 0, gains 1."""
        random = torch.Generator().manual_seed(derive(self.config.seed, "weights"))
        writers = sum(len(kind.strip("()")) for kind in self.config.blocks)
        depth = math.sqrt(writers) if self.config.depth_scaled_init else 1.0
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                gain = name.endswith((".w", ".head_scale"))
                parameter.fill_(1.0 if gain else 0.25 if name.endswith(".slope") else 0.0)
                continue
            std = self.config.init_std / (depth if name.endswith("out_weight") else 1.0)
            parameter.copy_(torch.randn(parameter.shape, generator=random) * std)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed.W_E.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.embed.W_E.dtype

    @property
    def readout_weight(self) -> Float[Tensor, "d_vocab d_readout"]:
        """The unembedding as it is stored; the embedding itself if tied."""
        return self.embed.W_E if self.unembed_weight is None else self.unembed_weight

    @property
    def readout_bias(self) -> Float[Tensor, " d_vocab"] | None:
        """What is added to the logits; None if nothing is."""
        return self.unembed_bias

    def unembed(self, x: Float[Tensor, "*batch d_readout"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits of vectors that `final` gave."""
        return F.linear(x, self.readout_weight, self.unembed_bias)

    def final(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_readout"]:
        """From the last block's output to what the unembedding reads: the final norm, the masked model's
        head, and the way down to a tied factorised embedding, so far as there are any."""
        x = normed(self.ln_final, x)
        if self.mlm_head is not None:
            return self.mlm_head(x)
        down = self.embed.up_weight if self.config.tied else None
        return x if down is None else x @ down

    def new_cache(self, batch: int) -> KeyValueCache:
        """An empty key-value cache, to pass as `cache`."""
        return KeyValueCache(self.config, batch, self.dtype, self.device)

    def residual(
        self, tokens: Int[Tensor, "batch pos"], **kwargs: Any
    ) -> Float[Tensor, "batch pos d_readout"]:
        """What the unembedding reads: `stream` (which see for the arguments) through `final`."""
        return self.final(self.stream(tokens, **kwargs))

    def stream(
        self,
        tokens: Int[Tensor, "batch pos"],
        *,
        attention_mask: Bool[Tensor, "batch pos"] | Int[Tensor, "batch pos"] | None = None,
        segments: Int[Tensor, "batch pos"] | None = None,
        positions: Int[Tensor, "batch pos"] | None = None,
        mask: Bool[Tensor, "#batch 1 pos pos"] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream behind the last block.

        Args:
            tokens: ids.
            attention_mask: 1 at tokens, 0 at the padding on the right.
            segments: number of the story each token belongs to; attention stays inside it and
                positions start again in it.
            positions: place of each token, if not 0, 1, 2, ...
            mask: True where a query may attend to a key; replaces the causal or full pattern.
            cache: what was read before; these tokens come after it.

        Raises:
            InputError: sequence longer than the context, left padding.
        """
        past = 0 if cache is None else cache.length
        length = tokens.shape[1]
        if past + length > self.config.n_ctx and positions is None:
            raise InputError(f"the sequence has {past + length} tokens, the context is {self.config.n_ctx}.")
        if mask is None:
            mask = self._mask(tokens, attention_mask, segments)
        in_order = positions is None and segments is None
        if positions is None:
            positions = torch.arange(past, past + length, device=tokens.device)[None]
            if segments is not None:
                positions = positions - _segment_starts(segments)
        keys = positions if cache is None else cache.append_positions(positions)
        sight = AttentionMask(positions, keys, mask, self.config.attention == "causal", in_order)
        x = self._embed(tokens, positions)
        if self.position_bias is not None:
            sight.bias = self.position_bias(sight.distance, x)
        written = [x]
        for index, block in enumerate(self.blocks):
            x = block(x, sight, None if cache is None else cache.layers[index], written)
        return x

    def _embed(
        self, tokens: Int[Tensor, "batch pos"], positions: Int[Tensor, "#batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        x = self.hook_embed(self.embed(tokens))
        if self.pos_embed is not None:
            where = self.pos_embed(positions, x)
            x = x + self.hook_pos_embed(where.expand(len(tokens), -1, -1))
        if self.embed.W_type is not None:
            x = x + self.hook_token_type_embed(self.embed.W_type[0].expand(x.shape))
        if self._completes:
            x = self.hook_full_embed(self.embed.complete(x))
        return F.dropout(x, self.config.dropout) if self.training and self.config.dropout else x

    def _mask(
        self, tokens: Tensor, attention_mask: Tensor | None, segments: Tensor | None
    ) -> Bool[Tensor, "batch 1 pos pos"] | None:
        causal = self.config.attention == "causal"
        if attention_mask is None and not causal:
            attention_mask = self._real(tokens)
        if attention_mask is not None:
            attention_mask = attention_mask.bool()
            if not bool((attention_mask.cummin(1).values == attention_mask).all()):
                raise InputError(
                    "the padding stands on the left or inside a row; pad on the right, "
                    "because left padding would move every token's position."
                )
            if attention_mask.all():
                attention_mask = None
        if segments is None and (causal or attention_mask is None):
            return None  # right padding lies in every real token's future
        length = tokens.shape[1]
        allowed = torch.ones(1, length, length, dtype=torch.bool, device=tokens.device)
        if causal:
            allowed = allowed.tril()
        if segments is not None:
            allowed = allowed & (segments[:, :, None] == segments[:, None, :])
        if attention_mask is not None:
            itself = torch.eye(length, dtype=torch.bool, device=tokens.device)
            allowed = allowed & (attention_mask[:, None, :].to(tokens.device) | itself)
        return allowed[:, None]

    def loss(
        self,
        tokens: Int[Tensor, "batch pos"],
        targets: Int[Tensor, "batch pos"],
        segments: Int[Tensor, "batch pos"] | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats over the targets that are not -100, without holding all logits.

        For `label_smoothing` and `z_loss` see `workbench.model.kernels.linear_cross_entropy`.
        """
        x = self.residual(tokens, segments=segments)
        return linear_cross_entropy(
            x.flatten(0, 1),
            self.readout_weight,
            targets.flatten(),
            self.unembed_bias,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
        )

    def forward(
        self,
        input: str | list[str] | Int[Tensor, "batch pos"],
        return_type: str | None = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        attention_mask: Tensor | None = None,
        segments: Tensor | None = None,
        past_kv_cache: KeyValueCache | None = None,
    ) -> Any:
        """Run the model.

        Args:
            input: text, texts, or token ids, [batch pos]. Text gets BOS unless `prepend_bos=False`.
            return_type: `"logits"` [batch pos d_vocab]; `"loss"`, the next-token cross-entropy in
                nats, padding left out; `"both"`; None for nothing.
            loss_per_token: loss as [batch pos-1] instead of its mean (0 at padding).

        Raises:
            InputError: empty or too long input, ids outside the vocabulary, a `return_type` that
                does not exist, or the next-token loss of a masked model.
        """
        if return_type not in ("logits", "loss", "both", None):
            raise InputError(f"return_type {return_type!r} is none of logits, loss, both, None.")
        tokens, attention_mask = self._to_input(input, prepend_bos, attention_mask)
        x = self.residual(tokens, attention_mask=attention_mask, segments=segments, cache=past_kv_cache)
        if return_type is None:
            return None
        logits = self.unembed(x)
        if return_type == "logits":
            return logits
        if self.config.objective != "clm":
            raise InputError("a masked model has no next-token loss; use model.loss(tokens, targets).")
        loss = next_token_loss(logits, tokens, attention_mask, loss_per_token)
        return loss if return_type == "loss" else (logits, loss)

    def _to_input(
        self, input: str | list[str] | Tensor, prepend_bos: bool | None, attention_mask: Tensor | None
    ) -> tuple[Int[Tensor, "batch pos"], Tensor | None]:
        if isinstance(input, str | list):
            tokens, real = self._padded(input, prepend_bos)
            if attention_mask is None and not bool(real.all()):
                attention_mask = real
        else:
            tokens = input.unsqueeze(0) if input.ndim == 1 else input
        if tokens.numel() == 0:
            raise InputError("the input has no tokens; pass some text or ids.")
        low, high = tokens.aminmax()
        if low < 0 or high >= self.config.d_vocab:
            raise InputError(f"token ids run from {low} to {high}; the vocabulary has {self.config.d_vocab}.")
        return tokens.to(self.device), attention_mask

    def run_with_cache(self, *args: Any, return_cache_object: bool = True, **kwargs: Any) -> tuple[Any, Any]:
        """Run and keep activations (see `HookedRootModule.run_with_cache` for the options).

        Without `names_filter` every activation on the explicit path is kept. The per-head copies
        of the residual stream (`hook_result`, `hook_attn_in`, `hook_{q,k,v}_input`) are computed
        only when a filter names them; `cache.stack_head_results()` needs none of them.

        Returns:
            The output, and a transformer-lens `ActivationCache` (a plain dict if
            `return_cache_object=False`).

        Raises:
            InputError: a name that is no hook point, or more than fits into free memory
                (`workbench.model.size.activation_bytes` says how much beforehand).
        """
        chosen = kwargs.get("names_filter")
        if chosen is None:
            kwargs["names_filter"] = kept_by_default
        elif not callable(chosen):
            for name in [chosen] if isinstance(chosen, str) else chosen:
                self._need_hook(name)
        given: Any = args[0] if args else kwargs.get("input")
        tokens = given if isinstance(given, Tensor) else self.to_tokens(given, kwargs.get("prepend_bos"))
        rows = 1 if tokens.ndim == 1 else len(tokens)
        refuse_large_cache(self, rows, tokens.shape[-1], kwargs["names_filter"])
        out, activations = super().run_with_cache(*args, **kwargs)
        if not return_cache_object:
            return out, activations
        batched = not kwargs.get("remove_batch_dim", False)
        return out, ActivationCache(activations, self, has_batch_dim=batched)

    def _enable_hook_with_name(self, name: str, hook: Callable, dir: Any) -> None:
        self._need_hook(name)
        super()._enable_hook_with_name(name, hook, dir)

    def _need_hook(self, name: str) -> None:
        if name not in self.hook_dict:
            raise InputError(f"no hook point is called {name!r}. {nearest(name, self.hook_dict)}")

    def has_listeners(self) -> bool:
        """Whether any hook point has a listener."""
        return listened(*self.hook_dict.values())


def next_token_loss(
    logits: Float[Tensor, "batch pos d_vocab"],
    tokens: Int[Tensor, "batch pos"],
    attention_mask: Tensor | None = None,
    per_token: bool = False,
) -> Float[Tensor, "*shape"]:
    """Cross-entropy in nats of each token given those before it; padding counts nothing.

    Returns:
        The mean over real tokens, or [batch pos-1] with 0 at padding.
    """
    wide = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(wide.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    losses = losses.view(tokens.shape[0], -1)
    if attention_mask is None:
        return losses if per_token else losses.mean()
    real = attention_mask[:, 1:].to(losses.dtype)
    return losses * real if per_token else (losses * real).sum() / real.sum().clamp(min=1)


def _segment_starts(segments: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    index = torch.arange(segments.shape[1], device=segments.device).expand(segments.shape)
    changed = torch.ones_like(segments, dtype=torch.bool)
    changed[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return torch.where(changed, index, 0).cummax(1).values


def compiled_loss(model: HookedTransformer) -> Callable[..., Tensor]:
    """`model.loss`, with everything before the readout compiled.

    A compiled graph would pass listeners by, so a call while a hook point has one runs `model.loss`
    itself. The first call compiles (about 20 s; it needs a C++ compiler on a CPU).

    Returns:
        A function of `model.loss`'s arguments.
    """
    residual = torch.compile(model.residual, dynamic=False)

    def loss(
        tokens: Tensor,
        targets: Tensor,
        segments: Tensor | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> Tensor:
        extra = {"label_smoothing": label_smoothing, "z_loss": z_loss}
        if model.has_listeners():
            return model.loss(tokens, targets, segments, **extra)
        x = residual(tokens, segments=segments)
        return linear_cross_entropy(
            x.flatten(0, 1),
            model.readout_weight,
            targets.flatten(),
            model.readout_bias,
            compiled=True,
            **extra,
        )

    return loss
