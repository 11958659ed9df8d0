"""Text as batches of tokens and targets, its loss, its mean activations, and references for ablations."""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.data.batches import mask_tokens
from workbench.data.corpus import EMBEDDED, open_corpus
from workbench.data.embedded.stories import stories as embedded_stories
from workbench.data.tokenizer import plain_encoder
from workbench.errors import DataError, InputError, WorkbenchError
from workbench.model.tl import pad_rows
from workbench.model.transformer import HookedTransformer
from workbench.runs.folder import read_config
from workbench.runs.run import ModelLike, open_model
from workbench.stats import derive

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from workbench.runs.run import Run


def untrained_copy(model: HookedTransformer) -> HookedTransformer:
    """Return an untrained model of the same configuration from another seed, to compare with."""
    other = derive(model.config.seed, "untrained copy")
    made = HookedTransformer(dataclasses.replace(model.config, seed=other), model.tokenizer)
    return made.to(model.device, model.dtype).eval()  # type: ignore[return-value]


IGNORED = -100
TOKENS_PER_FORWARD = 4096
LOGITS_AT_ONCE = 1024
STORIES = 100
"""Default number of stories."""


@dataclasses.dataclass(frozen=True)
class TextBatch:
    """Rows of tokens, padded on the right."""

    tokens: Int[Tensor, "row pos"]
    targets: Int[Tensor, "row pos"]
    """The token to be predicted at each position; -100 for none."""
    segments: Int[Tensor, "row pos"] | None = None
    real: Bool[Tensor, "row pos"] | None = None
    """False at padding; None if there is none."""

    def read(self, model: HookedTransformer) -> Float[Tensor, "row pos d_readout"]:
        """Return the input of the unembedding."""
        return model.residual(self.tokens, attention_mask=self.real, segments=self.segments)

    @property
    def counts(self) -> Int[np.ndarray, " row"]:
        """Number of scored tokens of each row."""
        return (self.targets != IGNORED).sum(1).cpu().numpy()


def text_batches(
    model: ModelLike, text: Any = None, seed: int = 0, split: str = "validation", stories: int | None = None
) -> list[TextBatch]:
    """Return text as batches, the same for the same seed.

    Args:
        model: a run or a `HookedTransformer`.
        text: stories (each becomes `<bos> ... <eos>`, cut at the context), token ids [row pos], batches
            of `workbench.data.batches`, or None for the first stories of the run's own corpus, or of the
            embedded one without a run.
        seed: of the tokens that are masked for a masked model; those of batches already are.
        split: of that corpus, `validation` or `train`.
        stories: number of stories of that corpus; by default `STORIES`.

    Raises:
        InputError: no text, text without a tokenizer, ids outside the vocabulary or beyond the context.
    """
    run, network, tokenizer = open_model(model)
    if text is None:
        text = own_stories(run, split, STORIES if stories is None else stories)
    if isinstance(text, str):
        text = [text]
    if isinstance(text, Tensor):
        tokens = text.reshape(-1, text.shape[-1])
        batches = [_with_targets(network, tokenizer, tokens, None, seed)]
    else:
        items = iter(text)
        first = next(items, None)
        if first is None:
            raise InputError("the text is empty; give at least one story.")
        items = chain([first], items)
        if isinstance(first, str):
            batches = list(_stories(network, tokenizer, items, seed))
        else:
            batches = [
                batch
                if isinstance(batch, TextBatch)
                else TextBatch(batch.tokens, batch.targets, batch.segments)
                for batch in items
            ]
    return [part for batch in batches for part in _split(_checked(network, batch))]


def story_rows(
    tokenizer: "PreTrainedTokenizerFast",
    stories: Iterable[str],
    n_ctx: int | None = None,
    *,
    end: bool = True,
) -> list[list[int]]:
    """Return the token ids of each story between BOS and EOS, if the tokenizer has them.

    The text `<bos>` in a story becomes ordinary tokens.

    Args:
        tokenizer: of the model.
        stories: texts.
        n_ctx: greatest length of a row; the rest is cut off.
        end: append EOS.
    """
    ends: tuple[Any, Any] = (tokenizer.bos_token_id, tokenizer.eos_token_id if end else None)
    before, after = ([] if token is None else [token] for token in ends)
    encodings = plain_encoder(tokenizer).encode_batch_fast(list(stories), add_special_tokens=False)
    return [(before + encoding.ids + after)[:n_ctx] for encoding in encodings]


