"""The model card of a run (README.md in its folder), and a model's architecture in words."""

import dataclasses
import html
import re
import unicodedata
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workbench.errors import WorkbenchError
from workbench.io import read_json, write_text
from workbench.model.config import ModelConfig
from workbench.runs import folder
from workbench.runs.checkpoint import checkpoint_folder, checkpoint_steps, read_state
from workbench.runs.run import latest_blimp, overall_accuracy, pairs_name

_MARKUP = re.compile(r"([\\`*{}\[\]()#!|~]|(?<!\w)_|_(?!\w))")


def write_card(run: Path) -> Path:
    """Write README.md of a run folder: figures, data, architecture, training, how to load.

    Names and values are escaped, so that none of them becomes markup.
    """
    run = Path(run)
    file = run / "README.md"
    write_text(file, card_text(run))
    return file


def card_text(
    run: Path, opened_as: str | None = None, sections: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return the text of the model card.

    Args:
        run: the run folder.
        opened_as: argument of `wb.load` in the example; the folder if not set.
        sections: further sections after the figures, heading -> Markdown.

    Raises:
        WorkbenchError: config.yaml is missing or damaged.
    """
    config = folder.read_config(run)
    model = ModelConfig.from_dict(config["model"])
    kind = "masked (bidirectional)" if model.objective == "mlm" else "causal"
    state = _last_state(run)
    name = Path(run).absolute().name
    origin = _data_card(run).get("imported_from")
    trained = f"trained by the interpretability workbench on {_plain(_data_name(run))}"
    if origin is not None:
        imported = f"imported from {_plain(origin)}"
        trained = imported if "imported_from" in state else f"{imported} and {trained}"
    parts = [
        f"# {_plain(name)}",
        f"A {kind} transformer with {model.n_params:,} parameters, {trained}. Step {state.get('step', 0):,}.",
    ]
    parts += [f"**Warning.** {_plain(flag)}" for flag in state.get("flags", ())]
    parts += ["## Figures", table(_figures(run, state))]
    parts += [part for heading, text in sections.items() for part in (f"## {heading}", text)]
    parts += ["## Data", table(_flat(_data_card(run)))]
    parts += [
        "## Model",
        _plain(in_words(model)),
        table(config["model"]),
        "## Training",
        table(_flat(config["train"])),
    ]
    if any((Path(run) / "wandb").glob("offline-run-*")):
        parts += [
            "## Weights & Biases",
            "The folder `wandb` holds an offline copy of the metrics. `wandb sync wandb`, called in this "
            "folder, uploads it as one run, however often training was interrupted.",
        ]
    quoted = ascii(opened_as or str(run))
    parts += [
        "## How to open it",
        "```python\nimport workbench as wb\n\n"
        f"run = wb.load({quoted})\n"
        'logits, cache = run.model.run_with_cache("Once upon a time")\n```',
    ]
    return "\n\n".join(parts) + "\n"


def duration(seconds: float) -> str:
    """Format a duration: `37 s`, `12.5 min`, `3.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _figures(run: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    all_rows = folder.read_rows(Path(run) / folder.METRICS)
    rows = [row for row in all_rows if row.get("kind") == "eval"]
    latest = rows[-1] if rows else {}
    best = [row for row in all_rows if row.get("kind") == "best"][-1:]
    figures: dict[str, Any] = {
        "validation loss, nats/token": _rounded(latest.get("loss")),
        "perplexity": _rounded(latest.get("perplexity")),
        "bits/byte": _rounded(latest.get("bits_per_byte")),
        "next-token accuracy" if latest.get("bits_per_byte") else "accuracy": _rounded(
            latest.get("accuracy")
        ),
        "tokens scored": latest.get("tokens"),
        "best evaluation (@best)": f"step {best[0]['step']:,}, loss {best[0]['loss']:.4g}" if best else None,
        "tokens seen in training": state.get("tokens_seen"),
        "training time": duration(seconds) if (seconds := state.get("seconds_trained")) else None,
    }
    scores = latest_blimp(run)
    accuracy = overall_accuracy(scores)
    if scores is not None and accuracy is not None:
        figures[f"minimal-pair accuracy ({pairs_name(scores) or 'unnamed'})"] = _rounded(accuracy)
    return {name: value for name, value in figures.items() if value is not None}


def _last_state(run: Path) -> dict[str, Any]:
    for step in reversed(checkpoint_steps(run)):
        try:
            return read_state(checkpoint_folder(run, step))
        except WorkbenchError:
            continue
    return {}


def _data_card(run: Path) -> dict[str, Any]:
    try:
        card = read_json(Path(run) / folder.DATA_CARD)
    except WorkbenchError:
        return {}
    return card if isinstance(card, dict) else {}


def _data_name(run: Path) -> str:
    card = _data_card(run)
    return str(card.get("name") or card.get("source") or "unknown data")


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def table(values: Mapping[str, Any]) -> str:
    """Format names and values as an escaped Markdown table, omitting None and empty lists."""
    shown = {key: value for key, value in values.items() if value is not None and value != []}
    if not shown:
        return "Nothing was recorded."
    lines = [f"| {_plain(key)} | {_plain(_number(value))} |" for key, value in shown.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _plain(text: object) -> str:
    """Escape text for Markdown and HTML, on one line, without control characters."""
    line = " ".join(str(text).split())
    line = "".join(character for character in line if unicodedata.category(character)[0] != "C")
    return html.escape(_MARKUP.sub(r"\\\1", line[:500]), quote=False)


# Architectures in words: the main figures, and every field that differs from its default.

LONGEST_LIST = 12
"""Maximum number of block runs or windows that are spelled out."""


def in_words(config: ModelConfig) -> str:
    """Describe an architecture in two sentences: `figures` and `peculiarities`."""
    parts = filter(None, (figures(config), "; ".join(peculiarities(config))))
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


def figures(config: ModelConfig) -> str:
    """Return objective, parameter count and sizes in one line."""
    parts = [_count(config.n_layers, "layer"), f"d_model {config.d_model}"]
    if any("a" in kind for kind in config.blocks):
        parts.append(f"{_count(config.n_heads, 'head')} of {config.d_head}")
    if any("m" in kind for kind in config.blocks):
        parts.append(f"d_mlp {config.d_mlp}")
    positions = "no" if config.positions == "none" else config.positions
    parts += [f"{positions} positions", f"vocabulary {config.d_vocab:,}", f"context {config.n_ctx:,}"]
    kind = "masked" if config.objective == "mlm" else "causal"
    return f"{kind}, {config.n_params:,} parameters: {', '.join(parts)}"


def peculiarities(config: ModelConfig) -> list[str]:
    """Return a phrase for each field that `figures` omits and that differs from its default."""
    changed = [name for name in _WORDS if getattr(config, name) != _default(config, name)]
    return [_WORDS[name](config) for name in changed]


def _default(config: ModelConfig, name: str) -> Any:
    follows = {"n_key_value_heads": "n_heads", "d_value": "d_head"}
    if name in follows:
        return getattr(config, follows[name])
    return next(field.default for field in dataclasses.fields(ModelConfig) if field.name == name)


def _count(number: int | None, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(words: list[str]) -> str:
    return ", ".join(words if len(words) <= LONGEST_LIST else [*words[:LONGEST_LIST], "..."])


def _layout(config: ModelConfig) -> str:
    runs = [(kind, len(list(same))) for kind, same in groupby(config.blocks)]
    shown = _listed([kind if count == 1 else f"{count} × {kind}" for kind, count in runs])
    parallel = ", (am) parallel" if "(am)" in config.blocks else ""
    return f"blocks {shown} (a attention, m MLP{parallel})"


def _windows(config: ModelConfig) -> str:
    sizes = _listed(["all" if window == 0 else f"{window:,}" for window in config.windows])
    return f"attention window{'s in turn:' if len(config.windows) > 1 else ''} {sizes}"


_SHARED = {"all": "all", "attention": "their attention", "mlp": "their MLP"}

_WORDS: dict[str, Callable[[ModelConfig], str]] = {
    "layout": _layout,
    "sharing": lambda c: f"layers share {_SHARED.get(c.sharing)} weights",
    "residual": lambda c: "residual stream with learned weights over earlier layers",
    "n_key_value_heads": lambda c: f"keys and values of {_count(c.n_key_value_heads, 'head')}",
    "d_value": lambda c: f"values of width {c.d_value}",
    "windows": _windows,
    "attention_scale": lambda c: f"attention scores divided by {c.attention_scale:g}",
    "qkv_bias": lambda c: "no biases on queries, keys and values",
    "out_bias": lambda c: "no bias on the attention output",
    "position_offset": lambda c: f"{_count(c.position_offset, 'unused position vector')} in front",
    "rotary_base": lambda c: f"rotary base {c.rotary_base:,g}",
    "rotary_adjacent": lambda c: "adjacent dimensions rotated together",
    "relative_buckets": lambda c: f"{c.relative_buckets} relative-position buckets",
    "relative_distance": lambda c: f"distances capped at {_count(c.relative_distance, 'token')}",
    "norm": lambda c: "no norms" if c.norm == "none" else c.norm,
    "norm_place": lambda c: "post-norm" if c.norm_place == "post" else "NormFormer norms",
    "eps": lambda c: f"norm eps {c.eps:g}",
    "activation": lambda c: f"activation {c.activation}",
    "gated": lambda c: "gated MLPs",
    "mlp_depth": lambda c: f"{c.mlp_depth} hidden layers in each MLP",
    "mlp_bias": lambda c: "no biases in the MLPs",
    "tied": lambda c: "untied unembedding",
    "d_embed": lambda c: f"factorised embedding of width {c.d_embed}",
    "token_types": lambda c: _count(c.token_types, "token type"),
    "embed_norm": lambda c: "normalised embedding",
    "mlm_head": lambda c: "masked-model head before the unembedding",
    "unembed_bias": lambda c: "bias on the logits",
    "dropout": lambda c: f"dropout {c.dropout:g}",
    "init_std": lambda c: f"initial weights of standard deviation {c.init_std:g}",
    "depth_scaled_init": lambda c: "initial weights not scaled by depth",
    "seed": lambda c: f"initial weights from seed {c.seed}",
}  # fmt: skip
"""Field -> what a value that is not the default is called."""
