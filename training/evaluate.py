"""How good the model is on text that it has not seen: loss, bits a byte, perplexity, accuracy, a sample."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.distributed import Alone

IGNORE = -100


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Means over the scored tokens of the validation split."""

    loss: float
    """Cross-entropy in nats a token."""
    perplexity: float
    accuracy: float
    """Share of tokens that are the model's first choice."""
    bits_per_byte: float | None
    """Bits of the text's tokens (not of BOS and EOS) over the UTF-8 bytes of the text; comparable between
    tokenizers (Gao et al. 2020, The Pile). None for a masked model, which gives no text a probability, and
    for batches without `target_bytes`."""
    tokens: int
    """Tokens scored."""


@torch.no_grad()
def evaluate(
    model: Any,
    batches: Iterable[Any],
    stop: Callable[[], bool] = lambda: False,
    tick: Callable[[int], None] = lambda tokens: None,
    group: Alone | None = None,
) -> Evaluation | None:
    """Score all batches.

    Args:
        model: a `HookedTransformer`; left in the mode it was in.
        batches: each with tokens and targets, [batch pos]; see `workbench.data.batches.eval_batches`.
        stop: asked before each batch; True abandons the evaluation.
        tick: told after each batch how many positions it has read so far.
        group: processes that take the batches in turn and add up what they find; all of them call this.

    Returns:
        The means, or None if it was abandoned or nothing was scored.
    """
    was_training = model.training
    group = group or Alone()
    model.eval()
    nats = text_nats = 0.0
    right = scored = text_bytes = read = 0
    try:
        for index, batch in enumerate(batches):
            turn = index % group.world
            if turn == 0 and stop():
                return None
            if turn != group.rank:
                continue
            losses, hits, targets = _score(model, batch.to(model.device))
            nats += float(losses.sum(dtype=torch.float64))
            if batch.target_bytes is not None:
                sizes = batch.target_bytes[batch.targets != IGNORE].to(losses.device)
                text_nats += float(losses[sizes >= 0].sum(dtype=torch.float64))
                text_bytes += int(sizes.clamp(min=0).sum())
            right += int(hits.sum())
            scored += len(targets)
            read += batch.tokens.numel() * group.world
            tick(read)
    finally:
        model.train(was_training)
    nats, text_nats, *counts = group.sum(nats, text_nats, right, scored, text_bytes)
    right, scored, text_bytes = (int(count) for count in counts)
    if not scored:
        return None
    loss = nats / scored
    masked = model.config.objective == "mlm"
    return Evaluation(
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        accuracy=right / scored,
        bits_per_byte=None if masked or not text_bytes else text_nats / math.log(2) / text_bytes,
        tokens=scored,
    )


def _score(model: Any, batch: Any) -> tuple[Float[Tensor, " scored"], Tensor, Int[Tensor, " scored"]]:
    """Loss, hit and target of each scored token."""
    wanted = batch.targets != IGNORE
    residual = model.residual(batch.tokens, segments=batch.segments)[wanted]
    targets = batch.targets[wanted]
    losses, hits = [], []
    for part, part_targets in zip(residual.split(1024), targets.split(1024), strict=True):
        logits = model.unembed(part).float()
        losses.append(torch.nn.functional.cross_entropy(logits, part_targets, reduction="none"))
        hits.append(logits.argmax(-1) == part_targets)
    if not losses:
        return targets.new_zeros(0).float(), targets.new_zeros(0).bool(), targets
    return torch.cat(losses), torch.cat(hits), targets


@torch.no_grad()
def sample(model: Any, tokenizer: Any, batch: Any, prompt: str, n_tokens: int, seed: int) -> dict[str, str]:
    """A piece of the model's own text: a continuation of `prompt`, or, for a masked model, a stretch of
    `batch` with its masked tokens filled in.

    Returns:
        `prompt` and `text`, for a row of metrics.jsonl.
    """
    was_training = model.training
    model.eval()
    try:
        if model.config.objective == "clm":
            room = max(1, min(n_tokens, model.config.n_ctx - 1))
            text = model.generate(prompt, max_new_tokens=room, temperature=0.8, seed=seed)
            return {"prompt": prompt, "text": text}
        batch = batch.to(model.device)
        row, wanted = batch.tokens[:1, :n_tokens].clone(), batch.targets[:1, :n_tokens] != IGNORE
        segments = None if batch.segments is None else batch.segments[:1, :n_tokens]
        masked = tokenizer.decode(row[0].tolist())
        choices = model.unembed(model.residual(row, segments=segments)).argmax(-1)
        return {"prompt": masked, "text": tokenizer.decode(torch.where(wanted, choices, row)[0].tolist())}
    finally:
        model.train(was_training)
