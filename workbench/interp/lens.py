"""At which layer a choice is made: a lens on the two sentences of a pair, or on two answers."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench.errors import DataError, InputError
from workbench.evals.protocols import find_protocol
from workbench.evals.scoring import opened, ready
from workbench.interp.attribution import readings
from workbench.interp.metrics import answers
from workbench.interp.prompts import read_positions
from workbench.interp.texts import IGNORED, LOGITS_AT_ONCE, TOKENS_PER_FORWARD, refuse_unscored, text_batches
from workbench.io import read_json, write_bytes, write_json
from workbench.model.layers import normed
from workbench.stats import generator

if TYPE_CHECKING:
    import pandas as pd


# What a lens saw: the model's prediction at each layer, on one text and over many.


@dataclasses.dataclass(frozen=True)
class LensReading:
    """What the residual stream says at each point of the model and each position of a text."""

    axes = ("point", "pos")

    lens: str
    """`logit lens` or `tuned lens`."""
    points: tuple[str, ...]
    """`embed`, then `L0`, ... behind each block (`L0 mid` between attention and MLP); the last is the model's
    own prediction."""
    tokens: tuple[str, ...]
    """What stands at each position; for a masked model what is hidden there."""
    targets: tuple[str | None, ...]
    """What the model is to say at each position; None if that is not known."""
    top: Int[np.ndarray, "point pos"]
    """The most likely token."""
    top_tokens: Shaped[np.ndarray, "point pos"]
    """The same as text."""
    top_prob: Float[np.ndarray, "point pos"]
    """Its probability."""
    target_log_prob: Float[np.ndarray, "point pos"]
    """log p(target), nats; NaN where there is none."""
    target_rank: Int[np.ndarray, "point pos"]
    """1 where no token is likelier than the target, 2 where one is, ...; 0 where there is none."""
    entropy: Float[np.ndarray, "point pos"]
    """Nats."""
    kl: Float[np.ndarray, "point pos"]
    """KL(model's own prediction || this one), nats; 0 at the last point."""

    def to_frame(self) -> "pd.DataFrame":
        """One row a point and position: point, pos, token, target, top (as text), top_prob, target_log_prob,
        target_rank, entropy, kl."""
        import pandas as pd

        points, places = self.top.shape
        return pd.DataFrame(
            {
                "point": np.repeat(np.array(self.points, dtype=object), places),
                "pos": np.tile(np.arange(places), points),
                "token": self.tokens * points,
                "target": self.targets * points,
                "top": self.top_tokens.ravel(),
                **{
                    name: getattr(self, name).ravel()
                    for name in ("top_prob", "target_log_prob", "target_rank", "entropy", "kl")
                },
            }
        )

    def plot(self, ax: Any = None, value: str = "top_prob") -> Any:
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


@dataclasses.dataclass(frozen=True)
class LensLoss:
    """How far each point's prediction is from the model's own, and from the text, over many tokens."""

    axes = ("point",)

    lens: str
    points: tuple[str, ...]
    kl: Float[np.ndarray, " point"]
    """Mean KL(model's own prediction || this one), nats a token."""
    loss: Float[np.ndarray, " point"]
    """Mean cross-entropy, nats a token."""
    agreement: Float[np.ndarray, " point"]
    """Share of tokens for which the most likely token is the model's own."""
    tokens: int
    """How many were predicted."""

    def to_frame(self) -> "pd.DataFrame":
        """One row a point: lens, point, kl, loss, agreement."""
        import pandas as pd

        values = {name: getattr(self, name) for name in ("kl", "loss", "agreement")}
        return pd.DataFrame({"lens": self.lens, "point": self.points, **values})

    def plot(self, ax: Any = None, value: str = "kl") -> Any:
        """Draw one measure over points and return the figure; several lenses on the same axes are compared.

        Args:
            ax: axes to draw into; a new figure if not set.
            value: `kl`, `loss` or `agreement`.
        """
        from workbench.plots.components import LENS_VALUES, plot_lens_curve

        return plot_lens_curve(
            self.points, getattr(self, value), name=self.lens, ylabel=LENS_VALUES[value], ax=ax
        )


@dataclasses.dataclass(frozen=True)
class LensCurve:
    """How much each point of the model prefers one of two things, pair by pair."""

    axes = ("pair", "point")

    lens: str
    points: tuple[str, ...]
    good: Float[np.ndarray, "pair point"]
    """Log-probability of the grammatical sentence or the right answer, nats."""
    bad: Float[np.ndarray, "pair point"]
    """Of the other."""
    names: tuple[str, str]
    """What the two are called."""

    @property
    def difference(self) -> Float[np.ndarray, "pair point"]:
        """good - bad, nats: above 0, this point is right."""
        return self.good - self.bad

    @property
    def accuracy(self) -> Float[np.ndarray, " point"]:
        """Share of pairs that this point decides rightly; a tie counts half."""
        return (np.sign(self.difference).mean(0) + 1) / 2

    @property
    def decided(self) -> tuple[str, ...]:
        """Of each pair, the first point from which on the decision is the model's own."""
        same = np.sign(self.difference) == np.sign(self.difference[:, -1:])
        behind = np.logical_and.accumulate(same[:, ::-1], 1)[:, ::-1]
        return tuple(self.points[index] for index in behind.argmax(1))

    def to_frame(self, seed: int = 0) -> "pd.DataFrame":
        """One row a point: lens, point, good, bad, difference (means over pairs), low, high (bootstrap
        interval of 95 % of the mean difference, missing for one pair), accuracy."""
        import pandas as pd

        from workbench.stats import bootstrap_mean

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

    def plot(self, ax: Any = None) -> Any:
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


# The logit lens: what the model would say if it ended at each layer.
#
# nostalgebraist 2020 (interpreting GPT: the logit lens): the residual stream behind each block goes through
# the model's own readout, final norm included. In a post-norm model the stream is taken behind the block's
# norm; in one with learned weights over its layers it is the weighted mean that the next block reads. A
# tuned lens (`workbench.interp.direct.tuned_lens`) first translates the stream into the last layer's terms;
# every function here takes one as `lens`.


class Point(NamedTuple):
    """A place in the model at which the residual stream is read."""

    label: str
    hook: str
    layer: int
    mid: bool = False


def lens_points(config: Any, sublayers: bool = False) -> tuple[Point, ...]:
    """The stream behind the embedding and behind each block.

    Args:
        config: the model's.
        sublayers: between attention and MLP too, in blocks that have one after the other.
    """
    found = [Point("embed", "blocks.0.hook_resid_pre", 0)]
    behind = "hook_normalized_resid_post" if config.norm_place == "post" else "hook_resid_post"
    for layer, kind in enumerate(config.blocks):
        if sublayers and kind == "am":
            found.append(Point(f"L{layer} mid", f"blocks.{layer}.hook_resid_mid", layer, mid=True))
        found.append(Point(f"L{layer}", f"blocks.{layer}.{behind}", layer))
    return tuple(found)


@torch.no_grad()
def logit_lens(
    model: Any,
    text: str | Int[Tensor, "#row pos"],
    *,
    lens: Any = None,
    sublayers: bool = False,
    protocol: str = "native",
    pll: str = "original",
) -> LensReading:
    """What each layer would say at each position of a text.

    A causal model says the next token. A masked model says the tokens that are hidden: those under a mask in
    the text or ids, or else, for a text, each token in turn.

    Args:
        model: a run or a `HookedTransformer`; half-precision weights are computed in float32.
        text: a text (BOS is prepended), or token ids.
        lens: a `TunedLens` of this model; the logit lens if not set.
        sublayers: read between attention and MLP too.
        protocol: how a masked model reads a text, as in `attribute_text`.
        pll: likewise.

    Raises:
        InputError: several texts, one longer than the context, ids outside the vocabulary, nothing hidden
            from a masked model, or a lens of another model or without these points.
    """
    network = opened(model)[1]
    with ready(network) as network:
        points = lens_points(network.config, sublayers)
        check_lens(network, lens, points)
        tokens, rows, places, said, targets = _places(network, text, protocol, pll)
        parts = list(measured(network, lens, points, tokens, rows, places, targets))
    found = {name: torch.cat([part[name] for part in parts], 1).cpu().numpy() for name in parts[0]}
    words = {
        token: _word(network, token)
        for token in {*found["top"].ravel().tolist(), *said.tolist(), *targets.tolist()}
    }
    return LensReading(
        lens=lens_name(lens),
        points=tuple(point.label for point in points),
        tokens=tuple(words[token] for token in said.tolist()),
        targets=tuple(words[token] if token != IGNORED else None for token in targets.tolist()),
        top_tokens=np.vectorize(words.get, otypes=[object])(found["top"]),
        **{
            name: found[name]
            for name in ("top", "top_prob", "target_log_prob", "target_rank", "entropy", "kl")
        },
    )


@torch.no_grad()
def lens_loss(
    model: Any, text: Any = None, *, lens: Any = None, sublayers: bool = False, seed: int = 0
) -> LensLoss:
    """How far each layer's prediction is from the model's own, over text.

    Args:
        model: a run or a `HookedTransformer`.
        text: as for `workbench.interp.texts.text_batches`; if not set held-out stories of the run's corpus.
        lens: a `TunedLens` of this model; the logit lens if not set.
        sublayers: read between attention and MLP too.
        seed: of the tokens that are hidden from a masked model.

    Raises:
        InputError: text that cannot be used, or a lens of another model or without these points.
    """
    batches = text_batches(model, text, seed)
    refuse_unscored(batches)
    network = opened(model)[1]
    total, count = {}, 0
    with ready(network) as network:
        points = lens_points(network.config, sublayers)
        check_lens(network, lens, points)
        for batch in batches:
            streams, targets = batch_streams(network, batch, points)
            for part in _measure(network, lens, points, streams, targets):
                count += part["kl"].shape[1]
                part["agreement"] = part["top"] == part["top"][-1]
                for name in ("kl", "target_log_prob", "agreement"):
                    total[name] = total.get(name, 0) + part[name].double().sum(1)
    mean = {name: (value / count).cpu().numpy() for name, value in total.items()}
    labels = tuple(point.label for point in points)
    return LensLoss(lens_name(lens), labels, mean["kl"], -mean["target_log_prob"], mean["agreement"], count)


def lens_name(lens: Any) -> str:
    """What a lens is called."""
    return "logit lens" if lens is None else "tuned lens"


def check_lens(model: Any, lens: Any, points: tuple[Point, ...]) -> None:
    """Refuse a lens that does not suit (see `TunedLens.check`)."""
    if lens is not None:
        lens.check(model, points)


def read_streams(
    model: Any, points: tuple[Point, ...], tokens: Int[Tensor, "row pos"], **reading: Any
) -> list[Float[Tensor, "row pos d_model"]]:
    """The residual stream at each point of one run.

    Args:
        model: a `HookedTransformer` in eval mode.
        points: of `lens_points`.
        tokens: ids.
        reading: as for the model's `stream`.
    """
    kept: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any) -> None:
        kept[hook.name] = value

    with model.hooks(fwd_hooks=[(point.hook, keep) for point in points]):
        model.stream(tokens, **reading)
    post = model.config.norm_place == "post"
    return [
        normed(model.blocks[point.layer].ln1, kept[point.hook]) if point.mid and post else kept[point.hook]
        for point in points
    ]


