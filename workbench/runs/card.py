"""The model card: what a run is, from what is on its disk."""

import html
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workbench.errors import WorkbenchError
from workbench.io import read_json, write_text
from workbench.model.config import ModelConfig
from workbench.runs import folder
from workbench.runs.checkpoint import checkpoint_folder, checkpoint_steps, read_state
from workbench.runs.folder import in_words
from workbench.runs.run import latest_blimp, overall_accuracy, pairs_name

_MARKUP = re.compile(r"([\\`*{}\[\]()#!|~]|(?<!\w)_|_(?!\w))")


def write_card(run: Path) -> Path:
    """Write README.md of a run folder: figures, data, shape, training, how to load.

    Names and values are escaped, so that none of them becomes markup.
    """
    run = Path(run)
    file = run / "README.md"
    write_text(file, card_text(run))
    return file


def card_text(
    run: Path, opened_as: str | None = None, sections: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The text of the model card.

    Args:
        run: the run folder.
        opened_as: what `wb.load` is told to open; the folder if not set.
        sections: heading -> Markdown of further sections, after the figures.

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
            "An offline copy of the numbers lies in the folder `wandb` here. `wandb sync wandb`, called in "
            "this folder, uploads it as one run, however often the training was interrupted.",
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
    """A time in the unit that suits it: `37 s`, `12.5 min`, `3.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _figures(run: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    all_rows = folder.read_rows(Path(run) / folder.METRICS)
    rows = [row for row in all_rows if row.get("kind") == "eval"]
    latest = rows[-1] if rows else {}
    best = [row for row in all_rows if row.get("kind") == "best"][-1:]
    figures: dict[str, Any] = {
        "validation loss, nats a token": _rounded(latest.get("loss")),
        "perplexity": _rounded(latest.get("perplexity")),
        "bits a byte": _rounded(latest.get("bits_per_byte")),
        "next-token accuracy" if latest.get("bits_per_byte") else "accuracy": _rounded(
            latest.get("accuracy")
        ),
        "tokens scored": latest.get("tokens"),
        "best evaluation on the way (@best)": f"step {best[0]['step']:,}, loss {best[0]['loss']:.4g}"
        if best
        else None,
        "tokens seen in training": state.get("tokens_seen"),
        "time of training": duration(seconds) if (seconds := state.get("seconds_trained")) else None,
    }
    scores = latest_blimp(run)
    accuracy = overall_accuracy(scores)
    if scores is not None and accuracy is not None:
        figures[f"minimal pairs decided rightly ({pairs_name(scores) or 'unnamed'})"] = _rounded(accuracy)
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
    """Names and values as a Markdown table, escaped; what is None or an empty list is left out."""
    shown = {key: value for key, value in values.items() if value is not None and value != []}
    if not shown:
        return "Nothing was recorded."
    lines = [f"| {_plain(key)} | {_plain(_number(value))} |" for key, value in shown.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _plain(text: object) -> str:
    """Text that Markdown and HTML show as it is, on one line, without control characters."""
    line = " ".join(str(text).split())
    line = "".join(character for character in line if unicodedata.category(character)[0] != "C")
    return html.escape(_MARKUP.sub(r"\\\1", line[:500]), quote=False)
