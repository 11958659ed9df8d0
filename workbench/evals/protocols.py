"""How a sentence becomes a score: named protocols, ours and other people's.

The leading space, the token in front and the rule for ties are what moves a BLiMP score by
several points between tools, so each combination has a name and is told with every result.
"""

import dataclasses
from typing import Any, Literal

from workbench.errors import InputError, nearest

Specials = Literal["bos", "eos", "default"]
Reduction = Literal["sum", "mean"]
PLL_METRICS = ("original", "within_word_l2r")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to score a sentence with a language model."""

    name: str
    origin: str
    """Where the protocol comes from."""
    space: bool
    """A space goes in front of the sentence, as a continuation has it."""
    causal: Specials
    """What precedes the sentence for a causal model: `bos` (BOS, else EOS) or `eos`, neither of them
    scored; `default`: the tokenizer's own special tokens, and the first token is not scored."""
    causal_reduction: Reduction = "sum"
    """Log-probabilities of the tokens are summed, or averaged."""
    masked: Specials | None = None
    """What surrounds the sentence for a masked model: `bos` for <bos> ... <eos> (else CLS and SEP) as
    in training, `default` for the tokenizer's own special tokens; None if masked models are refused."""
    masked_reduction: Reduction = "sum"
    tie: float
    """What a pair with two equal scores counts: 1 right, 0 wrong, 0.5 half."""

    def reduction(self, objective: str) -> Reduction:
        """How token scores become a sentence score, for a model with this objective (clm or mlm)."""
        return self.masked_reduction if objective == "mlm" else self.causal_reduction


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="native",
            origin="the workbench: the sentence as the model met sentences in training",
            space=False, causal="bos", masked="bos", tie=0.5,
        ),
        Protocol(
            name="lm-eval",
            origin="EleutherAI lm-evaluation-harness 0.4",
            space=True, causal="bos", tie=1.0,
        ),
        Protocol(
            name="paper",
            origin="Warstadt et al. 2020, BLiMP",
            space=False, causal="bos", tie=0.0,
        ),
        Protocol(
            name="minicons",
            origin="minicons 0.3.39 (Misra 2022), its default reduction",
            space=False, causal="default", causal_reduction="mean",
            masked="default", masked_reduction="mean", tie=0.0,
        ),
        Protocol(
            name="babylm-2023",
            origin="BabyLM evaluation pipeline of 2023",
            space=True, causal="eos", masked="default", tie=1.0,
        ),
        Protocol(
            name="babylm-2024",
            origin="BabyLM evaluation pipeline of 2024",
            space=True, causal="bos", masked="default", masked_reduction="mean", tie=1.0,
        ),
        Protocol(
            name="babylm-2025",
            origin="BabyLM evaluation pipeline of 2025",
            space=False, causal="default", masked="default", tie=1.0,
        ),
    )
}  # fmt: skip
"""All protocols by name. One more is one more entry."""


def find_protocol(name: str, objective: str = "clm", pll: str = "original") -> Protocol:
    """The protocol called `name`, checked against what the model can do.

    Args:
        name: a key of `PROTOCOLS`.
        objective: `clm` or `mlm`, the model's.
        pll: for a masked model, `original` (Salazar et al. 2020: each token masked in turn) or
            `within_word_l2r` (Kauf & Ivanova 2023: the later tokens of its word masked with it).

    Raises:
        InputError: no such protocol or `pll` (with the nearest one), or a protocol that is not
            defined for masked models.
    """
    if name not in PROTOCOLS:
        raise InputError(f"no scoring protocol is called {name!r}. {nearest(name, PROTOCOLS)}")
    if pll not in PLL_METRICS:
        raise InputError(f"no pseudo-log-likelihood is called {pll!r}. {nearest(pll, PLL_METRICS)}")
    protocol = PROTOCOLS[name]
    if objective == "mlm" and protocol.masked is None:
        able = ", ".join(key for key, other in PROTOCOLS.items() if other.masked is not None)
        raise InputError(
            f"protocol {name!r} is not defined for masked models, and this model is one; choose from: {able}."
        )
    return protocol


def describe(protocol: Protocol) -> dict[str, Any]:
    """The protocol's fields as plain values, to save beside a result."""
    return dataclasses.asdict(protocol)
