"""The whole model once more, as plainly as the papers say it: one row, one head, one query at a time.

Nothing here is shared with the model but the names of its weights. It is what every configuration's logits
are held to.
"""

import math

import torch
from torch import Tensor

from workbench.model.config import ModelConfig


def reference_logits(config: ModelConfig, weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Logits [pos d_vocab] of one row of tokens [pos], which stand at 0, 1, 2, ..."""
    return _Reference(config, weights).logits(tokens.tolist())


class _Reference:
    def __init__(self, config: ModelConfig, weights: dict[str, Tensor]) -> None:
        self.c, self.w = config, weights

    def get(self, name: str) -> Tensor | None:
        """A weight; in a model that shares layers, of the first block that has it."""
        if name in self.w or not name.startswith("blocks."):
            return self.w.get(name)
        _, index, part, rest = name.split(".", 3)
        shared = {
            "none": (),
            "all": ("attn", "mlp", "ln1", "ln2", "ln1_post"),
            "attention": ("attn",),
            "mlp": ("mlp",),
        }
        if part not in shared[self.c.sharing]:
            return None
        return next(
            (w for i in range(int(index)) if (w := self.w.get(f"blocks.{i}.{part}.{rest}")) is not None), None
        )

    def linear(self, x: Tensor, weight: str, bias: str | None = None) -> Tensor:
        out = x @ self.get(weight).T
        b = None if bias is None else self.get(bias)
        return out if b is None else out + b

    def norm(self, x: Tensor, name: str) -> Tensor:
        gain, shift = self.get(f"{name}.w"), self.get(f"{name}.b")
        if gain is None:
            return x
        if shift is None:  # RMSNorm, Zhang & Sennrich 2019, eq. 4
            return gain * x / torch.sqrt((x**2).mean(-1, keepdim=True) + self.c.eps)
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return gain * (x - mean) / torch.sqrt(variance + self.c.eps) + shift

    def activate(self, x: Tensor, slope: Tensor | None = None, head: bool = False) -> Tensor:
        kind = self.c.activation
        if kind == "prelu" and not head:
            return torch.where(x > 0, x, slope * x)
        if kind == "gelu" or kind == "prelu":
            return x * (1 + torch.erf(x / math.sqrt(2))) / 2
        if kind == "gelu_tanh":
            return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        if kind == "relu":
            return x * (x > 0)
        if kind == "silu":
            return x / (1 + torch.exp(-x))
        exponents = torch.exp(x - x.max(-1, keepdim=True).values)
        return x * exponents / exponents.sum(-1, keepdim=True)

    def embed(self, tokens: list[int]) -> Tensor:
        c, rows = self.c, []
        for place, token in enumerate(tokens):
            x = self.w["embed.W_E"][token]
            if c.positions == "learned":
                x = x + self.w["pos_embed.W_pos"][place + c.position_offset]
            if c.positions == "sinusoidal":  # Vaswani et al. 2017, section 3.5
                wave = [place / 10000 ** (2 * (d // 2) / c.embed_width) for d in range(c.embed_width)]
                x = x + torch.tensor(
                    [(math.cos if d % 2 else math.sin)(a) for d, a in enumerate(wave)], dtype=x.dtype
                )
            if c.token_types:
                x = x + self.w["embed.W_type"][0]
            rows.append(x)
        x = self.norm(torch.stack(rows), "embed.norm")
        return x if c.d_embed is None else self.linear(x, "embed.up_weight", "embed.up_bias")

    def visible(self, i: int, j: int, window: int) -> bool:
        if self.c.attention == "causal":
            return j <= i and (not window or i - j < window)
        return not window or abs(i - j) < window

    def rotate(self, x: Tensor) -> Tensor:
        """Su et al. 2021, eq. 14: each pair of dimensions of [pos head d_head] is a complex number that turns."""
        half = x.shape[-1] // 2
        if self.c.rotary_adjacent:
            pairs = torch.complex(x[..., 0::2], x[..., 1::2])
        else:
            pairs = torch.complex(x[..., :half], x[..., half:])
        speed = [self.c.rotary_base ** (-pair / half) for pair in range(half)]
        angles = torch.tensor([[place * s for s in speed] for place in range(len(x))], dtype=x.dtype)
        turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
        if self.c.rotary_adjacent:
            return torch.stack([turned.real, turned.imag], -1).flatten(-2)
        return torch.cat([turned.real, turned.imag], -1)

    def bias(self, head: int, i: int, seen: list[int], like: Tensor) -> Tensor:
        c = self.c
        if c.positions == "alibi":  # Press et al. 2022; all heads here are powers of two
            return torch.tensor(
                [-(2 ** (-8 * (head + 1) / c.n_heads)) * abs(i - j) for j in seen], dtype=like.dtype
            )
        if c.positions == "t5":
            return self.w["position_bias.W_bias"][[self.bucket(i - j) for j in seen], head]
        return torch.zeros(len(seen), dtype=like.dtype)

    def bucket(self, back: int) -> int:
        """Raffel et al. 2020, section 2.1: half of the buckets exact, the others logarithmic."""
        count, first = self.c.relative_buckets, 0
        if self.c.attention == "bidirectional":
            count //= 2
            first, back = (count if back < 0 else 0), abs(back)
        exact = count // 2
        if back < exact:
            return first + max(back, 0)
        share = math.log(back / exact) / math.log(self.c.farthest / exact)
        return first + min(count - 1, exact + int(share * (count - exact)))

    def attention(self, x: Tensor, name: str, window: int) -> Tensor:
        c, length = self.c, len(x)
        fused = self.linear(x, f"{name}.qkv_weight", f"{name}.qkv_bias")
        widths = [c.n_heads * c.head_width, c.kv_heads * c.head_width, c.kv_heads * c.value_width]
        q, k, v = fused.split(widths, -1)
        q, k, v = (
            part.unflatten(-1, (n, -1)) for part, n in ((q, c.n_heads), (k, c.kv_heads), (v, c.kv_heads))
        )
        if c.positions == "rotary":
            q, k = self.rotate(q), self.rotate(k)
        rel_key, rel_value = self.get(f"{name}.rel_key"), self.get(f"{name}.rel_value")
        heads = []
        for head in range(c.n_heads):
            source, rows = head * c.kv_heads // c.n_heads, []
            for i in range(length):
                seen = [j for j in range(length) if self.visible(i, j, window)]
                keys, values = k[seen, source], v[seen, source]
                if rel_key is not None:  # Shaw et al. 2018, eq. 3 and 4
                    steps = [max(-c.farthest, min(c.farthest, j - i)) + c.farthest for j in seen]
                    keys, values = keys + rel_key[steps], values + rel_value[steps]
                scores = keys @ q[i, head] / c.scale + self.bias(head, i, seen, x)
                exponents = torch.exp(scores - scores.max())
                rows.append((exponents / exponents.sum()) @ values)
            z = torch.stack(rows)
            gain = self.get(f"{name}.head_scale")
            heads.append(z if gain is None else z * gain[head])
        return self.linear(torch.cat(heads, -1), f"{name}.out_weight", f"{name}.out_bias")

    def mlp(self, x: Tensor, name: str) -> Tensor:
        inner = [f"{name}.inner.{j}" for j in range(self.c.mlp_depth - 1)]
        for layer in [*inner, name]:
            out = self.linear(x, f"{layer}.in_weight", f"{layer}.b_in")
            slope = self.get(f"{layer}.slope")
            if self.c.gated:  # Shazeer 2020, eq. 5 and 6
                out = self.activate(self.linear(x, f"{layer}.gate_weight"), slope) * out
            else:
                out = self.activate(out, slope)
            x = self.norm(out, f"{layer}.ln")
        return self.linear(x, f"{name}.out_weight", f"{name}.b_out")

    def logits(self, tokens: list[int]) -> Tensor:
        c = self.c
        x = self.embed(tokens)
        post, modules, written = c.norm_place == "post", 0, [x]
        for index, kind in enumerate(c.blocks):
            b, start = f"blocks.{index}", x
            before = (lambda x, name: x) if post else self.norm
            total = torch.zeros_like(x)
            if "a" in kind:
                attended = self.attention(before(x, f"{b}.ln1"), f"{b}.attn", c.window(modules))
                total = total + self.norm(attended, f"{b}.ln1_post")
                modules += 1
                if kind in ("a", "am"):
                    x = start + total
                    x = self.norm(x, f"{b}.ln1") if post else x
            if "m" in kind:
                fed = self.mlp(before(x, f"{b}.ln2"), f"{b}.mlp")
                total, x = total + fed, x + fed
                if kind == "(am)":
                    x = start + total
                if post:
                    x = self.norm(x, f"{b}.ln1" if kind == "(am)" else f"{b}.ln2")
            if c.residual == "weighted":  # Charpentier & Samuel 2023, eq. 4
                written.append(total)
                mix = torch.softmax(self.w[f"{b}.mix.logits"], -1)
                x = sum(weight * part for weight, part in zip(mix, written, strict=True))
        x = self.norm(x, "ln_final")
        if c.mlm_head:
            hidden = self.activate(self.linear(x, "mlm_head.weight", "mlm_head.bias"), head=True)
            x = self.norm(hidden, "mlm_head.ln")
        elif c.d_embed is not None and c.tied:
            x = x @ self.w["embed.up_weight"]
        return self.linear(x, "embed.W_E" if c.tied else "unembed_weight", "unembed_bias")
