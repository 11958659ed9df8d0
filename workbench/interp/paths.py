"""Path patching: the effect of the direct path from one component to another.

Wang et al. 2022 (IOI, arXiv:2211.00593), Goldowsky-Dill et al. 2023 (arXiv:2304.05969). A sender writes what
it wrote in the donor's run. With all other heads and MLPs frozen, the receivers' inputs change; their outputs
for these inputs are inserted into the base run, and everything behind them is computed again.
"""

import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.console import OnProgress, progress_bar
from workbench.errors import InputError, nearest, shown
from workbench.evals.scoring import ready
from workbench.interp.components import Component, find_components, list_components, split_names
from workbench.interp.engine import CachedRun, Edit, frozen_hooks, mlp_output, tokens_per_batch
from workbench.interp.metrics import (
    NO_EFFECT,
    Direction,
    Metric,
    MetricInput,
    PromptPairs,
    effect_summary,
    percent,
    strongest,
)
from workbench.interp.patching import end_values
from workbench.interp.prompts import Answers, PromptInput, labels
from workbench.model.config import ModelConfig
from workbench.model.layers import normed
from workbench.model.transformer import HookedTransformer
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PathPatchResult(Result):
    """The metric of every path and pair; NaN where no path leads from the sender to the receiver."""

    senders: tuple[Component, ...]
    receivers: tuple[str, ...]
    """`L1H2.q`, `L1 MLP`, `logits`; joined by + if they were patched together."""
    direction: str
    metric: str
    through_mlps: bool
    per_pair: Float[np.ndarray, "receiver sender *pos pair"]
    """The metric with the path patched."""
    base: Float[np.ndarray, " pair"]
    """The metric of the edited run, without an edit."""
    other: Float[np.ndarray, " pair"]
    """The metric of the donor's run."""
    tokens: tuple[str, ...] | None
    """Of the first pair's edited prompt; None if all positions were patched together."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of `effect`."""
        return ("receiver", "sender", *(() if self.tokens is None else ("pos",)))

    @property
    def effect(self) -> Float[np.ndarray, "receiver sender *pos"]:
        """Mean change of the metric over pairs."""
        return (self.per_pair - self.base).mean(-1)

    @property
    def value(self) -> Float[np.ndarray, "receiver sender *pos"]:
        """Mean metric over pairs."""
        return self.per_pair.mean(-1)

    @property
    def recovered(self) -> Float[np.ndarray, "receiver sender *pos"]:
        """The effect as a fraction of the difference between the two runs; NaN where they do not differ."""
        difference = self.other.mean() - self.base.mean()
        return self.effect / (difference if difference else np.nan)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per path: receiver, sender, pos if patched by position, value, effect, recovered,
        error (standard error over pairs)."""
        import pandas as pd

        paths = np.nonzero(~np.isnan(self.effect))
        change = (self.per_pair - self.base)[paths]
        count = change.shape[-1]
        columns: dict[str, Any] = {
            "receiver": np.array(self.receivers, dtype=object)[paths[0]],
            "sender": np.array([sender.label for sender in self.senders], dtype=object)[paths[1]],
        }
        if self.tokens is not None:
            columns["pos"] = paths[2]
        return pd.DataFrame(columns).assign(
            value=self.per_pair[paths].mean(-1),
            effect=change.mean(-1),
            recovered=self.recovered[paths],
            error=change.std(-1, ddof=1) / count**0.5 if count > 1 else np.nan,
        )

    def summary(self, rows: int = 15) -> "RenderableType":
        """Return the paths with the largest effects."""
        frame = self.to_frame()
        cells = []
        for row in strongest(frame, "effect", rows):
            place = [row["sender"]]
            if self.tokens is not None:
                place.append(f"{row['pos']} {self.tokens[row['pos']]!r}")
            cells.append([*place, row["receiver"], f"{row['effect']:+.3f}", percent(row["recovered"])])
        through = ", through the MLPs between" if self.through_mlps else ""
        header = ["from", *([] if self.tokens is None else ["position"]), "to", "effect", "recovered"]
        what = f"{len(frame):,} paths{through}, the {len(cells)} largest:"
        changed = bool(frame["effect"].to_numpy().any())
        return effect_summary(self, what, header, cells, len(header) - 2, changed)

    def plot(self, ax: "Axes | None" = None, recovered: bool = False) -> "Figure":
        """Draw the effects as a heat map and return the figure.

        Args:
            ax: axes to draw into; a new figure if not set.
            recovered: draw the fraction of the two runs' difference in place of the effect.
        """
        from workbench.plots.patching import plot_paths

        return plot_paths(
            self.recovered if recovered else self.effect,
            self.receivers,
            [sender.label for sender in self.senders],
            self.tokens,
            metric=self.metric,
            title=f"{self.direction}, {'through MLPs' if self.through_mlps else 'all else frozen'}",
            recovered=recovered,
            ax=ax,
        )


EMBED = Component(None, "embed")
"""The sum of all embeddings, as one sender."""

_RECEIVER = re.compile(r"(L\d+H\d+)(?:\.([qkv]))?", re.IGNORECASE)


def list_receivers(config: ModelConfig) -> tuple[Component, ...]:
    """Return all readers of the residual stream: each head's q, k and v, each MLP, and the logits."""
    found = []
    for layer, kind in enumerate(config.blocks):
        if "a" in kind:
            for reader, count in (("q", config.n_heads), ("k", config.kv_heads), ("v", config.kv_heads)):
                found += [Component(layer, reader, head) for head in range(count)]
        if "m" in kind:
            found.append(Component(layer, "mlp"))
    return (*found, Component(None, "logits"))