def batch_streams(
    model: Any, batch: Any, points: tuple[Point, ...]
) -> tuple[list[Float[Tensor, "read d_model"]], Int[Tensor, " read"]]:
    """The stream at each point where a `TextBatch` has something to be predicted, and what that is."""
    wanted = batch.targets != IGNORED
    found = read_streams(model, points, batch.tokens, attention_mask=batch.real, segments=batch.segments)
    return [stream[wanted] for stream in found], batch.targets[wanted]


def measured(
    model: Any,
    lens: Any,
    points: tuple[Point, ...],
    tokens: Int[Tensor, "row pos"],
    rows: Int[Tensor, " read"],
    places: Int[Tensor, " read"],
    targets: Int[Tensor, " read"],
) -> Iterator[Mapping[str, Tensor]]:
    """Top token, its probability, log p(target), the target's rank, entropy and KL at each point
    [point read], part by part.

    Args:
        model: in eval mode.
        lens: a `TunedLens` or None.
        points: of `lens_points`.
        tokens: rows of equal length.
        rows: the row of each reading, in ascending order.
        places: its position.
        targets: what is to be said there, `IGNORED` if unknown.
    """
    step = max(1, TOKENS_PER_FORWARD // tokens.shape[1])
    for start in range(0, len(tokens), step):
        mine = (rows >= start) & (rows < start + step)
        if bool(mine.any()):
            found = read_streams(model, points, tokens[start : start + step])
            streams = [stream[rows[mine] - start, places[mine]] for stream in found]
            yield from _measure(model, lens, points, streams, targets[mine])


def lens_log_probs(
    model: Any, lens: Any, point: Point, x: Float[Tensor, "read d_model"]
) -> Float[Tensor, "read d_vocab"]:
    """The prediction at a point, in log-probabilities."""
    x = x if lens is None else lens.translate(point.label, x)
    return model.unembed(model.final(x)).log_softmax(-1)


def _measure(
    model: Any, lens: Any, points: tuple[Point, ...], streams: list[Tensor], targets: Tensor
) -> Iterator[dict[str, Tensor]]:
    """The same for streams at hand; never more than `LOGITS_AT_ONCE` rows of logits of two points."""
    for start in range(0, len(targets), LOGITS_AT_ONCE):
        some = slice(start, start + LOGITS_AT_ONCE)
        wanted = targets[some, None]
        final = lens_log_probs(model, None, points[-1], streams[-1][some])
        rows: dict[str, list[Tensor]] = {}
        for point, stream in zip(points, streams, strict=True):
            mine = final if point == points[-1] else lens_log_probs(model, lens, point, stream[some])
            likely, top = mine.max(-1)
            hit = mine.gather(-1, wanted.clamp(min=0))[:, 0]
            values = {
                "top": top,
                "top_prob": likely.exp(),
                "target_log_prob": hit.where(wanted[:, 0] != IGNORED, torch.nan),
                "target_rank": ((mine > hit[:, None]).sum(-1) + 1).where(wanted[:, 0] != IGNORED, 0),
                "entropy": -(mine.exp() * mine).sum(-1),
                "kl": (final.exp() * (final - mine)).sum(-1).clamp(min=0),  # rounding goes below
            }
            for name, value in values.items():
                rows.setdefault(name, []).append(value)
        yield {name: torch.stack(value) for name, value in rows.items()}


def _places(model: Any, text: Any, protocol: str, pll: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Tokens [row pos], rows and places to read, the token that stands or is hidden there, the target."""
    if isinstance(text, list):
        raise InputError(f"a lens reads one text at a time; found {len(text)}. lens_loss takes many.")
    causal = model.config.objective == "clm"
    mask = getattr(model.tokenizer, "mask_token_id", None)
    if isinstance(text, str) and not causal and (mask is None or model.tokenizer.mask_token not in text):
        chosen = find_protocol(protocol, "mlm", pll)
        ids, tokens, rows, places = (
            torch.from_numpy(part).to(model.device)
            for part in readings(model, model.tokenizer, text, chosen, pll, "the text")
        )
        return tokens, rows, places, ids, ids
    tokens, _ = model._to_input(text, None, None)
    if len(tokens) != 1:
        raise InputError(f"a lens reads one text at a time; found {len(tokens)}. lens_loss takes many.")
    places = torch.arange(tokens.shape[1], device=tokens.device)
    targets = torch.full_like(tokens[0], IGNORED)
    if causal:
        targets[:-1] = tokens[0, 1:]
    else:
        places = places[tokens[0] == (-1 if mask is None else mask)]
        if not len(places):
            raise InputError("nothing is hidden from this masked model; put mask tokens among the ids.")
        targets = targets[places]
    return tokens, torch.zeros_like(places), places, tokens[0, places], targets


def _word(model: Any, token: int) -> str:
    return str(token) if model.tokenizer is None or token < 0 else str(model.to_string(int(token)))


# The tuned lens: the logit lens with a translator for each layer, trained to foresee the model's own output.
#
# Belrose et al. 2023 (Eliciting Latent Predictions from Transformers with the Tuned Lens,
# arXiv:2303.08112). Layers write in different bases; an affine map x + x A + b, at first the identity,
# brings each layer's stream into the last one's before the model's own readout. It is trained to minimise
# KL(model's own prediction || lens) over text, all layers from one forward pass; the last layer's map is
# the identity for good. The paper takes 250 steps of SGD over 2^18 tokens each; small models do with Adam
# and far fewer tokens.


WEIGHTS, ABOUT = "tuned_lens.safetensors", "tuned_lens.json"
STORIES = 2000
NOT_SHAPE = ("dropout", "init_std", "depth_scaled_init", "seed")
"""Fields that say how a model is trained, not what it computes."""


@dataclasses.dataclass(frozen=True)
class TunedLens:
    """A translator for each point of one model but the last. Give it as `lens` to `logit_lens`, `lens_loss`,
    `lens_curve` and `answer_curve`."""

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
        """The stream at a point in the last one's terms; the last point's as it is."""
        if point not in self.points:
            return x
        index = self.points.index(point)
        return x + x @ self.weight[index].to(x) + self.bias[index].to(x)

    def logits(
        self, model: Any, point: str, x: Float[Tensor, "*rows d_model"]
    ) -> Float[Tensor, "*rows d_vocab"]:
        """What the model would say from the stream at a point.

        Args:
            model: the one that the lens was trained for.
            point: `embed`, `L0`, ...
            x: the residual stream there.
        """
        return model.unembed(model.final(self.translate(point, x)))

    def check(self, model: Any, points: tuple[Point, ...] = ()) -> None:
        """Refuse another model, or points that the lens was not trained for.

        Raises:
            InputError: in words.
        """
        mine, other = self.model["config"], model.config.to_dict()
        names = [name for name in other if name not in NOT_SHAPE and mine.get(name) != other[name]]
        if names:
            listed = ", ".join(f"{name} {mine.get(name)} there, {other[name]} here" for name in names[:3])
            raise InputError(
                f"the lens was trained for a model of another shape ({listed}); train one for this."
            )
        if self.model["weights"] != weights_digest(model):
            raise InputError(
                "the lens was trained for other weights of this shape (another run or step); train one here."
            )
        missing = [point.label for point in points[:-1] if point.label not in self.points]
        if missing:
            raise InputError(
                f"the lens was not trained at {missing[0]}; train one with sublayers=True, or read without."
            )

    def save(self, folder: str | Path) -> Path:
        """Write tuned_lens.safetensors and tuned_lens.json, each in one step; returns the folder."""
        from safetensors.torch import save

        data = save({"weight": self.weight.contiguous(), "bias": self.bias.contiguous()})
        about = {name: getattr(self, name) for name in ("points", "model", "settings", "losses")}
        write_bytes(Path(folder) / WEIGHTS, data)
        write_json(Path(folder) / ABOUT, about | {"sha256": hashlib.sha256(data).hexdigest()})
        return Path(folder)


def load_tuned_lens(folder: str | Path, model: Any) -> TunedLens:
    """Read what `TunedLens.save` wrote.

    Args:
        folder: where it is.
        model: a run or a `HookedTransformer`: the one that it was trained for.

    Raises:
        DataError: no lens there, or a damaged one.
        InputError: a lens of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    network = opened(model)[1]
    about = read_json(Path(folder) / ABOUT)
    try:
        data = (Path(folder) / WEIGHTS).read_bytes()
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise ValueError("its SHA-256 differs")
        found = TunedLens(
            points=tuple(about["points"]), model=about["model"], settings=about["settings"],
            losses=tuple(about["losses"]), **load(data),
        )  # fmt: skip
        width = len(found.points), network.config.d_model
        found.check(network)
        if found.weight.shape != (*width, width[1]) or found.bias.shape != width:
            raise ValueError(f"its weights are {tuple(found.weight.shape)}")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{folder} is not a readable tuned lens ({error}); train it again.") from None
    return dataclasses.replace(
        found, weight=found.weight.to(network.device), bias=found.bias.to(network.device)
    )


def train_tuned_lens(
    model: Any,
    text: Any = None,
    *,
    tokens: int = 200_000,
    lr: float | None = None,
    sublayers: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> TunedLens:
    """Train a translator for each layer, over text that is read again until `tokens` have been seen.

    Adam with a learning rate that falls to 0, `LOGITS_AT_ONCE` tokens a step; logits are held for those of
    one layer at a time.

    Args:
        model: a run or a `HookedTransformer`; its weights stay as they are.
        text: as for `workbench.interp.texts.text_batches`; if not set up to 2,000 training stories of the
            run's own corpus, or embedded ones.
        tokens: predictions to train on, each layer on all of them.
        lr: of the first step; 0.01 if not set, beyond a width of 64 less, as 0.64 / d_model.
        sublayers: a translator between attention and MLP too.
        seed: of the order of the text and of the tokens that are hidden from a masked model.
        progress: told tokens done and in all.

    Raises:
        InputError: text that cannot be used, or settings out of range.
    """
    network = opened(model)[1]
    rate = min(0.01, 0.64 / network.config.d_model) if lr is None else lr
    if tokens < 1 or not 0 < rate < math.inf:
        raise InputError(f"a tuned lens needs tokens >= 1 and lr > 0; found {tokens} and {rate}.")
    batches = text_batches(model, text, seed, split="train", stories=min(STORIES, 10 + tokens // 50))
    refuse_unscored(batches)
    batches = [batch for batch in batches if batch.counts.any()]
    random = generator(seed, "tuned lens")
    done, losses, waiting = 0, [], []
    with ready(network) as network:
        points = lens_points(network.config, sublayers)
        made = _identity(network, points[:-1])
        parameters = [made.weight.requires_grad_(), made.bias.requires_grad_()]
        adam = torch.optim.Adam(parameters, rate)
        with _frozen(network):
            while done < tokens:
                waiting = waiting or random.permutation(len(batches)).tolist()
                with torch.no_grad():
                    streams, targets = batch_streams(network, batches[waiting.pop()], points)
                order = torch.from_numpy(random.permutation(len(targets))).to(network.device)
                for chosen in order.split(LOGITS_AT_ONCE):
                    adam.param_groups[0]["lr"] = rate * max(0.0, 1 - done / tokens)
                    adam.zero_grad()
                    losses.append(_backward(network, made, points, [stream[chosen] for stream in streams]))
                    adam.step()
                    done += len(chosen)
                if progress is not None:
                    progress(min(done, tokens), tokens)
    settings = {"tokens": tokens, "lr": rate, "seed": seed, "sublayers": sublayers, "steps": len(losses)}
    return dataclasses.replace(
        made, weight=made.weight.detach(), bias=made.bias.detach(), settings=settings, losses=tuple(losses)
    )


def _identity(model: Any, points: tuple[Point, ...]) -> TunedLens:
    size, width = len(points), model.config.d_model
    options: Any = {"device": model.device, "dtype": model.dtype}
    return TunedLens(
        points=tuple(point.label for point in points),
        weight=torch.zeros(size, width, width, **options),
        bias=torch.zeros(size, width, **options),
        model={"config": model.config.to_dict(), "weights": weights_digest(model)},
        settings={},
        losses=(),
    )


def _backward(
    model: Any, lens: TunedLens, points: tuple[Point, ...], streams: list[Float[Tensor, "read d_model"]]
) -> float:
    """Add the gradient of the KL, a mean over tokens and a sum over points; returns its mean over both.

    Its gradient by the logits is lens - model, in probabilities: half the passes that autograd would make.
    """
    total, count = 0.0, len(streams[-1])
    with torch.no_grad():
        likely = lens_log_probs(model, None, points[-1], streams[-1])
        entropy = -(likely.exp() * likely).sum().item()
        likely = likely.exp_()
    for point, stream in zip(points[:-1], streams[:-1], strict=True):
        x = model.final(lens.translate(point.label, stream))
        with torch.no_grad():
            mine = model.unembed(x).log_softmax(-1)
            total += -torch.dot(likely.flatten(), mine.flatten()).item() - entropy
            slope = mine.exp_().sub_(likely) @ model.readout_weight
        x.backward(slope / count)
    return total / (count * max(1, len(points) - 1))


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Keeps gradients away from a model's weights."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


def weights_digest(model: Any) -> str:
    """SHA-256 of a model's weights, read as float32."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weight.detach().float().cpu().numpy()).tobytes())
    return digest.hexdigest()


@torch.no_grad()
def lens_curve(
    model: Any,
    good: str | Sequence[str],
    bad: str | Sequence[str],
    *,
    lens: Any = None,
    sublayers: bool = False,
    protocol: str = "native",
    pll: str = "original",
    tokenizer: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> LensCurve:
    """What each layer makes of a minimal pair: both sentences' log-probabilities, as BLiMP scores them, if
    the model ended there. The last point is the model's own score.

    Args:
        model: a run or a `HookedTransformer`, causal or masked.
        good: the grammatical sentence, or several.
        bad: as many ungrammatical twins.
        lens: a `TunedLens` of this model; the logit lens if not set.
        sublayers: read between attention and MLP too.
        protocol: a key of `workbench.evals.protocols.PROTOCOLS`; a mean over tokens is taken as a sum.
        pll: `original` or `within_word_l2r`, for masked models.
        tokenizer: the model's own, if it does not carry it.
        progress: told pairs done and in all.

    Raises:
        InputError: other numbers of sentences, empty ones, ones longer than the context, or a lens of another
            model or without these points.
    """
    sides = [[side] if isinstance(side, str) else list(side) for side in (good, bad)]
    if len(sides[0]) != len(sides[1]) or not sides[0]:
        raise InputError(f"{len(sides[0])} good sentences and {len(sides[1])} bad ones do not make pairs.")
    network = opened(model)[1]
    tokenizer = network.tokenizer if tokenizer is None else tokenizer
    chosen = find_protocol(protocol, network.config.objective, pll)
    found: list[list[np.ndarray]] = [[], []]
    with ready(network) as network:
        points = lens_points(network.config, sublayers)
        check_lens(network, lens, points)
        for index, pair in enumerate(zip(*sides, strict=True)):
            for sums, sentence in zip(found, pair, strict=True):
                read = readings(network, tokenizer, sentence, chosen, pll, f"a sentence of pair {index}")
                ids, tokens, rows, places = (torch.from_numpy(part).to(network.device) for part in read)
                parts = measured(network, lens, points, tokens, rows, places, ids)
                sums.append(sum(part["target_log_prob"].double().sum(1) for part in parts).cpu().numpy())  # type: ignore[union-attr]
            if progress is not None:
                progress(index + 1, len(sides[0]))
    labels = tuple(point.label for point in points)
    return LensCurve(lens_name(lens), labels, np.stack(found[0]), np.stack(found[1]), ("good", "bad"))


@torch.no_grad()
def answer_curve(
    model: Any,
    prompts: str | list[str] | Int[Tensor, "prompt pos"],
    right: Any,
    wrong: Any,
    *,
    position: int | Sequence[int] | None = None,
    lens: Any = None,
    sublayers: bool = False,
) -> LensCurve:
    """The log-probabilities of the right and the wrong answer at each layer; their difference is the logits'.

    Args:
        model: a run or a `HookedTransformer`, causal or masked.
        prompts: text or texts (BOS is prepended), or token ids.
        right: one token as text or id, for all prompts or one for each.
        wrong: likewise.
        position: where the answers are read off, as in `attribute_logits`.
        lens: a `TunedLens` of this model; the logit lens if not set.
        sublayers: read between attention and MLP too.

    Raises:
        InputError: as `attribute_logits`, or a lens of another model or without these points.
    """
    network = opened(model)[1]
    with ready(network) as network:
        points = lens_points(network.config, sublayers)
        check_lens(network, lens, points)
        tokens, real = network._to_input(prompts, None, None)
        places = read_positions(network, tokens, real, position)
        rows = torch.arange(len(tokens), device=tokens.device)
        sides = []
        for words, which in ((right, "right"), (wrong, "wrong")):
            ids = answers(network, words, len(tokens), which).to(tokens.device)
            parts = measured(network, lens, points, tokens, rows, places, ids)
            sides.append(torch.cat([part["target_log_prob"] for part in parts], 1).T.double().cpu().numpy())
    labels = tuple(point.label for point in points)
    names = (right if isinstance(right, str) else "right", wrong if isinstance(wrong, str) else "wrong")
    return LensCurve(lens_name(lens), labels, sides[0], sides[1], names)