def row_nats(model: HookedTransformer, batch: TextBatch) -> Float[Tensor, " row"]:
    """Return the summed cross-entropy of each row's scored tokens, in nats, float64, with a gradient."""
    scored = batch.targets != IGNORED
    rows, targets = scored.nonzero()[:, 0], batch.targets[scored]
    x = batch.read(model)[scored]
    total = torch.zeros(len(scored), dtype=torch.float64, device=x.device)
    for part, labels, index in zip(*(t.split(LOGITS_AT_ONCE) for t in (x, targets, rows)), strict=True):
        logits = model.unembed(part)
        losses = F.cross_entropy(logits, labels, reduction="none")
        total = total.index_add(0, index, losses.double())
    return total


@torch.no_grad()
def mean_activations(
    model: HookedTransformer, names: Iterable[str], batches: Iterable[TextBatch]
) -> dict[str, Float[Tensor, "*unit"]]:
    """Return the mean of activations [row pos *unit] over all tokens of a text except padding, in float64.

    Args:
        model: in eval mode.
        names: hook points.
        batches: the text.
    """
    hooks, count = set(names), 0
    sums: dict[str, Tensor] = {}
    for batch in batches:
        real = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.real is None else batch.real
        kept: dict[str, Tensor] = {}
        with model.hooks(
            fwd_hooks=[(n, lambda x, hook, kept=kept: kept.update({hook.name: x})) for n in hooks]
        ):
            batch.read(model)
        for name, x in kept.items():
            total = x[real].sum(0, dtype=torch.float64)
            sums[name] = sums[name] + total if name in sums else total
        count += int(real.sum())
    return {name: total / count for name, total in sums.items()}


def refuse_unscored(batches: Sequence[TextBatch]) -> None:
    """Refuse text without targets.

    Raises:
        InputError: no row has a target.
    """
    if not sum(int(batch.counts.sum()) for batch in batches):
        raise InputError(
            "the text has no token to predict: give rows of two tokens or more; a masked model needs a "
            "tokenizer with a mask token, or batches with targets."
        )


@dataclasses.dataclass(frozen=True)
class Reference:
    """The text that a mean ablation averages over, or whose activations a resampling ablation inserts.

    Effects with different references are different quantities; results record theirs.
    """

    source: str
    """`embedded`, the source of the run's corpus, or `given` for text that the caller passed."""
    count: int
    """Stories, or rows of tokens."""
    split: str | None = "train"
    column: str = "text"
    digest: str | None = None
    """Of the tokens that the caller passed."""

    @property
    def label(self) -> str:
        """A description: `100 training stories of TinyStories`."""
        if self.source == GIVEN:
            return f"{self.count:,} rows of given text"
        kind = {"train": "training", "validation": "validation"}.get(self.split or "", "")
        if self.source == EMBEDDED:
            return f"{self.count:,} embedded {kind} stories"
        return f"{self.count:,} {kind} stories of {self.source}"

    def stories(self) -> list[str]:
        """Return the text.

        Raises:
            InputError: the caller passed the text and it was not kept.
            DataError: the corpus is not available.
        """
        if self.source == GIVEN:
            raise InputError("the text of this reference was given by the caller and is not kept.")
        return _corpus_stories(self.source, self.column, self.split or "train", self.count)


GIVEN = "given"


def default_reference(run: "Run | None" = None) -> Reference:
    """Return the reference that every ablation has by default: the first training stories of the run's own
    corpus, embedded ones where that is not available."""
    source, column = _corpus_of(run)
    reference = Reference(source, STORIES, column=column)
    try:
        return dataclasses.replace(reference, count=len(reference.stories()))
    except WorkbenchError:
        return Reference(EMBEDDED, STORIES)


def reference_batches(
    model: ModelLike, reference: Any = None, seed: int = 0
) -> tuple[Reference, list[TextBatch]]:
    """Return a reference and its text as batches.

    Args:
        model: a run or a `HookedTransformer`.
        reference: a `Reference`, text as `text_batches` takes it, or None for `default_reference`.
        seed: of the tokens hidden from a masked model.
    """
    if reference is None:
        reference = default_reference(open_model(model).run)
    if isinstance(reference, Reference):
        return reference, text_batches(model, reference.stories(), seed)
    batches = text_batches(model, reference, seed)
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(batch.tokens.cpu().numpy().tobytes())
    rows = sum(len(batch.tokens) for batch in batches)
    return Reference(GIVEN, rows, None, digest=digest.hexdigest()), batches


