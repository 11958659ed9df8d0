"""A survey of all neurons of a model: the most active, the most selective and the most needed ones."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.console import OnProgress, make_table, stack
from workbench.data.tokenizer import token_texts
from workbench.errors import InputError
from workbench.interp.ablation import ablation_effect
from workbench.interp.neurons.attribution import estimated_effects
from workbench.interp.neurons.examples import NeuronExamples, neuron_examples
from workbench.interp.neurons.labels import NeuronLabels, label_neurons
from workbench.result import Result
from workbench.runs.run import ModelLike, open_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NeuronSurvey(Result):
    """Statistics, labels and ablation effects of all neurons of a model or of some blocks."""

    examples: NeuronExamples
    labels: NeuronLabels | None
    table: "pd.DataFrame"
    """See `to_frame`."""
    excerpts: tuple[str, ...]
    """The strongest passage of each neuron, in the order of `table`; the token itself in brackets."""

    axes = ("layer", "neuron")

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per neuron: `NeuronExamples.to_frame`; estimate (estimated change of the loss when
        the neuron is replaced by its mean, nats per token); of the `needed` neurons loss_change, loss_low and
        loss_high (the same, measured); with labels label, best, auc, low, high, precision, p and excess (see
        `NeuronLabels.to_frame`)."""
        return self.table

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the distribution of the neurons' activity and return the figure."""
        return self.examples.plot(ax)

    def summary(self, rows: int = 8) -> "RenderableType":
        """Return three tables: the most active, the most selective and the most needed neurons."""
        frame, found = self.table.assign(excerpt=self.excerpts), self.examples
        parts: list[RenderableType] = [
            f"{len(frame):,} neurons over {found.tokens:,} tokens of {found.n_rows:,} stories"
        ]
        sections = {"most active (by mean)": frame.nlargest(rows, columns="mean")}
        if self.labels is None:
            peak = (frame["max"] - frame["mean"]) / frame["std"].where(frame["std"] > 0)
            title = "most selective (largest activation in standard deviations above the mean)"
            sections[title] = frame.assign(peak=peak).nlargest(rows, columns="peak")
        else:
            passed = int(self.labels.passed.sum())
            parts.append(
                f"{passed:,} have a label that holds on held-out stories ({passed / len(frame):.0%}; "
                f"of an untrained copy's, {self.labels.alpha:.0%})"
            )
            labelled = frame.dropna(subset="label").nlargest(rows, columns="excess")
            if len(labelled):
                sections["most selective (sharpest label that holds)"] = labelled
        measured = frame.dropna(subset="loss_change").nlargest(rows, columns="estimate")
        needed = "most needed (of the largest estimates)"
        sections[needed] = measured.sort_values("loss_change", ascending=False)
        for title, section in sections.items():
            cells = [
                _cells(row, self.labels is not None, title == needed) for row in section.to_dict("records")
            ]
            header = list(cells[0])
            parts += [f"\n{title}", make_table(header, [list(row.values()) for row in cells], 3)]
        return stack(*parts)


def _cells(row: dict[str, Any], labelled: bool, measured: bool) -> dict[str, str]:
    """Return a row of a table by its headings."""
    cells = {"neuron": row["component"]}
    holds = labelled and isinstance(row["label"], str)
    if labelled:
        cells["label"] = row["label"] if holds else "–"
    cells |= {
        "strongest passage": row["excerpt"],
        "above 0": f"{100 * row['active']:.1f} %",
        "mean": f"{row['mean']:.3f}",
        "max": f"{row['max']:.2f}",
    }
    if labelled:
        cells["AUC"] = f"{row['auc']:.3f}" if holds else "–"
        cells["precision"] = f"{row['precision']:.2f}" if holds else "–"
    cells["estimate"] = f"{row['estimate']:+.5f}"
    if measured:
        cells["change"] = f"{row['loss_change']:+.5f}"
        cells["95 % interval"] = f"[{row['loss_low']:+.5f}, {row['loss_high']:+.5f}]"
    return cells


def neuron_survey(
    model: ModelLike,
    searched: Any = None,
    held_out: Sequence[str] | None = None,
    *,
    layers: Sequence[int] | None = None,
    tokens: int = 100_000,
    needed: int = 8,
    labels: bool = True,
    seed: int = 0,
    progress: bool | OnProgress | None = None,
) -> NeuronSurvey:
    """Survey all neurons: activations, strongest passages, labels, and what the loss needs.

    Args:
        model: a run, a `HookedTransformer` with its tokenizer, or the name of a run.
        searched: text for statistics and passages; see `neuron_examples`.
        held_out: stories for labels and losses; see `label_neurons`.
        layers: only these blocks.
        tokens: tokens of `searched` to read.
        needed: how many of the neurons with the largest estimates to ablate.
        labels: search for labels too, which takes the longest.
        seed: of samples, halves and masked tokens.
        progress: see `progress_bar`.

    Raises:
        InputError: the model has no tokenizer or no neurons, or as `label_neurons`.
    """
    _, _, tokenizer = open_model(model)
    if tokenizer is None:
        raise InputError("The model has no tokenizer, which a survey needs to show passages.")
    found = neuron_examples(model, searched, layers=layers, tokens=tokens, seed=seed, progress=progress)
    table = found.to_frame()
    table["estimate"] = estimated_effects(model, found.mean, held_out, layers=found.layers).ravel()
    labelled = None
    if labels:
        labelled = label_neurons(model, held_out, layers=found.layers, seed=seed, progress=progress)
        columns = ["component", "label", "best", "auc", "low", "high", "precision", "p", "excess"]
        table = table.merge(labelled.to_frame()[columns], on="component")
    leading = table.nlargest(needed, columns="estimate")["component"].tolist()
    effects = ablation_effect(
        model, leading, each=True, how="mean", text=held_out, reference=held_out, measure=("loss",),
        seed=seed, progress=progress,
    ).to_frame()  # fmt: skip
    columns = ["component", "loss_change", "loss_low", "loss_high"]
    table = table.merge(effects[columns], on="component", how="left")
    excerpts = tuple(_excerpt(tokenizer, found, name) for name in table["component"])
    return NeuronSurvey(found, labelled, table, excerpts)


def _excerpt(tokenizer: Any, found: NeuronExamples, name: str, before: int = 6, after: int = 2) -> str:
    """Return a few tokens around the strongest activation, which is in brackets."""
    at = found.part(name)
    row, pos = int(found.top_row[at][0]), int(found.top_pos[at][0])
    texts = token_texts(tokenizer, found.rows[row].tokens.tolist())
    token, start = texts[pos], max(0, pos - before)
    lead = " " if token[:1].isspace() else ""
    following = "".join(texts[pos + 1 : pos + 1 + after])
    return f"{''.join(texts[start:pos])}{lead}[{token.strip() or '⏎'}]{following}"
