"""A mechanistic interpretability workbench for small language models.

`import workbench as wb` is instant: names load their modules on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.data.embedded.pairs import embedded_pairs
    from workbench.data.embedded.stories import stories
    from workbench.errors import WorkbenchError
    from workbench.evals.blimp import blimp
    from workbench.evals.comparison import compare
    from workbench.evals.efficiency import inference
    from workbench.interp.ablation import ablated, ablation_effect, leave_one_out
    from workbench.interp.attribution import attribute_logits, attribute_pair, attribute_text, layer_weights
    from workbench.interp.circuit import smallest_circuit
    from workbench.interp.gradients import attribution_patch, check_attribution, edge_attribution
    from workbench.interp.heads import composition, head_scores, ov_circuit, qk_circuit
    from workbench.interp.importance import head_importance, prune_heads
    from workbench.interp.lens import lens_curve, load_tuned_lens, logit_lens, train_tuned_lens
    from workbench.interp.matrix import component_family, component_history, component_matrix
    from workbench.interp.neurons.attribution import attribute_neurons
    from workbench.interp.neurons.card import neuron_card
    from workbench.interp.neurons.examples import neuron_examples
    from workbench.interp.neurons.knowledge import knowledge_neurons
    from workbench.interp.neurons.labels import label_neurons
    from workbench.interp.neurons.tokens import promoted_tokens
    from workbench.interp.patching import patch
    from workbench.interp.paths import path_patch
    from workbench.interp.prompts import align
    from workbench.interp.study import study
    from workbench.model.classifier import SequenceClassifier
    from workbench.model.config import PRESETS, ModelConfig, preset
    from workbench.model.transformer import HookedTransformer
    from workbench.runs.run import list_runs, load
    from workbench.scaling.laws import fit_critical_batch, fit_grammar, fit_parametric, fit_power
    from workbench.scaling.optimum import best_for_flops, best_for_hours, fit_envelope, fit_isoflop
    from workbench.scaling.points import points_of_runs, points_of_table
    from workbench.scaling.study import check_predictions, scaling
    from workbench.zoo.table import zoo_table

__version__ = "0.1.0"

_HOMES = {
    "HookedTransformer": "workbench.model.transformer",
    "ModelConfig": "workbench.model.config",
    "PRESETS": "workbench.model.config",
    "SequenceClassifier": "workbench.model.classifier",
    "WorkbenchError": "workbench.errors",
    "ablated": "workbench.interp.ablation",
    "ablation_effect": "workbench.interp.ablation",
    "align": "workbench.interp.prompts",
    "attribute_logits": "workbench.interp.attribution",
    "attribute_neurons": "workbench.interp.neurons.attribution",
    "attribute_pair": "workbench.interp.attribution",
    "attribute_text": "workbench.interp.attribution",
    "attribution_patch": "workbench.interp.gradients",
    "best_for_flops": "workbench.scaling.optimum",
    "best_for_hours": "workbench.scaling.optimum",
    "blimp": "workbench.evals.blimp",
    "check_attribution": "workbench.interp.gradients",
    "compare": "workbench.evals.comparison",
    "check_predictions": "workbench.scaling.study",
    "component_family": "workbench.interp.matrix",
    "component_history": "workbench.interp.matrix",
    "component_matrix": "workbench.interp.matrix",
    "composition": "workbench.interp.heads",
    "edge_attribution": "workbench.interp.gradients",
    "embedded_pairs": "workbench.data.embedded.pairs",
    "fit_critical_batch": "workbench.scaling.laws",
    "fit_envelope": "workbench.scaling.optimum",
    "fit_grammar": "workbench.scaling.laws",
    "fit_isoflop": "workbench.scaling.optimum",
    "fit_parametric": "workbench.scaling.laws",
    "fit_power": "workbench.scaling.laws",
    "head_importance": "workbench.interp.importance",
    "head_scores": "workbench.interp.heads",
    "inference": "workbench.evals.efficiency",
    "knowledge_neurons": "workbench.interp.neurons.knowledge",
    "label_neurons": "workbench.interp.neurons.labels",
    "layer_weights": "workbench.interp.attribution",
    "leave_one_out": "workbench.interp.ablation",
    "lens_curve": "workbench.interp.lens",
    "list_runs": "workbench.runs.run",
    "load": "workbench.runs.run",
    "load_tuned_lens": "workbench.interp.lens",
    "logit_lens": "workbench.interp.lens",
    "neuron_card": "workbench.interp.neurons.card",
    "neuron_examples": "workbench.interp.neurons.examples",
    "ov_circuit": "workbench.interp.heads",
    "patch": "workbench.interp.patching",
    "path_patch": "workbench.interp.paths",
    "points_of_runs": "workbench.scaling.points",
    "points_of_table": "workbench.scaling.points",
    "preset": "workbench.model.config",
    "promoted_tokens": "workbench.interp.neurons.tokens",
    "prune_heads": "workbench.interp.importance",
    "qk_circuit": "workbench.interp.heads",
    "scaling": "workbench.scaling.study",
    "smallest_circuit": "workbench.interp.circuit",
    "stories": "workbench.data.embedded.stories",
    "study": "workbench.interp.study",
    "train_tuned_lens": "workbench.interp.lens",
    "zoo_table": "workbench.zoo.table",
}

__all__ = [
    "PRESETS",
    "HookedTransformer",
    "ModelConfig",
    "SequenceClassifier",
    "WorkbenchError",
    "ablated",
    "ablation_effect",
    "align",
    "attribute_logits",
    "attribute_neurons",
    "attribute_pair",
    "attribute_text",
    "attribution_patch",
    "best_for_flops",
    "best_for_hours",
    "blimp",
    "check_attribution",
    "check_predictions",
    "compare",
    "component_family",
    "component_history",
    "component_matrix",
    "composition",
    "edge_attribution",
    "embedded_pairs",
    "fit_critical_batch",
    "fit_envelope",
    "fit_grammar",
    "fit_isoflop",
    "fit_parametric",
    "fit_power",
    "head_importance",
    "head_scores",
    "inference",
    "knowledge_neurons",
    "label_neurons",
    "layer_weights",
    "leave_one_out",
    "lens_curve",
    "list_runs",
    "load",
    "load_tuned_lens",
    "logit_lens",
    "neuron_card",
    "neuron_examples",
    "ov_circuit",
    "patch",
    "path_patch",
    "points_of_runs",
    "points_of_table",
    "preset",
    "promoted_tokens",
    "prune_heads",
    "qk_circuit",
    "scaling",
    "smallest_circuit",
    "stories",
    "study",
    "train_tuned_lens",
    "zoo_table",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
