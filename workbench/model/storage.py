"""Weights in and out of a model, each once."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.model.block import share_weights
from workbench.model.config import ModelConfig
from workbench.model.counting import refuse_too_large

if TYPE_CHECKING:
    _Model = Any  # the rest of HookedTransformer
else:
    _Model = object


class StoredWeights(_Model):
    """Mixed into `HookedTransformer`."""

    @classmethod
    def from_weights(cls, config: ModelConfig, tensors: Mapping[str, Tensor], tokenizer: Any = None) -> Any:
        """A model that takes `tensors` as its weights, without a copy and without initialising any.

        Args:
            config: the shape.
            tensors: by name, as `state_dict()` gives them; all of one type.
            tokenizer: given to the model.

        Raises:
            ConfigError: the model does not fit into memory.
            RuntimeError: a tensor missing, left over, or of another shape.
        """
        refuse_too_large(config)
        with torch.device("meta"):
            model = cls(config, tokenizer)
        model.load_state_dict(tensors, assign=True)
        if config.sharing != "none":
            share_weights(model.blocks, config.sharing)
        return model

    def _share(self) -> None:
        """Make layers use one set of weights where the configuration says so, and keep it so on disk:
        `state_dict` gives shared weights once, under the first layer's name, and loading takes that."""
        if self.config.sharing == "none":
            return
        share_weights(self.blocks, self.config.sharing)
        self.register_state_dict_post_hook(_drop_repeats)
        self.register_load_state_dict_pre_hook(_add_repeats)


def _repeats(model: Any) -> dict[str, str]:
    """Each further name of a shared weight, and its first one."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    everywhere = model.named_parameters(remove_duplicate=False)
    return {name: first[id(weight)] for name, weight in everywhere if name != first[id(weight)]}


def _drop_repeats(model: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in _repeats(model):
        state.pop(prefix + name, None)


def _add_repeats(model: Any, state: dict[str, Any], prefix: str, *others: Any) -> None:
    for name, first in _repeats(model).items():
        if prefix + first in state:
            state[prefix + name] = state[prefix + first]
