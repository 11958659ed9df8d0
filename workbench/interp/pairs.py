"""Minimal pairs as rows of tokens: the one encoding behind margins, their gradients, the component matrix and
attribution.

A causal model reads a pair as one row [shared beginning | rest of the good sentence | rest of the bad one],
in which the two rests attend to the beginning and to themselves, but not to each other (the tree attention of
speculative decoding: Miao et al. 2024, SpecInfer). A masked model reads a masked copy of a sentence for each
of its tokens (Salazar et al. 2020); a copy that both sentences give is read once.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.data.pairs import Pair
from workbench.errors import InputError
from workbench.evals.protocols import Label, Protocol, causal_rows, find_protocol, refuse_misfit
from workbench.evals.scoring import (
    Readout,
    for_each,
    log_normaliser,
    masked_rows,
    threads_for,
    tokens_per_forward,
    variants,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from workbench.model.transformer import HookedTransformer


class ScoredTokens(NamedTuple):
    """The tokens of a sentence that a protocol scores, and the inputs in which they are predicted; int64."""

    ids: Int[np.ndarray, " scored"]
    contexts: Int[np.ndarray, "row pos"]
    """One row for a causal model, a masked copy for each scored token of a masked one."""
    rows: Int[np.ndarray, " scored"]
    """The row of `contexts` in which each token is predicted, ascending."""
    places: Int[np.ndarray, " scored"]
    """The position in that row."""


def encode_sentences(
    model: "HookedTransformer",
    tokenizer: "PreTrainedTokenizerFast | None",
    sentences: Sequence[str],
    protocol: Protocol,
    pll: str,
    label: Label,
) -> list[ScoredTokens]:
    """Tokenize sentences as a protocol scores them.

    Args:
        model: causal: all tokens are predicted in one row; masked: each in its own masked copy.
        tokenizer: the model's own.
        sentences: without special tokens.
        protocol: how a sentence is scored.
        pll: `original` or `within_word_l2r`, for masked models.
        label: names sentence i in an error.

    Raises:
        InputError: no tokenizer, one that does not fit the model, an empty sentence or one that is too long.
    """
    if tokenizer is None:
        raise InputError("the model has no tokenizer; pass the one it was trained with.")
    encoded = []
    if model.config.objective == "mlm":
        masked = masked_rows(tokenizer, sentences, protocol, label)
        refuse_misfit(model, masked.rows, label)
        mask: Any = tokenizer.mask_token_id
        for start, stop in pairwise(masked.rows.starts.tolist()):
            ids, targets, words = (
                part[None, start:stop] for part in (masked.rows.ids, masked.targets, masked.words)
            )
            contexts, _, places = variants(ids, targets, words, mask, pll)
            encoded.append(ScoredTokens(ids[0, places], contexts, np.arange(len(places)), places))
    else:
        rows = causal_rows(tokenizer, sentences, protocol, label)
        refuse_misfit(model, rows, label, unread=1)
        for index in range(len(rows)):
            places = np.arange(len(rows[index]) - 1)
            encoded.append(
                ScoredTokens(rows[index][1:], rows[index][None, :-1], np.zeros_like(places), places)
            )
    return [ScoredTokens(*(part.astype(np.int64) for part in scored)) for scored in encoded]


def scored_tokens(
    model: "HookedTransformer",
    tokenizer: "PreTrainedTokenizerFast | None",
    text: str,
    protocol: Protocol,
    pll: str,
    name: str,
) -> ScoredTokens:
    """Tokenize one text, called `name` in errors; see `encode_sentences`."""
    return encode_sentences(model, tokenizer, [text], protocol, pll, lambda _: name)[0]


REASONS = (
    "usable",
    "other numbers of tokens",
    "nothing is read after the difference",
    "same tokens",
    "masked model",
)
"""Whether activations can be exchanged between the sentences of a pair, position by position, or why not."""
USABLE, OTHER_LENGTHS, DIFFERENCE_UNREAD, SAME_TOKENS, MASKED = range(len(REASONS))
SHARED, GOOD, BAD, PADDING = range(4)
"""Part of the pair that a token of a row belongs to."""


class PairRows(NamedTuple):
    """The rows of one pair, on the CPU; all of equal length."""

    tokens: Int[np.ndarray, "row pos"]
    positions: Int[np.ndarray, "row pos"]
    branch: Int[np.ndarray, "row pos"]
    """`SHARED`, `GOOD`, `BAD` or `PADDING`."""
    targets: list[tuple[int, int, int, float]]
    """Row, position, predicted token, and the weight of its log-probability in the pair's margin."""
    reason: int
    """Index in `REASONS`."""


