"""Metrics: the one number for each pair of prompts by which a patch is judged, and the pairs themselves.

A metric says at which position it reads, so that logits are computed only there; the logit difference needs
none, because it is linear in what the unembedding reads.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.console import make_table, stack
from workbench.errors import InputError, nearest
from workbench.interp.prompts import (
    Alignment,
    Answers,
    PromptInput,
    Prompts,
    hidden_positions,
    last_positions,
    prompt_pair,
)
from workbench.model.transformer import HookedTransformer

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType


NO_EFFECT = "No patch changes the metric: do the prompts differ at or before the position that it reads?"


def effect_summary(
    result: Any, what: str, header: Sequence[str], rows: Sequence[Sequence[object]], left: int, changed: bool
) -> "RenderableType":
    """Return the summary of a patching result: the metric of both runs, then the strongest effects."""
    patched, other = result.base.mean(), result.other.mean()
    runs = f"{result.metric}: {patched:+.3f} in the patched prompt, {other:+.3f} in the other; {what}\n"
    return stack(runs, make_table(header, rows, left), None if changed else f"\n{NO_EFFECT}")


def strongest(frame: "pd.DataFrame", column: str, count: int) -> list[dict[str, Any]]:
    """Return the `count` rows with the largest absolute value of a column, the largest first."""
    order = frame[column].abs().argsort(kind="stable")[::-1][:count]
    return frame.iloc[order].to_dict("records")  # type: ignore[return-value]


def percent(value: float) -> str:
    """Return a fraction as `+12%`; NaN as a dash."""
    return "–" if value != value else f"{value:+.0%}"


class Metric:
    """Base class of metrics."""

    name: str = "metric"
    reads: Int[Tensor, " pair"] | None = None
    """The position that is read in each pair; None if all are."""

    def __call__(
        self, model: HookedTransformer, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        """Return the value of each row.

        Args:
            model: unembeds.
            x: input of the unembedding at the metric's position (`read` is 1) or at all.
            pair: the pair each row belongs to.
        """
        raise NotImplementedError

    def of_stream(
        self, model: HookedTransformer, stream: Float[Tensor, "row pos d_model"], pairs: int | None = None
    ) -> Float[Tensor, " row"]:
        """Return the value of each row of whole runs, given the residual stream behind the last block.

        Args:
            model: unembeds.
            stream: rows [copy x pair], the pair fastest.
            pairs: how many pairs there are; the number of rows if None.
        """
        rows = torch.arange(len(stream), device=stream.device)
        pair = rows if pairs is None else rows % pairs
        read = stream if self.reads is None else stream[rows, self.reads.to(rows.device)[pair]][:, None]
        return self(model, model.final(read), pair)


@dataclasses.dataclass(frozen=True)
class LogitDifference(Metric):
    """Logit of the right answer minus that of the wrong one, at one position (Wang et al. 2022, IOI)."""

    right: Int[Tensor, " pair"]
    wrong: Int[Tensor, " pair"]
    reads: Int[Tensor, " pair"]  # type: ignore[assignment]
    name: str = "logit difference"

    def __call__(
        self, model: HookedTransformer, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        right, wrong = self.right.to(x.device)[pair], self.wrong.to(x.device)[pair]
        weight, bias = model.readout_weight, model.readout_bias
        value = (single(x[:, 0]) * (single(weight[right]) - single(weight[wrong]))).sum(-1)
        return value if bias is None else value + single(bias[right]) - single(bias[wrong])


@dataclasses.dataclass(frozen=True)
class LogProb(Metric):
    """Log-probability of the right answer at one position, in nats."""

    right: Int[Tensor, " pair"]
    reads: Int[Tensor, " pair"]  # type: ignore[assignment]
    name: str = "log-probability"

    def __call__(
        self, model: HookedTransformer, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        log_probs = single(model.unembed(x[:, 0])).log_softmax(-1)
        return log_probs.gather(-1, self.right.to(x.device)[pair][:, None])[:, 0]


@dataclasses.dataclass(frozen=True)
class Divergence(Metric):
    """KL(reference || patched) of the next token at one position, in nats."""

    reference: Float[Tensor, "pair d_vocab"]
    """Log-probabilities of the reference run."""
    reads: Int[Tensor, " pair"]  # type: ignore[assignment]
    name: str = "KL"

    def __call__(
        self, model: HookedTransformer, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        log_probs = single(model.unembed(x[:, 0])).log_softmax(-1)
        reference = self.reference.to(x.device)[pair]
        return (reference.exp() * (reference - log_probs)).sum(-1)


@dataclasses.dataclass(frozen=True)
class SentenceLogProb(Metric):
    """Summed log-probability of a prompt's own tokens after the first, in nats: BLiMP's score."""

    tokens: Int[Tensor, "pair pos"]
    lengths: Int[Tensor, " pair"]
    reads: None = None
    name: str = "sentence log-probability"

    def __call__(
        self, model: HookedTransformer, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        log_probs = single(model.unembed(x[:, :-1])).log_softmax(-1)
        targets = self.tokens.to(x.device)[pair][:, 1:]
        log_probs = log_probs.gather(-1, targets[..., None])[..., 0]
        positions = torch.arange(1, self.tokens.shape[1], device=x.device)
        return (log_probs * (positions < self.lengths.to(x.device)[pair][:, None])).sum(-1)


@dataclasses.dataclass(frozen=True)
class Loss(SentenceLogProb):
    """Mean cross-entropy of a prompt's own tokens after the first, in nats per token."""

    name: str = "loss"

    def __call__(
        self, model: HookedTransformer, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        return -super().__call__(model, x, pair) / (self.lengths.to(x.device)[pair] - 1)


@dataclasses.dataclass(frozen=True)
class Function(Metric):
    """A function from logits [pair pos d_vocab] to [pair], or to a scalar if there is one pair."""

    function: Callable[[Tensor], Tensor]
    pairs: int
    reads: None = None
    name: str = "metric"

    def __call__(
        self, model: HookedTransformer, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        values = []
        for logits in single(model.unembed(x)).split(self.pairs):
            value = torch.as_tensor(self.function(logits))
            if self.pairs == 1 and value.ndim == 0:  # as metrics of TransformerLens
                value = value[None]
            if value.shape != (self.pairs,):
                raise InputError(
                    f"the metric gives shape {tuple(value.shape)} for logits {tuple(logits.shape)}; it must "
                    f"give one number for each of the {self.pairs} pairs, shape ({self.pairs},)."
                )
            values.append(value)
        return torch.cat(values)


def single(x: Tensor) -> Tensor:
    """Return half-precision values in float32, in which their differences are not lost."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def answers(model: HookedTransformer, words: Answers, count: int, which: str) -> Int[Tensor, " pair"]:
    """Return answers as token ids, one for each pair.

    Raises:
        InputError: a text that is not one token, or another number of answers than pairs.
    """
    words = [words] * count if isinstance(words, str | int) else words
    ids = [model.to_single_token(word) if isinstance(word, str) else int(word) for word in words]
    if len(ids) != count:
        raise InputError(f"{len(ids)} {which} answers were given for {count} pairs; give one for each.")
    for token in ids:
        if not 0 <= token < model.config.d_vocab:
            raise InputError(
                f"the {which} answer {token} is not in the vocabulary (0-{model.config.d_vocab - 1})."
            )
    return torch.tensor(ids)


METRICS = ("logit_difference", "log_prob", "kl", "sentence", "loss")
"""Metrics that can be chosen by name."""

MetricInput: TypeAlias = Metric | Callable[[Tensor], Tensor] | str | None
"""What functions take as `metric`; see `choose_metric`."""


def choose_metric(
    model: HookedTransformer,
    metric: MetricInput,
    right: Answers | None,
    wrong: Answers | None,
    prompts: Prompts,
    clean: Prompts | None = None,
) -> Metric:
    """Return the metric that a user chose.

    Args:
        model: unembeds.
        metric: a `Metric`; a function from logits [pair pos d_vocab] to [pair], or for one pair to a scalar;
            or a name. In nats, at the last token (the mask token of masked prompts that have one each):
            `logit_difference` of the right and the wrong answer (the default), `log_prob` of the right one,
            or `kl` from the clean run's distribution to this run's. Over the prompt's own tokens after the
            first: `sentence`, their summed log-probability, or `loss`, their mean cross-entropy.
        right: the right answers.
        wrong: the wrong answers.
        prompts: of the run that is measured.
        clean: the clean prompts, if they are not these.

    Raises:
        InputError: an unknown name, answers that are missing or not one token each, the loss of a masked
            model or of prompts of one token.
    """
    if isinstance(metric, Metric):
        return metric
    tokens, mask = prompts
    if metric is not None and not isinstance(metric, str):
        return Function(metric, len(tokens))
    if metric not in (None, *METRICS):
        raise InputError(f"Unknown metric {metric!r}. {nearest(metric, METRICS)}")
    last = last_positions(tokens, mask)
    position = _answer_positions(model, tokens, mask)
    if metric == "kl":
        with torch.no_grad():
            first, real = clean or prompts
            x = model.residual(first, attention_mask=real)
            x = x[torch.arange(len(first)), _answer_positions(model, first, real)]
            return Divergence(single(model.unembed(x)).log_softmax(-1), position)
    if metric in ("sentence", "loss"):
        if model.config.objective != "clm":
            raise InputError("a masked model has no next-token loss; choose another metric, or a function.")
        if not bool(last.all()):
            raise InputError(f"the metric {metric} needs prompts of two tokens or more.")
        return (Loss if metric == "loss" else SentenceLogProb)(tokens, last + 1)
    if metric == "log_prob":
        if right is None:
            raise InputError("give the right answer, or another metric=.")
        return LogProb(answers(model, right, len(tokens), "right").to(tokens.device), position)
    if right is None or wrong is None:
        raise InputError("give the right and the wrong answer, or metric=.")
    both = ((right, "right"), (wrong, "wrong"))
    right_ids, wrong_ids = (
        answers(model, words, len(tokens), which).to(tokens.device) for words, which in both
    )
    return LogitDifference(right_ids, wrong_ids, position)


def _answer_positions(model: HookedTransformer, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Return the positions of a masked model's mask tokens, if each row has one; else the last ones."""
    hidden = getattr(model.tokenizer, "mask_token_id", None)
    masked = model.config.objective == "mlm" and hidden is not None
    if masked and bool(((tokens == hidden).sum(1) == 1).all()):
        return hidden_positions(model, tokens)
    return last_positions(tokens, mask)


Direction = Literal["denoise", "noise"]


@dataclasses.dataclass(frozen=True)
class PromptPairs:
    """Clean and corrupted prompts, the metric of each run, and which of the two runs is edited."""

    clean: Prompts
    corrupted: Prompts
    direction: Direction
    metric: Metric
    """Of the edited run."""
    donor_metric: Metric
    """Of the other run: it reads that run's own end and tokens."""

    @classmethod
    def of(
        cls,
        model: HookedTransformer,
        clean: PromptInput,
        corrupted: PromptInput,
        *,
        right: Answers | None = None,
        wrong: Answers | None = None,
        metric: MetricInput = None,
        direction: Direction = "denoise",
        alignment: Alignment | None = None,
    ) -> "PromptPairs":
        """Return the pairs that a user gives; see `workbench.interp.patching.patch` for the arguments.

        Raises:
            InputError: prompts that do not pair; a metric that reads fixed positions, with an alignment; see
                also `choose_metric`.
        """
        if alignment is not None and isinstance(metric, Metric):
            raise InputError(
                "a metric object reads fixed positions, which aligned prompts do not share; give right and "
                "wrong answers, a name, or a function of the logits."
            )
        if direction not in get_args(Direction):
            raise InputError(f"Unknown direction {direction!r}. {nearest(direction, get_args(Direction))}")
        sides = prompt_pair(model, clean, corrupted, alignment)
        metrics = [choose_metric(model, metric, right, wrong, side, sides[0]) for side in sides]
        own, donor = metrics if direction == "noise" else metrics[::-1]
        return cls(*sides, direction, own, donor)

    @property
    def edited(self) -> Prompts:
        """The prompts whose run is edited: the corrupted ones if `denoise`."""
        return self.corrupted if self.direction == "denoise" else self.clean

    @property
    def donor(self) -> Prompts:
        """The prompts whose activations are inserted."""
        return self.clean if self.direction == "denoise" else self.corrupted
