"""Scoring of every architecture: one tree of prefixes is one row at a time, and no logit is forgotten."""

import numpy as np
import pytest
import torch
from small_models import VARIANTS, build, configuration, marked

from workbench.evals import scoring as causal
from workbench.evals.protocols import ragged
from workbench.evals.scoring import MaskedRows, causal_log_probs, masked_log_probs

MASK = 3
EXACT = dict(rtol=0, atol=1e-10)  # float64: sums of 20 log-probabilities, each of 60 logits of order 10


def rows_of(config, count):
    """Rows with shared beginnings of every length, up to the whole context, where tokens repeat."""
    random = np.random.default_rng(0)
    longest = random.integers(4, config.d_vocab, config.n_ctx + 1)
    rows = [longest.tolist()]
    for _ in range(count):
        kept = int(random.integers(1, len(longest) - 1))
        added = int(random.integers(1, len(longest) - kept + 1))
        rows.append([*longest[:kept].tolist(), *random.integers(4, config.d_vocab, added).tolist()])
    return rows


CAUSAL = [name for name, fields in VARIANTS.items() if configuration(**fields).objective == "clm"]
BIDIRECTIONAL = [
    name for name in VARIANTS
    if (name.startswith("bert-like / ") and name not in CAUSAL) or name in ("albert-like", "elc-like")
]  # fmt: skip


@pytest.mark.parametrize("name", marked(CAUSAL))
@torch.no_grad()
def test_a_tree_is_one_row_at_a_time(name, monkeypatch):
    """Blocks smaller than a row, so that windows and distances reach across their borders."""
    monkeypatch.setattr(causal, "BLOCK", 10)
    monkeypatch.setattr(causal, "SLACK", 2)
    model = build(**VARIANTS[name])
    rows = rows_of(model.config, 8)
    wanted = []
    for row in rows:
        tokens = torch.tensor([row])
        log_probs = model(tokens[:, :-1]).log_softmax(-1)[0]
        wanted.append(float(log_probs.gather(1, tokens[0, 1:, None]).sum()))
    np.testing.assert_allclose(causal_log_probs(model, ragged(rows)), wanted, **EXACT)


@pytest.mark.parametrize("name", marked(BIDIRECTIONAL))
@torch.no_grad()
def test_masked_rows_are_one_token_at_a_time(name):
    model = build(**VARIANTS[name])
    rows = [row[: model.config.n_ctx] for row in rows_of(model.config, 2)]
    wanted = []
    for row in rows:
        places = torch.arange(1, len(row))
        copies = torch.tensor([row] * len(places))
        copies[places - 1, places] = MASK
        log_probs = model(copies)[places - 1, places].log_softmax(-1)
        wanted.append(float(log_probs[places - 1, torch.tensor(row[1:])].sum()))
    targets = ragged([[0, *[1] * (len(row) - 1)] for row in rows]).ids == 1
    words = ragged([list(range(len(row))) for row in rows]).ids
    found = masked_log_probs(model, MaskedRows(ragged(rows), targets, words), MASK, "original")
    np.testing.assert_allclose(found, wanted, **EXACT)
