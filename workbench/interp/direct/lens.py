"""The logit lens: what the model would say if it ended at each layer.

nostalgebraist 2020 (interpreting GPT: the logit lens): the residual stream behind each block goes through the
model's own readout, final norm included. In a post-norm model the stream is taken behind the block's norm; in
one with learned weights over its layers it is the weighted mean that the next block reads. A tuned lens
(`workbench.interp.direct.tuned_lens`) first translates the stream into the last layer's terms; every function
here takes one as `lens`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.protocols import find_protocol
from workbench.evals.scoring import opened, ready
from workbench.interp.direct.lens_result import LensLoss, LensReading
from workbench.interp.direct.pair import readings
from workbench.interp.texts import IGNORED, LOGITS_AT_ONCE, TOKENS_PER_FORWARD, refuse_unscored, text_batches
from workbench.model.norms import normed


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