def find_receivers(config: ModelConfig, names: Any) -> tuple[Component, ...]:
    """Return the readers of the residual stream that a user names, each once.

    Args:
        config: of the model.
        names: `"L1H2.q"`, `"L1H2"` (its q, k and v), `"L1 MLP"`, `"logits"`, `"all"`, several in one text
            with commas, a tuple (1, 2, "q"), a `Component`, or a sequence of these.

    Raises:
        InputError: an unknown name, or a reader that the model does not have.
    """
    found: dict[Component, None] = {}
    for word in [names] if _is_triple(names) else split_names(names):
        if isinstance(word, str):
            found |= dict.fromkeys(_read(config, word))
            continue
        receiver = Component(word[0], word[2], word[1]) if _is_triple(word) else word
        if not isinstance(receiver, Component) or receiver not in list_receivers(config):
            raise InputError(_unknown(config, shown(getattr(receiver, "label", receiver))))
        found[receiver] = None
    if not found:
        raise InputError("No receiver was named; name heads as L1H2.q, MLPs as 'L1 MLP', or logits.")
    return tuple(found)


def _is_triple(word: Any) -> TypeGuard[tuple[int, int, str]]:
    return isinstance(word, tuple) and len(word) == 3 and word[2] in ("q", "k", "v")


def _read(config: ModelConfig, word: str) -> list[Component]:
    receivers = list_receivers(config)
    if word.lower() == "all":
        return list(receivers)
    if word.lower() == "logits":
        return [receivers[-1]]
    head = _RECEIVER.fullmatch(word)
    if head is None:
        if not re.fullmatch(r"L\d+\s*MLP", word, re.IGNORECASE):
            raise InputError(_unknown(config, shown(word)))
        return list(find_components(config, word))
    layer, _, unit, _ = find_components(config, head[1])[0]
    kinds = [head[2].lower()] if head[2] else ["q", "k", "v"]
    found = [one for one in receivers if one.layer == layer and one.unit == unit and one.kind in kinds]
    if not found:
        raise InputError(
            f"{word}: {config.n_heads} query heads share {config.kv_heads} heads of keys and values; "
            f"choose L{layer}H0 to L{layer}H{config.kv_heads - 1} for k and v."
        )
    return found


def _unknown(config: ModelConfig, word: str) -> str:
    hint = nearest(word, [one.label for one in list_receivers(config)])
    if hint.startswith("Choose"):
        hint = "A head's inputs are named L1H2.q, MLPs L1 MLP, the output logits."
    return f"Unknown receiver {word!r}. {hint}"


def find_senders(config: ModelConfig, names: Any = None) -> tuple[Component, ...]:
    """Return writers into the residual stream, the earliest first.

    Args:
        config: of the model.
        names: as in `find_components`, or `embed`; the embedding, all heads and all MLPs if None.

    Raises:
        InputError: an unknown writer, or a neuron.
    """
    everything = (EMBED, *list_components(config))
    if names is None:
        return everything
    words = split_names(names)
    embedding = [word for word in words if word in (EMBED, EMBED.label)]
    chosen = find_components(config, [word for word in words if word not in embedding])
    for component in chosen:
        if component.kind == "neuron":
            raise InputError(f"{component.label}: a sender must be the embedding, a head or an MLP.")
    if not chosen and not embedding:
        raise InputError("No sender was named; name heads as L0H1, MLPs as 'L0 MLP', or embed.")
    return tuple(one for one in everything if one in chosen or (embedding and one == EMBED))


