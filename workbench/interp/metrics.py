"""The metric that a user names, or the one that answers give."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError, nearest
from workbench.interp.prompts import hidden_positions, last_positions, prompts
from workbench.model.transformer import HookedTransformer

# What a patch is judged by: one number for each pair of prompts.
#
# A metric says where it reads, so that logits are computed there only; the logit difference needs none at
# all, for it is linear in what the unembedding reads.


class Metric:
    """What the sweeps need of a metric; a new one inherits from this.

    `reads` is the one position read in each pair, [pair], or None if all are.
    """

    name: str = "metric"
    reads: Int[Tensor, " pair"] | None = None

    def __call__(
        self, model: Any, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        """The value of each row.

        Args:
            model: unembeds.
            x: what the unembedding reads, at the metric's position (`read` is 1) or at all.
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
        self, model: Any, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
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
        self, model: Any, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        log_probs = single(model.unembed(x[:, 0])).log_softmax(-1)
        return log_probs.gather(-1, self.right.to(x.device)[pair][:, None])[:, 0]


@dataclasses.dataclass(frozen=True)
class Divergence(Metric):
    """KL(reference || patched) of the next token at one position, in nats."""

    reference: Float[Tensor, "pair d_vocab"]
    """Log-probabilities of the run to be compared with."""
    reads: Int[Tensor, " pair"]  # type: ignore[assignment]
    name: str = "KL"

    def __call__(
        self, model: Any, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        mine = single(model.unembed(x[:, 0])).log_softmax(-1)
        theirs = self.reference.to(x.device)[pair]
        return (theirs.exp() * (theirs - mine)).sum(-1)


@dataclasses.dataclass(frozen=True)
class SentenceLogProb(Metric):
    """Summed log-probability of a row's own tokens after the first, in nats: BLiMP's score."""

    tokens: Int[Tensor, "pair pos"]
    lengths: Int[Tensor, " pair"]
    reads: None = None
    name: str = "sentence log-probability"

    def __call__(
        self, model: Any, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        log_probs = single(model.unembed(x[:, :-1])).log_softmax(-1)
        targets = self.tokens.to(x.device)[pair][:, 1:]
        found = log_probs.gather(-1, targets[..., None])[..., 0]
        places = torch.arange(1, self.tokens.shape[1], device=x.device)
        return (found * (places < self.lengths.to(x.device)[pair][:, None])).sum(-1)


@dataclasses.dataclass(frozen=True)
class Loss(SentenceLogProb):
    """Mean cross-entropy of a row's own tokens after the first, in nats a token."""

    name: str = "loss"

    def __call__(
        self, model: Any, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        return -super().__call__(model, x, pair) / (self.lengths.to(x.device)[pair] - 1)


@dataclasses.dataclass(frozen=True)
class Function(Metric):
    """A function of logits [pair pos d_vocab] to one number a pair, [pair] or, for one pair, a scalar."""

    function: Callable[[Tensor], Tensor]
    pairs: int
    reads: None = None
    name: str = "metric"

    def __call__(
        self, model: Any, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        values = []
        for logits in single(model.unembed(x)).split(self.pairs):
            value = torch.as_tensor(self.function(logits))
            if self.pairs == 1 and value.ndim == 0:  # a metric as TransformerLens takes it
                value = value[None]
            if value.shape != (self.pairs,):
                raise InputError(
                    f"the metric gives shape {tuple(value.shape)} for logits {tuple(logits.shape)}; it must "
                    f"give one number for each of the {self.pairs} pairs, shape ({self.pairs},)."
                )
            values.append(value)
        return torch.cat(values)


def single(x: Tensor) -> Tensor:
    """At least in float32: sums and differences of half-precision numbers lose what is asked for."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def answers(model: Any, words: Any, count: int, which: str) -> Int[Tensor, " pair"]:
    """Answers as token ids: one text or id for all pairs, or one for each.

    Raises:
        InputError: a text that is not one token, or another number of answers than pairs.
    """
    if isinstance(words, str | int):
        words = [words] * count
    found = [model.to_single_token(word) if isinstance(word, str) else int(word) for word in words]
    if len(found) != count:
        raise InputError(f"{len(found)} {which} answers were given for {count} pairs; give one for each.")
    d_vocab = model.config.d_vocab
    for token in found:
        if not 0 <= token < d_vocab:
            raise InputError(f"the {which} answer {token} is no token of a vocabulary of {d_vocab}.")
    return torch.tensor(found)


METRICS = ("logit_difference", "log_prob", "kl", "sentence", "loss")
"""Metrics that can be chosen by name."""


def choose_metric(
    model: Any,
    metric: Metric | Callable[[Tensor], Tensor] | str | None,
    right: Any,
    wrong: Any,
    tokens: Int[Tensor, "pair pos"],
    mask: Tensor | None,
    clean: tuple[Tensor, Tensor | None] | None = None,
) -> Metric:
    """The metric that was given, or the one of a name.

    Args:
        model: a `HookedTransformer`.
        metric: a metric; a function from logits [pair pos d_vocab] to [pair]; or a name. At the last token
            (the mask token of masked prompts that have one each): `logit_difference` of right and wrong
            answer (the default), `log_prob` of the right one, `kl` from the clean run's distribution to
            this one's. Of the run's own tokens after the first: `sentence`, their summed log-probability,
            or `loss`, their mean cross-entropy. Nats.
        right: the right answers.
        wrong: the wrong answers.
        tokens: of the run that is measured.
        mask: 1 at its tokens.
        clean: tokens and mask of the clean run, if it is not this one.

    Raises:
        InputError: an unknown name, answers that are missing or not one token each, the loss of a masked
            model or of prompts of one token.
    """
    if isinstance(metric, Metric):
        return metric
    if metric is not None and not isinstance(metric, str):
        return Function(metric, len(tokens))
    if metric not in (None, *METRICS):
        raise InputError(f"no metric is called {metric!r}. {nearest(metric, METRICS)}")
    last = last_positions(tokens, mask)
    place = _answer_positions(model, tokens, mask)
    if metric == "kl":
        with torch.no_grad():
            first, real = (tokens, mask) if clean is None else clean
            x = model.residual(first, attention_mask=real)
            x = x[torch.arange(len(first)), _answer_positions(model, first, real)]
            return Divergence(single(model.unembed(x)).log_softmax(-1), place)
    if metric in ("sentence", "loss"):
        if model.config.objective != "clm":
            raise InputError("a masked model has no next-token loss; choose another metric, or a function.")
        if not bool(last.all()):
            raise InputError(f"the metric {metric} needs prompts of two tokens or more.")
        return (Loss if metric == "loss" else SentenceLogProb)(tokens, last + 1)
    one_answer = metric == "log_prob"
    if right is None or (wrong is None and not one_answer):
        missing = "the right answer" if one_answer else "the right and the wrong answer"
        raise InputError(f"there is nothing to measure: give {missing}, or metric=.")
    chosen = answers(model, right, len(tokens), "right").to(tokens.device)
    if one_answer:
        return LogProb(chosen, place)
    return LogitDifference(chosen, answers(model, wrong, len(tokens), "wrong").to(tokens.device), place)


def _answer_positions(model: Any, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The one mask token of each row, where a masked model's rows have one each; else the last."""
    hidden = getattr(model.tokenizer, "mask_token_id", None)
    masked = model.config.objective == "mlm" and hidden is not None
    if masked and bool(((tokens == hidden).sum(1) == 1).all()):
        return hidden_positions(model, tokens)
    return last_positions(tokens, mask)


Direction = Literal["denoise", "noise"]


@dataclasses.dataclass(frozen=True)
class PromptPairs:
    """Clean and corrupted prompts of equal length, and the metric of the run that is edited."""

    clean: Int[Tensor, "pair pos"]
    corrupted: Int[Tensor, "pair pos"]
    mask: Tensor | None
    """1 at tokens, where some row is padded."""
    metric: Metric
    direction: Direction

    @classmethod
    def of(
        cls,
        model: HookedTransformer,
        clean: Any,
        corrupted: Any,
        *,
        right: Any = None,
        wrong: Any = None,
        metric: "Metric | Callable[[Tensor], Tensor] | str | None" = None,
        direction: Direction = "denoise",
    ) -> "PromptPairs":
        """Return the pairs that a user gives; see `workbench.interp.patching.patch` for the arguments.

        Raises:
            InputError: prompts that do not pair, or see `choose_metric`.
        """
        first, second, mask = prompts(model, clean, corrupted)
        edited = second if direction == "denoise" else first
        chosen = choose_metric(model, metric, right, wrong, edited, mask, (first, mask))
        return cls(first, second, mask, chosen, direction)

    @property
    def edited(self) -> Int[Tensor, "pair pos"]:
        """The prompts whose run is edited: the corrupted ones if `denoise`."""
        return self.corrupted if self.direction == "denoise" else self.clean

    @property
    def donor(self) -> Int[Tensor, "pair pos"]:
        """The prompts whose activations go in."""
        return self.clean if self.direction == "denoise" else self.corrupted