def own_stories(run: "Run | None", split: str, count: int) -> list[str]:
    """Return the first stories of what the run was trained on; embedded ones for a run that was imported or
    ships with the package."""
    return _corpus_stories(*_corpus_of(run), split, count)


def held_out_stories(source: str | None, count: int) -> tuple[list[str], str]:
    """Return the first validation stories of a corpus (embedded stories if None), and what to call them.

    Raises:
        DataError: the corpus cannot be opened, or has fewer than two validation stories.
    """
    if source is None:
        return embedded_stories(count, split="validation"), "embedded stories"
    corpus = open_corpus(source)
    texts = list(corpus.validation[:count])
    if len(texts) < 2:
        raise DataError(f"{source} has {len(texts)} validation stories; intervals need at least 2.")
    return texts, f"stories of {corpus.name}"


def _corpus_of(run: "Run | None") -> tuple[str, str]:
    """Return source and column of the run's corpus; the embedded one if it has none of its own."""
    data = {}
    if run is not None and not {"imported_from", "ships"} & run.data_card.keys():
        data = read_config(run.path).get("data") or {}
    return data.get("source") or EMBEDDED, data.get("column") or "text"


def _corpus_stories(source: str, column: str, split: str, count: int) -> list[str]:
    if source == EMBEDDED:
        return embedded_stories(count, split=split)
    return list(getattr(open_corpus(source, column=column), split)[:count])


def _stories(
    model: HookedTransformer, tokenizer: "PreTrainedTokenizerFast | None", stories: Iterable[str], seed: int
) -> Iterator[TextBatch]:
    if tokenizer is None:
        raise InputError("the model has no tokenizer; give token ids [row pos], not text.")
    rows = story_rows(tokenizer, stories, model.config.n_ctx)
    size = max(1, TOKENS_PER_FORWARD // max(map(len, rows)))
    pad: Any = tokenizer.pad_token_id
    for first in range(0, len(rows), size):
        tokens, real = pad_rows(rows[first : first + size], pad)
        mask = None if bool(real.all()) else real
        yield _with_targets(model, tokenizer, tokens, mask, seed + first)


def _with_targets(
    model: HookedTransformer,
    tokenizer: "PreTrainedTokenizerFast | None",
    tokens: Tensor,
    real: Tensor | None,
    seed: int,
) -> TextBatch:
    targets = torch.full_like(tokens, IGNORED)
    mask_id: Any = None if tokenizer is None else tokenizer.mask_token_id
    if model.config.objective == "clm":
        targets[:, :-1] = tokens[:, 1:]
        if real is not None:
            targets[:, :-1][~real[:, 1:]] = IGNORED
    elif tokenizer is not None and mask_id is not None:
        shown, chosen = mask_tokens(
            tokens.cpu().numpy(),
            np.random.default_rng(seed),
            mask_id=mask_id,
            d_vocab=model.config.d_vocab,
            special_ids=tuple(tokenizer.all_special_ids),
        )
        tokens, targets = torch.from_numpy(shown), torch.from_numpy(chosen)
        if real is not None:
            targets[~real] = IGNORED
    return TextBatch(tokens, targets, None, real)


def _checked(model: HookedTransformer, batch: TextBatch) -> TextBatch:
    if not batch.tokens.numel():
        raise InputError("the text has no tokens; give some text or ids.")
    low, high = (int(end) for end in batch.tokens.aminmax())
    if low < 0 or high >= model.config.d_vocab:
        raise InputError(f"token ids run from {low} to {high}; the vocabulary has {model.config.d_vocab}.")
    if batch.tokens.shape[1] > model.config.n_ctx:
        raise InputError(
            f"rows have {batch.tokens.shape[1]} tokens, the context is {model.config.n_ctx}; cut them."
        )
    fields = (batch.tokens, batch.targets, batch.segments, batch.real)
    return TextBatch(*(None if field is None else field.to(model.device) for field in fields))  # type: ignore[arg-type]


def _split(batch: TextBatch) -> Iterator[TextBatch]:
    size = max(1, TOKENS_PER_FORWARD // batch.tokens.shape[1])
    for first in range(0, len(batch.tokens), size):
        fields = (batch.tokens, batch.targets, batch.segments, batch.real)
        part = (None if field is None else field[first : first + size] for field in fields)
        yield TextBatch(*part)  # type: ignore[arg-type]
