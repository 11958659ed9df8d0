"""Minimal pairs as rows that a model reads, each pair's beginning once.

A causal model reads a pair as one row [shared beginning | rest of the good sentence | rest of the bad one],
in which the two rests see the beginning and themselves, but not each other (the tree attention of speculative
decoding: Miao et al. 2024, SpecInfer). What both sentences say alike cancels in the difference and is not
    read off. A masked model reads a masked copy of a sentence for each of its tokens (Salazar et al. 2020).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.data.pairs import Pair
from workbench.errors import InputError
from workbench.evals.prefix_tree import PrefixTree, grow
from workbench.evals.protocols import Label, Protocol, causal_rows, find_protocol, refuse_misfit
from workbench.evals.scoring import (
    MaskedRows,
    Readout,
    batches,
    for_each,
    log_normaliser,
    masked_rows,
    threads_for,
    tokens_per_forward,
    tree_mask,
    variants,
)
from workbench.model.mask import AttentionMask

# Minimal pairs encoded once, and scored as often as one likes under whatever hooks are on the model.
#
# Only what a pair's two sentences do not share is read off: the rest cancels in their difference.


LOGITS_AT_ONCE = 1024


class Reading(NamedTuple):
    """One forward, and the log-probabilities that are read off it."""

    tokens: Int[Tensor, "row pos"]
    positions: Int[Tensor, "row pos"] | None
    mask: Bool[Tensor, "row 1 pos pos"] | None
    rows: Int[Tensor, " read"]
    places: Int[Tensor, " read"]
    """With `rows`: where the unembedding reads."""
    asked: Int[Tensor, " asked"]
    """Which of these places each target is predicted at."""
    targets: Int[Tensor, " asked"]
    numbers: Int[np.ndarray, " asked"]
    """Which of all log-probabilities they are."""

    def read(self, network: Any) -> Float[Tensor, "read d_readout"]:
        """What the unembedding reads."""
        x = network.residual(self.tokens, positions=self.positions, mask=self.mask)
        return x[self.rows, self.places]


class EncodedPairs:
    """Pairs as readings.

    Args:
        network: a `HookedTransformer` in evaluation mode, at least in float32.
        tokenizer: its own.
        pairs: what to encode.
        protocol: how a sentence is scored; a key of `workbench.evals.protocols.PROTOCOLS`.
        pll: for masked models, `original` or `within_word_l2r`.

    Raises:
        InputError: a sentence that is empty or longer than the context (with its paradigm and pair), a
            protocol or tokenizer that does not suit the model.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        pairs: Sequence[Pair],
        protocol: str = "native",
        pll: str = "original",
    ) -> None:
        if tokenizer is None:
            raise InputError("the model has no tokenizer; pass a run, or a model with one.")
        objective, device = network.config.objective, network.device
        self.protocol, self.pairs = find_protocol(protocol, objective, pll), tuple(pairs)
        sentences = [text for pair in pairs for text in (pair.sentence_good, pair.sentence_bad)]
        if objective == "mlm":
            masked = masked_rows(tokenizer, sentences, self.protocol, self._label)
            refuse_misfit(network, masked.rows, self._label)
            self._readings, items = _masked(masked, tokenizer.mask_token_id, pll, device)
        else:
            rows = causal_rows(tokenizer, sentences, self.protocol, self._label)
            refuse_misfit(network, rows, self._label, unread=1)
            tree = grow(rows)
            items = [row[row < len(tree.edge_tokens)] for row in tree.row_edges]
        mean = self.protocol.reduction(objective) == "mean"
        self._divisors = np.array([len(row) if mean else 1 for row in items])
        self._sums = _sums(items, self._divisors)
        if objective == "clm":
            self._readings = list(_causal(tree, np.diff(self._sums.tocsc().indptr) > 0, device))

    def __len__(self) -> int:
        return len(self.pairs)

    def margins(self, network: Any) -> Float[np.ndarray, " pair"]:
        """Score of each good sentence minus that of the bad one, by the protocol's reduction, in nats.

        Args:
            network: the model, perhaps under hooks.

        Raises:
            InputError: a score that is not a number.
        """
        values = np.zeros(self._sums.shape[1])
        readout = Readout.of(network)

        def work(one: Reading) -> None:
            values[one.numbers] = readout.log_probs(one.read(network), one.asked, one.targets).cpu().numpy()

        for_each(work, self._readings, threads_for(network))
        scores = (self._sums @ values) / self._divisors
        if np.isnan(scores).any():
            bad = self._label(int(np.flatnonzero(np.isnan(scores))[0]))
            raise InputError(
                f"the model's score of {bad} is not a number; its weights are damaged or overflow."
            )
        return scores[0::2] - scores[1::2]

    def pull_back(
        self, network: Any, weights: Float[np.ndarray, " pair"], leaves: Sequence[Tensor]
    ) -> list[Tensor]:
        """The gradient of the margins' weighted sum.

        Args:
            network: the model, under hooks that use the leaves.
            weights: of the pairs.
            leaves: by what; each requires a gradient.
        """
        signed = np.repeat(weights, 2) * np.tile([1.0, -1.0], len(self)) / self._divisors
        of_value = torch.from_numpy(self._sums.T @ signed).to(network.device, network.dtype)
        total = [torch.zeros_like(leaf) for leaf in leaves]
        for one in self._readings:
            with torch.enable_grad():
                x, value = one.read(network), 0.0
                for at in torch.arange(len(one.asked), device=x.device).split(LOGITS_AT_ONCE):
                    nats = F.cross_entropy(
                        network.unembed(x[one.asked[at]]), one.targets[at], reduction="none"
                    )
                    value = value - nats @ of_value[one.numbers[at.cpu()]]
                found = torch.autograd.grad(value, leaves, allow_unused=True)  # type: ignore[arg-type]
            for sum_, part in zip(total, found, strict=True):
                sum_ += 0 if part is None else part
        return total

    def _label(self, index: int) -> str:
        pair = self.pairs[index // 2]
        side = "sentence_bad" if index % 2 else "sentence_good"
        return f"{side} of pair {pair.pair_id} in paradigm {pair.uid}"


def _sums(items: Sequence[np.ndarray], divisors: np.ndarray) -> Any:
    """Which log-probabilities each sentence sums: [sentence value], without those that cancel in the pair."""
    from scipy.sparse import csr_array

    own: list[np.ndarray] = []
    for good, bad, *sizes in zip(items[0::2], items[1::2], divisors[0::2], divisors[1::2], strict=True):
        shared = np.intersect1d(good, bad) if sizes[0] == sizes[1] else good[:0]
        own += [np.setdiff1d(good, shared), np.setdiff1d(bad, shared)]
    starts = np.cumsum([0, *map(len, own)])
    columns = np.concatenate(own)
    shape = (len(items), max(int(row.max()) for row in items) + 1)
    return csr_array((np.ones(len(columns)), columns, starts), shape=shape)


def _causal(tree: PrefixTree, needed: Bool[np.ndarray, " edge"], device: torch.device) -> Iterator[Reading]:
    """The blocks of the tree from which a needed edge leaves."""
    blocks_of = [
        [b for b in group if needed[tree.edge_starts[b.start] : tree.edge_starts[b.stop]].any()]
        for group in batches(tree, device.type)
    ]
    for blocks in filter(None, blocks_of):
        nodes = np.stack([np.concatenate([b.ancestors, np.arange(b.start, b.stop)]) for b in blocks])
        rows, places, numbers = [], [], []
        for row, block in enumerate(blocks):
            first, last = tree.edge_starts[[block.start, block.stop]]
            edges = first + np.flatnonzero(needed[first:last])
            numbers.append(edges)
            places.append(len(block.ancestors) + tree.edge_parents[edges] - block.start)
            rows.append(np.full(len(edges), row))
        where = np.stack([np.concatenate(rows), np.concatenate(places)])
        read, asked = np.unique(where, axis=1, return_inverse=True)
        found = np.concatenate(numbers)
        yield Reading(
            tokens=_tensor(tree.tokens[nodes], device),
            positions=_tensor(tree.depths[nodes], device),
            mask=tree_mask(_tensor(nodes), tree)[:, None].to(device),
            rows=_tensor(read[0], device),
            places=_tensor(read[1], device),
            asked=_tensor(asked.ravel(), device),
            targets=_tensor(tree.edge_tokens[found], device),
            numbers=found,
        )


def _masked(
    masked: MaskedRows, mask_token: int, pll: str, device: torch.device
) -> tuple[list[Reading], list[Int[np.ndarray, " target"]]]:
    """A masked copy of a sentence for each of its targets, copies of equal length together; and the numbers
    of each sentence's targets."""
    lengths = masked.rows.lengths
    readings, done = [], 0
    items: list[np.ndarray] = [np.empty(0, np.int64)] * len(lengths)
    for length in np.unique(lengths):
        where = np.flatnonzero(lengths == length)
        cells = masked.rows.starts[where][:, None] + np.arange(length)
        ids = masked.rows.ids[cells]
        copies, row, place = variants(ids, masked.targets[cells], masked.words[cells], mask_token, pll)
        numbers = done + np.arange(len(row))
        for sentence, mine in zip(where, np.split(numbers, np.flatnonzero(np.diff(row)) + 1), strict=True):
            items[sentence] = mine
        step = max(1, tokens_per_forward(device.type) // int(length))
        for first in range(0, len(row), step):
            some = slice(first, first + step)
            every = _tensor(np.arange(len(row[some])), device)
            tokens, at, targets = (_tensor(part[some], device) for part in (copies, place, ids[row, place]))
            readings.append(Reading(tokens, None, None, every, at, every, targets, numbers[some]))
        done += len(row)
    return readings, items


def _tensor(values: np.ndarray, device: torch.device | str = "cpu") -> Int[Tensor, "..."]:
    return torch.from_numpy(values.astype(np.int64)).to(device)


REASONS = (
    "usable",
    "other numbers of tokens",
    "nothing is read after the difference",
    "same tokens",
    "masked model",
)
"""Whether something can flow between the sentences of a pair, position by position, and why not."""
SHARED, GOOD, BAD, PADDING = range(4)


class PairRows(NamedTuple):
    """What is read of one pair, on the host; rows have equal lengths, `branch` tells whose each token is."""

    tokens: Int[np.ndarray, "row pos"]
    positions: Int[np.ndarray, "row pos"]
    branch: Int[np.ndarray, "row pos"]
    targets: list[tuple[int, int, int, float]]
    """Row, place, token that is read off there, and its weight in the pair's margin."""
    reason: int
    """Index in `REASONS`."""


@dataclasses.dataclass(frozen=True)
class PairBatch:
    """Some pairs, ready for the model."""

    pairs: Int[np.ndarray, " pair"]
    """Their numbers among all pairs."""
    tokens: Int[Tensor, "row pos"]
    positions: Int[Tensor, "row pos"]
    mask: Bool[Tensor, "row 1 pos pos"]
    row_pair: Int[Tensor, " row"]
    node_row: Int[Tensor, " node"]
    """A node is a place where something is read off."""
    node_place: Int[Tensor, " node"]
    net: Float[Tensor, " node"]
    """Sum of the weights there; where it is 0 the softmax's denominator cancels."""
    target_node: Int[Tensor, " target"]
    target_token: Int[Tensor, " target"]
    weight: Float[Tensor, " target"]
    target_pair: Int[Tensor, " target"]
    swap: Int[Tensor, "row pos"] | None
    """Each token's counterpart in the other sentence (itself in the shared beginning); None if some pair is
    not usable."""

    def sight(self, model: Any, cells: int) -> AttentionMask:
        """Who sees whom, for `cells` copies of the rows."""
        places, mask = self.positions.repeat(cells, 1), self.mask.repeat(cells, 1, 1, 1)
        sight = AttentionMask(places, places, mask, model.config.attention == "causal", in_order=False)
        if model.position_bias is not None:
            sight.bias = model.position_bias(sight.distance, model.embed.W_E)
        return sight

    def log_probs(
        self, model: Any, readout: Readout, x: Float[Tensor, "cell_row pos d_model"], cells: int
    ) -> Float[Tensor, "cell pair 2"]:
        """Each sentence's weighted log-probability but for what the pair shares, good and bad, float64.

        Args:
            model: gives the final norm.
            readout: its unembedding.
            x: what the last block left, of `cells` copies of the rows.
            cells: how many.
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


def pair_rows(
    model: Any, tokenizer: Any, sentences: Sequence[str], protocol: Protocol, pll: str, label: Label
) -> list[PairRows]:
    """The rows of each pair.

    Args:
        model: gives objective, vocabulary and context.
        tokenizer: its own.
        sentences: good and bad in turn.
        protocol: how a sentence is scored.
        pll: for masked models.
        label: how an error names sentence i.

    Raises:
        InputError: sentences, a protocol or a tokenizer that do not suit the model.
    """
    objective = model.config.objective
    mean = protocol.reduction(objective) == "mean"
    if objective == "mlm":
        masked = masked_rows(tokenizer, sentences, protocol, label)
        refuse_misfit(model, masked.rows, label)
        return [
            _masked_pair_batches(masked, index, tokenizer.mask_token_id, pll, mean)
            for index in range(0, len(sentences), 2)
        ]
    rows = causal_rows(tokenizer, sentences, protocol, label)
    refuse_misfit(model, rows, label, unread=1)
    return [_causal_pair_batches(rows[index], rows[index + 1], mean) for index in range(0, len(sentences), 2)]


def _causal_pair_batches(good: np.ndarray, bad: np.ndarray, mean: bool) -> PairRows:
    both = min(len(good), len(bad))
    differs = np.flatnonzero(good[:both] != bad[:both])
    shared = int(differs[0]) if len(differs) else both
    weights = [1 / (len(ids) - 1) if mean else 1.0 for ids in (good, bad)]
    rests = [ids[shared:-1] for ids in (good, bad)]
    branch = np.repeat([SHARED, GOOD, BAD], [shared, *map(len, rests)])
    positions = np.concatenate([np.arange(shared), *(shared + np.arange(len(rest)) for rest in rests)])
    targets = []
    if weights[0] != weights[1]:
        targets += [(0, place, int(good[place + 1]), weights[0] - weights[1]) for place in range(shared - 1)]
    for ids, weight, start in zip(
        (good, bad), (weights[0], -weights[1]), (shared, shared + len(rests[0])), strict=True
    ):
        for index in range(max(shared, 1), len(ids)):
            place = shared - 1 if index == shared else start + index - 1 - shared
            targets.append((0, place, int(ids[index]), weight))
    same = len(good) == len(bad)
    reason = 3 if same and shared == len(good) else 1 if not same else 0 if len(rests[0]) else 2
    tokens = np.concatenate([good[:shared], *rests])
    return PairRows(tokens[None], positions[None], branch[None], targets, reason)


def _masked_pair_batches(masked: Any, index: int, mask_token: int, pll: str, mean: bool) -> PairRows:
    width = int(masked.rows.lengths[index : index + 2].max())
    contexts: dict[bytes, int] = {}
    rows: list[np.ndarray] = []
    targets = []
    for sentence, sign in ((index, 1.0), (index + 1, -1.0)):
        here = slice(masked.rows.starts[sentence], masked.rows.starts[sentence + 1])
        ids = masked.rows.ids[here]
        copies, _, places = variants(
            ids[None], masked.targets[here][None], masked.words[here][None], mask_token, pll
        )
        for copy, place in zip(copies, places, strict=True):
            number = contexts.setdefault(copy.tobytes(), len(rows))
            if number == len(rows):
                rows.append(copy)
            targets.append((number, int(place), int(ids[place]), sign / len(places) if mean else sign))
    tokens = np.stack([np.pad(row, (0, width - len(row))) for row in rows])
    branch = np.stack([np.repeat([SHARED, PADDING], [len(row), width - len(row)]) for row in rows])
    positions = np.broadcast_to(np.arange(width), tokens.shape)
    return PairRows(tokens, positions, branch, targets, 4)


def groups(rows: Sequence[PairRows], tokens: int) -> list[list[int]]:
    """Numbers of pairs that go together: of about equal length, the usable ones apart. Pairs whose sentences
    have the same tokens are left out: their margin is 0, whatever happens to the model.

    Args:
        rows: of `pair_rows`.
        tokens: at most so many in a group, if no pair has more.
    """
    order = sorted(
        (number for number, pair in enumerate(rows) if REASONS[pair.reason] != "same tokens"),
        key=lambda number: (rows[number].reason != 0, rows[number].tokens.shape[1]),
    )
    found: list[list[int]] = []
    count, before = 0, None
    for number in order:
        height, width = rows[number].tokens.shape
        usable = rows[number].reason == 0
        if usable != before or (count + height) * width > tokens:
            found.append([])
            count = 0
        found[-1].append(number)
        count, before = count + height, usable
    return found


def pair_batch(model: Any, rows: Sequence[PairRows], numbers: Sequence[int]) -> PairBatch:
    """Some pairs, padded to equal length, on the model's device.

    Args:
        model: gives the device, and whether it is causal.
        rows: of `pair_rows`.
        numbers: which pairs; all usable, or none.
    """
    mine = [rows[number] for number in numbers]
    width = max(pair.tokens.shape[1] for pair in mine)

    def together(name: str, fill: int) -> np.ndarray:
        parts = (getattr(pair, name) for pair in mine)
        return np.concatenate(
            [np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=fill) for p in parts]
        ).astype(np.int64)

    branch = together("branch", PADDING)
    allowed = (branch[:, None] == branch[:, :, None]) | (branch[:, None] == SHARED)
    allowed &= branch[:, None] != PADDING
    if model.config.attention == "causal":
        allowed = np.tril(allowed)
    allowed |= np.eye(width, dtype=bool)
    heights = [len(pair.tokens) for pair in mine]
    first = np.cumsum([0, *heights[:-1]])
    targets = np.array(
        [
            (start + row, place, token, local)
            for local, (start, pair) in enumerate(zip(first.tolist(), mine, strict=True))
            for row, place, token, _ in pair.targets
        ]
    ).reshape(-1, 4)
    weight = np.array([target[3] for pair in mine for target in pair.targets])
    nodes, target_node = np.unique(targets[:, 0] * width + targets[:, 1], return_inverse=True)
    net = np.bincount(target_node, weights=weight, minlength=len(nodes))
    swap = None
    if mine[0].reason == 0:
        half = (branch == GOOD).sum(1, keepdims=True)
        swap = np.arange(width) + half * ((branch == GOOD) * 1 - (branch == BAD) * 1)
    arrays = dict(
        tokens=together("tokens", 0), positions=together("positions", 0), mask=allowed[:, None],
        row_pair=np.repeat(np.arange(len(mine)), heights), node_row=nodes // width, node_place=nodes % width,
        net=net, target_node=target_node, target_token=targets[:, 2], weight=weight,
        target_pair=targets[:, 3],
    )  # fmt: skip
    moved = {
        name: torch.from_numpy(np.ascontiguousarray(array)).to(model.device) for name, array in arrays.items()
    }
    return PairBatch(
        np.array(numbers), **moved, swap=None if swap is None else torch.from_numpy(swap).to(model.device)
    )
