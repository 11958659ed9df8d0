"""Classification of whole texts, for fine-tuning."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from workbench.errors import ConfigError, InputError
from workbench.model.layers import normed
from workbench.model.transformer import HookedTransformer
from workbench.stats import derive


class SequenceClassifier(nn.Module):
    """A linear head on the normalised residual stream at one token: the last (Radford et al. 2018, GPT) or,
    in a bidirectional model, the first (Devlin et al. 2019, BERT).

    The model is a part of this module, trains with it and keeps its hook points. A masked model's
    `mlm_head` is not used.

    Args:
        model: the transformer; it is not copied.
        n_classes: number of classes.
        token: `last` or `first`; the last token is the one before the padding.
        dropout: dropout probability of the head's input.
        seed: seed of the head's initial weights.

    Raises:
        ConfigError: fewer than two classes, unknown `token`, or the first token of a causal model.
    """

    def __init__(
        self,
        model: HookedTransformer,
        n_classes: int,
        *,
        token: str = "last",
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if isinstance(n_classes, bool) or not isinstance(n_classes, int) or n_classes < 2:
            raise ConfigError(f"n_classes must be a whole number of at least 2; found {n_classes!r}.")
        if token not in ("last", "first"):
            raise ConfigError(f"token must be last or first; found {token!r}.")
        if token == "first" and model.config.attention == "causal":
            raise ConfigError(
                "token = 'first' needs model.attention = bidirectional: a causal model's first token has "
                "seen nothing of the text; use token = 'last'."
            )
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"dropout must lie in [0, 1); found {dropout!r}.")
        self.model, self.n_classes, self.token, self.dropout = model, n_classes, token, dropout
        self.head = nn.Linear(model.config.d_model, n_classes, device=model.device, dtype=model.dtype)
        random = torch.Generator().manual_seed(derive(seed, "classifier"))
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(self.head.weight.shape, generator=random))
            self.head.weight.mul_(model.config.init_std)
            self.head.bias.zero_()

    def vector(
        self,
        tokens: Int[Tensor, "batch pos"],
        attention_mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch d_model"]:
        """Return the input of the head: the residual stream after the final norm at the chosen token.

        Raises:
            InputError: as `forward`.
        """
        if attention_mask is not None:
            if attention_mask.shape != tokens.shape:
                raise InputError(
                    f"attention_mask has the shape {list(attention_mask.shape)}, tokens have "
                    f"{list(tokens.shape)}; give one number a token."
                )
            empty = (~attention_mask.bool().any(1)).nonzero().flatten()
            if len(empty):
                raise InputError(f"row {int(empty[0])} has no token, only padding; leave it out.")
        tokens, attention_mask = self.model.to_input(tokens, None, attention_mask)
        x = normed(self.model.ln_final, self.model.stream(tokens, attention_mask=attention_mask))
        rows = torch.arange(len(tokens), device=self.model.device)
        if self.token == "first":
            positions = torch.zeros_like(rows)
        elif attention_mask is None:
            positions = torch.full_like(rows, tokens.shape[1] - 1)
        else:
            positions = attention_mask.to(rows.device).bool().sum(1) - 1
        return x[rows, positions]

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"],
        attention_mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
        labels: Shaped[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch n_classes"] | Float[Tensor, ""]:
        """Return the logits of the classes or, with labels, the mean cross-entropy in nats.

        Args:
            tokens: ids, padded on the right.
            attention_mask: 1 at tokens, 0 at padding, [batch pos]; default: no padding. It is never derived
                from the ids, because the padding token may also end a text (SEP or EOS).
            labels: the class of each row, 0 to n_classes - 1, [batch].

        Raises:
            InputError: ids outside the vocabulary, a row without tokens, padding on the left, or labels that
                are not classes.
        """
        if labels is not None:
            self._check_labels(labels, len(tokens))
        x = self.vector(tokens, attention_mask)
        if self.training and self.dropout:
            x = F.dropout(x, self.dropout)
        logits = self.head(x)
        if labels is None:
            return logits
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(wide, labels.to(wide.device).long())

    def _check_labels(self, labels: Tensor, rows: int) -> None:
        if labels.is_floating_point() or labels.dtype == torch.bool or labels.shape != (rows,):
            raise InputError(
                f"labels must be one whole number a row, [{rows}]; found {list(labels.shape)} of "
                f"{labels.dtype}."
            )
        low, high = labels.aminmax()
        if low < 0 or high >= self.n_classes:
            raise InputError(
                f"labels run from {int(low)} to {int(high)}; there are {self.n_classes} classes, from 0."
            )