def depth(config: ModelConfig, component: Component) -> int:
    """Return the block of a sender or receiver; -1 for the embedding, the number of blocks for the logits."""
    if component.layer is None:
        return config.n_layers if component.kind == "logits" else -1
    return component.layer


def step_of(config: ModelConfig, receiver: Component) -> tuple[int, str]:
    """Return the step of `CachedRun.frozen` at which a receiver reads."""
    return depth(config, receiver), "attn" if receiver.kind in ("q", "k", "v") else receiver.kind


def reaches(config: ModelConfig, sender: Component, receiver: Component) -> bool:
    """Return True if the receiver reads what the sender wrote."""
    of, to = depth(config, sender), depth(config, receiver)
    if of != to:
        return of < to
    return sender.kind == "head" and receiver.kind == "mlp" and config.blocks[of] == "am"


def changed_outputs(
    base: CachedRun, donor: CachedRun, senders: Sequence[Component]
) -> Bool[np.ndarray, "sender pos"]:
    """Return where a sender's output differs between the two runs in any pair."""
    rows = []
    for sender in senders:
        if sender.kind == "embed":
            own, other = base.streams[0], donor.streams[0]
        else:
            what = "attn.hook_z" if sender.kind == "head" else "hook_mlp_out"
            own, other = (run.kept[f"blocks.{sender.layer}.{what}"] for run in (base, donor))
            if sender.kind == "head":
                own, other = own[:, :, sender.head], other[:, :, sender.head]
        rows.append((own != other).any(-1).any(0))
    return torch.stack(rows).cpu().numpy()


