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
    from workbench.evals.comparison.compare import compare
    from workbench.evals.efficiency.inference import inference
    from workbench.evals.scaling.collect import points_of_runs
    from workbench.evals.scaling.critical_batch import fit_critical_batch
    from workbench.evals.scaling.envelope import fit_envelope
    from workbench.evals.scaling.grammar import fit_grammar
    from workbench.evals.scaling.isoflop import fit_isoflop
    from workbench.evals.scaling.optimum import best_for_flops, best_for_hours
    from workbench.evals.scaling.parametric import fit_parametric
    from workbench.evals.scaling.power import fit_power
    from workbench.evals.scaling.predictions import check_predictions
    from workbench.evals.scaling.study import scaling
    from workbench.evals.scaling.table import points_of_table
    from workbench.interp.ablation.ablate import ablated
    from workbench.interp.ablation.effect import ablation_effect, leave_one_out
    from workbench.interp.ablation.importance import head_importance
    from workbench.interp.ablation.pruning import prune_heads
    from workbench.interp.components.family import component_family
    from workbench.interp.components.history import component_history
    from workbench.interp.components.matrix import component_matrix
    from workbench.interp.components.smallest import smallest_circuit
    from workbench.interp.direct.layer_weights import layer_weights
    from workbench.interp.direct.lens import logit_lens
    from workbench.interp.direct.lens_curve import lens_curve
    from workbench.interp.direct.logits import attribute_logits
    from workbench.interp.direct.pair import attribute_pair, attribute_text
    from workbench.interp.direct.tuned_lens import load_tuned_lens, train_tuned_lens
    from workbench.interp.heads.circuits import ov_circuit, qk_circuit
    from workbench.interp.heads.composition import composition
    from workbench.interp.heads.scores import head_scores
    from workbench.interp.neurons.attribution import attribute_neurons
    from workbench.interp.neurons.card import neuron_card
    from workbench.interp.neurons.examples import neuron_examples
    from workbench.interp.neurons.knowledge import knowledge_neurons
    from workbench.interp.neurons.labels import label_neurons
    from workbench.interp.neurons.tokens import promoted_tokens
    from workbench.interp.patching.alignment import align
    from workbench.interp.patching.attribution import attribution_patch
    from workbench.interp.patching.check import check_attribution
    from workbench.interp.patching.edges import edge_attribution
    from workbench.interp.patching.paths import path_patch
    from workbench.interp.patching.sweep import patch
    from workbench.interp.study.study import study
    from workbench.model.classifier import SequenceClassifier
    from workbench.model.config import ModelConfig
    from workbench.model.presets import PRESETS, preset
    from workbench.model.transformer import HookedTransformer
    from workbench.runs.catalogue import list_runs, load
    from workbench.zoo.table import zoo_table

__version__ = "0.1.0"

_HOMES = {
    "HookedTransformer": "workbench.model.transformer",
    "ModelConfig": "workbench.model.config",
    "PRESETS": "workbench.model.presets",
    "SequenceClassifier": "workbench.model.classifier",
    "WorkbenchError": "workbench.errors",
    "ablated": "workbench.interp.ablation.ablate",
    "ablation_effect": "workbench.interp.ablation.effect",
    "align": "workbench.interp.patching.alignment",
    "attribute_logits": "workbench.interp.direct.logits",
    "attribute_neurons": "workbench.interp.neurons.attribution",
    "attribute_pair": "workbench.interp.direct.pair",
    "attribute_text": "workbench.interp.direct.pair",
    "attribution_patch": "workbench.interp.patching.attribution",
    "best_for_flops": "workbench.evals.scaling.optimum",
    "best_for_hours": "workbench.evals.scaling.optimum",
    "blimp": "workbench.evals.blimp",
    "check_attribution": "workbench.interp.patching.check",
    "compare": "workbench.evals.comparison.compare",
    "check_predictions": "workbench.evals.scaling.predictions",
    "component_family": "workbench.interp.components.family",
    "component_history": "workbench.interp.components.history",
    "component_matrix": "workbench.interp.components.matrix",
    "composition": "workbench.interp.heads.composition",
    "edge_attribution": "workbench.interp.patching.edges",
    "embedded_pairs": "workbench.data.embedded.pairs",
    "fit_critical_batch": "workbench.evals.scaling.critical_batch",
    "fit_envelope": "workbench.evals.scaling.envelope",
    "fit_grammar": "workbench.evals.scaling.grammar",
    "fit_isoflop": "workbench.evals.scaling.isoflop",
    "fit_parametric": "workbench.evals.scaling.parametric",
    "fit_power": "workbench.evals.scaling.power",
    "head_importance": "workbench.interp.ablation.importance",
    "head_scores": "workbench.interp.heads.scores",
    "inference": "workbench.evals.efficiency.inference",
    "knowledge_neurons": "workbench.interp.neurons.knowledge",
    "label_neurons": "workbench.interp.neurons.labels",
    "layer_weights": "workbench.interp.direct.layer_weights",
    "leave_one_out": "workbench.interp.ablation.effect",
    "lens_curve": "workbench.interp.direct.lens_curve",
    "list_runs": "workbench.runs.catalogue",
    "load": "workbench.runs.catalogue",
    "load_tuned_lens": "workbench.interp.direct.tuned_lens",
    "logit_lens": "workbench.interp.direct.lens",
    "neuron_card": "workbench.interp.neurons.card",
    "neuron_examples": "workbench.interp.neurons.examples",
    "ov_circuit": "workbench.interp.heads.circuits",
    "patch": "workbench.interp.patching.sweep",
    "path_patch": "workbench.interp.patching.paths",
    "points_of_runs": "workbench.evals.scaling.collect",
    "points_of_table": "workbench.evals.scaling.table",
    "preset": "workbench.model.presets",
    "promoted_tokens": "workbench.interp.neurons.tokens",
    "prune_heads": "workbench.interp.ablation.pruning",
    "qk_circuit": "workbench.interp.heads.circuits",
    "scaling": "workbench.evals.scaling.study",
    "smallest_circuit": "workbench.interp.components.smallest",
    "stories": "workbench.data.embedded.stories",
    "study": "workbench.interp.study.study",
    "train_tuned_lens": "workbench.interp.direct.tuned_lens",
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