@dataclasses.dataclass(frozen=True)
class PairBatch:
    """Some pairs as tensors on the model's device."""

    pairs: Int[np.ndarray, " pair"]
    """Their indices among the encoded pairs."""
    tokens: Int[Tensor, "row pos"]
    positions: Int[Tensor, "row pos"]
    mask: Bool[Tensor, "row 1 pos pos"]
    row_pair: Int[Tensor, " row"]
    node_row: Int[Tensor, " node"]
    """A node is a position at which tokens are predicted."""
    node_place: Int[Tensor, " node"]
    net: Float[Tensor, " node"]
    """Sum of the weights at a node; where it is 0 the softmax's denominator cancels."""
    target_node: Int[Tensor, " target"]
    target_token: Int[Tensor, " target"]
    weight: Float[Tensor, " target"]
    target_pair: Int[Tensor, " target"]
    swap: Int[Tensor, "row pos"] | None
    """Each token's counterpart in the other sentence (itself in the shared beginning); None if some pair is
    not usable."""

    def stream(self, model: "HookedTransformer") -> Float[Tensor, "row pos d_model"]:
        """Return the last block's output."""
        return model.stream(self.tokens, positions=self.positions, mask=self.mask)

    def log_probs(
        self,
        model: "HookedTransformer",
        readout: Readout,
        x: Float[Tensor, "cell_row pos d_model"],
        cells: int,
    ) -> Float[Tensor, "cell pair 2"]:
        """Sum the weighted log-probabilities of each sentence, good and bad, that do not cancel in the pair.

        Args:
            model: gives the final norm.
            readout: of the model.
            x: output of the last block for `cells` copies of the rows.
            cells: number of copies.

        Returns:
            Nats, float64, without a gradient; the bad sentence's with a minus.
        """
        first = torch.arange(cells, device=x.device)[:, None]
        final = model.final(
            x[(first * len(self.tokens) + self.node_row).flatten(), self.node_place.repeat(cells)]
        )
        nodes = (first * len(self.node_row) + self.target_node).flatten()
        tokens = self.target_token.repeat(cells)
        values = (final[nodes] * readout.weight[tokens]).sum(-1)
        if readout.bias is not None:
            values += readout.bias[tokens]
        open_ = (self.net != 0).repeat(cells)
        normaliser = final.new_zeros(len(final))
        normaliser[open_] = log_normaliser(final[open_], readout.weight, readout.longest, readout.bias)
        values = (values - normaliser[nodes]).double() * self.weight.repeat(cells)
        side = self.target_pair * 2 + (self.weight < 0)
        out = values.new_zeros(cells, 2 * len(self.pairs))
        return out.index_add_(1, side, values.view(cells, -1)).view(cells, -1, 2)

    def differentiable_margins(
        self, model: "HookedTransformer", stream: Float[Tensor, "row pos d_model"]
    ) -> Float[Tensor, " pair"]:
        """Return each pair's margin in nats, with a gradient, given the last block's output.

        Holds the logits of every node.
        """
        final = model.final(stream[self.node_row, self.node_place])
        log_probs = model.unembed(final).log_softmax(-1)[self.target_node, self.target_token]
        values = log_probs * self.weight.to(log_probs)
        return values.new_zeros(len(self.pairs)).index_add(0, self.target_pair, values)


