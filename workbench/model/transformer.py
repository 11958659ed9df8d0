"""`HookedTransformer`: the model that is trained is the model that is analysed.

From top to bottom: one block, the model and its forward pass, generation, and the compiled training loss.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.errors import InputError
from workbench.model.attention import Attention
from workbench.model.config import ModelConfig, check_fits_memory
from workbench.model.kernels import linear_cross_entropy
from workbench.model.layers import BIASES, MLP, VECTORS, Embed, LayerMix, MLMHead, make_norm, normed
from workbench.model.mask import AttentionMask, KeyValueCache, LayerCache
from workbench.model.tl import TransformerLensModel, pad_rows
from workbench.stats import derive

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class Block(nn.Module):
    """Attention, MLP, or both, each added to the residual stream.

    The usual pre-norm block is `mid = pre + attn(ln1(pre))`, `post = mid + mlp(ln2(mid))` (Radford et al.
    2019). A parallel block reads `pre` twice; a post-norm block normalises each sum (Vaswani et al. 2017).

    Args:
        config: the shape.
        index: number of the block.
        kind: `am`, `a`, `m` or `(am)`.
        n_attention: number of attention modules in earlier blocks, which decides this one's window.
    """

    def __init__(self, config: ModelConfig, index: int, kind: str, n_attention: int) -> None:
        super().__init__()
        self.kind, self.dropout = kind, config.dropout
        self.post_norm = config.norm_place == "post"
        has_attention, has_mlp, parallel = "a" in kind, "m" in kind, kind == "(am)"
        normformer = config.norm_place == "normformer"
        self.ln1 = make_norm(config) if has_attention else None
        self.ln2 = make_norm(config) if has_mlp and not (parallel and self.post_norm) else None
        self.attn = Attention(config, config.window(n_attention)) if has_attention else None
        self.mlp = MLP(config) if has_mlp else None
        self.ln1_post = make_norm(config) if has_attention and normformer else None
        self.mix = LayerMix(index + 2) if config.residual == "weighted" else None
        self.hook_resid_pre, self.hook_resid_post = HookPoint(), HookPoint()
        if has_attention:
            self.hook_attn_out = HookPoint()
        if has_mlp:
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
        mask: AttentionMask,
        cache: LayerCache | None = None,
        written: list[Tensor] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return the residual stream after the block.

        Args:
            x: the residual stream.
            mask: allowed keys and positions.
            cache: keys and values of the earlier tokens.
            written: outputs of the embedding and the earlier blocks, to which this block's is appended;
                needed where `residual` is weighted.
        """
        pre = self.hook_resid_pre(x)
        if self.kind == "am":
            attn_out = self._attention(pre, mask, cache)
            mid = self.hook_resid_mid(pre + attn_out)
            if self.post_norm:
                mid = normed(self.ln1, mid)
            mlp_out = self._mlp(mid)
            post = mid + mlp_out
            output = attn_out + mlp_out if self.mix is not None else None
        else:
            output = self._attention(pre, mask, cache) if self.attn is not None else None
            if self.mlp is not None:
                mlp_out = self._mlp(pre)
                output = mlp_out if output is None else output + mlp_out
            assert output is not None
            post = pre + output
        if self.mix is not None:
            assert written is not None
            assert output is not None
            written.append(output)
            post = self.mix(written, self.hook_mix)
        post = self.hook_resid_post(post)
        if not self.post_norm:
            return post
        last_norm = self.ln2 if self.ln2 is not None else self.ln1
        return self.hook_normalized_resid_post(normed(last_norm, post))

    def keys_values(
        self, x: Float[Tensor, "batch pos d_model"], mask: AttentionMask
    ) -> tuple[Tensor, Tensor]:
        """Return the keys and values of tokens whose queries are not needed."""
        assert self.attn is not None
        return self.attn.keys_values(x if self.post_norm else normed(self.ln1, x), mask)

    def _attention(self, pre: Tensor, mask: AttentionMask, cache: LayerCache | None) -> Tensor:
        assert self.attn is not None
        norm = None if self.post_norm else self.ln1
        inputs = self.attn.fork(pre)
        if inputs is None:
            out = self.attn(normed(norm, pre), mask, cache)
        else:
            q, k, v = (normed(norm, x) for x in inputs)
            out = self.attn(pre, mask, cache, split=(q, k, v))
        return self.hook_attn_out(self._drop(normed(self.ln1_post, out)))

    def _mlp(self, x: Tensor) -> Tensor:
        assert self.mlp is not None
        x = self.hook_mlp_in(x)
        return self.hook_mlp_out(self._drop(self.mlp(x if self.post_norm else normed(self.ln2, x))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


class HookedTransformer(TransformerLensModel):
    """A transformer with TransformerLens' hook points, names and tools, at the speed of plain PyTorch.

    `.config` is our configuration, `.cfg` the same as a `TransformerLensConfig`. Rows of unequal length are
    padded on the right; a row gives the same result alone and in any batch, to rounding.

    Args:
        config: the shape.
        tokenizer: needed only for text input and output.

    Raises:
        ConfigError: the model does not fit into memory.
    """

    def __init__(self, config: ModelConfig, tokenizer: "PreTrainedTokenizerFast | None" = None) -> None:
        super().__init__()
        on_meta = torch.get_default_device().type == "meta"
        if not on_meta:
            check_fits_memory(config)
        self.config = config
        self.tokenizer = tokenizer
        self.embed = Embed(config)
        self.hook_embed = HookPoint()
        self.pos_embed = VECTORS[config.positions](config) if config.positions in VECTORS else None
        if self.pos_embed is not None:
            self.hook_pos_embed = HookPoint()
        if config.token_types:
            self.hook_token_type_embed = HookPoint()
        self._has_full_embed = bool(config.token_types or config.embed_norm or config.d_embed)
        if self._has_full_embed:
            self.hook_full_embed = HookPoint()
        self.position_bias = BIASES[config.positions](config) if config.positions in BIASES else None
        kinds = config.blocks
        n_attention = [0, *accumulate("a" in kind for kind in kinds)]
        self.blocks = nn.ModuleList(
            Block(config, index, kind, n_attention[index]) for index, kind in enumerate(kinds)
        )
        if config.sharing != "none":
            share_weights(self.blocks, config.sharing)
            # state_dict holds shared weights once, under the first layer's name, and loading accepts that.
            self.register_state_dict_post_hook(_drop_shared)
            self.register_load_state_dict_pre_hook(_add_shared)
        self.ln_final = make_norm(config) if config.norm_place != "post" else None
        self.mlm_head = MLMHead(config) if config.mlm_head else None
        shape = (config.d_vocab, config.readout_width)
        self.unembed_weight = None if config.tied else nn.Parameter(torch.empty(shape))
        self.unembed_bias = nn.Parameter(torch.zeros(config.d_vocab)) if config.unembed_bias else None
        self.setup()
        if not on_meta:
            self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all weights from `config.seed`.

        Matrices are normal with `init_std`, divided by the square root of the number of modules for
        projections into the residual stream (Radford et al. 2019); biases are 0 and gains 1.
        """
        random = torch.Generator().manual_seed(derive(self.config.seed, "weights"))
        n_modules = sum(len(kind.strip("()")) for kind in self.config.blocks)
        depth = math.sqrt(n_modules) if self.config.depth_scaled_init else 1.0
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                gain = name.endswith((".w", ".head_scale"))
                parameter.fill_(1.0 if gain else 0.25 if name.endswith(".slope") else 0.0)
                continue
            std = self.config.init_std / (depth if name.endswith("out_weight") else 1.0)
            parameter.copy_(torch.randn(parameter.shape, generator=random) * std)

    @classmethod
    def from_weights(
        cls,
        config: ModelConfig,
        tensors: Mapping[str, Tensor],
        tokenizer: "PreTrainedTokenizerFast | None" = None,
    ) -> "HookedTransformer":
        """Make a model that uses `tensors` as its weights, without copying them or initialising any.

        Args:
            config: the shape.
            tensors: by name, as `state_dict()` gives them; all of one type.
            tokenizer: given to the model.

        Raises:
            ConfigError: the model does not fit into memory.
            RuntimeError: a tensor missing, left over, or of another shape.
        """
        check_fits_memory(config)
        with torch.device("meta"):
            model = cls(config, tokenizer)
        model.load_state_dict(tensors, assign=True)
        if config.sharing != "none":
            share_weights(model.blocks, config.sharing)
        return model

    @classmethod
    def from_folder(
        cls, folder: Path, tokenizer: "PreTrainedTokenizerFast | None" = None, *, check: bool = True
    ) -> "HookedTransformer":
        """Load the model of a folder in Hugging Face's layout, float32, in eval mode.

        Weights that fit as they are stay memory-mapped, so the file must not be overwritten in place while
        the model is in use.

        Args:
            folder: holds config.json and model.safetensors (or its parts and their index).
            tokenizer: given to the model.
            check: run `hf.check_model`.

        Raises:
            RunError, ConfigError: no model that can be read; the message says what is wrong.
        """
        from workbench.model.hf import check_model, read_config, read_weights

        family, config = read_config(folder)
        model = cls.from_weights(config, read_weights(folder, family, config), tokenizer).eval()
        if check:
            check_model(model, str(folder))
        return model

    @classmethod
    def from_hf(
        cls, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast | None" = None
    ) -> "HookedTransformer":
        """Convert a GPT-Neo, GPT-2, Llama, BERT or RoBERTa of transformers.

        Weights are copied; their type and device stay.

        Raises:
            InputError: a model of an unknown family.
            ConfigError: a setting that `ModelConfig` cannot represent.
            RunError: weights that do not fit, or a model that fails `hf.check_model`.
        """
        from workbench.model.hf import check_model, read_hf

        converted = cls.from_weights(*read_hf(model), tokenizer).eval()
        check_model(converted, type(model).__name__)
        return converted

    def to_hf(self, family: str = "auto") -> "PreTrainedModel":
        """Convert to a model of transformers; see `hf.to_hf`."""
        from workbench.model.hf import to_hf

        return to_hf(self, family)

    def to_bridge(self) -> "TransformerBridge":
        """Convert to a `TransformerBridge` of TransformerLens; see `hf.to_bridge`."""
        from workbench.model.hf import to_bridge

        return to_bridge(self)

    # The forward pass

    def forward(
        self,
        input: str | list[str] | Tensor,
        return_type: str | None = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        attention_mask: Tensor | None = None,
        segments: Tensor | None = None,
        past_kv_cache: KeyValueCache | None = None,
        *,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        tokens: Int[Tensor, "batch pos"] | None = None,
    ) -> Any:
        """Run the model.

        Args:
            input: text, texts, or token ids [batch pos]. Text gets BOS unless `prepend_bos=False`. With
                `start_at_layer`, the residual stream that enters that block, [batch pos d_model].
            return_type: `"logits"` [batch pos d_vocab]; `"loss"`, the next-token cross-entropy in nats,
                without padding; `"both"`; None for nothing.
            loss_per_token: return the loss as [batch pos-1], 0 at padding, instead of its mean.
            prepend_bos: see `to_tokens`.
            attention_mask: 1 at tokens, 0 at the padding on the right; derived from the lengths of texts.
            segments: see `stream`.
            past_kv_cache: keys and values of earlier tokens, which these tokens continue.
            start_at_layer: first block that runs; negative numbers count from the end.
            stop_at_layer: block before which to stop. The residual stream that enters it is returned,
                whatever `return_type` is.
            tokens: ids for the loss, with `start_at_layer`.

        Raises:
            InputError: empty or too long input, ids outside the vocabulary, an unknown `return_type`, a layer
                out of range, or the next-token loss of a masked model.
        """
        if return_type not in ("logits", "loss", "both", None):
            raise InputError(f"return_type {return_type!r} is none of logits, loss, both, None.")
        if start_at_layer is None:
            tokens, attention_mask = self.to_input(input, prepend_bos, attention_mask)
            input = tokens
        elif not (isinstance(input, Tensor) and input.ndim == 3 and input.is_floating_point()):
            raise InputError("start_at_layer needs the residual stream as input, [batch pos d_model].")
        x = self.stream(
            input,
            attention_mask=attention_mask,
            segments=segments,
            cache=past_kv_cache,
            start_at_layer=start_at_layer,
            stop_at_layer=stop_at_layer,
        )
        if stop_at_layer is not None:
            return x
        x = self.final(x)
        if return_type is None:
            return None
        logits = self.unembed(x)
        if return_type == "logits":
            return logits
        if self.config.objective != "clm":
            raise InputError("a masked model has no next-token loss; use model.loss(tokens, targets).")
        if tokens is None:
            raise InputError("the loss of a run with start_at_layer needs the token ids; pass tokens=.")
        loss = self.loss_fn(logits, tokens, attention_mask, loss_per_token)
        return loss if return_type == "loss" else (logits, loss)

    def to_input(
        self,
        input: str | list[str] | Tensor,
        prepend_bos: bool | None = None,
        attention_mask: Tensor | None = None,
    ) -> tuple[Int[Tensor, "batch pos"], Tensor | None]:
        """Return checked token ids [batch pos] and the mask of the padding; None without padding.

        Raises:
            InputError: no tokens, ids outside the vocabulary, or a text longer than the context.
        """
        if isinstance(input, Tensor):
            tokens = input.unsqueeze(0) if input.ndim == 1 else input
        else:
            tokens, mask = self.to_tokens_and_mask(input, prepend_bos)
            if attention_mask is None and not bool(mask.all()):
                attention_mask = mask
        if tokens.numel() == 0:
            raise InputError("the input has no tokens; pass some text or ids.")
        low, high = tokens.aminmax()
        if low < 0 or high >= self.config.d_vocab:
            raise InputError(f"token ids run from {low} to {high}; the vocabulary has {self.config.d_vocab}.")
        return tokens.to(self.device), attention_mask

    def stream(
        self,
        tokens: Int[Tensor, "batch pos"] | Float[Tensor, "batch pos d_model"],
        *,
        attention_mask: Bool[Tensor, "batch pos"] | Int[Tensor, "batch pos"] | None = None,
        segments: Int[Tensor, "batch pos"] | None = None,
        positions: Int[Tensor, "batch pos"] | None = None,
        mask: Bool[Tensor, "#batch 1 pos key_pos"] | None = None,
        cache: KeyValueCache | None = None,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return the residual stream after the last block.

        Args:
            tokens: ids; with `start_at_layer`, the residual stream that enters that block.
            attention_mask: 1 at tokens, 0 at the padding on the right.
            segments: number of the story that each token belongs to; attention stays inside it, and positions
                start again in it.
            positions: position of each token; default: 0, 1, 2, ...
            mask: True where a query may attend to a key; replaces the causal or full pattern.
            cache: keys and values of earlier tokens, which these tokens continue.
            start_at_layer: first block that runs; default: the embedding.
            stop_at_layer: block before which to stop.

        Raises:
            InputError: sequence longer than the context, padding on the left, a layer out of range.
        """
        first, last = self._layer_range(start_at_layer, stop_at_layer)
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
        key_positions = positions if cache is None else cache.append_positions(positions)
        shared = AttentionMask(positions, key_positions, mask, self.config.attention == "causal", in_order)
        x = self._embed(tokens, positions) if start_at_layer is None else tokens
        if self.position_bias is not None:
            shared.bias = self.position_bias(shared.distance, x)
        written = [x]
        for index in range(first, last):
            x = self.blocks[index](x, shared, None if cache is None else cache.layers[index], written)
        return x

    def _layer_range(self, start: int | None, stop: int | None) -> tuple[int, int]:
        """Return the first block that runs and the one before which to stop."""
        count = self.config.n_layers
        first, last = (
            default if layer is None else layer + count if layer < 0 else layer
            for layer, default in ((start, 0), (stop, count))
        )
        if not 0 <= first < count or not 0 <= last <= count:
            given = f"start_at_layer = {start}, stop_at_layer = {stop}"
            raise InputError(f"{given}: the model has the layers 0 to {count - 1}.")
        if first and self.config.residual == "weighted":
            raise InputError(
                "start_at_layer: with model.residual = weighted, blocks read the outputs of all earlier ones."
            )
        return first, last

    def _embed(
        self, tokens: Int[Tensor, "batch pos"], positions: Int[Tensor, "#batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        x = self.hook_embed(self.embed(tokens))
        if self.pos_embed is not None:
            vectors = self.pos_embed(positions, x)
            x = x + self.hook_pos_embed(vectors.expand(len(tokens), -1, -1))
        if self.embed.W_type is not None:
            x = x + self.hook_token_type_embed(self.embed.W_type[0].expand(x.shape))
        if self._has_full_embed:
            x = self.hook_full_embed(self.embed.complete(x))
        return F.dropout(x, self.config.dropout) if self.training and self.config.dropout else x

    def _mask(
        self, tokens: Tensor, attention_mask: Tensor | None, segments: Tensor | None
    ) -> Bool[Tensor, "batch 1 pos pos"] | None:
        """Return True where a query may attend to a key; None for the causal or full pattern."""
        causal = self.config.attention == "causal"
        if attention_mask is not None:
            attention_mask = attention_mask.bool()
            if not bool((attention_mask.cummin(1).values == attention_mask).all()):
                raise InputError(
                    "the padding is on the left or inside a row; pad on the right, "
                    "because left padding would move every token's position."
                )
            if attention_mask.all():
                attention_mask = None
        if segments is None and (causal or attention_mask is None):
            return None  # padding on the right is in the future of every real token
        length = tokens.shape[1]
        allowed = torch.ones(1, length, length, dtype=torch.bool, device=self.device)
        if causal:
            allowed = allowed.tril()
        if segments is not None:
            allowed = allowed & (segments[:, :, None] == segments[:, None, :])
        if attention_mask is not None:
            itself = torch.eye(length, dtype=torch.bool, device=self.device)
            allowed = allowed & (attention_mask[:, None, :].to(self.device) | itself)
        return allowed[:, None]

    def final(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_readout"]:
        """Return the input of the unembedding, given the output of the last block.

        It goes through the final norm, the masked model's head, and the projection down to a tied factorised
        embedding, as far as the model has them.
        """
        x = normed(self.ln_final, x)
        if self.mlm_head is not None:
            return self.mlm_head(x)
        down = self.embed.up_weight if self.config.tied else None
        return x if down is None else x @ down

    def residual(
        self, tokens: Int[Tensor, "batch pos"], **kwargs: Any
    ) -> Float[Tensor, "batch pos d_readout"]:
        """Return the input of the unembedding, `final(stream(tokens, ...))`; see `stream`."""
        return self.final(self.stream(tokens, **kwargs))

    def unembed(self, x: Float[Tensor, "*batch d_readout"]) -> Float[Tensor, "*batch d_vocab"]:
        """Return the logits of outputs of `final`."""
        return F.linear(x, self.readout_weight, self.unembed_bias)

    def loss(
        self,
        tokens: Int[Tensor, "batch pos"],
        targets: Int[Tensor, "batch pos"],
        segments: Int[Tensor, "batch pos"] | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy in nats over the targets that are not -100, for training.

        The logits are never held all at once. For `label_smoothing` and `z_loss` see
        `workbench.model.kernels.linear_cross_entropy`.
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

    # Generation

    def new_cache(self, batch: int) -> KeyValueCache:
        """Return an empty key-value cache, to pass as `cache` or `past_kv_cache`."""
        return KeyValueCache(self.config, batch, self.dtype, self.device)

    @torch.no_grad()
    def generate(
        self,
        prompts: str | Sequence[str] | Int[Tensor, "*batch pos"] = "",
        max_new_tokens: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop_at_eos: bool = True,
        use_cache: bool = True,
        do_sample: bool = True,
        prepend_bos: bool | None = None,
    ) -> Any:
        """Continue prompts with tokens sampled from the model.

        Args:
            prompts: a text, texts of any length, or token ids [batch pos].
            max_new_tokens: number of new tokens at most; fewer after EOS, or if the longest prompt's
                context is full.
            temperature: divisor of the logits; 0 takes the most likely token, as does `do_sample=False`.
            top_k: sample from the k most likely tokens only (Fan et al. 2018).
            top_p: sample from the fewest tokens whose probabilities reach p (Holtzman et al. 2020).
            seed: the same seed gives the same tokens on the same machine; None draws from torch's global
                random state.
            stop_at_eos: end a row at EOS.
            use_cache: keep keys and values instead of recomputing them for each token.
            do_sample: False for greedy decoding.
            prepend_bos: see `to_tokens`.

        Returns:
            The prompt and its continuation: text for a text, a list of texts for texts, ids [batch pos] for
            ids, in which EOS fills rows that ended.

        Raises:
            InputError: a masked model, a prompt that is empty or fills the context, or options out of range.
        """
        if self.config.attention != "causal":
            raise InputError("a masked model cannot continue a text; use a run with objective clm.")
        if (
            not temperature >= 0
            or (top_k is not None and top_k < 1)
            or (top_p is not None and not 0 < top_p <= 1)
        ):
            raise InputError("generate needs temperature >= 0, top_k >= 1 and 0 < top_p <= 1.")
        if isinstance(prompts, Tensor):
            rows = self.to_input(prompts)[0].tolist()
        else:
            texts = [prompts] if isinstance(prompts, str) else prompts
            rows = [self.to_tokens(text, prepend_bos)[0].tolist() for text in texts]
        if not rows:
            raise InputError("no prompt was given; pass at least one.")
        lengths = [len(row) for row in rows]
        if min(lengths) == 0:
            raise InputError("the prompt has no tokens; pass some text or ids.")
        if max(lengths) >= self.config.n_ctx:
            raise InputError(
                f"the prompt has {max(lengths)} tokens and fills the context of {self.config.n_ctx}; "
                "shorten it."
            )
        random = None if seed is None else torch.Generator(device=self.device).manual_seed(seed)
        eos = self._special_token("eos") if stop_at_eos and self.tokenizer is not None else None
        self._continue(
            rows,
            min(max_new_tokens, self.config.n_ctx - max(lengths)),
            lambda logits: sample(logits, temperature if do_sample else 0.0, top_k, top_p, random),
            eos,
            self.new_cache(len(rows)) if use_cache else None,
        )
        if isinstance(prompts, Tensor):
            return torch.tensor(rows, device=self.device)
        continued = [self._decode(row, skip_special_tokens=True) for row in rows]
        return continued[0] if isinstance(prompts, str) else continued

    def _continue(
        self,
        rows: list[list[int]],
        count: int,
        choose: Callable[[Tensor], Tensor],
        eos: int | None,
        cache: KeyValueCache | None,
    ) -> None:
        """Append up to `count` tokens to each row.

        Rows of unequal length are padded on the right. With a cache each row continues at the position after
        its own last token: after prompts of 2 and 4 tokens the first new tokens have the positions 2 and 4,
        and the two padding tokens of the first row stay masked.
        """
        tokens, real = (x.to(self.device) for x in pad_rows(rows, None))
        lengths, index = real.sum(1), torch.arange(len(rows), device=self.device)
        ragged = not bool(real.all())
        ended = torch.zeros(len(rows), dtype=torch.bool, device=self.device)
        for step in range(count):
            if step == 0 or cache is None:
                x = self.residual(tokens, cache=cache)[index, lengths + step - 1]
            elif not ragged:
                x = self.residual(tokens, cache=cache)[:, -1]
            else:
                keys = F.pad(real, (0, step), value=True)[:, None, None]
                positions = (lengths + step - 1)[:, None]
                x = self.residual(tokens, positions=positions, mask=keys, cache=cache)[:, -1]
            chosen = choose(self.unembed(x))
            if eos is not None:
                chosen = torch.where(ended, eos, chosen)
                ended |= chosen == eos
            for row, token in zip(rows, chosen.tolist(), strict=True):
                row.append(token)
            if bool(ended.all()):
                break
            tokens = pad_rows(rows, None)[0].to(self.device) if cache is None else chosen[:, None]


def sample(
    logits: Float[Tensor, "batch d_vocab"],
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Int[Tensor, " batch"]:
    """Draw one token for each row after temperature, top-k and top-p, in that order."""
    logits = filter_logits(logits, temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def filter_logits(
    logits: Float[Tensor, "batch d_vocab"], temperature: float, top_k: int | None, top_p: float | None
) -> Float[Tensor, "batch d_vocab"]:
    """Return the logits to draw from, after temperature, top-k and top-p; -inf at excluded tokens.

    At temperature 0 only the largest is left.
    """
    logits = logits.float()
    if temperature == 0:
        best = logits.argmax(-1, keepdim=True)
        return torch.full_like(logits, float("-inf")).scatter(-1, best, 0.0)
    # Relative to the largest and in float64: a tiny temperature must not overflow to inf - inf.
    logits = ((logits - logits.amax(-1, keepdim=True)).double() / temperature).float()
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        beyond = probabilities.cumsum(-1) - probabilities >= top_p
        logits = logits.scatter(-1, order, ordered.masked_fill(beyond, float("-inf")))
    return logits


# Shared weights (Lan et al. 2020, ALBERT)


def share_weights(blocks: nn.ModuleList, what: str) -> None:
    """Make all blocks use the weights of the first block that has them.

    Args:
        blocks: of one model.
        what: `all`, `attention` or `mlp`. Norms are shared in `all` only; weights over layers never.
    """
    parts = {"all": ("attn", "mlp", "ln1", "ln2", "ln1_post"), "attention": ("attn",), "mlp": ("mlp",)}[what]
    for part in parts:
        modules = [module for block in blocks if (module := getattr(block, part)) is not None]
        for module in modules[1:]:
            for name, parameter in modules[0].named_parameters():
                *path, last = name.split(".")
                setattr(module.get_submodule(".".join(path)), last, parameter)


def _shared_names(model: nn.Module) -> dict[str, str]:
    """Return the first name of a shared weight for each of its other names."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    everywhere = model.named_parameters(remove_duplicate=False)
    return {name: first[id(weight)] for name, weight in everywhere if name != first[id(weight)]}


def _drop_shared(model: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in _shared_names(model):
        state.pop(prefix + name, None)


def _add_shared(model: nn.Module, state: dict[str, Any], prefix: str, *others: Any) -> None:
    for name, first in _shared_names(model).items():
        if prefix + first in state:
            state[prefix + name] = state[prefix + first]


def _segment_starts(segments: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    index = torch.arange(segments.shape[1], device=segments.device).expand(segments.shape)
    changed = torch.ones_like(segments, dtype=torch.bool)
    changed[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return torch.where(changed, index, 0).cummax(1).values


def compiled_loss(model: HookedTransformer) -> Callable[..., Tensor]:
    """Return `model.loss` with everything before the readout compiled.

    A compiled graph would skip hooks, so a call while any hook point has one runs `model.loss` itself. The
    first call compiles (about 20 s; it needs a C++ compiler on a CPU).
    """
    residual = torch.compile(model.residual, dynamic=False)

    def loss(
        tokens: Tensor,
        targets: Tensor,
        segments: Tensor | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> Tensor:
        if model.has_listeners():
            return model.loss(tokens, targets, segments, label_smoothing, z_loss)
        return linear_cross_entropy(
            residual(tokens, segments=segments).flatten(0, 1),
            model.readout_weight,
            targets.flatten(),
            model.readout_bias,
            compiled=True,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
        )

    return loss
