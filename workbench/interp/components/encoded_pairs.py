"""Minimal pairs encoded once, and scored as often as one likes under whatever hooks are on the model.

Only what a pair's two sentences do not share is read off: the rest cancels in their difference.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.data.pairs import Pair
from workbench.errors import InputError
from workbench.evals.causal import batches, tree_mask
from workbench.evals.encoding import causal_rows, refuse_misfit
from workbench.evals.masked import MaskedRows, masked_rows, variants
from workbench.evals.normaliser import Readout
from workbench.evals.prefix_tree import PrefixTree, grow
from workbench.evals.protocols import find_protocol
from workbench.evals.workers import for_each, threads_for, tokens_per_forward

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
