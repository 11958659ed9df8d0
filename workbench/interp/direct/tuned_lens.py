"""The tuned lens: the logit lens with a translator for each layer, trained to foresee the model's own output.

Belrose et al. 2023 (Eliciting Latent Predictions from Transformers with the Tuned Lens, arXiv:2303.08112).
Layers write in different bases; an affine map x + x A + b, at first the identity, brings each layer's stream
into the last one's before the model's own readout. It is trained to minimise KL(model's own prediction ||
lens) over text, all layers from one forward pass; the last layer's map is the identity for good. The paper
takes 250 steps of SGD over 2^18 tokens each; small models do with Adam and far fewer tokens.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import DataError, InputError
from workbench.evals.scoring import opened, ready
from workbench.files import read_json, write_bytes, write_json
from workbench.interp.direct.lens import Point, batch_streams, lens_log_probs, lens_points
from workbench.interp.texts import LOGITS_AT_ONCE, refuse_unscored, text_batches
from workbench.seeds import generator

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