class EncodedPairs:
    """Minimal pairs encoded once, to be scored as often as needed under any hooks on the model.

    Args:
        model: in evaluation mode, at least in float32.
        pairs: what to encode.
        protocol: how a sentence is scored; a key of `workbench.evals.protocols.PROTOCOLS`.
        pll: for masked models, `original` or `within_word_l2r`.
        tokenizer: if not the model's.

    Raises:
        InputError: a sentence that is empty or longer than the context (with its paradigm and pair), a
            protocol or tokenizer that does not fit the model.
    """

    def __init__(
        self,
        model: "HookedTransformer",
        pairs: Sequence[Pair],
        protocol: str = "native",
        pll: str = "original",
        tokenizer: "PreTrainedTokenizerFast | None" = None,
    ) -> None:
        objective, self.device = model.config.objective or "clm", model.device
        self.pairs, self.causal = tuple(pairs), model.config.attention == "causal"
        self.protocol = find_protocol(protocol, objective, pll)
        sentences = [text for pair in pairs for text in (pair.sentence_good, pair.sentence_bad)]
        tokenizer = tokenizer or model.tokenizer
        encoded = encode_sentences(model, tokenizer, sentences, self.protocol, pll, self._label)
        of_pair = _causal_pair if objective == "clm" else _masked_pair
        mean = self.protocol.reduction(objective) == "mean"
        self.rows: list[PairRows] = [
            of_pair(good, bad, mean) for good, bad in zip(encoded[0::2], encoded[1::2], strict=True)
        ]

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def reasons(self) -> np.ndarray:
        """`usable` or why the pair's sentences cannot exchange activations, [pair]."""
        return np.array([REASONS[row.reason] for row in self.rows])

    def groups(self, max_tokens: int) -> list[list[int]]:
        """Group pairs of about equal length, usable ones apart, at most `max_tokens` tokens in a group of
        several. Pairs whose sentences have the same tokens are skipped: their margin is always 0."""
        order = sorted(
            (index for index, row in enumerate(self.rows) if row.reason != SAME_TOKENS),
            key=lambda index: (self.rows[index].reason != USABLE, self.rows[index].tokens.shape[1]),
        )
        found: list[list[int]] = []
        count, before = 0, None
        for index in order:
            height, width = self.rows[index].tokens.shape
            usable = self.rows[index].reason == USABLE
            if usable != before or (count + height) * width > max_tokens:
                found.append([])
                count = 0
            found[-1].append(index)
            count, before = count + height, usable
        return found

    def batch(self, indices: Sequence[int]) -> PairBatch:
        """Pad some pairs, all usable or none, to equal length and move them to the model's device."""
        chosen = [self.rows[index] for index in indices]
        width = max(rows.tokens.shape[1] for rows in chosen)

        def padded(name: str, fill: int = 0) -> Int[np.ndarray, "row pos"]:
            parts = (getattr(rows, name) for rows in chosen)
            return np.concatenate(
                [np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=fill) for p in parts]
            ).astype(np.int64)

        branch = padded("branch", PADDING)
        allowed = (branch[:, None] == branch[:, :, None]) | (branch[:, None] == SHARED)
        allowed &= branch[:, None] != PADDING
        if self.causal:
            allowed = np.tril(allowed)
        allowed |= np.eye(width, dtype=bool)
        heights = [len(rows.tokens) for rows in chosen]
        first = np.cumsum([0, *heights[:-1]])
        targets = np.array(
            [
                (start + row, place, token, local)
                for local, (start, rows) in enumerate(zip(first.tolist(), chosen, strict=True))
                for row, place, token, _ in rows.targets
            ]
        ).reshape(-1, 4)
        weight = np.array([target[3] for rows in chosen for target in rows.targets])
        nodes, target_node = np.unique(targets[:, 0] * width + targets[:, 1], return_inverse=True)
        arrays = dict(
            tokens=padded("tokens"), positions=padded("positions"), mask=allowed[:, None],
            row_pair=np.repeat(np.arange(len(chosen)), heights), node_row=nodes // width,
            node_place=nodes % width, net=np.bincount(target_node, weights=weight, minlength=len(nodes)),
            target_node=target_node, target_token=targets[:, 2], weight=weight, target_pair=targets[:, 3],
        )  # fmt: skip
        if chosen[0].reason == USABLE:
            half = (branch == GOOD).sum(1, keepdims=True)
            arrays["swap"] = np.arange(width) + half * ((branch == GOOD) * 1 - (branch == BAD) * 1)
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
            for name, array in arrays.items()
        }
        return PairBatch(np.array(indices), **{"swap": None, **tensors})

    @cached_property
    def batches(self) -> list[PairBatch]:
        """All pairs whose margin can differ from 0."""
        return [self.batch(group) for group in self.groups(tokens_per_forward(self.device.type))]

    def margins(self, model: "HookedTransformer") -> Float[np.ndarray, " pair"]:
        """Return the score of each good sentence minus that of the bad one, by the protocol's reduction, in
        nats.

        Args:
            model: the encoded pairs' model, perhaps under hooks.

        Raises:
            InputError: a score that is not a number.
        """
        scores = np.zeros((len(self), 2))
        readout = Readout.of(model)

        def score(batch: PairBatch) -> None:
            scores[batch.pairs] = batch.log_probs(model, readout, batch.stream(model), 1)[0].cpu().numpy()

        for_each(score, self.batches, threads_for(model))
        if np.isnan(scores).any():
            sentence = self._label(int(np.flatnonzero(np.isnan(scores))[0]))
            raise InputError(
                f"the model's score of {sentence} is not a number; its weights are damaged or overflow."
            )
        return scores.sum(1)

    def margin_gradients(
        self, model: "HookedTransformer", weights: Float[np.ndarray, " pair"], inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the gradient of the weighted sum of margins by each input.

        Args:
            model: under hooks that use the inputs.
            weights: of the pairs.
            inputs: tensors that require a gradient.
        """
        total = [torch.zeros_like(each) for each in inputs]
        for batch in self.batches:
            with torch.enable_grad():
                margins = batch.differentiable_margins(model, batch.stream(model))
                value = margins @ torch.from_numpy(weights[batch.pairs]).to(margins)
                gradients = torch.autograd.grad(value, inputs, allow_unused=True)
            for sum_, gradient in zip(total, gradients, strict=True):
                if gradient is not None:
                    sum_ += gradient
        return total

    def _label(self, index: int) -> str:
        pair = self.pairs[index // 2]
        side = "sentence_bad" if index % 2 else "sentence_good"
        return f"{side} of pair {pair.pair_id} in paradigm {pair.uid}"


def _causal_pair(good: ScoredTokens, bad: ScoredTokens, mean: bool) -> PairRows:
    good_ids, bad_ids = (np.append(side.contexts[0, :1], side.ids) for side in (good, bad))
    both = min(len(good_ids), len(bad_ids))
    differs = np.flatnonzero(good_ids[:both] != bad_ids[:both])
    shared = int(differs[0]) if len(differs) else both
    weights = [1 / len(side.ids) if mean else 1.0 for side in (good, bad)]
    rests = [ids[shared:-1] for ids in (good_ids, bad_ids)]
    branch = np.repeat([SHARED, GOOD, BAD], [shared, *map(len, rests)])
    positions = np.concatenate([np.arange(shared), *(shared + np.arange(len(rest)) for rest in rests)])
    targets = []
    if weights[0] != weights[1]:  # under a mean over tokens the shared beginning does not cancel
        net = weights[0] - weights[1]
        targets += [(0, place, int(good_ids[place + 1]), net) for place in range(shared - 1)]
    for ids, weight, start in (
        (good_ids, weights[0], shared),
        (bad_ids, -weights[1], shared + len(rests[0])),
    ):
        for index in range(max(shared, 1), len(ids)):
            place = shared - 1 if index == shared else start + index - 1 - shared
            targets.append((0, place, int(ids[index]), weight))
    if len(good_ids) != len(bad_ids):
        reason = OTHER_LENGTHS
    elif shared == len(good_ids):
        reason = SAME_TOKENS
    else:
        reason = USABLE if len(rests[0]) else DIFFERENCE_UNREAD
    tokens = np.concatenate([good_ids[:shared], *rests])
    return PairRows(tokens[None], positions[None], branch[None], targets, reason)


def _masked_pair(good: ScoredTokens, bad: ScoredTokens, mean: bool) -> PairRows:
    width = max(good.contexts.shape[1], bad.contexts.shape[1])
    numbers: dict[bytes, int] = {}
    rows: list[np.ndarray] = []
    targets = []
    for side, sign in ((good, 1.0), (bad, -1.0)):
        weight = sign / len(side.ids) if mean else sign
        for token, context, place in zip(side.ids, side.contexts[side.rows], side.places, strict=True):
            number = numbers.setdefault(context.tobytes(), len(rows))
            if number == len(rows):
                rows.append(context)
            targets.append((number, int(place), int(token), weight))
    tokens = np.stack([np.pad(row, (0, width - len(row))) for row in rows])
    branch = np.stack([np.repeat([SHARED, PADDING], [len(row), width - len(row)]) for row in rows])
    positions = np.broadcast_to(np.arange(width), tokens.shape)
    return PairRows(tokens, positions, branch, targets, MASKED)
