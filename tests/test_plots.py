"""Every result with a `plot` returns a matplotlib figure that can be drawn, also into axes that it is given.

What single plots show is tested next to their results.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import training
import workbench as wb
from training.tune.noise_scale import noise_scale
from training.tune.range_test import judge
from training.tune.tuning import Tuning
from workbench.console import show
from workbench.interp.head_circuits import ov_circuit, top_pairs
from workbench.interp.head_kinds import head_kinds
from workbench.interp.lens import lens_loss
from workbench.result import Result
from workbench.scaling.study import check_predictions, scaling_study

sys.path.append(str(Path(__file__).parent / "goldens"))
import test_frames as goldens

pytestmark = pytest.mark.usefixtures("unchecked")
matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("matplotlib.pyplot")


def predictions() -> Any:
    with goldens.some_runs() as root:
        return check_predictions(root)


def comparison() -> Any:
    with goldens.some_runs() as root:
        found = wb.compare(root, speed=False)
        return found if len(found.rows) else None


def study() -> Any:
    with goldens.some_runs() as root:
        return scaling_study(root, bootstraps=20)


def tuning(part: str = "") -> Any:
    test = judge(np.geomspace(1e-4, 1, 20).tolist(), [*np.linspace(5, 3, 15), *np.linspace(3, 6, 5)])
    signal, noise = np.random.default_rng(0).normal([[1.0], [8.0]], 0.1, (2, 40))
    scale = noise_scale((signal + noise / 2).tolist(), (signal + noise / 8).tolist(), 2, 8, bootstraps=20)
    whole: Any = SimpleNamespace(range_test=test, noise=scale)
    return getattr(whole, part) if part else Tuning(whole, test, scale, whole, "cpu", 0)


CASES = {
    **{
        name: (lambda run, name=name: goldens.CASES[name](run))
        for name in (
            "patch", "patch-heads", "path_patch", "path_patch-queries", "edge_attribution", "check_attribution",
            "attribute_logits", "attribute_pair", "attribute_text", "logit_lens", "lens_curve", "ablation_effect",
            "head_importance", "prune_heads", "component_matrix-direct", "smallest_circuit", "head_scores",
            "composition", "attribute_neurons-gradient", "neuron_examples", "label_neurons", "neuron_survey",
            "neuron_card", "blimp",
        )
    },
    **{
        name: (lambda run, name=name: goldens.WITHOUT_MODEL[name]())
        for name in (
            "fit_parametric", "fit_power-n", "fit_power-d", "fit_isoflop", "fit_envelope", "fit_critical_batch",
            "fit_grammar-linear", "layer_weights",
        )
    },
    "knowledge_neurons": lambda run: goldens.knowledge(run)["neurons"],
    "component_history": lambda run: goldens.history()["components"],
    "component_family": lambda run: goldens.family()["components"],
    "head_kinds": lambda run: head_kinds(run.model, goldens.rows(run)),
    "top_pairs": lambda run: top_pairs(ov_circuit(run.model, (1, 0)), 8, tokenizer=run.tokenizer),
    "lens_loss": lambda run: lens_loss(run.model, goldens.text(2)),
    "check_predictions": lambda run: predictions(),
    "compare": lambda run: comparison(),
    "scaling": lambda run: study(),
    "tune": lambda run: tuning(),
    "range_test": lambda run: tuning("range_test"),
    "noise_scale": lambda run: tuning("noise"),
}  # fmt: skip
DELEGATES = {"Study", "Summary"}
"""They draw one of their parts."""


@pytest.fixture(autouse=True)
def one_backend():
    matplotlib.use("Agg")
    yield
    matplotlib.pyplot.close("all")


drawn: set[str] = set()


@pytest.mark.parametrize(
    "case", [case for case in CASES if case not in ("range_test", "noise_scale", "tune")]
)
def test_a_summary_is_short_and_says_something(case, capsys):
    result = CASES[case](goldens.opened("tiny-1h"))
    show(result.summary(rows=3))
    lines = capsys.readouterr().out.splitlines()
    assert 1 < len(lines) < 80
    assert max(map(len, lines)) < 600


@pytest.mark.parametrize("case", CASES)
def test_plot_returns_a_figure(case):
    result = CASES[case](goldens.opened("tiny-1h"))
    drawn.add(type(result).__name__)
    figure = result.plot()
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.canvas.draw()
    panels = [
        ax
        for ax in figure.axes
        if ax.get_label() != "<colorbar>" and ax.yaxis.get_label_position() == "left"  # no second y axis
    ]
    assert all(ax.has_data() or ax.texts for ax in panels)
    if "ax" in inspect.signature(result.plot).parameters and case != "head_scores":
        several = matplotlib.pyplot.figure(figsize=(12, 4))
        axes = list(several.subplots(1, len(panels), squeeze=False).flat)
        count = len(axes)
        try:
            assert result.plot(ax=axes[0] if count == 1 else axes) is several
        finally:
            matplotlib.pyplot.close(several)


def test_every_result_class_has_a_case():
    """Runs after the cases, whose results it collects."""
    plotted = set()
    for package in (wb, training):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for name, part in vars(importlib.import_module(module.name)).items():
                own = inspect.isclass(part) and part.__module__ == module.name and part is not Result
                if own and dataclasses.is_dataclass(part) and inspect.isfunction(vars(part).get("plot")):
                    plotted.add(name)
    if len(drawn) < len(CASES) // 2:
        pytest.skip("only some cases were run")
    assert plotted - DELEGATES == drawn
