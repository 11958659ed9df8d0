import probes
import training

from . import data as data
from . import evals as evals
from . import interp as interp
from . import model as model
from . import plots as plots
from . import runs as runs
from . import scaling as scaling
from . import zoo as zoo
from .data.embedded.pairs import embedded_pairs as embedded_pairs
from .data.embedded.stories import stories as stories
from .errors import WorkbenchError as WorkbenchError
from .evals.blimp import blimp as blimp
from .evals.comparison import compare as compare
from .interp.ablation import ablation_effect as ablation_effect
from .interp.attribution import attribute_pair as attribute_pair
from .interp.circuit import smallest_circuit as smallest_circuit
from .interp.heads import head_scores as head_scores
from .interp.matrix import component_matrix as component_matrix
from .interp.neurons.card import neuron_card as neuron_card
from .interp.patching import patch as patch
from .interp.study import study as study
from .model.classifier import SequenceClassifier as SequenceClassifier
from .model.config import ModelConfig as ModelConfig
from .model.config import preset as preset
from .model.transformer import HookedTransformer as HookedTransformer
from .runs.foreign import export as export
from .runs.foreign import save_run as save_run
from .runs.run import list_runs as list_runs
from .runs.run import load as load

__version__: str
train = training.train
resume = training.resume
probe = probes.probe
