"""The logit lens and the tuned lens: the model's prediction at each layer, on a text, over many texts, on
minimal pairs and on answers.

Logit lens (nostalgebraist 2020, interpreting GPT: the logit lens): the residual stream behind each block goes
through the model's own readout, final norm included. In a post-norm model the stream is taken behind the
block's norm; in one with learned weights over its layers it is the weighted mean that the next block reads.
A `TunedLens` first translates the stream into the last layer's basis; every function takes one as `lens`.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from workbench.console import OnProgress, make_table, progress_bar, stack
from workbench.data.tokenizer import token_text
from workbench.errors import DataError, InputError
from workbench.evals.protocols import find_protocol
from workbench.evals.scoring import ready
from workbench.interp.contributions import forward_batches
from workbench.interp.metrics import answers
from workbench.interp.pairs import scored_tokens
from workbench.interp.prompts import read_positions
from workbench.interp.texts import IGNORED, LOGITS_AT_ONCE, TextBatch, refuse_unscored, text_batches
from workbench.io import read_json, write_bytes, write_json
from workbench.model.layers import normed
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model, open_model
from workbench.stats import bootstrap_mean, generator

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from transformers import PreTrainedTokenizerFast

    from workbench.model.config import ModelConfig
    from workbench.model.transformer import HookedTransformer

STATISTICS = ("top", "top_prob", "target_log_prob", "target_rank", "entropy", "kl")


@dataclass(frozen=True, eq=False, repr=False)
class LensReading(Result):
    """The prediction at each point of the model and each position of a text."""

    axes = ("point", "pos")

    lens: str
    """`logit lens` or `tuned lens`."""
    points: tuple[str, ...]
    """`embed`, then `L0`, ... behind each block (`L0 mid` between attention and MLP); the last is the model's
    own prediction."""
    tokens: tuple[str, ...]
    """The token at each position; for a masked model the one that is hidden there."""
    targets: tuple[str | None, ...]
    """The token to be predicted at each position; None if it is not known."""
    top: Int[np.ndarray, "point pos"]
    """The most likely token."""
    top_tokens: Shaped[np.ndarray, "point pos"]
    """The same as text."""
    top_prob: Float[np.ndarray, "point pos"]
    """Its probability."""
    target_log_prob: Float[np.ndarray, "point pos"]
    """log p(target), nats; NaN without a target."""
    target_rank: Int[np.ndarray, "point pos"]
    """Rank of the target, 1 for the most likely token; 0 without a target."""
    entropy: Float[np.ndarray, "point pos"]
    """Nats."""
    kl: Float[np.ndarray, "point pos"]
    """KL(model's own prediction || this one), nats; 0 at the last point."""

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a point and position: point, pos, token, target, top (as text), top_prob,
        target_log_prob, target_rank, entropy, kl."""
        import pandas as pd

        points, positions = self.top.shape
        return pd.DataFrame(
            {
                "point": np.repeat(np.array(self.points, dtype=object), positions),
                "pos": np.tile(np.arange(positions), points),
                "token": self.tokens * points,
                "target": self.targets * points,
                "top": self.top_tokens.ravel(),
                **{name: getattr(self, name).ravel() for name in STATISTICS[1:]},
            }
        )

    def summary(self, rows: int = 8) -> "RenderableType":
        """Return the means of each point, and the most likely tokens at the last `rows` positions."""
        means = zip(np.nanmean(self.target_log_prob, 1), self.kl.mean(1), self.entropy.mean(1), strict=True)
        cells = [
            [point, *(f"{value:.3f}" for value in values)]
            for point, values in zip(self.points, means, strict=True)
        ]
        tokens = [
            [point, *map(repr, found[-rows:])]
            for point, found in zip(self.points, self.top_tokens, strict=True)
        ]
        return stack(
            f"{self.lens}: the prediction after each layer, nats per token\n",
            make_table(["layer", "log p(target)", "KL to the end", "entropy"], cells),
            "\nmost likely token:\n",
            make_table(["after", *map(repr, self.tokens[-rows:])], tokens, rows + 1),
        )

    def plot(self, ax: "Axes | None" = None, value: str = "top_prob") -> "Figure":
        """Draw the most likely tokens as point x position, the last point on top, and return the figure.

        Args:
            ax: axes to draw into; a new figure if not set.
            value: the colour: `top_prob`, `target_log_prob`, `entropy` or `kl`.
        """
        from workbench.plots.components import plot_lens

        return plot_lens(
            getattr(self, value),
            self.top_tokens,
            self.points,
            self.tokens,
            value=value,
            title=f"{self.lens}: the most likely token at each layer",
            xlabel="masked token" if self.tokens == self.targets else "input token",
            ax=ax,
        )


@dataclass(frozen=True, eq=False, repr=False)
class LensLoss(Result):
    """The distance of each point's prediction from the model's own, and from the text, over many tokens."""

    axes = ("point",)

    lens: str
    points: tuple[str, ...]
    kl: Float[np.ndarray, " point"]
    """Mean KL(model's own prediction || this one), nats a token."""
    loss: Float[np.ndarray, " point"]
    """Mean cross-entropy, nats a token."""
    agreement: Float[np.ndarray, " point"]
    """Fraction of tokens for which the most likely token is the model's own."""
    tokens: int
    """Number of predicted tokens."""

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a point: lens, point, kl, loss, agreement."""
        import pandas as pd

        values = {name: getattr(self, name) for name in ("kl", "loss", "agreement")}
        return pd.DataFrame({"lens": self.lens, "point": self.points, **values})

    def plot(self, ax: "Axes | None" = None, value: str = "kl") -> "Figure":
        """Draw one measure over points and return the figure; several lenses on the same axes are compared.

        Args:
            ax: axes to draw into; a new figure if not set.
            value: `kl`, `loss` or `agreement`.
        """
        from workbench.plots.components import LENS_VALUES, plot_lens_curve

        return plot_lens_curve(
            self.points, getattr(self, value), name=self.lens, ylabel=LENS_VALUES[value], ax=ax
        )


@dataclass(frozen=True, eq=False, repr=False)
class LensCurve(Result):
    """The preference of each point of the model between two sentences or answers, pair by pair."""

    axes = ("pair", "point")

    lens: str
    points: tuple[str, ...]
    good: Float[np.ndarray, "pair point"]
    """Log-probability of the grammatical sentence or the right answer, nats."""
    bad: Float[np.ndarray, "pair point"]
    """Log-probability of the other."""
    names: tuple[str, str]
    """Names of the two, for labels."""

    @property
    def difference(self) -> Float[np.ndarray, "pair point"]:
        """good - bad, nats: above 0, this point is right."""
        return self.good - self.bad

    @property
    def accuracy(self) -> Float[np.ndarray, " point"]:
        """Fraction of pairs for which this point prefers the good one; a tie counts half."""
        return (np.sign(self.difference).mean(0) + 1) / 2

    @property
    def decided(self) -> tuple[str, ...]:
        """For each pair, the first point from which on the preference is the model's own."""
        same = np.sign(self.difference) == np.sign(self.difference[:, -1:])
        since = np.logical_and.accumulate(same[:, ::-1], 1)[:, ::-1]
        return tuple(self.points[index] for index in since.argmax(1))

    def to_frame(self, seed: int = 0) -> "pd.DataFrame":
        """Return one row a point: lens, point, good, bad, difference (means over pairs), low, high (95 %
        bootstrap interval of the mean difference, missing for one pair), accuracy."""
        import pandas as pd

        changes = [bootstrap_mean(column, seed=seed) for column in self.difference.T]
        return pd.DataFrame(
            {
                "lens": self.lens,
                "point": self.points,
                "good": self.good.mean(0),
                "bad": self.bad.mean(0),
                "difference": [change.mean for change in changes],
                "low": [change.low for change in changes],
                "high": [change.high for change in changes],
                "accuracy": self.accuracy,
            }
        )

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return the mean log-probabilities after each layer; `rows` has no effect."""
        points = zip(self.points, self.good.mean(0), self.bad.mean(0), strict=True)
        cells = [[point, f"{good:.3f}", f"{bad:.3f}", f"{good - bad:+.3f}"] for point, good, bad in points]
        decided = f"; decided from {self.decided[0]} on" if len(self.good) == 1 else ""
        return stack(
            f"{self.lens}: log-probability after each layer, nats{decided}\n",
            make_table(["layer", *self.names, "difference"], cells),
        )

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the mean difference over points with its interval over pairs and return the figure."""
        from workbench.plots.components import plot_lens_curve
        from workbench.plots.primitives import plain

        frame, (good, bad) = self.to_frame(), self.names
        several = len(self.good) > 1
        return plot_lens_curve(
            self.points,
            frame["difference"],
            *([frame["low"], frame["high"]] if several else []),
            name=self.lens,
            ylabel=f"log p({plain(good)}) − log p({plain(bad)}), nats",
            title=f"{len(self.good)} pairs, mean and 95 % interval" if several else "",
            signed=True,
            ax=ax,
        )


@torch.no_grad()
def logit_lens(
    model: ModelLike,
    text: str | Int[Tensor, "#row pos"],
    *,
    lens: "TunedLens | None" = None,
    sublayers: bool = False,
    protocol: str = "native",
    pll: str = "original",
) -> LensReading:
    """Read each layer's prediction at each position of a text.

    A causal model predicts the next token. A masked model predicts hidden tokens: those under a mask in the
    text or ids, or else, for a text, each token in turn.

    Args:
        model: half-precision weights are computed in float32.
        text: a text (BOS is prepended), or token ids.
        lens: a `TunedLens` of this model; the logit lens if not set.
        sublayers: read between attention and MLP too.
        protocol: how a masked model reads a text, as in `attribute_text`.
        pll: likewise.

    Raises:
        InputError: several texts, one longer than the context, ids outside the vocabulary, nothing hidden
            from a masked model, or a lens of another model or without these points.
    """
    with ready(as_model(model)) as network:
        points = _checked_points(network, lens, sublayers)
        tokens, rows, positions, read, targets = _readings(network, text, protocol, pll)
        parts = list(lens_statistics(network, lens, points, tokens, rows, positions, targets))
        values = {name: torch.cat([part[name] for part in parts], 1).cpu().numpy() for name in STATISTICS}
        used = {*values["top"].ravel().tolist(), *read.tolist(), *targets.tolist()} - {IGNORED}
        words = {token: token_text(network.tokenizer, token) for token in used}
    return LensReading(
        lens=_name(lens),
        points=_labels(points),
        tokens=tuple(words[token] for token in read.tolist()),
        targets=tuple(words.get(token) for token in targets.tolist()),
        top_tokens=np.vectorize(words.get, otypes=[object])(values["top"]),
        **values,
    )


@torch.no_grad()
def lens_loss(
    model: ModelLike,
    text: Any = None,
    *,
    lens: "TunedLens | None" = None,
    sublayers: bool = False,
    seed: int = 0,
) -> LensLoss:
    """Measure the distance of each layer's prediction from the model's own, over text.

    Args:
        model: a run or a model.
        text: as for `workbench.interp.texts.text_batches`; if not set held-out stories of the run's corpus.
        lens: a `TunedLens` of this model; the logit lens if not set.
        sublayers: read between attention and MLP too.
        seed: of the tokens that are hidden from a masked model.

    Raises:
        InputError: text that cannot be used, or a lens of another model or without these points.
    """
    batches = text_batches(model, text, seed)
    refuse_unscored(batches)
    total, count = {}, 0
    with ready(as_model(model)) as network:
        points = _checked_points(network, lens, sublayers)
        for batch in batches:
            streams, targets = _batch_streams(network, batch, points)
            for part in _statistics(network, lens, points, streams, targets):
                count += part["kl"].shape[1]
                part["agreement"] = part["top"] == part["top"][-1]
                for name in ("kl", "target_log_prob", "agreement"):
                    total[name] = total.get(name, 0) + part[name].double().sum(1)
    mean = {name: (value / count).cpu().numpy() for name, value in total.items()}
    return LensLoss(
        _name(lens), _labels(points), mean["kl"], -mean["target_log_prob"], mean["agreement"], count
    )


@torch.no_grad()
def lens_curve(
    model: ModelLike,
    good: str | Sequence[str],
    bad: str | Sequence[str],
    *,
    lens: "TunedLens | None" = None,
    sublayers: bool = False,
    protocol: str = "native",
    pll: str = "original",
    tokenizer: "PreTrainedTokenizerFast | None" = None,
    progress: bool | OnProgress | None = None,
) -> LensCurve:
    """Score both sentences of minimal pairs at each layer, as BLiMP scores them.

    The last point is the model's own score.

    Args:
        model: causal or masked.
        good: the grammatical sentence, or several.
        bad: as many ungrammatical sentences.
        lens: a `TunedLens` of this model; the logit lens if not set.
        sublayers: read between attention and MLP too.
        protocol: a key of `workbench.evals.protocols.PROTOCOLS`; a mean over tokens is taken as a sum.
        pll: `original` or `within_word_l2r`, for masked models.
        tokenizer: the model's own, if the model does not carry it.
        progress: see `workbench.console.progress_bar`.

    Raises:
        InputError: different numbers of sentences, empty ones, ones longer than the context, or a lens of
            another model or without these points.
    """
    sides = [[side] if isinstance(side, str) else list(side) for side in (good, bad)]
    if len(sides[0]) != len(sides[1]) or not sides[0]:
        raise InputError(f"{len(sides[0])} good sentences and {len(sides[1])} bad ones do not make pairs.")
    _, model, own = open_model(model)
    tokenizer = own if tokenizer is None else tokenizer
    chosen = find_protocol(protocol, model.config.objective, pll)
    scores: list[list[np.ndarray]] = [[], []]
    with ready(model) as network, progress_bar(progress, "Reading layers") as on_progress:
        points = _checked_points(network, lens, sublayers)
        for index, pair in enumerate(zip(*sides, strict=True)):
            for side, sentence in zip(scores, pair, strict=True):
                scored = scored_tokens(
                    network, tokenizer, sentence, chosen, pll, f"a sentence of pair {index}"
                )
                ids, tokens, rows, positions = (torch.from_numpy(part).to(network.device) for part in scored)
                log_prob = torch.zeros(len(points), dtype=torch.float64, device=network.device)
                for part in lens_statistics(network, lens, points, tokens, rows, positions, ids):
                    log_prob += part["target_log_prob"].double().sum(1)
                side.append(log_prob.cpu().numpy())
            on_progress((index + 1) / len(sides[0]), f"{index + 1:,} of {len(sides[0]):,} pairs")
    return LensCurve(_name(lens), _labels(points), np.stack(scores[0]), np.stack(scores[1]), ("good", "bad"))


@torch.no_grad()
def answer_curve(
    model: ModelLike,
    prompts: str | list[str] | Int[Tensor, "prompt pos"],
    right: Any,
    wrong: Any,
    *,
    position: int | Sequence[int] | None = None,
    lens: "TunedLens | None" = None,
    sublayers: bool = False,
) -> LensCurve:
    """Read the log-probabilities of the right and the wrong answer at each layer.

    Their difference equals that of the logits.

    Args:
        model: causal or masked.
        prompts: text or texts (BOS is prepended), or token ids.
        right: one token as text or id, for all prompts or one for each.
        wrong: likewise.
        position: where the answers are predicted, as in `attribute_logits`.
        lens: a `TunedLens` of this model; the logit lens if not set.
        sublayers: read between attention and MLP too.

    Raises:
        InputError: as `attribute_logits`, or a lens of another model or without these points.
    """
    with ready(as_model(model)) as network:
        points = _checked_points(network, lens, sublayers)
        tokens, real = network.to_input(prompts, None, None)
        positions = read_positions(network, tokens, real, position)
        rows = torch.arange(len(tokens), device=tokens.device)
        sides = []
        for words, which in ((right, "right"), (wrong, "wrong")):
            ids = answers(network, words, len(tokens), which).to(tokens.device)
            parts = lens_statistics(network, lens, points, tokens, rows, positions, ids, real)
            sides.append(torch.cat([part["target_log_prob"] for part in parts], 1).T.double().cpu().numpy())
    names = (right if isinstance(right, str) else "right", wrong if isinstance(wrong, str) else "wrong")
    return LensCurve(_name(lens), _labels(points), sides[0], sides[1], names)


class Point(NamedTuple):
    """A point in the model at which the residual stream is read."""

    label: str
    hook: str
    layer: int
    mid: bool = False


def lens_points(config: "ModelConfig", sublayers: bool = False) -> tuple[Point, ...]:
    """Return the points behind the embedding and behind each block.

    Args:
        config: the model's configuration.
        sublayers: between attention and MLP too, in blocks that have one after the other.
    """
    points = [Point("embed", "blocks.0.hook_resid_pre", 0)]
    output = "hook_normalized_resid_post" if config.norm_place == "post" else "hook_resid_post"
    for layer, kind in enumerate(config.blocks):
        if sublayers and kind == "am":
            points.append(Point(f"L{layer} mid", f"blocks.{layer}.hook_resid_mid", layer, mid=True))
        points.append(Point(f"L{layer}", f"blocks.{layer}.{output}", layer))
    return tuple(points)


def read_streams(
    model: "HookedTransformer", points: tuple[Point, ...], tokens: Int[Tensor, "row pos"], **options: Any
) -> list[Float[Tensor, "row pos d_model"]]:
    """Run the model and return the residual stream at each point.

    Args:
        model: in eval mode.
        points: of `lens_points`.
        tokens: ids.
        options: of the model's `stream`.
    """
    streams: dict[str, Tensor] = {}
    hooks: Any = [(point.hook, lambda x, hook: streams.update({hook.name: x})) for point in points]
    with model.hooks(fwd_hooks=hooks):
        model.stream(tokens, **options)
    if model.config.norm_place == "post":
        for point in points:
            if point.mid:
                norm = cast("nn.Module", model.blocks[point.layer].ln1)
                streams[point.hook] = normed(norm, streams[point.hook])
    return [streams[point.hook] for point in points]


def lens_statistics(
    model: "HookedTransformer",
    lens: "TunedLens | None",
    points: tuple[Point, ...],
    tokens: Int[Tensor, "row pos"],
    rows: Int[Tensor, " read"],
    positions: Int[Tensor, " read"],
    targets: Int[Tensor, " read"],
    attention_mask: Tensor | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Yield the `STATISTICS` of the prediction at each point [point read], some of the readings at a time.

    Args:
        model: in eval mode.
        lens: a `TunedLens` or None.
        points: of `lens_points`.
        tokens: rows of equal length.
        rows: the row of each reading, in ascending order.
        positions: its position.
        targets: the token to be predicted there, `IGNORED` if unknown.
        attention_mask: 1 at tokens, 0 at padding.
    """
    for some, chosen in forward_batches(tokens, rows):
        mask = None if attention_mask is None else attention_mask[some]
        streams = read_streams(model, points, tokens[some], attention_mask=mask)
        at = rows[chosen] - some.start, positions[chosen]
        yield from _statistics(model, lens, points, [stream[at] for stream in streams], targets[chosen])


def _statistics(
    model: "HookedTransformer",
    lens: "TunedLens | None",
    points: tuple[Point, ...],
    streams: list[Tensor],
    targets: Tensor,
) -> Iterator[dict[str, Tensor]]:
    """Yield the same for given streams, holding the logits of at most `LOGITS_AT_ONCE` rows at two points."""
    for start in range(0, len(targets), LOGITS_AT_ONCE):
        some = slice(start, start + LOGITS_AT_ONCE)
        target = targets[some, None]
        known = target[:, 0] != IGNORED
        final = _log_probs(model, None, points[-1], streams[-1][some])
        values: dict[str, list[Tensor]] = {name: [] for name in STATISTICS}
        for point, stream in zip(points, streams, strict=True):
            log_probs = final if point == points[-1] else _log_probs(model, lens, point, stream[some])
            top_log_prob, top = log_probs.max(-1)
            own = log_probs.gather(-1, target.clamp(min=0))
            values["top"].append(top)
            values["top_prob"].append(top_log_prob.exp())
            values["target_log_prob"].append(own[:, 0].where(known, torch.nan))
            values["target_rank"].append(((log_probs > own).sum(-1) + 1).where(known, 0))
            values["entropy"].append(-(log_probs.exp() * log_probs).sum(-1))
            # Rounding can make a KL of 0 slightly negative.
            values["kl"].append((final.exp() * (final - log_probs)).sum(-1).clamp(min=0))
        yield {name: torch.stack(rows) for name, rows in values.items()}


def _log_probs(
    model: "HookedTransformer", lens: "TunedLens | None", point: Point, x: Float[Tensor, "read d_model"]
) -> Float[Tensor, "read d_vocab"]:
    x = x if lens is None else lens.translate(point.label, x)
    return model.unembed(model.final(x)).log_softmax(-1)


def _batch_streams(
    model: "HookedTransformer", batch: TextBatch, points: tuple[Point, ...]
) -> tuple[list[Float[Tensor, "read d_model"]], Int[Tensor, " read"]]:
    """Return the stream at each point where a token is predicted, and the tokens."""
    scored = batch.targets != IGNORED
    streams = read_streams(model, points, batch.tokens, attention_mask=batch.real, segments=batch.segments)
    return [stream[scored] for stream in streams], batch.targets[scored]


def _checked_points(
    model: "HookedTransformer", lens: "TunedLens | None", sublayers: bool
) -> tuple[Point, ...]:
    points = lens_points(model.config, sublayers)
    if lens is not None:
        lens.check(model, points)
    return points


def _labels(points: tuple[Point, ...]) -> tuple[str, ...]:
    return tuple(point.label for point in points)


def _name(lens: "TunedLens | None") -> str:
    return "logit lens" if lens is None else "tuned lens"


def _readings(
    model: "HookedTransformer", text: Any, protocol: str, pll: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return tokens [row pos], then for each reading its row, position, token read or hidden, and target."""
    if isinstance(text, list):
        raise InputError(f"a lens reads one text at a time; found {len(text)}. lens_loss takes many.")
    causal = model.config.objective == "clm"
    mask = getattr(model.tokenizer, "mask_token_id", None)
    if (
        isinstance(text, str)
        and not causal
        and (mask is None or str(getattr(model.tokenizer, "mask_token", None)) not in text)
    ):
        chosen = find_protocol(protocol, "mlm", pll)
        scored = scored_tokens(model, model.tokenizer, text, chosen, pll, "the text")
        ids, tokens, rows, positions = (torch.from_numpy(part).to(model.device) for part in scored)
        return tokens, rows, positions, ids, ids
    tokens, _ = model.to_input(text, None, None)
    if len(tokens) != 1:
        raise InputError(f"a lens reads one text at a time; found {len(tokens)}. lens_loss takes many.")
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    targets = torch.full_like(tokens[0], IGNORED)
    if causal:
        targets[:-1] = tokens[0, 1:]
    else:
        positions = positions[tokens[0] == (-1 if mask is None else mask)]
        if not len(positions):
            raise InputError("nothing is hidden from this masked model; put mask tokens among the ids.")
        targets = targets[positions]
    return tokens, torch.zeros_like(positions), positions, tokens[0, positions], targets


# The tuned lens (Belrose et al. 2023, Eliciting Latent Predictions from Transformers with the Tuned Lens,
# arXiv:2303.08112). Layers write in different bases; an affine map x + x A + b, initially the identity,
# translates each layer's stream into the last one's basis before the model's own readout. It is trained to
# minimise KL(model's own prediction || lens) over text, all layers from one forward pass; the last layer's
# map stays the identity. The paper takes 250 steps of SGD over 2^18 tokens each; for small models Adam needs
# far fewer tokens.

WEIGHTS, ABOUT = "tuned_lens.safetensors", "tuned_lens.json"
STORIES = 2000
NOT_SHAPE = ("dropout", "init_std", "depth_scaled_init", "seed")
"""Configuration fields that affect how a model is trained but not what it computes."""


@dataclass(frozen=True, eq=False, repr=False)
class TunedLens(Result):
    """A translator for each point of one model except the last. Pass it as `lens` to `logit_lens`,
    `lens_loss`, `lens_curve` and `answer_curve`."""

    axes = ("point", "d_model_in", "d_model_out")

    points: tuple[str, ...]
    weight: Float[Tensor, "point d_model d_model"]
    """A: the map is x + x A + b."""
    bias: Float[Tensor, "point d_model"]
    model: Mapping[str, Any]
    """Configuration and SHA-256 of the weights of the model that it was trained for."""
    settings: Mapping[str, Any]
    losses: tuple[float, ...]
    """Mean KL over points after each step, nats a token."""

    def translate(self, point: str, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Translate the stream at a point into the last point's basis; the last point's is unchanged."""
        if point not in self.points:
            return x
        index = self.points.index(point)
        return x + x @ self.weight[index].to(x) + self.bias[index].to(x)

    def logits(
        self, model: "HookedTransformer", point: str, x: Float[Tensor, "*rows d_model"]
    ) -> Float[Tensor, "*rows d_vocab"]:
        """Return the logits that the lens reads from the stream at a point.

        Args:
            model: the one that the lens was trained for.
            point: `embed`, `L0`, ...
            x: the residual stream there.
        """
        return model.unembed(model.final(self.translate(point, x)))

    def check(self, model: "HookedTransformer", points: tuple[Point, ...] = ()) -> None:
        """Check that the lens was trained for this model, at these points.

        Raises:
            InputError: another configuration, other weights, or a point without a translator.
        """
        trained, given = self.model["config"], model.config.to_dict()
        names = [name for name in given if name not in NOT_SHAPE and trained.get(name) != given[name]]
        if names:
            listed = ", ".join(f"{name} {trained.get(name)} there, {given[name]} here" for name in names[:3])
            raise InputError(
                f"the lens was trained for a model of another shape ({listed}); train one for this model."
            )
        if self.model["weights"] != _weights_digest(model):
            raise InputError(
                "the lens was trained for other weights of this shape (another run or step); train one for "
                "this model."
            )
        missing = [point.label for point in points[:-1] if point.label not in self.points]
        if missing:
            raise InputError(
                f"the lens was not trained at {missing[0]}; train one with sublayers=True, or read without."
            )

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a training step: step, kl (mean over points, nats a token)."""
        import pandas as pd

        return pd.DataFrame({"step": np.arange(1, len(self.losses) + 1), "kl": self.losses})

    def save(self, folder: str | Path) -> Path:
        """Write tuned_lens.safetensors and tuned_lens.json, each atomically; returns the folder."""
        from safetensors.torch import save

        data = save({"weight": self.weight.contiguous(), "bias": self.bias.contiguous()})
        about = {name: getattr(self, name) for name in ("points", "model", "settings", "losses")}
        write_bytes(Path(folder) / WEIGHTS, data)
        write_json(Path(folder) / ABOUT, about | {"sha256": hashlib.sha256(data).hexdigest()})
        return Path(folder)

    @classmethod
    def read(cls, folder: str | Path) -> "TunedLens":
        """Read what `save` wrote, for any model; `load_tuned_lens` checks the model too.

        Raises:
            DataError: no lens there, or a damaged one.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        about = read_json(Path(folder) / ABOUT)
        try:
            data = (Path(folder) / WEIGHTS).read_bytes()
            if hashlib.sha256(data).hexdigest() != about["sha256"]:
                raise ValueError("its SHA-256 differs")
            lens = cls(
                points=tuple(about["points"]), model=about["model"], settings=about["settings"],
                losses=tuple(about["losses"]), **load(data),
            )  # fmt: skip
            width = about["model"]["config"]["d_model"]
            shape = (len(lens.points), width)
            if lens.weight.shape != (*shape, width) or lens.bias.shape != shape:
                raise ValueError(f"its weights are {tuple(lens.weight.shape)}")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DataError(f"{folder} is not a readable tuned lens ({error}); train it again.") from None
        return lens


def load_tuned_lens(folder: str | Path, model: ModelLike) -> TunedLens:
    """Read a lens that `TunedLens.save` wrote and move it to the model's device.

    Args:
        folder: where it is.
        model: the one that it was trained for.

    Raises:
        DataError: no lens there, or a damaged one.
        InputError: a lens of another model.
    """
    model, lens = as_model(model), TunedLens.read(folder)
    lens.check(model)
    return replace(lens, weight=lens.weight.to(model.device), bias=lens.bias.to(model.device))


def train_tuned_lens(
    model: ModelLike,
    text: Any = None,
    *,
    tokens: int = 200_000,
    lr: float | None = None,
    sublayers: bool = False,
    seed: int = 0,
    progress: bool | OnProgress | None = None,
) -> TunedLens:
    """Train a translator for each layer, over text that is repeated until `tokens` have been read.

    Adam with a learning rate that decays linearly to 0, `LOGITS_AT_ONCE` tokens a step; logits are held for
    one layer at a time.

    Args:
        model: a run or a model; its weights are not changed.
        text: as for `workbench.interp.texts.text_batches`; if not set up to 2,000 training stories of the
            run's own corpus, or embedded ones.
        tokens: predictions to train on, each layer on all of them.
        lr: of the first step; by default 0.01, or 0.64 / d_model for models wider than 64.
        sublayers: a translator between attention and MLP too.
        seed: of the order of the text and of the tokens that are hidden from a masked model.
        progress: see `workbench.console.progress_bar`.

    Raises:
        InputError: text that cannot be used, or settings out of range.
    """
    network = as_model(model)
    rate = min(0.01, 0.64 / network.config.d_model) if lr is None else lr
    if tokens < 1 or not 0 < rate < math.inf:
        raise InputError(f"a tuned lens needs tokens >= 1 and lr > 0; found {tokens} and {rate}.")
    batches = text_batches(model, text, seed, split="train", stories=min(STORIES, 10 + tokens // 50))
    refuse_unscored(batches)
    batches = [batch for batch in batches if batch.counts.any()]
    random = generator(seed, "tuned lens")
    done, losses, waiting = 0, [], []
    with ready(network) as network, progress_bar(progress, "Training tuned lens") as on_progress:
        points = lens_points(network.config, sublayers)
        lens = _identity(network, points[:-1])
        parameters = [lens.weight.requires_grad_(), lens.bias.requires_grad_()]
        adam = torch.optim.Adam(parameters, rate)
        while done < tokens:
            waiting = waiting or random.permutation(len(batches)).tolist()
            with torch.no_grad():
                streams, targets = _batch_streams(network, batches[waiting.pop()], points)
            order = torch.from_numpy(random.permutation(len(targets))).to(network.device)
            for chosen in order.split(LOGITS_AT_ONCE):
                adam.param_groups[0]["lr"] = rate * max(0.0, 1 - done / tokens)
                losses.append(_set_gradients(network, lens, points, [stream[chosen] for stream in streams]))
                adam.step()
                done += len(chosen)
            read = min(done, tokens)
            on_progress(read / tokens, f"{read:,} of {tokens:,} tokens")
    settings = {"tokens": tokens, "lr": rate, "seed": seed, "sublayers": sublayers, "steps": len(losses)}
    return replace(
        lens, weight=lens.weight.detach(), bias=lens.bias.detach(), settings=settings, losses=tuple(losses)
    )


def _identity(model: "HookedTransformer", points: tuple[Point, ...]) -> TunedLens:
    size, width = len(points), model.config.d_model
    return TunedLens(
        points=_labels(points),
        weight=torch.zeros(size, width, width, device=model.device, dtype=model.dtype),
        bias=torch.zeros(size, width, device=model.device, dtype=model.dtype),
        model={"config": model.config.to_dict(), "weights": _weights_digest(model)},
        settings={},
        losses=(),
    )


def _set_gradients(
    model: "HookedTransformer",
    lens: TunedLens,
    points: tuple[Point, ...],
    streams: list[Float[Tensor, "read d_model"]],
) -> float:
    """Set the gradients of the KL, a mean over tokens and a sum over points; return its mean over both.

    The gradient of the KL with respect to the logits is lens - model, in probabilities, so one backward pass
    from the stream suffices and the vocabulary is never differentiated through.
    """
    total, count = 0.0, len(streams[-1])
    lens.weight.grad, lens.bias.grad = torch.zeros_like(lens.weight), torch.zeros_like(lens.bias)
    with torch.no_grad():
        own = _log_probs(model, None, points[-1], streams[-1])
        entropy = -(own.exp() * own).sum().item()
        own = own.exp_()
    for index, (point, stream) in enumerate(zip(points[:-1], streams[:-1], strict=True)):
        x = model.final(lens.translate(point.label, stream))
        with torch.no_grad():
            log_probs = model.unembed(x).log_softmax(-1)
            total += -torch.dot(own.flatten(), log_probs.flatten()).item() - entropy
            slope = log_probs.exp_().sub_(own) @ model.readout_weight
        # Only the lens's gradients are asked for: those of the model's weights stay untouched.
        weight, bias = torch.autograd.grad(x, (lens.weight, lens.bias), slope / count)
        lens.weight.grad[index], lens.bias.grad[index] = weight[index], bias[index]
    return total / (count * max(1, len(points) - 1))


def _weights_digest(model: "HookedTransformer") -> str:
    """Return the SHA-256 of a model's weights, as float32."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weight.detach().float().cpu().numpy()).tobytes())
    return digest.hexdigest()