def receiver_output(
    model: HookedTransformer, receiver: Component, x: Float[Tensor, "row pos d_model"]
) -> Float[Tensor, "row pos d"]:
    """Return the output of a receiver that reads `x`: a head's q, k or v, the MLP's output, or `x` itself."""
    if receiver.layer is None:
        return x
    block: Any = model.blocks[receiver.layer]
    if receiver.kind == "mlp":
        return mlp_output(block, x)
    attn, kind = block.attn, receiver.kind.upper()
    head = (receiver.unit or 0) * (1 if kind == "Q" else attn.n_heads // attn.kv_heads)
    x = x if block.post_norm else normed(block.ln1, x)
    return x @ getattr(attn, f"W_{kind}")[head] + getattr(attn, f"b_{kind}")[head]


@torch.no_grad()
def path_patch(
    model: ModelLike,
    clean: PromptInput,
    corrupted: PromptInput,
    *,
    right: Answers | None = None,
    wrong: Answers | None = None,
    metric: MetricInput = None,
    receivers: Any = "logits",
    senders: Any = None,
    by_position: bool = False,
    together: bool = False,
    through_mlps: bool = False,
    direction: Direction = "denoise",
    progress: bool | OnProgress | None = None,
) -> PathPatchResult:
    """Patch the direct path from each sender to each receiver, and measure each.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: see `patch` for this and for corrupted, right, wrong, metric and direction.
        receivers: whose inputs change: `"L1H2.q"`, `"L1H2"` (q, k and v), `(1, 2, "q")`, `"L1 MLP"`,
            `"logits"`, `"all"`, or several of these.
        senders: `"L0H1"`, `"L0 MLP"`, `"embed"`, `"heads"`, `"mlps"`, or several; all of them if not set.
        by_position: patch each position of the sender alone; else all positions together.
        together: patch all receivers at once, as the name movers' queries in Wang et al.; else one at a time.
        through_mlps: compute the MLPs between sender and receiver with what they are given, as in Wang et
            al.; else they are frozen, as in Goldowsky-Dill et al.
        progress: True for a progress bar, False for none, or a callback.

    Raises:
        InputError: unknown senders or receivers, none with a path, the logits together with others, and
            what `patch` refuses.

    Warns:
        UserWarning: no patch changes the metric.
    """
    with progress_bar(progress, "Patching paths") as on_progress, ready(as_model(model)) as network:
        config = network.config
        pairs = PromptPairs.of(
            network, clean, corrupted, right=right, wrong=wrong, metric=metric, direction=direction
        )
        metric = pairs.metric
        froms = find_senders(config, senders)
        targets = find_receivers(config, receivers)
        groups = [list(targets)] if together else [[one] for one in targets]
        if together and len(targets) > 1 and any(one.kind == "logits" for one in targets):
            raise InputError("together excludes the logits; patch them on their own.")
        path = np.array([[any(reaches(config, s, r) for r in group) for s in froms] for group in groups])
        if not path.any():
            raise InputError(
                f"no path leads from {froms[0].label} ... to {groups[0][0].label}: senders must come before "
                "receivers."
            )
        keep = frozen_hooks(network)
        base, donor = (CachedRun(network, *side, keep) for side in (pairs.edited, pairs.donor))
        ends = end_values(pairs, base, donor)
        per_pair = _sweep(
            base, donor, froms, groups, path, metric, ends[0], by_position, through_mlps, on_progress
        )
    if not np.nan_to_num(per_pair - ends[0]).any():
        warnings.warn(NO_EFFECT, stacklevel=3)
    return PathPatchResult(
        senders=froms,
        receivers=tuple(" + ".join(one.label for one in group) for group in groups),
        direction=direction,
        metric=metric.name,
        through_mlps=through_mlps,
        per_pair=per_pair,
        base=ends[0],
        other=ends[1],
        tokens=tuple(labels(network, pairs.edited.tokens)) if by_position else None,
    )


def _sweep(
    base: CachedRun,
    donor: CachedRun,
    senders: Sequence[Component],
    groups: Sequence[Sequence[Component]],
    path: Bool[np.ndarray, "receiver sender"],
    metric: Metric,
    unpatched: Float[np.ndarray, " pair"],
    by_position: bool,
    through_mlps: bool,
    on_progress: OnProgress,
) -> Float[np.ndarray, "receiver sender *pos pair"]:
    """Return the metric of every path; NaN where there is none.

    A receiver's output is kept until the last receiver of its group has read its input.
    """
    pairs, length = base.tokens.shape
    stop = length if metric.reads is None or not base.causal else int(metric.reads.max()) + 1
    changed = changed_outputs(base, donor, senders)
    values = np.tile(unpatched, (len(groups), len(senders), length if by_position else 1, 1))
    values[~path] = np.nan
    to_run = np.flatnonzero(path.any(0) & changed[:, :stop].any(1))
    size = max(1, tokens_per_batch(base.tokens.device) // (pairs * stop))
    config = base.model.config
    ends = [max(step_of(config, receiver) for receiver in group) for group in groups]
    for done in range(0, len(to_run), size):
        chunk = to_run[done : done + size]
        waiting = {index for index in range(len(groups)) if path[index, chunk].any()}
        outputs: dict[Component, Tensor] = {}
        for step, x in base.frozen(donor, [senders[index] for index in chunk], stop, through_mlps):
            for receiver in {
                receiver
                for index in waiting
                for receiver in groups[index]
                if step_of(config, receiver) == step
            }:
                outputs[receiver] = receiver_output(base.model, receiver, x).unflatten(0, (-1, pairs))
            complete = {index for index in waiting if ends[index] == step}
            for index in complete:
                of_group = {receiver: outputs[receiver] for receiver in groups[index] if receiver in outputs}
                linked = path[index, chunk]
                for pos in range(stop) if by_position else [-1]:
                    rows = np.flatnonzero(linked & (changed[chunk, pos] if pos >= 0 else True))
                    if len(rows):
                        inserted = {receiver: x[rows] for receiver, x in of_group.items()}
                        cells = _insert(base, inserted, metric, None if pos < 0 else pos)
                        values[index, chunk[rows], max(pos, 0)] = cells
            waiting -= complete
            if not waiting:
                break
            outputs = {
                receiver: x for receiver, x in outputs.items() if any(receiver in groups[i] for i in waiting)
            }
        on_progress(min(1.0, (done + size) / len(to_run)), "")
    on_progress(1.0, "")
    return values if by_position else values[:, :, 0]


def _insert(
    base: CachedRun,
    outputs: Mapping[Component, Float[Tensor, "sender pair pos d"]],
    metric: Metric,
    pos: int | None,
) -> Float[np.ndarray, "sender pair"]:
    """Return the metric with these outputs of receivers, at one position or at all."""
    count, pairs, stop = next(iter(outputs.values())).shape[:3]
    logits = [x for receiver, x in outputs.items() if receiver.kind == "logits"]
    if logits:
        streams = base.streams[-1].repeat(count, 1, 1, 1)
        at = slice(0, stop) if pos is None else slice(pos, pos + 1)
        streams[:, :, at] = logits[0][:, :, at]
        values = metric.of_stream(base.model, streams.flatten(0, 1), pairs)
        return values.view(count, pairs).double().cpu().numpy()
    length = base.tokens.shape[1]
    outputs = {receiver: F.pad(x, (0, 0, 0, length - stop)) for receiver, x in outputs.items()}
    variants = [
        [Edit(receiver.hook_name, x[sender], pos, receiver.unit) for receiver, x in outputs.items()]
        for sender in range(count)
    ]
    return base.measure(variants, metric).cpu().numpy()
